//! Parses a request's path: the operation, and where its model is named.

use std::borrow::Cow;

use http::Method;
use tower_spillover::azure::{ApiPath, Grammar, Operation, percent};

/// A path that belongs to Azure OpenAI.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Route<'a> {
    /// From a closed set, so that it can label a metric.
    pub(crate) operation: &'static str,
    pub(crate) source: ModelSource<'a>,
}

/// Where the model is named.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ModelSource<'a> {
    /// By the deployment segment of a classic path, decoded.
    Path(Cow<'a, str>),
    /// By `model` in the body, if it has one.
    Body,
    /// Nowhere: the operation belongs to the resource.
    Nowhere,
    /// Lists the models, or the one with this name, decoded.
    List(Option<Cow<'a, str>>),
}

impl<'a> Route<'a> {
    /// `None` if the path is not Azure OpenAI's, or if the service could interpret it differently
    /// from the gateway: with dot segments, encoded slashes, or other letters.
    pub(crate) fn of(method: &Method, path: &'a str) -> Option<Self> {
        let rest = path.strip_prefix("/openai/")?;
        if is_ambiguous(path) {
            return None;
        }
        let has_no_body = [Method::GET, Method::HEAD, Method::DELETE].contains(method);
        let in_body = if has_no_body { ModelSource::Nowhere } else { ModelSource::Body };
        let read = ApiPath::of(path);
        let operation = read.operation(path).filter(|operation| !operation.is_empty())?;
        let source = match read.grammar() {
            Grammar::Deployment(deployment) => {
                ModelSource::Path(percent::decode_text(&path[deployment.clone()])?)
            }
            // Azure ignores case where this gateway does not.
            Grammar::Resource if is_respelled(rest) => return None,
            _ => in_body,
        };
        let source = match operation.strip_prefix("models") {
            Some(id) if source == ModelSource::Nowhere && *method == Method::GET => listed(id)?,
            _ => source,
        };
        Some(Self { operation: Operation::of_rest(operation).label(), source })
    }
}

/// What follows `models`: nothing, or a slash and a name.
fn listed(id: &str) -> Option<ModelSource<'_>> {
    match id.strip_prefix('/') {
        None if id.is_empty() => Some(ModelSource::List(None)),
        // A longer word, or an operation on a model.
        None => Some(ModelSource::Nowhere),
        Some(id) if id.contains('/') => Some(ModelSource::Nowhere),
        Some("") => Some(ModelSource::List(None)),
        Some(id) => percent::decode_text(id).map(|id| ModelSource::List(Some(id))),
    }
}

/// Whether servers differ in how they interpret the path.
fn is_ambiguous(path: &str) -> bool {
    // Most paths have none of what is searched for, which these find without branches.
    let bytes = path.as_bytes();
    let is_unclear = |byte: u8| !byte.is_ascii() | matches!(byte, b'%' | b'\\' | b';');
    let begins_odd = |(byte, next): (&u8, &u8)| (*byte == b'/') & matches!(next, b'/' | b'.');
    let is_unclear = bytes.iter().fold(false, |any, &byte| any | is_unclear(byte));
    let pairs = bytes.iter().zip(bytes.get(1..).unwrap_or_default());
    let has_dots = pairs.fold(false, |any, pair| any | begins_odd(pair));
    has_dots && has_odd_segment(path)
        || is_unclear
            && percent::decode_text(path).is_none_or(|read| {
                path.contains(['\\', ';'])
                    || escaped(path).any(is_structure)
                    || read.contains(is_unlike_itself)
            })
}

/// Whether a segment is empty or consists of dots. Before the first slash and after the last one
/// there may be nothing.
fn has_odd_segment(path: &str) -> bool {
    let (before, last) = path.rsplit_once('/').unwrap_or(("", path));
    matches!(last, "." | "..")
        || before.split('/').skip(1).any(|segment| matches!(segment, "" | "." | ".."))
}

/// The escaped bytes.
fn escaped(path: &str) -> impl Iterator<Item = u8> {
    path.split('%').skip(1).filter_map(|rest| u8::from_str_radix(rest.get(..2)?, 16).ok())
}

/// Bytes that would separate or end a path, or start another escape, if it was decoded again.
fn is_structure(byte: u8) -> bool {
    byte.is_ascii_control() || b"/\\.%;?#".contains(&byte)
}

/// Control characters, and characters that some servers replace by ASCII: full-width forms, and
/// other dots and slashes.
fn is_unlike_itself(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{ff00}'..='\u{ffef}' | '\u{2024}'..='\u{2026}' | '\u{2044}' | '\u{2215}' | '\u{3002}' | '\u{fffd}')
}

/// Whether the first segment is one of the grammar's in another spelling.
fn is_respelled(path: &str) -> bool {
    let segment = path.split('/').next().unwrap_or_default();
    segment.contains('%')
        || segment.eq_ignore_ascii_case("deployments")
        || segment.eq_ignore_ascii_case("v1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> Option<(&'static str, ModelSource<'_>)> {
        Route::of(&Method::POST, path).map(|route| (route.operation, route.source))
    }

    #[test]
    fn both_grammars_name_the_operation_and_the_place_of_the_model() {
        let path = |name: &'static str| ModelSource::Path(name.into());
        for (given, expected) in [
            ("/openai/deployments/gpt-4o/chat/completions", ("chat.completions", path("gpt-4o"))),
            ("/openai/deployments/chat/completions", ("completions", path("chat"))),
            ("/openai/deployments/a%20b/embeddings", ("embeddings", path("a b"))),
            ("/openai/v1/responses", ("responses", ModelSource::Body)),
            ("/openai/v1/responses/resp_1/cancel", ("responses", ModelSource::Body)),
            ("/openai/responses", ("responses", ModelSource::Body)),
            ("/openai/files", ("files", ModelSource::Body)),
            ("/openai/v1/audio/transcriptions", ("audio.transcriptions", ModelSource::Body)),
            ("/openai/v1/chat/completionsx", ("other", ModelSource::Body)),
        ] {
            assert_eq!(read(given), Some(expected), "{given}");
        }
    }

    #[test]
    fn an_operation_is_one_of_a_list() {
        for (path, expected) in [
            ("chat/completions", "chat.completions"),
            ("responses/resp_1/cancel", "responses"),
            ("images/variations", "images.variations"),
            ("completions", "completions"),
            ("completionsx", "other"),
            ("chat", "other"),
            ("", "other"),
            ("../../etc", "other"),
        ] {
            assert_eq!(Operation::of_rest(path).label(), expected, "{path}");
        }
    }

    #[test]
    fn only_a_get_of_models_or_of_one_asks_for_the_list() {
        let one = |name: &'static str| ModelSource::List(Some(name.into()));
        for (path, expected) in [
            ("/openai/v1/models", ModelSource::List(None)),
            ("/openai/models", ModelSource::List(None)),
            ("/openai/v1/models/gpt%2D4o", one("gpt-4o")),
            ("/openai/models/gpt-4o", one("gpt-4o")),
            ("/openai/models/gpt-4o/capabilities", ModelSource::Nowhere),
            ("/openai/v1/modelsx", ModelSource::Nowhere),
            ("/openai/v1/files", ModelSource::Nowhere),
            ("/openai/deployments/gpt-4o/models", ModelSource::Path("gpt-4o".into())),
        ] {
            let route = Route::of(&Method::GET, path).expect("a route");
            assert_eq!(route.source, expected, "{path}");
        }
        let deleted = Route::of(&Method::DELETE, "/openai/v1/models/ft-1").expect("a route");
        assert_eq!((deleted.operation, deleted.source), ("models", ModelSource::Nowhere));
    }

    #[test]
    fn a_path_that_the_service_could_read_otherwise_is_none() {
        for path in [
            "/",
            "/openai",
            "/openai/",
            "/openai/v1/",
            "/openai/deployments/gpt-4o",
            "/openai/deployments//chat/completions",
            "/openai/deployments/gpt-4o/../other/chat/completions",
            "/openai/deployments/gpt-4o/%2E%2e/other/chat/completions",
            "/openai/deployments/gpt-4o%2fother/chat/completions",
            "/openai/deployments/gpt-4o\\..\\other/chat/completions",
            "/openai/deployments/%zz/chat/completions",
            "/openai/deployments/%ff/chat/completions",
            "/openai/Deployments/other/chat/completions",
            "/openai/deploy%6dents/other/chat/completions",
            "/openai/V1/responses",
            "/openai/v1//responses",
            "/other/openai/v1/responses",
            "/openai/v1/files/%ff",
            "/openai/v1/files/%c0%ae%c0%ae",
            "/openai/v1/files/%e0%80%af",
            "/openai/v1/files/a%",
            "/openai/v1/files/%4",
            "/openai/v1/files/%zz",
            "/openai/v1/files/%+1",
            "/openai/v1/files/a%0d%0ab",
            "/openai/v1/files/%09",
            "/openai/v1/files/%7f",
            "/openai/v1/files/%c2%85",
            "/openai/v1/files/a%3bb",
            "/openai/v1/files/a%3Fb",
            "/openai/v1/files/a%23b",
            "/openai/v1/files/%ef%bc%8e%ef%bc%8e",
            "/openai/v1/files/%EF%BC%8F",
            "/openai/deployments/gpt%3f/chat/completions",
        ] {
            assert_eq!(read(path), None, "{path}");
        }
    }
}
