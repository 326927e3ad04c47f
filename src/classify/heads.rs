//! Response heads and clocks for the tests of this module.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

/// Fri, 29 Sep 2023 16:26:37 GMT, the clock of the openai-python tests.
pub(super) const NOW: fn() -> SystemTime =
    || SystemTime::UNIX_EPOCH + Duration::from_secs(1_696_004_797);

/// A clock that must not be read.
pub(super) fn never() -> SystemTime {
    panic!("the clock was read although no date had to be compared")
}

/// The headers of a captured response, in order, repeated names kept.
pub(super) fn head(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header value");
        headers.append(HeaderName::from_static(name), value);
    }
    headers
}

/// Heads with the names that classification reads, over values plain, hostile and arbitrary.
pub(super) fn any_head() -> impl Strategy<Value = HeaderMap> {
    let value = prop_oneof![
        prop::sample::select(VALUES).prop_map(|text| text.as_bytes().to_vec()),
        "-?[0-9]{1,35}(\\.[0-9]{0,4})?(e[0-9]{1,3})?(ms|s|m|h)?".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..40),
    ];
    let line = (prop::sample::select(NAMES), value);
    prop::collection::vec(line, 0..12).prop_map(|lines| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            // Skip bytes that no server can send.
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.append(HeaderName::from_static(name), value);
            }
        }
        headers
    })
}

const NAMES: &[&str] = &[
    "content-type",
    "grpc-retry-pushback-ms",
    "grpc-status",
    "grpc-status-details-bin",
    "policy-id",
    "retry-after",
    "retry-after-ms",
    "x-ms-retry-after-ms",
    "x-rate-limit-remaining-requests",
    "x-rate-limit-reset-tokens",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "x-ratelimit-type",
];

const VALUES: &[&str] = &[
    "",
    " ",
    ",",
    ",,,",
    "0",
    "-0",
    "-1",
    "1",
    "8",
    "14",
    "60",
    "86400",
    "86400001",
    "1e400",
    "1e-400",
    "-1e400",
    "inf",
    "nan",
    "+",
    "-",
    ".",
    "6m0s",
    "1h2m3.5s",
    "120ms",
    "s",
    "1, 5",
    "Fri, 29 Sep 2023 16:26:57 GMT",
    "Fri, 29 Sep 2023 16:26:37 GMT",
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Friday, 29-Sep-23 16:26:57 GMT",
    "Fri Sep 29 16:26:57 2023",
    "Fri, 29 Sep 100000 16:26:57 GMT",
    "Mon, 00 Jan 0000 00:00:00 GMT",
    "Tokens",
    "Requests",
    "DeploymentRatelimit-Token",
    "-",
    "CAgaNgoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIKCggIARCAyrXuAQ",
    "application/grpc",
    "application/json",
];
