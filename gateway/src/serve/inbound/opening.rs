//! A WebSocket handshake in progress, and whether a backend's 101 completes it.

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use hyper::upgrade::OnUpgrade;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};

/// The client's side of a handshake in progress.
pub(super) struct Opening {
    /// Resolves to the upgraded connection of the client.
    pub(super) client: OnUpgrade,
    asked: Asked,
}

struct Asked {
    key: Option<HeaderValue>,
    protocols: Vec<String>,
    extensions: Vec<String>,
}

impl Opening {
    /// `headers` are the ones that go to the backend.
    pub(super) fn new(client: OnUpgrade, headers: &HeaderMap) -> Self {
        Self { client, asked: Asked::of(headers) }
    }

    /// Whether a 101 with these headers opens the requested session. Accepting any other would give
    /// the client the bytes of another protocol (RFC 6455 section 4.1).
    pub(super) fn is_answered_by(&self, headers: &HeaderMap) -> bool {
        self.asked.is_answered_by(headers)
    }
}

impl Asked {
    fn of(headers: &HeaderMap) -> Self {
        Self {
            key: headers.get(header::SEC_WEBSOCKET_KEY).cloned(),
            protocols: words(headers, &header::SEC_WEBSOCKET_PROTOCOL),
            extensions: words(headers, &header::SEC_WEBSOCKET_EXTENSIONS),
        }
    }

    fn is_answered_by(&self, headers: &HeaderMap) -> bool {
        let accept = self.key.as_ref().map(|key| accept(key.as_bytes()));
        let accepts: Vec<_> = headers.get_all(header::SEC_WEBSOCKET_ACCEPT).iter().collect();
        let [accepted] = &*accepts else { return false };
        let chosen = words(headers, &header::SEC_WEBSOCKET_PROTOCOL);
        let extensions = words(headers, &header::SEC_WEBSOCKET_EXTENSIONS);
        let has_word = |name, word: &str| {
            words(headers, &name).iter().any(|given| given.eq_ignore_ascii_case(word))
        };
        accept.is_some_and(|accept| accept.as_bytes() == accepted.as_bytes())
            && only(&words(headers, &header::UPGRADE), "websocket")
            && has_word(header::CONNECTION, "upgrade")
            && chosen.len() <= 1
            && chosen.iter().all(|protocol| self.protocols.contains(protocol))
            && extensions.iter().all(|extension| self.extensions.contains(extension))
            // A 101 has no body.
            && !headers.contains_key(header::CONTENT_LENGTH)
            && !headers.contains_key(header::TRANSFER_ENCODING)
    }
}

fn only(words: &[String], expected: &str) -> bool {
    matches!(words, [word] if word.eq_ignore_ascii_case(expected))
}

/// The elements of a list header, without their parameters; a value that is not text is read
/// lossily.
fn words(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values =
        headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let words = values.flat_map(|value| {
        let words = value.split(',').map(|word| word.split(';').next().unwrap_or(word).trim());
        words.map(str::to_owned).collect::<Vec<_>>()
    });
    words.filter(|word| !word.is_empty()).collect()
}

/// RFC 6455 section 4.2.2; SHA-1 protects nothing here.
fn accept(key: &[u8]) -> String {
    let mut digest = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key.trim_ascii());
    digest.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64_STANDARD.encode(digest.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
