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

/// How a path reads, segment by segment: substrings would find a deployment called `chat` in
/// `/chat/completions`.
pub(super) struct Reading {
    /// Where the caller's base path ends.
    pub(super) base: usize,
    pub(super) grammar: Grammar,
}

pub(super) enum Grammar {
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
    pub(super) fn of(path: &str) -> Self {
        let mut segments = segments(path);
        let Some(openai) = segments.find(|segment| path[segment.clone()] == *"openai") else {
            return Self { base: 0, grammar: Grammar::Foreign };
        };
        let grammar = match segments.next().map(|next| &path[next]) {
            Some("v1") => Grammar::V1,
            Some("deployments") => match segments.next() {
                Some(deployment) if !deployment.is_empty() => Grammar::Deployment(deployment),
                _ => Grammar::Bare,
            },
            Some("") | None => Grammar::Bare,
            Some(_) => Grammar::Resource,
        };
        Self { base: openai.start.saturating_sub(1), grammar }
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

    proptest! {
        #[test]
        fn arbitrary_text_never_panics_and_a_deployment_is_one_segment(
            text in "(/(openai|deployments|\\PC{0,4})){0,5}|\\PC{0,40}",
        ) {
            names_model_in_body(&text);
            if let Some(segment) = deployment_segment(&text) {
                prop_assert!(!text[segment.clone()].contains('/'));
                prop_assert!(text[..segment.start].ends_with("openai/deployments/"));
                prop_assert!(!names_model_in_body(&text));
            }
        }
    }
}
