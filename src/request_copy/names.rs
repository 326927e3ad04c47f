//! The header names of most requests, found without an allocation.

use http::HeaderName;

macro_rules! known {
    ($text:expr, $($name:literal)+) => {
        match $text {
            $($name => Some(const { name($name) }),)+
            _ => None,
        }
    };
}

/// The header of this name, if it is one that clients of the service, proxies and tracing send.
pub(super) fn known(text: &[u8]) -> Option<HeaderName> {
    known!(
        text,
        b"accept" b"accept-encoding" b"accept-language" b"api-key" b"authorization" b"baggage"
        b"cache-control" b"connection" b"content-length" b"content-type" b"cookie" b"date" b"dnt"
        b"expect" b"forwarded" b"host" b"idempotency-key" b"openai-beta" b"openai-organization"
        b"openai-project" b"origin" b"pragma" b"referer" b"request-id" b"sec-fetch-dest"
        b"sec-fetch-mode" b"sec-fetch-site" b"te" b"traceparent" b"tracestate" b"transfer-encoding"
        b"user-agent" b"via" b"x-api-key" b"x-client-request-id" b"x-correlation-id"
        b"x-forwarded-for" b"x-forwarded-host" b"x-forwarded-port" b"x-forwarded-proto"
        b"x-ms-client-request-id" b"x-ms-useragent" b"x-real-ip" b"x-request-id"
        b"x-stainless-arch" b"x-stainless-async" b"x-stainless-helper-method" b"x-stainless-lang"
        b"x-stainless-os" b"x-stainless-package-version" b"x-stainless-poll-helper"
        b"x-stainless-raw-response" b"x-stainless-read-timeout" b"x-stainless-retry-count"
        b"x-stainless-runtime" b"x-stainless-runtime-version" b"x-stainless-timeout"
    )
}

const fn name(text: &'static [u8]) -> HeaderName {
    match std::str::from_utf8(text) {
        Ok(text) => HeaderName::from_static(text),
        Err(_) => panic!("a name is ASCII"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_name_is_the_one_that_is_asked_for() {
        for text in ["host", "api-key", "x-stainless-os", "x-stainless-retry-count", "te"] {
            assert_eq!(known(text.as_bytes()).as_ref().map(HeaderName::as_str), Some(text));
        }
        for text in ["", "hos", "hosts", "x-stainless-o", "x-mine"] {
            assert_eq!(known(text.as_bytes()), None, "{text}");
        }
    }
}
