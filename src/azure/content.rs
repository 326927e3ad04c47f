//! What the headers of a message say about its body.

use http::{HeaderMap, HeaderValue, header};

/// The kind of a body according to its `content-type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentKind {
    /// `application/json`, `application/problem+json` and the like.
    Json,
    /// `text/event-stream`.
    EventStream,
    /// `multipart/form-data` and other multipart types.
    Multipart,
    /// Anything else, or unspecified.
    Other,
}

impl ContentKind {
    /// The kind of a message with these headers.
    pub fn of(headers: &HeaderMap) -> Self {
        Self::named(headers.get(header::CONTENT_TYPE))
    }

    /// The kind of a body with this `content-type`.
    pub fn named(content_type: Option<&HeaderValue>) -> Self {
        let Some(content_type) = content_type else { return Self::Other };
        // The most common spelling.
        if content_type.as_bytes() == b"application/json" {
            return Self::Json;
        }
        let mut parts = content_type.as_bytes().split(|&byte| byte == b';');
        let kind = parts.next().unwrap_or_default().trim_ascii();
        if kind.eq_ignore_ascii_case(b"application/json") || has_suffix(kind, b"+json") {
            Self::Json
        } else if kind.eq_ignore_ascii_case(b"text/event-stream") {
            Self::EventStream
        } else if has_prefix(kind, b"multipart/") {
            Self::Multipart
        } else {
            Self::Other
        }
    }
}

/// The length announced by `headers`, if any.
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

pub(super) fn has_prefix(kind: &[u8], prefix: &[u8]) -> bool {
    kind.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn has_suffix(kind: &[u8], suffix: &[u8]) -> bool {
    let end = kind.len().checked_sub(suffix.len()).and_then(|at| kind.get(at..));
    end.is_some_and(|end| end.eq_ignore_ascii_case(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_recognised_by_its_name_without_parameters_in_any_case() {
        for (content_type, kind) in [
            ("application/json", ContentKind::Json),
            ("Application/JSON; charset=utf-8", ContentKind::Json),
            ("application/problem+json", ContentKind::Json),
            (" text/event-stream ;charset=utf-8", ContentKind::EventStream),
            ("Multipart/Form-Data; boundary=x", ContentKind::Multipart),
            ("text/plain", ContentKind::Other),
            ("application/jsonl", ContentKind::Other),
            ("", ContentKind::Other),
        ] {
            let value = HeaderValue::from_static(content_type);
            assert_eq!(ContentKind::named(Some(&value)), kind, "{content_type}");
        }
        assert_eq!(ContentKind::of(&HeaderMap::new()), ContentKind::Other);
    }

    #[test]
    fn a_length_is_a_number_that_fits() {
        for (text, length) in [("4000", Some(4_000)), ("0", Some(0)), ("many", None), ("-1", None)]
        {
            let headers = HeaderMap::from_iter([(header::CONTENT_LENGTH, text.parse().unwrap())]);
            assert_eq!(content_length(&headers), length, "{text}");
        }
    }
}
