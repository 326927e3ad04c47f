//! A deployment name, encoded for each place where it is written.

use std::sync::Arc;

use crate::azure::percent;

/// A deployment name, encoded for each place where it is written: a path segment, a JSON string, a
/// form field. Clones share the name and copy the two encodings.
#[derive(Clone, Debug)]
pub(crate) struct Deployment {
    name: Arc<str>,
    segment: Box<str>,
    json: Box<[u8]>,
}

impl Deployment {
    /// Encodes `name`; `None` for a name that cannot be written everywhere: empty, with control
    /// characters, or `.` and `..`, which no encoding keeps from being read as path steps (RFC 3986,
    /// section 5.2.4; the WHATWG URL standard decodes `%2e` there).
    pub(crate) fn new(name: &str) -> Option<Self> {
        if matches!(name, "" | "." | "..") || name.chars().any(char::is_control) {
            return None;
        }
        Some(Self {
            name: name.into(),
            segment: percent::encode(name).into_boxed_str(),
            json: json_string(name).into_boxed_slice(),
        })
    }

    /// The name as given.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The name as one path segment, percent-encoded.
    pub(crate) fn segment(&self) -> &str {
        &self.segment
    }

    /// The name as a JSON string literal, quotes included.
    pub(crate) fn json(&self) -> &[u8] {
        &self.json
    }
}

/// Escapes the two characters that RFC 8259 (section 7) requires besides control characters, which a
/// deployment name does not contain.
fn json_string(name: &str) -> Vec<u8> {
    let mut literal = Vec::with_capacity(name.len() + 2);
    literal.push(b'"');
    for byte in name.bytes() {
        if matches!(byte, b'"' | b'\\') {
            literal.push(b'\\');
        }
        literal.push(byte);
    }
    literal.push(b'"');
    literal
}

#[cfg(test)]
mod tests {
    use http::Uri;
    use proptest::prelude::*;

    use super::*;
    use crate::{azure::ApiPath, backend::rewrite::rewrite_deployment};

    #[test]
    fn everything_but_unreserved_characters_is_percent_encoded() {
        for (name, segment) in [
            ("gpt-4o", "gpt-4o"),
            ("a.b_c~d-E9", "a.b_c~d-E9"),
            ("with space", "with%20space"),
            ("a/b", "a%2Fb"),
            ("50%", "50%25"),
            ("a?b#c&d=e", "a%3Fb%23c%26d%3De"),
            ("modèle", "mod%C3%A8le"),
            ("模型", "%E6%A8%A1%E5%9E%8B"),
            ("...", "..."),
        ] {
            assert_eq!(Deployment::new(name).unwrap().segment(), segment);
        }
    }

    #[test]
    fn a_name_that_cannot_be_written_everywhere_is_refused() {
        for name in ["", ".", "..", "a\nb", "a\r\n--x", "\0", "\u{7f}", "\u{85}"] {
            assert!(Deployment::new(name).is_none(), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn the_json_literal_reads_back_as_the_name(name in "\\PC{1,20}") {
            if let Some(deployment) = Deployment::new(&name) {
                let read: String = serde_json::from_slice(deployment.json()).unwrap();
                prop_assert_eq!(&read, &name);
                prop_assert_eq!(&**deployment.name(), &name);
            }
        }

        #[test]
        fn a_deployment_reads_back_from_its_segment(name in "\\PC{1,20}") {
            let Some(deployment) = Deployment::new(&name) else { return Ok(()) };
            let original = Uri::from_static("/p/openai/deployments/x/chat/completions");
            let Some(uri) = rewrite_deployment(&original, &ApiPath::of(original.path()), &deployment) else {
                prop_assert_eq!(name, "x");
                return Ok(());
            };
            let path = uri.path();
            let segment = path[ApiPath::of(path).deployment().unwrap()].as_bytes();
            prop_assert!(percent::decode(segment).eq(name.bytes()));
            prop_assert!(path.ends_with("/chat/completions"));
        }
    }
}
