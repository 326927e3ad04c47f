//! Classifies heads documented by or captured from providers, by each provider's own rules.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::classify::heads::{NOW, any_head, head, never};

/// The source of a head, its status and headers, and its verdict.
type Row = (&'static str, u16, &'static [(&'static str, &'static str)], Verdict);

#[track_caller]
fn assert_classified(provider: Provider, rows: &[Row]) {
    for (of, status, headers, verdict) in rows {
        let status = StatusCode::from_u16(*status).expect("a status");
        assert_eq!(provider.classify(status, &head(headers), &never), *verdict, "{provider}: {of}");
    }
}

fn refused(wait: impl Into<Option<u64>>, reason: Reason) -> Verdict {
    let hint = wait.into().map_or(Hint::None, |ms| Hint::After(Duration::from_millis(ms)));
    throttled(hint, reason)
}

fn is(outcome: Outcome) -> Verdict {
    outcome.into()
}

#[test]
fn open_ai_refuses_with_429_and_503_and_says_for_how_long_in_three_ways() {
    let rate = |ms| refused(ms, Reason::Unknown);
    assert_classified(
        Provider::OpenAi,
        &[
            (
                "guide Rate limits: requests",
                429,
                &[
                    ("x-ratelimit-limit-requests", "60"),
                    ("x-ratelimit-remaining-requests", "0"),
                    ("x-ratelimit-remaining-tokens", "149984"),
                    ("x-ratelimit-reset-requests", "1s"),
                    ("x-ratelimit-reset-tokens", "6m0s"),
                ],
                rate(Some(1_000)).of_limit(Limit::Calls),
            ),
            (
                "guide Rate limits: tokens",
                429,
                &[
                    ("x-ratelimit-remaining-requests", "59"),
                    ("x-ratelimit-remaining-tokens", "0"),
                    ("x-ratelimit-reset-requests", "1s"),
                    ("x-ratelimit-reset-tokens", "6m0s"),
                ],
                rate(Some(360_000)).of_limit(Limit::Tokens),
            ),
            (
                "openai-python: both forms of a hint",
                429,
                &[("retry-after-ms", "250"), ("retry-after", "1")],
                rate(Some(250)),
            ),
            (
                "requests per day: a long wait of every request",
                429,
                &[("retry-after", "8640")],
                rate(Some(8_640_000)),
            ),
            ("guide Error codes: quota", 429, &[], rate(None)),
            (
                "guide Error codes: the engine is overloaded",
                503,
                &[],
                refused(None, Reason::Capacity),
            ),
            (
                "guide Error codes: slow down",
                503,
                &[("retry-after", "15")],
                refused(Some(15_000), Reason::Capacity),
            ),
            ("guide Error codes: server error", 500, &[], is(Outcome::Failed)),
            ("guide Error codes: invalid key", 401, &[], is(Outcome::Misconfigured)),
            ("guide Error codes: country not supported", 403, &[], is(Outcome::Misconfigured)),
            ("a parameter", 400, &[("retry-after", "1")], is(Outcome::Answered)),
        ],
    );
}

#[test]
fn anthropic_s_resets_are_instants_by_the_clock_of_its_date() {
    let rate = |ms| refused(ms, Reason::Unknown);
    assert_classified(
        Provider::Anthropic,
        &[
            (
                "anthropic-sdk-typescript issue 357",
                429,
                &[
                    ("anthropic-ratelimit-requests-limit", "5"),
                    ("anthropic-ratelimit-requests-remaining", "0"),
                    ("anthropic-ratelimit-requests-reset", "2024-03-26T20:00:00Z"),
                    ("anthropic-ratelimit-tokens-limit", "25000"),
                    ("anthropic-ratelimit-tokens-remaining", "16000"),
                    ("anthropic-ratelimit-tokens-reset", "2024-03-26T20:00:00Z"),
                    ("date", "Tue, 26 Mar 2024 19:59:59 GMT"),
                    ("x-should-retry", "true"),
                ],
                rate(Some(1_000)).of_limit(Limit::Calls),
            ),
            (
                "page Rate limits: retry-after is the one to obey",
                429,
                &[
                    ("retry-after", "7"),
                    ("anthropic-ratelimit-input-tokens-remaining", "0"),
                    ("anthropic-ratelimit-input-tokens-reset", "2024-03-26T20:01:00Z"),
                    ("date", "Tue, 26 Mar 2024 20:00:00 GMT"),
                ],
                rate(Some(7_000)).of_limit(Limit::Tokens),
            ),
            (
                "of what is spent the latest reset",
                429,
                &[
                    ("anthropic-ratelimit-input-tokens-remaining", "0"),
                    ("anthropic-ratelimit-input-tokens-reset", "2024-03-26T20:00:20Z"),
                    ("anthropic-ratelimit-output-tokens-remaining", "0"),
                    ("anthropic-ratelimit-output-tokens-reset", "2024-03-26T20:00:40Z"),
                    ("anthropic-ratelimit-requests-remaining", "9"),
                    ("anthropic-ratelimit-requests-reset", "2024-03-26T20:00:50Z"),
                    ("date", "Tue, 26 Mar 2024 20:00:00 GMT"),
                ],
                rate(Some(40_000)).of_limit(Limit::Tokens),
            ),
            (
                "of what is not known the soonest",
                429,
                &[
                    ("anthropic-ratelimit-tokens-reset", "2024-03-26T20:00:20Z"),
                    ("anthropic-ratelimit-requests-reset", "2024-03-26T20:00:05Z"),
                    ("date", "Tue, 26 Mar 2024 20:00:00 GMT"),
                ],
                rate(Some(5_000)),
            ),
            (
                "an acceleration limit: something is left of everything",
                429,
                &[
                    ("anthropic-ratelimit-tokens-remaining", "16000"),
                    ("anthropic-ratelimit-tokens-reset", "2024-03-26T20:00:20Z"),
                ],
                rate(None),
            ),
            (
                "a reset that is over, or is none",
                429,
                &[
                    ("anthropic-ratelimit-requests-remaining", "0"),
                    ("anthropic-ratelimit-requests-reset", "2024-03-26T19:59:00Z"),
                    ("anthropic-ratelimit-tokens-remaining", "0"),
                    ("anthropic-ratelimit-tokens-reset", "soon"),
                    ("date", "Tue, 26 Mar 2024 20:00:00 GMT"),
                ],
                rate(None).of_limit(Limit::Calls),
            ),
            ("page Errors: a spend limit", 429, &[("x-should-retry", "false")], rate(None)),
            ("page Errors: overloaded", 529, &[], refused(None, Reason::Capacity)),
            (
                "overloaded, with a time",
                529,
                &[("retry-after", "3")],
                refused(Some(3_000), Reason::Capacity),
            ),
            ("page Errors: api_error", 500, &[], is(Outcome::Failed)),
            ("page Errors: timeout_error", 504, &[], is(Outcome::Failed)),
            ("page Errors: authentication_error", 401, &[], is(Outcome::Misconfigured)),
            ("page Errors: billing_error", 402, &[], is(Outcome::Misconfigured)),
            ("page Errors: permission_error", 403, &[], is(Outcome::Misconfigured)),
            ("page Errors: request_too_large", 413, &[], is(Outcome::Answered)),
            ("page Errors: not_found_error", 404, &[], is(Outcome::Answered)),
        ],
    );
}

#[test]
fn without_a_date_a_reset_is_compared_with_the_clock_here() {
    let headers = head(&[
        ("anthropic-ratelimit-requests-remaining", "0"),
        ("anthropic-ratelimit-requests-reset", "2023-09-29T16:26:57Z"),
    ]);
    let verdict = Provider::Anthropic.classify(StatusCode::TOO_MANY_REQUESTS, &headers, &NOW);
    assert_eq!(verdict, refused(Some(20_000), Reason::Unknown).of_limit(Limit::Calls));
}

#[test]
fn bedrock_names_its_error_whatever_the_status() {
    let (throttling, capacity) = (refused(None, Reason::Rate), refused(None, Reason::Capacity));
    let misconfigured = is(Outcome::Misconfigured).because(Reason::Misconfigured);
    assert_classified(
        Provider::Bedrock,
        &[
            (
                "amazon-bedrock-client-for-mac issue 99",
                429,
                &[(
                    "x-amzn-errortype",
                    "ThrottlingException:http://internal.amazon.com/coral/com.amazon.bedrock/",
                )],
                throttling,
            ),
            (
                "a protocol before statuses",
                400,
                &[("x-amzn-errortype", "ThrottlingException")],
                throttling,
            ),
            (
                "with a namespace",
                400,
                &[("x-amzn-errortype", "com.amazonaws.bedrock#ThrottlingException")],
                throttling,
            ),
            (
                "with a time",
                400,
                &[("x-amzn-errortype", "ThrottlingException"), ("retry-after", "2")],
                refused(Some(2_000), Reason::Rate),
            ),
            (
                "InvokeModel: not ready",
                429,
                &[("x-amzn-errortype", "ModelNotReadyException")],
                capacity,
            ),
            (
                "InvokeModel: unavailable",
                503,
                &[("x-amzn-errortype", "ServiceUnavailableException")],
                capacity,
            ),
            ("the guide's spelling", 503, &[("x-amzn-errortype", "ServiceUnavailable")], capacity),
            (
                "InvokeModel: quota",
                400,
                &[("x-amzn-errortype", "ServiceQuotaExceededException")],
                throttled(Hint::TooLong, Reason::Quota),
            ),
            (
                "InvokeModel: the model failed",
                424,
                &[("x-amzn-errortype", "ModelErrorException")],
                is(Outcome::Failed),
            ),
            (
                "InvokeModel: internal",
                500,
                &[("x-amzn-errortype", "InternalServerException")],
                is(Outcome::Failed),
            ),
            (
                "InvokeModel: timeout",
                408,
                &[("x-amzn-errortype", "ModelTimeoutException")],
                is(Outcome::Answered),
            ),
            (
                "InvokeModel: validation",
                400,
                &[("x-amzn-errortype", "ValidationException")],
                is(Outcome::Answered),
            ),
            (
                "InvokeModel: access",
                403,
                &[("x-amzn-errortype", "AccessDeniedException")],
                misconfigured,
            ),
            (
                "InvokeModel: no such model",
                404,
                &[("x-amzn-errortype", "ResourceNotFoundException")],
                misconfigured,
            ),
            ("without a name", 429, &[], throttling),
            ("without a name", 503, &[], capacity),
            ("without a name", 403, &[], is(Outcome::Misconfigured)),
            ("without a name", 400, &[], is(Outcome::Answered)),
        ],
    );
}

#[test]
fn mistral_says_what_is_left_of_the_minute() {
    let rate = |ms| refused(ms, Reason::Unknown);
    assert_classified(
        Provider::Mistral,
        &[
            ("page Error glossary", 429, &[("retry-after", "60")], rate(Some(60_000))),
            (
                "client-ts issue 169, its names",
                429,
                &[
                    ("x-ratelimit-limit-req-minute", "720"),
                    ("x-ratelimit-remaining-req-minute", "0"),
                    ("x-ratelimit-remaining-tokens-minute", "4999911"),
                ],
                rate(None).of_limit(Limit::Calls),
            ),
            (
                "client-ts issue 169, its names",
                429,
                &[
                    ("x-ratelimit-remaining-req-minute", "717"),
                    ("x-ratelimit-remaining-tokens-minute", "0"),
                    ("x-ratelimit-tokens-query-cost", "52"),
                ],
                rate(None).of_limit(Limit::Tokens),
            ),
            (
                "tidyllm, its names",
                429,
                &[("x-ratelimitbysize-remaining-minute", "0"), ("ratelimitbysize-reset", "41")],
                rate(Some(41_000)).of_limit(Limit::Tokens),
            ),
            (
                "the reset of tokens is not that of calls",
                429,
                &[("x-ratelimit-remaining-req-minute", "0"), ("ratelimitbysize-reset", "41")],
                rate(None).of_limit(Limit::Calls),
            ),
            ("page Error glossary: payment", 402, &[], is(Outcome::Misconfigured)),
            ("page Error glossary: permission", 403, &[], is(Outcome::Misconfigured)),
            ("page Error glossary: validation", 422, &[], is(Outcome::Answered)),
            ("page Error glossary: unavailable", 503, &[], is(Outcome::Failed)),
            (
                "unavailable, with a time",
                503,
                &[("retry-after", "5")],
                refused(Some(5_000), Reason::Capacity),
            ),
        ],
    );
}

#[test]
fn plain_http_knows_retry_after_on_429_and_503_and_nothing_else() {
    let rate = |ms| refused(ms, Reason::Unknown);
    assert_classified(
        Provider::Http,
        &[
            ("RFC 6585", 429, &[("retry-after", "3600")], rate(Some(3_600_000))),
            (
                "RFC 9110, 15.6.4",
                503,
                &[("retry-after", "120")],
                refused(Some(120_000), Reason::Capacity),
            ),
            ("no time", 429, &[], rate(None)),
            ("no time", 503, &[], is(Outcome::Failed)),
            (
                "another name",
                429,
                &[("retry-after-ms", "250"), ("x-ratelimit-reset-tokens", "55")],
                rate(None),
            ),
            ("another status", 500, &[("retry-after", "3")], is(Outcome::Failed)),
            ("another status", 529, &[("retry-after", "3")], is(Outcome::Answered)),
            ("another status", 413, &[("retry-after", "3")], is(Outcome::Answered)),
            ("a key", 401, &[], is(Outcome::Misconfigured)),
        ],
    );
    let date = head(&[("retry-after", "Fri, 29 Sep 2023 16:26:57 GMT")]);
    let verdict = Provider::Http.classify(StatusCode::TOO_MANY_REQUESTS, &date, &NOW);
    assert_eq!(verdict, rate(Some(20_000)));
}

#[test]
fn a_provider_is_found_by_its_name_and_a_wrong_name_by_the_list() {
    for provider in Provider::ALL {
        assert_eq!(provider.name().parse::<Provider>().ok(), Some(provider));
    }
    let error = "OpenAI".parse::<Provider>().expect_err("spelled otherwise").to_string();
    assert!(error.contains("azure, openai, anthropic, bedrock, mistral, http"), "{error}");
}

proptest! {
    #[test]
    fn azure_s_rules_are_those_of_a_layer_without_any(
        headers in any_head(),
        status in 400_u16..600,
    ) {
        let status = StatusCode::from_u16(status).expect("a status");
        let verdict = Provider::Azure.classify(status, &headers, &NOW);
        prop_assert_eq!(verdict.outcome(), Outcome::of(status, &headers, NOW));
    }

    #[test]
    fn no_head_makes_any_rules_panic(
        headers in any_head(),
        more in prop::collection::vec((prop::sample::select(OTHER_NAMES), "[ -~]{0,24}"), 0..6),
        status in 400_u16..600,
    ) {
        let mut headers = headers;
        for (name, value) in more {
            headers.append(name, value.parse().expect("visible characters"));
        }
        let status = StatusCode::from_u16(status).expect("a status");
        for provider in Provider::ALL {
            provider.classify(status, &headers, &NOW);
        }
    }
}

const OTHER_NAMES: &[&str] = &[
    "date",
    "x-amzn-errortype",
    "anthropic-ratelimit-requests-remaining",
    "anthropic-ratelimit-requests-reset",
    "anthropic-ratelimit-tokens-reset",
    "ratelimitbysize-reset",
    "x-ratelimit-remaining-req-minute",
];
