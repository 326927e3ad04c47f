//! Reads the two grammars of Azure OpenAI's paths.

use std::ops::Range;

/// The deployment segment of a classic path, as a byte range of `path`.
pub(crate) fn deployment_segment(path: &str) -> Option<Range<usize>> {
    match Reading::of(path).grammar {
        Grammar::Deployment(segment) => Some(segment),
        Grammar::V1 | Grammar::Resource | Grammar::Bare | Grammar::Foreign => None,
    }
}

/// Whether the body's `model` names the deployment: in v1, and in the classic operations without a
/// deployment segment (`/openai/responses`, `assistants`, `threads`, `batches`, ...).
pub(crate) fn names_model_in_body(path: &str) -> bool {
    match Reading::of(path).grammar {
        Grammar::V1 | Grammar::Resource => true,
        Grammar::Deployment(_) | Grammar::Bare | Grammar::Foreign => false,
    }
}

/// What a path asks for, after the grammar's own segments: `chat/completions`, `responses/resp_1`.
pub(crate) fn operation(path: &str) -> Option<&str> {
    let Reading { grammar, rest, .. } = Reading::of(path);
    match grammar {
        Grammar::V1 | Grammar::Deployment(_) | Grammar::Resource => {
            Some(path[rest..].trim_start_matches('/'))
        }
        Grammar::Bare | Grammar::Foreign => None,
    }
}

/// How a path reads, segment by segment: substrings would find a deployment called `chat` in
/// `/chat/completions`.
pub(crate) struct Reading {
    /// Where the caller's base path ends.
    pub(crate) base: usize,
    pub(crate) grammar: Grammar,
    /// Where the operation begins, if there is one.
    rest: usize,
}

pub(crate) enum Grammar {
    /// `/openai/v1/{operation}`.
    V1,
    /// `/openai/deployments/{deployment}/{operation}`, with the range of the deployment.
    Deployment(Range<usize>),
    /// `/openai/{operation}`, classic without a deployment segment.
    Resource,
    /// `/openai` and `/openai/deployments` themselves.
    Bare,
    /// No `openai` segment.
    Foreign,
}

impl Reading {
    pub(crate) fn of(path: &str) -> Self {
        let mut segments = segments(path);
        let Some(openai) = segments.find(|segment| path[segment.clone()] == *"openai") else {
            return Self { base: 0, grammar: Grammar::Foreign, rest: 0 };
        };
        let (grammar, rest) = match segments.next().map(|next| (&path[next.clone()], next)) {
            Some(("v1", next)) => (Grammar::V1, next.end),
            Some(("deployments", next)) => match segments.next() {
                Some(deployment) if !deployment.is_empty() => {
                    let rest = deployment.end;
                    (Grammar::Deployment(deployment), rest)
                }
                _ => (Grammar::Bare, next.end),
            },
            Some(("", next)) => (Grammar::Bare, next.end),
            None => (Grammar::Bare, path.len()),
            Some((_, next)) => (Grammar::Resource, next.start),
        };
        Self { base: openai.start.saturating_sub(1), grammar, rest }
    }
}

/// What `split('/')` gives, as ranges. Segments are short, so plain steps beat its search.
fn segments(path: &str) -> impl Iterator<Item = Range<usize>> {
    let bytes = path.as_bytes();
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let start = next?;
        let length = bytes[start..].iter().position(|&byte| byte == b'/');
        next = length.map(|length| start + length + 1);
        Some(start..length.map_or(bytes.len(), |length| start + length))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_outside_the_grammars_name_no_deployment() {
        for path in [
            "",
            "/",
            "*",
            "/openai",
            "/openai/",
            "/openai/deployments",
            "/openai/deployments/",
            "/openai/deployments//chat/completions",
            "/deployments/gpt-4o/chat/completions",
            "/myopenai/deployments/gpt-4o",
            "/chat/completions",
        ] {
            assert_eq!(deployment_segment(path), None, "{path}");
            assert!(!names_model_in_body(path), "{path}");
        }
        assert_eq!(deployment_segment("/openai/deployments/gpt-4o"), Some(20..26));
        assert!(names_model_in_body("/openai/deploymentsx/gpt-4o"));
    }

    #[test]
    fn the_operation_is_what_follows_the_grammar() {
        for (path, expected) in [
            ("/openai/v1/responses/resp_1", Some("responses/resp_1")),
            ("/team/openai/v1/files", Some("files")),
            ("openai/v1/files", Some("files")),
            ("/openai/v1", Some("")),
            ("/openai/responses/resp_1/input_items", Some("responses/resp_1/input_items")),
            ("/openai/deployments/chat/chat/completions", Some("chat/completions")),
            ("/openai", None),
            ("/responses/resp_1", None),
        ] {
            assert_eq!(operation(path), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics_and_a_deployment_is_one_segment(
            text in "(/(openai|deployments|\\PC{0,4})){0,5}|\\PC{0,40}",
        ) {
            names_model_in_body(&text);
            operation(&text);
            if let Some(segment) = deployment_segment(&text) {
                prop_assert!(!text[segment.clone()].contains('/'));
                prop_assert!(text[..segment.start].ends_with("openai/deployments/"));
                prop_assert!(!names_model_in_body(&text));
            }
        }
    }
}
