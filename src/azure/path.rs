//! Reads the two grammars of Azure OpenAI's paths.

use std::ops::Range;

use super::{ApiCall, Operation};

/// A path of the API, parsed by segments: a substring search would find a deployment called `chat` in
/// `/chat/completions`. Its ranges are positions in that path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiPath {
    /// The end of the caller's base path.
    pub(crate) base: usize,
    grammar: Grammar,
    /// The start of the operation, if there is one.
    rest: usize,
}

/// The form of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grammar {
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

impl ApiPath {
    /// Parses `path`, which must have no query.
    pub fn of(path: &str) -> Self {
        Self::of_common(path).unwrap_or_else(|| Self::of_any(path))
    }

    /// Parses a path that begins as nearly all do, without looking at every segment.
    fn of_common(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/openai/")?;
        let start = path.len() - rest.len();
        if rest.starts_with("v1/") {
            return Some(Self { base: 0, grammar: Grammar::V1, rest: start + 2 });
        }
        let name = rest.strip_prefix("deployments/")?;
        let start = path.len() - name.len();
        let length = name.bytes().position(|byte| byte == b'/').filter(|&length| length > 0)?;
        let end = start + length;
        Some(Self { base: 0, grammar: Grammar::Deployment(start..end), rest: end })
    }

    fn of_any(path: &str) -> Self {
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

    /// The form of the path.
    pub const fn grammar(&self) -> &Grammar {
        &self.grammar
    }

    /// The range of a classic path's deployment.
    pub fn deployment(&self) -> Option<Range<usize>> {
        match &self.grammar {
            Grammar::Deployment(segment) => Some(segment.clone()),
            Grammar::V1 | Grammar::Resource | Grammar::Bare | Grammar::Foreign => None,
        }
    }

    /// Whether the body's `model` names the deployment: in v1, and in the classic operations
    /// without a deployment segment (`/openai/responses`, `assistants`, `threads`, `batches`, ...).
    pub const fn names_model_in_body(&self) -> bool {
        matches!(self.grammar, Grammar::V1 | Grammar::Resource)
    }

    /// Whether this opens a realtime session, whose deployment is in its query.
    pub fn names_model_in_query(&self, path: &str) -> bool {
        self.names_model_in_body() && self.operation(path) == Some("realtime")
    }

    /// Whether the path takes an `api-version`.
    pub(crate) const fn is_classic(&self) -> bool {
        !matches!(self.grammar, Grammar::V1 | Grammar::Foreign)
    }

    /// The part of `path` after the grammar's own segments: `chat/completions`, `responses/resp_1`.
    pub fn operation<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self.grammar {
            Grammar::V1 | Grammar::Deployment(_) | Grammar::Resource => {
                Some(without_slashes(&path[self.rest..]))
            }
            Grammar::Bare | Grammar::Foreign => None,
        }
    }

    /// The operation of `path`, and the id in it.
    pub(crate) fn call<'a>(&self, path: &'a str) -> ApiCall<'a> {
        Operation::find(self.operation(path).unwrap_or_default())
    }
}

/// `text` without the slashes that it begins with.
#[inline]
pub(super) fn without_slashes(text: &str) -> &str {
    &text[text.bytes().take_while(|&byte| byte == b'/').count()..]
}

/// The ranges of `split('/')`. Segments are short, so a plain loop beats its search.
pub(crate) fn segments(path: &str) -> impl Iterator<Item = Range<usize>> {
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

    fn deployment_segment(path: &str) -> Option<Range<usize>> {
        ApiPath::of(path).deployment()
    }

    fn names_model_in_body(path: &str) -> bool {
        ApiPath::of(path).names_model_in_body()
    }

    fn operation(path: &str) -> Option<&str> {
        ApiPath::of(path).operation(path)
    }

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
            text in "(/(openai|deployments|v1|\\PC{0,4})){0,5}|\\PC{0,40}",
        ) {
            prop_assert_eq!(ApiPath::of(&text), ApiPath::of_any(&text));
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
