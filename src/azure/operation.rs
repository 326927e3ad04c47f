//! Reads from a path which operations are about what one resource holds.

use super::path::operation;

/// What a path says about state that lives in one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operation<'a> {
    pub(crate) kind: Kind,
    /// The id in the path.
    pub(crate) id: Option<&'a str>,
}

/// What may be referred to in a body, and learned from an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: embeddings, images, lists of models.
    Free,
    /// A chat completion: it may show a file to the model, and may be stored.
    Chat,
    /// A response: it is stored unless it says otherwise.
    Response,
    /// Whatever else a resource keeps: files, threads, batches.
    Kept,
}

impl<'a> Operation<'a> {
    pub(crate) fn of(path: &'a str) -> Self {
        let free = Self { kind: Kind::Free, id: None };
        let Some(operation) = operation(path) else { return free };
        let mut segments = operation.split('/').filter(|segment| !segment.is_empty());
        let (Some(first), second) = (segments.next(), segments.next()) else { return free };
        let (kind, id) = match (first, second) {
            ("chat", Some("completions")) => (Kind::Chat, segments.next()),
            // Operations of their own, which only look like ids.
            ("responses", Some("compact" | "input_tokens")) => (Kind::Response, None),
            ("threads", Some("runs")) => (Kind::Kept, None),
            ("responses", id) => (Kind::Response, id),
            ("fine_tuning", Some("jobs")) | ("realtime", Some("calls")) => {
                (Kind::Kept, segments.next())
            }
            ("video", Some("generations")) => match segments.next() {
                Some("jobs") => (Kind::Kept, segments.next()),
                id => (Kind::Kept, id),
            },
            (collection, id) if COLLECTIONS.contains(&collection) => (Kind::Kept, id),
            _ => return free,
        };
        Self { kind, id }
    }
}

/// What the Azure OpenAI API keeps in a resource, as it is called in paths (Azure page "Azure
/// OpenAI in Foundry Models v1 REST API reference").
const COLLECTIONS: [&str; 10] = [
    "assistants",
    "batches",
    "containers",
    "conversations",
    "evals",
    "files",
    "threads",
    "uploads",
    "vector_stores",
    "videos",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_id_of_a_path_is_the_one_that_a_resource_holds() {
        for (operation, kind, id) in [
            ("responses", Kind::Response, None),
            ("responses/resp_1", Kind::Response, Some("resp_1")),
            ("responses/resp_1/input_items", Kind::Response, Some("resp_1")),
            ("responses/resp_1/cancel", Kind::Response, Some("resp_1")),
            ("responses/compact", Kind::Response, None),
            ("responses/input_tokens", Kind::Response, None),
            ("chat/completions", Kind::Chat, None),
            ("chat/completions/chatcmpl-1/messages", Kind::Chat, Some("chatcmpl-1")),
            ("files", Kind::Kept, None),
            ("files/file-1/content", Kind::Kept, Some("file-1")),
            ("conversations/conv_1/items", Kind::Kept, Some("conv_1")),
            ("threads/thread_1/runs/run_1", Kind::Kept, Some("thread_1")),
            ("threads/runs", Kind::Kept, None),
            ("vector_stores/vs_1/files", Kind::Kept, Some("vs_1")),
            ("fine_tuning/jobs/ftjob-1/cancel", Kind::Kept, Some("ftjob-1")),
            ("video/generations/jobs/task_1", Kind::Kept, Some("task_1")),
            ("video/generations/gen_1/content/video", Kind::Kept, Some("gen_1")),
            ("videos", Kind::Kept, None),
            ("videos/video_1/content", Kind::Kept, Some("video_1")),
            ("realtime/calls/rtc_1/accept", Kind::Kept, Some("rtc_1")),
            ("realtime/client_secrets", Kind::Free, None),
            ("embeddings", Kind::Free, None),
            ("models/gpt-4o", Kind::Free, None),
            ("audio/speech", Kind::Free, None),
        ] {
            for path in [format!("/openai/v1/{operation}"), format!("/openai/{operation}?x=1")] {
                let path = path.split('?').next().unwrap_or_default();
                assert_eq!(Operation::of(path), Operation { kind, id }, "{path}");
            }
        }
        let classic = "/openai/deployments/files/chat/completions";
        assert_eq!(Operation::of(classic), Operation { kind: Kind::Chat, id: None });
        assert_eq!(Operation::of("/openai/v1/files/").id, None);
        assert_eq!(Operation::of("/elsewhere/files/file-1").kind, Kind::Free);
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "(/(openai|v1|deployments|files|chat|video|\\PC{0,4})){0,7}") {
            let Operation { id, .. } = Operation::of(&path);
            prop_assert!(id.is_none_or(|id| !id.is_empty() && path.contains(id)));
        }
    }
}
