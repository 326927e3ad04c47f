//! Removes what is meant for one connection, or for the gateway, from requests and answers.

use http::{HeaderMap, HeaderName, header};

/// Keeps the caller's credentials, its words to the gateway and what its connection needs from
/// going upstream; trailers of requests do not go either.
pub(crate) fn strip_request(headers: &mut HeaderMap) {
    strip(headers, |name| {
        is_hop_by_hop(name)
            || *name == header::AUTHORIZATION
            || *name == header::COOKIE
            || *name == header::EXPECT
            || *name == header::HOST
            || *name == header::TRAILER
            || matches!(name.as_str(), "api-key" | "x-api-key" | "http2-settings")
            || name.as_str().starts_with("ocp-apim-")
            || name.as_str().starts_with("x-spillover-")
    });
}

/// Keeps what a backend's connection needs, its cookies, and what it says to browsers of its own origin
/// from going to the client.
pub(crate) fn strip_answer(headers: &mut HeaderMap) {
    strip(headers, |name| {
        is_hop_by_hop(name)
            || *name == header::SET_COOKIE
            || name.as_str().starts_with("access-control-")
            || matches!(
                name.as_str(),
                "x-spillover-decision" | "x-spillover-sticky" | "x-spillover-trace"
            )
    });
}

/// RFC 9110 section 7.6.1, with the fields that other proxies use the same way. `Trailer` is none of
/// them: what an answer says of its trailers lets hyper pass them to a client that takes them.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TE
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || *name == "keep-alive"
        || name.as_str().starts_with("proxy-")
}

fn strip(headers: &mut HeaderMap, goes: impl Fn(&HeaderName) -> bool) {
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        // Removing these would change the message itself.
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| *name != header::CONTENT_LENGTH && *name != header::CONTENT_TYPE)
        .collect();
    let going: Vec<HeaderName> = headers.keys().filter(|name| goes(name)).cloned().collect();
    for name in going.iter().chain(&listed) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn map(names: &[(&'static str, &'static str)]) -> HeaderMap {
        names
            .iter()
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn nothing_of_the_caller_s_connection_or_credentials_stays() {
        let mut headers = map(&[
            ("connection", "close, X-Mine, content-length"),
            ("x-mine", "1"),
            ("api-key", "k"),
            ("authorization", "Bearer k"),
            ("ocp-apim-subscription-key", "k"),
            ("cookie", "a=b"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("upgrade", "h2c"),
            ("keep-alive", "5"),
            ("proxy-authorization", "x"),
            ("transfer-encoding", "chunked"),
            ("x-spillover-class", "batch"),
            ("content-length", "2"),
            ("user-agent", "me"),
        ]);
        strip_request(&mut headers);
        assert_eq!(headers, map(&[("content-length", "2"), ("user-agent", "me")]));
    }

    #[test]
    fn an_answer_keeps_what_it_says_of_itself() {
        let own = [("x-ms-region", "East US"), ("trailer", "x-checksum")];
        let mut headers = map(&[
            ("set-cookie", "a"),
            ("access-control-allow-origin", "*"),
            ("connection", "keep-alive"),
            own[0],
            own[1],
        ]);
        strip_answer(&mut headers);
        assert_eq!(headers, map(&own));
    }
}
