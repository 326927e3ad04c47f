//! The result of scanning a request's body, stored in its extensions.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::Extensions;

use super::{fields::BodyFields, json::Scan};

/// A request extension: the positions of the members of its JSON body. The first layer that scans the
/// body stores it, and inner layers read the members without another scan. It is valid only for the
/// content that was scanned: the same bytes at the same address.
///
/// ```
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::Full;
/// use serde_json::{Deserializer, Value};
/// use tower_spillover::azure::ScannedBody;
///
/// let content = Bytes::from_static(br#"{"model":"gpt-4o","n":2,"messages":[]}"#);
/// let mut model = None;
/// let (scanned, is_json) = ScannedBody::scan(&content, |key, text| {
///     let mut values = Deserializer::from_slice(text).into_iter::<Value>();
///     let value = values.next()?.ok()?;
///     if key == b"\"model\"" {
///         model = value.as_str().map(str::to_owned);
///     }
///     Some(values.byte_offset())
/// });
/// assert!(is_json);
/// assert_eq!(model.as_deref(), Some("gpt-4o"));
///
/// let request = Request::post("/openai/v1/chat/completions").extension(scanned);
/// let request = request.body(Full::new(content)).unwrap();
/// # drop(request);
/// ```
#[derive(Clone)]
pub struct ScannedBody(Arc<(Bytes, BodyFields)>);

impl ScannedBody {
    /// Scans `content`, and calls `value` for every member of its outermost object.
    ///
    /// `value` gets the key as written, quotes included, and the text from the value on. It returns
    /// the value's length, or `None` for a broken one, after which it is not called again. Also
    /// returns whether everything was read: whether `content` is one object whose values `value` all
    /// accepted.
    pub fn scan(
        content: &Bytes,
        mut value: impl FnMut(&[u8], &[u8]) -> Option<usize>,
    ) -> (Self, bool) {
        let (fields, is_read) = BodyFields::scan_at(content, |_, key, scan| {
            let start = scan.at();
            let (key, text) = (&content[key.start - 1..=key.end], &content[start..]);
            let length = value(key, text).filter(|&length| length <= text.len())?;
            *scan = Scan::starting(content, start + length);
            Some(())
        });
        (Self::new(content.clone(), fields), is_read)
    }

    pub(crate) fn new(content: Bytes, fields: BodyFields) -> Self {
        Self(Arc::new((content, fields)))
    }

    /// The result of scanning `content`, if it was scanned.
    pub(crate) fn fields<'a>(extensions: &'a Extensions, content: &[u8]) -> Option<&'a BodyFields> {
        let (scanned, fields) = &*extensions.get::<Self>()?.0;
        // The scanned bytes are still held, so no other content can be at their address.
        (scanned.as_ptr() == content.as_ptr() && scanned.len() == content.len()).then_some(fields)
    }
}

/// Shows nothing of the body.
impl fmt::Debug for ScannedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScannedBody").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_holds_for_the_very_content_alone() {
        let body = Bytes::from_static(br#"{"n":1}"#);
        let fields = BodyFields::of(&body);
        let mut extensions = Extensions::new();
        assert!(ScannedBody::fields(&extensions, &body).is_none());
        extensions.insert(ScannedBody::new(body.clone(), fields));
        assert!(ScannedBody::fields(&extensions, &body).is_some());
        assert!(ScannedBody::fields(&extensions, &body[..3]).is_none());
        assert!(ScannedBody::fields(&extensions, &Bytes::copy_from_slice(&body)).is_none());
    }

    fn skip(_: &[u8], text: &[u8]) -> Option<usize> {
        let mut scan = Scan::of(text);
        scan.skip()?;
        Some(scan.at())
    }

    #[test]
    fn a_scan_with_the_callers_reader_finds_what_one_of_its_own_does() {
        let body = Bytes::from_static(br#" {"mod\u0065l" : "a","x":[1], "n":2} "#);
        let mut keys = Vec::new();
        let (scanned, is_read) = ScannedBody::scan(&body, |key, text| {
            keys.push(key.to_vec());
            skip(key, text)
        });
        assert!(is_read);
        assert_eq!(keys, [&br#""mod\u0065l""#[..], br#""x""#, br#""n""#]);
        let (_, fields) = &*scanned.0;
        assert!(fields.iter().eq(BodyFields::of(&body).iter()));
    }

    #[test]
    fn a_value_that_the_caller_calls_broken_ends_its_reading() {
        for broken in [None, Some(usize::MAX)] {
            let body = Bytes::from_static(br#"{"a":1,"b":2,"n":3}"#);
            let mut calls = 0;
            let (scanned, is_read) = ScannedBody::scan(&body, |key, text| {
                calls += 1;
                if key == b"\"b\"" { broken } else { skip(key, text) }
            });
            assert!(!is_read && calls == 2);
            let (_, fields) = &*scanned.0;
            assert!(fields.iter().eq(BodyFields::of(&body).iter()), "others may read on");
        }
        for broken in ["", "[]", "{\"n\":1}}", "\u{feff}{}", "{\"n\":1,}"] {
            assert!(!ScannedBody::scan(&Bytes::from_static(broken.as_bytes()), skip).1, "{broken}");
        }
    }
}
