//! The operations of the API: one table for routes, metric labels, stickiness, the estimated cost of
//! requests, and their kind of traffic.

use http::Method;

use super::{ApiPath, path::without_slashes};
use crate::cooldown::Traffic;

/// One operation of the API, or several with identical properties.
#[derive(Debug, PartialEq, Eq)]
pub struct Operation {
    /// The first segments of its paths, after those of the grammar.
    segments: &'static [&'static str],
    label: &'static str,
    kind: Kind,
    /// Whether the next segment is the id of a stored object.
    has_id: bool,
    /// Whether tokens are generated.
    has_output: bool,
    /// The kind of traffic of its `POST`s.
    traffic: Traffic,
}

/// The operation and the id in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ApiCall<'a> {
    pub(crate) operation: &'static Operation,
    /// The id of a stored object in the path, as written.
    pub(crate) id: Option<&'a str>,
}

/// What a body may refer to, and what an answer may teach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: embeddings, lists of models.
    Free,
    /// Files shown to a model, with nothing stored: an image that is edited.
    Shown,
    /// A chat completion: it may refer to a file, and may be stored.
    Chat,
    /// A response: it is stored unless it says otherwise.
    Response,
    /// Any other stored object: files, threads, batches.
    Kept,
}

impl Operation {
    /// The operation of `path`, which must have no query.
    pub fn of(path: &str) -> &'static Self {
        ApiPath::of(path).call(path).operation
    }

    /// The operation of a path whose part after the grammar's own segments is `rest`, as returned by
    /// [`ApiPath::operation`].
    pub fn of_rest(rest: &str) -> &'static Self {
        Self::find(rest).operation
    }

    /// A name from a closed set, suitable for a metric: `chat.completions`; `other` for an unknown
    /// operation.
    pub const fn label(&self) -> &'static str {
        self.label
    }

    /// Whether a request needs no model: its path names a stored object, or it lists or creates
    /// objects without using a model's capacity.
    pub fn needs_no_model(method: &Method, path: &str) -> bool {
        let ApiCall { operation, id } = ApiPath::of(path).call(path);
        id.is_some() || operation.lists_or_creates(method)
    }

    /// Whether the end of `path`, in any grammar, is an operation that generates tokens or is
    /// unknown.
    pub(crate) fn has_output(path: &str) -> bool {
        let ends_path = |operation: &Self| {
            let mut before = Some(path);
            for segment in operation.segments.iter().rev() {
                before = before.and_then(|path| path.strip_suffix(segment)?.strip_suffix('/'));
            }
            before.is_some()
        };
        !SILENT.iter().any(ends_path)
    }

    /// Whether it is in the table.
    pub(crate) fn is_known(&self) -> bool {
        *self != OTHER
    }

    /// Whether its body may name a model. Not so for uploads and stored objects, whose bodies are the
    /// longest.
    pub fn may_name_model(&self) -> bool {
        !NAMELESS.contains(&self.label)
    }

    /// Whether its requests may refer to stored objects, or create them.
    pub fn may_refer(&self) -> bool {
        self.kind != Kind::Free
    }

    /// Whether a request lists stored objects, other than the parts of one that it names.
    pub fn is_list(method: &Method, path: &str) -> bool {
        let ApiCall { operation, id } = ApiPath::of(path).call(path);
        id.is_none() && *method != Method::POST && operation.lists_or_creates(method)
    }

    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether a request without an id in its path concerns stored objects: it lists them, or creates
    /// one without using a model's capacity.
    pub(crate) fn lists_or_creates(&self, method: &Method) -> bool {
        match self.kind {
            Kind::Free | Kind::Shown => false,
            Kind::Chat | Kind::Response => *method != Method::POST,
            Kind::Kept => *method != Method::POST || self.traffic == Traffic::Stored,
        }
    }

    /// The kind of traffic of a request of `method` for `path`, which must have no query. Tokens
    /// count as those of the default service tier, because a head shows no other.
    pub(crate) fn traffic(method: &Method, path: &str) -> Traffic {
        let api = ApiPath::of(path);
        let Some(rest) = api.operation(path).filter(|rest| !rest.is_empty()) else {
            return Traffic::Tokens;
        };
        let opens_session = rest == "realtime" && method == Method::GET;
        if (method != Method::POST && !opens_session) || rest.ends_with("/cancel") {
            return Traffic::Free;
        }
        let ApiCall { operation, id } = Self::find(rest);
        match (id, operation.kind) {
            // A run of a thread, or of an evaluation, generates tokens.
            (Some(_), Kind::Kept) if rest.ends_with("/runs") => Traffic::Tokens,
            // An action on a stored object.
            (Some(_), _) if operation.traffic == Traffic::Tokens => Traffic::Stored,
            _ => operation.traffic,
        }
    }

    /// The operation at the start of `text`, a path without the grammar's own segments.
    pub(super) fn find(text: &str) -> ApiCall<'_> {
        let text = without_slashes(text);
        let first = text.bytes().next();
        let mut candidates = OPERATIONS.iter().filter(|it| it.segments[0].bytes().next() == first);
        let found = candidates.find_map(|it| Some((it, after(text, it.segments)?)));
        let (operation, rest) = found.unwrap_or((&OTHER, ""));
        if rest.is_empty() || !operation.has_id {
            return ApiCall { operation, id: None };
        }
        let end = rest.bytes().position(|byte| byte == b'/');
        ApiCall { operation, id: Some(&rest[..end.unwrap_or(rest.len())]) }
    }

    const fn free(segments: &'static [&'static str], label: &'static str) -> Self {
        let (kind, traffic) = (Kind::Free, Traffic::Tokens);
        Self { segments, label, kind, has_id: false, has_output: true, traffic }
    }

    const fn kept(segments: &'static [&'static str], label: &'static str) -> Self {
        let (kind, traffic) = (Kind::Kept, Traffic::Stored);
        Self { segments, label, kind, has_id: true, has_output: true, traffic }
    }

    const fn counted_as(mut self, traffic: Traffic) -> Self {
        self.traffic = traffic;
        self
    }

    const fn kind_of(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    const fn without_id(mut self) -> Self {
        self.has_id = false;
        self
    }

    const fn without_output(mut self) -> Self {
        self.has_output = false;
        self
    }
}

/// The rest of `text` after `segments`; empty segments do not count.
fn after<'a>(text: &'a str, segments: &[&str]) -> Option<&'a str> {
    segments.iter().try_fold(without_slashes(text), |text, segment| {
        let rest = text.strip_prefix(segment)?;
        matches!(rest.as_bytes().first(), None | Some(b'/')).then(|| without_slashes(rest))
    })
}

/// Azure page "Azure OpenAI in Foundry Models v1 REST API reference". Longer paths come before their
/// prefixes.
const OPERATIONS: &[Operation] = &[
    Operation::kept(&["chat", "completions"], "chat.completions")
        .kind_of(Kind::Chat)
        .counted_as(Traffic::Tokens),
    // Separate operations that only look like ids.
    Operation::kept(&["responses", "compact"], "responses")
        .kind_of(Kind::Response)
        .without_id()
        .counted_as(Traffic::Tokens),
    Operation::kept(&["responses", "input_tokens"], "responses")
        .kind_of(Kind::Response)
        .without_id(),
    Operation::kept(&["responses"], "responses")
        .kind_of(Kind::Response)
        .counted_as(Traffic::Tokens),
    EMBEDDINGS,
    Operation::free(&["completions"], "completions"),
    Operation::free(&["audio", "transcriptions"], "audio.transcriptions")
        .counted_as(Traffic::Transcription),
    Operation::free(&["audio", "translations"], "audio.translations")
        .counted_as(Traffic::Transcription),
    Operation::free(&["audio", "speech"], "audio.speech").counted_as(Traffic::Speech),
    Operation::free(&["images", "generations"], "images.generations").counted_as(Traffic::Images),
    Operation::free(&["images", "edits"], "images.edits")
        .kind_of(Kind::Shown)
        .counted_as(Traffic::Images),
    Operation::free(&["images", "variations"], "images.variations").counted_as(Traffic::Images),
    Operation::free(&["models"], "models"),
    Operation::kept(&["files"], "files"),
    Operation::kept(&["uploads"], "uploads"),
    Operation::kept(&["batches"], "batches"),
    Operation::kept(&["assistants"], "assistants"),
    // Creates a thread and its run together.
    Operation::kept(&["threads", "runs"], "threads").without_id().counted_as(Traffic::Tokens),
    Operation::kept(&["threads"], "threads"),
    Operation::kept(&["conversations"], "conversations"),
    Operation::kept(&["containers"], "containers"),
    Operation::kept(&["skills"], "skills"),
    Operation::kept(&["prompts"], "prompts"),
    Operation::kept(&["vector_stores"], "vector_stores"),
    Operation::kept(&["fine_tuning", "jobs"], "fine_tuning"),
    Operation::free(&["fine_tuning"], "fine_tuning").counted_as(Traffic::Stored),
    Operation::free(&["moderations"], "moderations"),
    Operation::kept(&["evals"], "evals"),
    Operation::kept(&["videos", "edits"], "videos").without_id().counted_as(Traffic::Video),
    Operation::kept(&["videos", "extensions"], "videos").without_id().counted_as(Traffic::Video),
    Operation::kept(&["videos", "characters"], "videos").counted_as(Traffic::Video),
    Operation::kept(&["videos"], "videos").counted_as(Traffic::Video),
    Operation::kept(&["video", "generations", "jobs"], OTHER.label).counted_as(Traffic::Video),
    Operation::kept(&["video", "generations"], OTHER.label).counted_as(Traffic::Video),
    Operation::kept(&["realtime", "calls"], OTHER.label).counted_as(Traffic::Tokens),
    REALTIME,
];

/// The labels of operations whose bodies name no model.
const NAMELESS: [&str; 8] = [
    "files",
    "uploads",
    "batches",
    "conversations",
    "containers",
    "skills",
    "vector_stores",
    "models",
];

/// Operations without output; every weighed request is compared with them.
const SILENT: &[Operation] = &[EMBEDDINGS];

/// Sessions, and the operations that prepare them.
const REALTIME: Operation = Operation::free(&["realtime"], "realtime");
const EMBEDDINGS: Operation = Operation::free(&["embeddings"], "embeddings").without_output();
const OTHER: Operation = Operation::free(&[], "other");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(path: &str) -> (Kind, Option<&str>) {
        let ApiCall { operation, id } = ApiPath::of(path).call(path);
        (operation.kind(), id)
    }

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
            ("videos/edits", Kind::Kept, None),
            ("videos/characters/char_1", Kind::Kept, Some("char_1")),
            ("containers/cntr_1/files/cfile_1", Kind::Kept, Some("cntr_1")),
            ("skills", Kind::Kept, None),
            ("prompts/pmpt_1", Kind::Kept, Some("pmpt_1")),
            ("skills/skill_1/versions/2", Kind::Kept, Some("skill_1")),
            ("evals/eval_1/runs/evalrun_1", Kind::Kept, Some("eval_1")),
            ("images/edits", Kind::Shown, None),
            ("images/generations", Kind::Free, None),
            ("realtime/calls/rtc_1/accept", Kind::Kept, Some("rtc_1")),
            ("realtime/client_secrets", Kind::Free, None),
            ("embeddings", Kind::Free, None),
            ("models/gpt-4o", Kind::Free, None),
            ("audio/speech", Kind::Free, None),
        ] {
            for path in [format!("/openai/v1/{operation}"), format!("/openai/{operation}?x=1")] {
                let path = path.split('?').next().unwrap_or_default();
                assert_eq!(read(path), (kind, id), "{path}");
            }
        }
        let classic = "/openai/deployments/files/chat/completions";
        assert_eq!(read(classic), (Kind::Chat, None));
        assert_eq!(read("/openai/v1/files/").1, None);
        assert_eq!(read("/elsewhere/files/file-1").0, Kind::Free);
    }

    #[test]
    fn what_lists_or_creates_needs_no_model() {
        for (method, operation, expected) in [
            ("POST", "files", true),
            ("GET", "files", true),
            ("POST", "uploads", true),
            ("POST", "batches", true),
            ("GET", "batches", true),
            ("POST", "vector_stores", true),
            ("POST", "containers", true),
            ("POST", "skills", true),
            ("POST", "evals", true),
            ("POST", "conversations", true),
            ("POST", "assistants", true),
            ("POST", "threads", true),
            ("POST", "threads/runs", false),
            ("GET", "fine_tuning/jobs", true),
            ("POST", "responses", false),
            ("POST", "responses/compact", false),
            ("POST", "responses/input_tokens", false),
            ("POST", "chat/completions", false),
            ("GET", "chat/completions", true),
            ("POST", "videos", false),
            ("GET", "videos", true),
            ("POST", "video/generations/jobs", false),
            ("POST", "realtime/calls", false),
            ("POST", "embeddings", false),
            ("POST", "images/edits", false),
            ("GET", "models", false),
            ("GET", "fine_tuning/alpha", false),
        ] {
            let method: Method = method.parse().expect("a method");
            let found = Operation::of_rest(operation);
            assert_eq!(found.lists_or_creates(&method), expected, "{method} {operation}");
        }
    }

    #[test]
    fn an_operation_has_the_label_of_what_its_path_begins_with() {
        for (path, label) in [
            ("images/variations", "images.variations"),
            ("fine_tuning/jobs/ftjob-1", "fine_tuning"),
            ("fine_tuning/alpha", "fine_tuning"),
            ("video/generations/jobs", "other"),
            ("chat/completionsx", "other"),
        ] {
            assert_eq!(Operation::of_rest(path).label(), label, "{path}");
        }
        assert_eq!(Operation::of("/openai/deployments/files/embeddings").label(), "embeddings");
    }

    #[test]
    fn what_is_read_polled_listed_cancelled_or_deleted_is_counted_as_nothing() {
        for (method, path) in [
            (Method::GET, "/openai/v1/responses/resp_1"),
            (Method::HEAD, "/openai/v1/files/file-1/content"),
            (Method::GET, "/openai/v1/batches"),
            (Method::GET, "/openai/v1/videos/video_1"),
            (Method::GET, "/openai/models?api-version=1"),
            (Method::DELETE, "/team/openai/v1/responses/resp_1"),
            (Method::POST, "/openai/v1/responses/resp_1/cancel"),
            (Method::POST, "/openai/fine_tuning/jobs/ftjob-1/cancel"),
            (Method::POST, "/openai/threads/thread_1/runs/run_1/cancel"),
            (Method::GET, "/openai/v1/realtime/calls/rtc_1"),
        ] {
            assert_eq!(Operation::traffic(&method, path), Traffic::Free, "{method} {path}");
        }
        for path in ["/openai/realtime", "/openai/v1/realtime"] {
            assert_eq!(
                Operation::traffic(&Method::GET, path),
                Traffic::Tokens,
                "a session: {path}"
            );
        }
        // Unknown operations.
        for path in ["/", "/healthz", "/openai", "/anthropic/v1/messages"] {
            assert_eq!(Operation::traffic(&Method::GET, path), Traffic::Tokens, "{path}");
        }
    }

    #[test]
    fn what_the_service_limits_separately_is_distinguished() {
        for (operation, traffic) in [
            ("chat/completions", Traffic::Tokens),
            ("chat/completions/chatcmpl-1", Traffic::Stored),
            ("completions", Traffic::Tokens),
            ("embeddings", Traffic::Tokens),
            ("responses", Traffic::Tokens),
            ("responses/compact", Traffic::Tokens),
            ("responses/input_tokens", Traffic::Stored),
            ("threads", Traffic::Stored),
            ("threads/thread_1/messages", Traffic::Stored),
            ("threads/thread_1/runs", Traffic::Tokens),
            ("threads/runs", Traffic::Tokens),
            ("evals/eval_1/runs", Traffic::Tokens),
            ("files", Traffic::Stored),
            ("uploads/upload_1/parts", Traffic::Stored),
            ("vector_stores/vs_1/files", Traffic::Stored),
            ("batches", Traffic::Stored),
            ("fine_tuning/jobs", Traffic::Stored),
            ("images/generations", Traffic::Images),
            ("images/edits", Traffic::Images),
            ("audio/speech", Traffic::Speech),
            ("audio/transcriptions", Traffic::Transcription),
            ("audio/translations", Traffic::Transcription),
            ("videos", Traffic::Video),
            ("videos/video_1/remix", Traffic::Video),
            ("video/generations/jobs", Traffic::Video),
            ("something/new", Traffic::Tokens),
        ] {
            for base in ["/openai/v1/", "/openai/deployments/files/", "/team/openai/"] {
                let path = format!("{base}{operation}");
                assert_eq!(Operation::traffic(&Method::POST, &path), traffic, "{path}");
            }
        }
    }

    #[test]
    fn all_that_have_no_output_are_known() {
        let silent = OPERATIONS.iter().filter(|operation| !operation.has_output);
        assert!(silent.eq(SILENT));
    }

    #[test]
    fn no_row_hides_another() {
        for operation in OPERATIONS {
            let path = operation.segments.join("/");
            assert_eq!(Operation::find(&path).operation, operation, "{path}");
        }
    }

    #[test]
    fn embeddings_have_no_output_whatever_stands_before_them() {
        for (path, has_output) in [
            ("/openai/v1/embeddings", false),
            ("/openai/deployments/ada/embeddings", false),
            ("/v1/embeddings", false),
            ("embeddings", true),
            ("/openai/v1/embeddings/x", true),
            ("/openai/v1/my-embeddings", true),
            ("/openai/v1/responses", true),
        ] {
            assert_eq!(Operation::has_output(path), has_output, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "(/(openai|v1|deployments|files|chat|video|\\PC{0,4})){0,7}") {
            let (_, id) = read(&path);
            prop_assert!(id.is_none_or(|id| !id.is_empty() && path.contains(id)));
        }
    }
}
