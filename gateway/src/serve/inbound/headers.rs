//! Filters the headers that go upstream, and the headers of answers.

use http::{HeaderMap, HeaderName, header};

use crate::api::headers::{is_credential, is_hop_by_hop, passes_upstream};

/// Keeps the headers that Azure's and OpenAI's clients use, and `more`. Removes everything else:
/// the caller's credentials, options for the gateway, connection headers, and headers that a server
/// behind a trusted proxy would believe. (The service answers 431 to a request with more than ten
/// unknown headers.) Trailers of requests are dropped too.
pub(crate) fn strip_request(headers: &mut HeaderMap, more: &[HeaderName]) {
    strip(headers, |name| !passes_upstream(name, more));
}

/// Removes connection headers, headers for browsers of the backend's own origin, and headers that
/// would leave a credential or state with the client, to which the gateway is a single host.
pub(crate) fn strip_answer(headers: &mut HeaderMap) {
    strip(headers, |name| {
        is_hop_by_hop(name)
            || is_credential(name)
            || name.as_str().starts_with("access-control-")
            || name.as_str().starts_with("x-accel-")
            || STATE.contains(&name.as_str())
            || matches!(
                name.as_str(),
                "x-spillover-decision" | "x-spillover-sticky" | "x-spillover-trace"
            )
    });
}

fn strip(headers: &mut HeaderMap, goes: impl Fn(&HeaderName) -> bool) {
    // Looking one up hashes its name: most messages have none, and few headers go.
    let going: Vec<HeaderName> = headers.keys().filter(|name| goes(name)).cloned().collect();
    let listed = going.contains(&header::CONNECTION).then(|| listed(headers));
    for name in going.iter().chain(listed.iter().flatten()) {
        headers.remove(name);
    }
}

/// The headers that concern only this connection.
fn listed(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        // Removing these would change the message itself.
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| *name != header::CONTENT_LENGTH && *name != header::CONTENT_TYPE)
        .collect()
}

/// Headers whose values a client would store for this host, that would redirect a page, or that a
/// server in front of the gateway would obey, such as `X-Accel-Redirect`.
const STATE: &[&str] = &[
    "accept-ch",
    "alt-svc",
    "clear-site-data",
    "expect-ct",
    "nel",
    "public-key-pins",
    "refresh",
    "report-to",
    "reporting-endpoints",
    "set-cookie",
    "set-cookie2",
    "strict-transport-security",
    "x-lighttpd-send-file",
    "x-sendfile",
];

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
            ("x-forwarded-host", "x"),
            ("x-policy-id", "x"),
            ("content-length", "2"),
            ("user-agent", "me"),
        ]);
        strip_request(&mut headers, &[]);
        assert_eq!(headers, map(&[("content-length", "2"), ("user-agent", "me")]));
    }

    #[test]
    fn what_is_allowed_goes_and_a_credential_never_does() {
        let own = [("x-policy-id", "strict"), ("x-stainless-lang", "python")];
        let mut headers = map(&[own[0], own[1], ("cookie", "a"), ("api-key", "k"), ("te", "x")]);
        let more = ["x-policy-id", "cookie", "api-key", "te"].map(HeaderName::from_static);
        strip_request(&mut headers, &more);
        assert_eq!(headers, map(&own));
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
