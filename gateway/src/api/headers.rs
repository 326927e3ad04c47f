//! Classifies request headers: those of the API, and those of one connection.

use http::{HeaderName, header};

/// Whether a header is forwarded; the configuration allows `more`.
pub(crate) fn passes_upstream(name: &HeaderName, more: &[HeaderName]) -> bool {
    let text = name.as_str();
    UPSTREAM.contains(&text)
        || text.strip_prefix("x-stainless-").is_some_and(|rest| STAINLESS.contains(&rest))
        || more.contains(name) && !is_ours(name) && !is_hop_by_hop(name)
}

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
/// clients and traces.
const UPSTREAM: &[&str] = &[
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "api-version",
    "cache-control",
    "client-request-id",
    "content-digest",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "idempotency-key",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-event-id",
    "openai-beta",
    "openai-organization",
    "openai-project",
    "prefer",
    "range",
    "return-client-request-id",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-client-request-id",
    "x-correlation-id",
    "x-ms-client-request-id",
    "x-ms-date",
    "x-ms-oai-image-generation-deployment",
    "x-ms-return-client-request-id",
    "x-ms-useragent",
    "x-request-id",
];
