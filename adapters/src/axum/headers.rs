//! Headers that do not cross a proxy: those of one connection, and those of one host.

use axum::http::{HeaderMap, HeaderName, header};

/// Removes from a request what is between the client and the proxy: what its connection needs, its
/// cookies, and what says where it came from.
pub(super) fn strip_request(headers: &mut HeaderMap) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // The body is as long as its chunks are (RFC 9112 section 6.3).
        headers.remove(header::CONTENT_LENGTH);
    }
    strip(headers, |name| {
        [header::COOKIE, header::EXPECT, header::FORWARDED, header::VIA].contains(name)
            || matches!(name.as_str(), "http2-settings" | "x-real-ip")
            || name.as_str().starts_with("x-forwarded-")
    });
}

/// Removes from an answer what its connection needs, and what a client would keep for, or a browser
/// obey of, the host of the backend.
pub(super) fn strip_answer(headers: &mut HeaderMap) {
    strip(headers, |name| {
        [header::ALT_SVC, header::SET_COOKIE, header::STRICT_TRANSPORT_SECURITY].contains(name)
            || *name == "clear-site-data"
            || name.as_str().starts_with("access-control-")
    });
}

/// Removes what belongs to one connection, as RFC 9110 section 7.6.1 has it, and what `is_local`.
fn strip(headers: &mut HeaderMap, is_local: impl Fn(&HeaderName) -> bool) {
    let listed: Vec<HeaderName> = list(headers, &header::CONNECTION)
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        // Without these it would be another message.
        .filter(|name| !MESSAGE.contains(name))
        .collect();
    let local = headers.keys().filter(|name| is_hop_by_hop(name) || is_local(name));
    let local: Vec<HeaderName> = local.cloned().collect();
    for name in local.iter().chain(&listed) {
        headers.remove(name);
    }
}

/// `Trailer` is none of them: what a message says of its trailers lets hyper pass them on.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    [header::CONNECTION, header::TE, header::TRANSFER_ENCODING, header::UPGRADE].contains(name)
        || *name == "keep-alive"
        || name.as_str().starts_with("proxy-")
}

/// Whether a request asks for a WebSocket: the one upgrade that is refused, since its client cannot use a
/// plain answer. An `Upgrade` that the connection does not list means nothing (RFC 9110 section 7.8).
pub(super) fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let lists = |name: &HeaderName, wanted: &[u8]| {
        list(headers, name).any(|element| element.eq_ignore_ascii_case(wanted))
    };
    lists(&header::UPGRADE, b"websocket") && lists(&header::CONNECTION, b"upgrade")
}

/// Whether an answer has a length and is chunked: others would see its end elsewhere.
pub(super) fn has_two_lengths(headers: &HeaderMap) -> bool {
    headers.contains_key(header::CONTENT_LENGTH) && headers.contains_key(header::TRANSFER_ENCODING)
}

/// The elements of a header that is a list, in all its lines.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(name).into_iter();
    lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b',')).map(<[u8]>::trim_ascii)
}

const MESSAGE: [HeaderName; 4] =
    [header::CONTENT_ENCODING, header::CONTENT_LENGTH, header::CONTENT_TYPE, header::HOST];

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line =
            |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        lines.iter().map(line).collect()
    }

    #[test]
    fn a_request_keeps_nothing_of_its_connection() {
        let own = [("content-length", "2"), ("content-type", "application/json"), ("api-key", "k")];
        let mut headers = map(&[
            ("connection", "close, X-Mine,content-length , , content-type, @ @"),
            ("x-mine", "1"),
            ("cookie", "session=1"),
            ("expect", "100-continue"),
            ("forwarded", "for=10.0.0.1"),
            ("http2-settings", "AAMAAABk"),
            ("keep-alive", "5"),
            ("proxy-authorization", "Basic x"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("via", "1.1 a"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-real-ip", "10.0.0.1"),
            own[0],
            own[1],
            own[2],
        ]);
        strip_request(&mut headers);
        assert_eq!(headers, map(&own));
    }

    #[test]
    fn a_chunked_request_has_no_length_beside_its_chunks() {
        let mut headers = map(&[("transfer-encoding", "chunked"), ("content-length", "3")]);
        strip_request(&mut headers);
        assert!(headers.is_empty(), "{headers:?}");
    }

    #[test]
    fn what_is_listed_beside_bytes_that_are_no_text_goes_too() {
        let mut headers = map(&[("x-hop", "1")]);
        headers.insert("connection", HeaderValue::from_bytes(b"\xff, x-hop").unwrap());
        strip_request(&mut headers);
        assert!(headers.is_empty(), "{headers:?}");
    }

    #[test]
    fn an_answer_keeps_what_it_says_of_itself() {
        let own = [("x-ms-region", "East US"), ("retry-after-ms", "5"), ("trailer", "x-checksum")];
        let mut headers = map(&[
            ("access-control-allow-origin", "*"),
            ("alt-svc", "h3"),
            ("connection", "keep-alive, x-hop"),
            ("set-cookie", "a=b"),
            ("strict-transport-security", "max-age=1"),
            ("x-hop", "1"),
            own[0],
            own[1],
            own[2],
        ]);
        strip_answer(&mut headers);
        assert_eq!(headers, map(&own));
    }

    #[test]
    fn a_websocket_is_asked_for_by_any_spelling_and_beside_other_protocols() {
        let asks = |connection, upgrade| {
            asks_for_websocket(&map(&[("connection", connection), ("upgrade", upgrade)]))
        };
        for value in ["websocket", "WebSocket", "h2c, websocket/13x,websocket"] {
            assert!(asks("keep-alive, Upgrade", value), "{value}");
            assert!(!asks("keep-alive", value), "{value}");
        }
        for value in ["h2c", "", "websockets", "TLS/1.0"] {
            assert!(!asks("upgrade", value), "{value}");
        }
    }
}
