//! Classifies request headers: those of the API, and those of one connection.

use http::{HeaderName, header};

/// Whether a header is forwarded; the configuration allows `more`.
pub(crate) fn passes_upstream(name: &HeaderName, more: &[HeaderName]) -> bool {
    let text = name.as_str();
    is_upstream(text)
        || text.strip_prefix("x-stainless-").is_some_and(|rest| STAINLESS.contains(&rest))
        || more.contains(name) && !is_ours(name) && !is_hop_by_hop(name)
}

/// Whether a name is in the list, which is searched only where the names are as long.
fn is_upstream(name: &str) -> bool {
    let start = UPSTREAM_STARTS.get(name.len()).zip(UPSTREAM_STARTS.get(name.len() + 1));
    start.is_some_and(|(&start, &end)| UPSTREAM[start..end].contains(&name))
}

/// Where in the list the names of a length begin.
const UPSTREAM_STARTS: [usize; MAX_NAME_BYTES + 2] = {
    let (mut starts, mut length, mut index) = ([0; MAX_NAME_BYTES + 2], 0, 0);
    while length < starts.len() {
        while index < UPSTREAM.len() && UPSTREAM[index].len() < length {
            index += 1;
        }
        starts[length] = index;
        length += 1;
    }
    assert!(index == UPSTREAM.len(), "a name is too long, or shorter than one before it");
    starts
};
const MAX_NAME_BYTES: usize = 36;

/// Headers for the gateway itself.
fn is_ours(name: &HeaderName) -> bool {
    is_credential(name)
        || name.as_str().starts_with("x-spillover-")
        || [header::COOKIE, header::EXPECT, header::HOST, header::TRAILER].contains(name)
        || *name == "http2-settings"
}

pub(crate) fn is_credential(name: &HeaderName) -> bool {
    *name == header::AUTHORIZATION
        || matches!(name.as_str(), "api-key" | "x-api-key" | "authentication-info")
        || name.as_str().starts_with("ocp-apim-")
}

/// RFC 9110 section 7.6.1, with the fields that other proxies treat in the same way. `Trailer` is
/// not one of them: hyper needs it in an answer to forward trailers to a client that accepts them.
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TE
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || *name == "keep-alive"
        || name.as_str().starts_with("proxy-")
}

/// Telemetry of OpenAI's libraries, after `x-stainless-`.
const STAINLESS: &[&str] = &[
    "arch",
    "async",
    "custom-poll-interval",
    "helper",
    "helper-method",
    "lang",
    "os",
    "package-version",
    "poll-helper",
    "raw-response",
    "read-timeout",
    "retry-count",
    "runtime",
    "runtime-version",
    "stream-helper",
    "timeout",
];

/// Headers that the API reads, that describe a body or the requested answer, and that identify
/// clients and traces. In the order of their lengths: see [`is_upstream`].
const UPSTREAM: &[&str] = &[
    "date",
    "range",
    "accept",
    "prefer",
    "if-match",
    "if-range",
    "x-ms-date",
    "tracestate",
    "user-agent",
    "api-version",
    "content-md5",
    "openai-beta",
    "traceparent",
    "content-type",
    "x-request-id",
    "cache-control",
    "if-none-match",
    "last-event-id",
    "accept-charset",
    "content-digest",
    "content-length",
    "openai-project",
    "x-ms-useragent",
    "accept-encoding",
    "accept-language",
    "idempotency-key",
    "content-encoding",
    "content-language",
    "x-correlation-id",
    "client-request-id",
    "if-modified-since",
    "content-disposition",
    "if-unmodified-since",
    "openai-organization",
    "x-client-request-id",
    "x-ms-client-request-id",
    "return-client-request-id",
    "x-ms-return-client-request-id",
    "x-ms-oai-image-generation-deployment",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_list_is_found_and_no_part_of_one() {
        assert!(UPSTREAM.is_sorted_by_key(|name| name.len()));
        for name in UPSTREAM {
            assert!(is_upstream(name), "{name}");
            assert!(!is_upstream(&name[1..]) && !is_upstream(&format!("{name}s")), "{name}");
        }
        assert!(!is_upstream("") && !is_upstream(&"x".repeat(100)));
    }
}
