//! Classifies heads that were captured from the service and from servers like it.

use std::time::Duration;

use http::StatusCode;

use super::{
    Hint, Outcome,
    heads::{head, never},
};

struct Capture {
    of: &'static str,
    status: u16,
    headers: &'static [(&'static str, &'static str)],
    outcome: Outcome,
}

const fn throttled(ms: u64) -> Outcome {
    Outcome::Throttled(Hint::After(Duration::from_millis(ms)))
}

#[track_caller]
fn assert_classified(captures: &[Capture]) {
    for capture in captures {
        let status = StatusCode::from_u16(capture.status).expect("a status");
        let outcome = Outcome::of(status, &head(capture.headers), never);
        assert_eq!(outcome, capture.outcome, "{}", capture.of);
    }
}

#[test]
fn successes_are_answered_whatever_their_rate_limit_headers_say() {
    assert_classified(&[
        Capture {
            of: "a chat completion of a Standard deployment in East US 2",
            status: 200,
            headers: &[
                ("content-type", "application/json"),
                ("x-ms-region", "East US 2"),
                ("apim-request-id", "5a1c3b1e-0000-4000-8000-000000000000"),
                ("x-ratelimit-remaining-requests", "19"),
                ("x-accel-buffering", "no"),
                ("x-ms-rai-invoked", "true"),
                ("azureml-model-session", "d070-20240813235024"),
                ("x-envoy-upstream-service-time", "469"),
                ("x-ratelimit-remaining-tokens", "19568"),
            ],
            outcome: Outcome::Answered,
        },
        Capture {
            of: "a success whose token bucket is overdrawn",
            status: 200,
            headers: &[
                ("x-ratelimit-remaining-tokens", "-27978"),
                ("x-ratelimit-reset-tokens", "64"),
            ],
            outcome: Outcome::Answered,
        },
        Capture {
            of: "a Responses API success that counts nothing",
            status: 200,
            headers: &[
                ("x-ratelimit-limit-tokens", "-1"),
                ("x-ratelimit-remaining-tokens", "-1"),
                ("x-ratelimit-reset-tokens", "0"),
            ],
            outcome: Outcome::Answered,
        },
        Capture {
            of: "a success of a provisioned deployment",
            status: 200,
            headers: &[("azure-openai-deployment-utilization", "12.3%")],
            outcome: Outcome::Answered,
        },
        Capture {
            of: "a refusal hidden in an event stream, which only its body shows",
            status: 200,
            headers: &[
                ("content-type", "text/event-stream"),
                ("retry-after", "4"),
                ("x-ratelimit-remaining-tokens", "-27689"),
                ("x-ratelimit-reset-tokens", "64"),
            ],
            outcome: Outcome::Answered,
        },
    ]);
}

#[test]
fn refusals_of_a_provisioned_deployment_keep_their_milliseconds() {
    assert_classified(&[
        Capture {
            of: "a provisioned deployment just above 100 %",
            status: 429,
            headers: &[
                ("retry-after", "1"),
                ("retry-after-ms", "43"),
                ("azure-openai-deployment-utilization", "100.6%"),
            ],
            outcome: throttled(43),
        },
        Capture {
            of: "the same with a fraction, and with an empty utilization",
            status: 429,
            headers: &[("retry-after-ms", "12.5"), ("azure-openai-deployment-utilization", "")],
            outcome: Outcome::Throttled(Hint::After(Duration::from_micros(12_500))),
        },
        Capture {
            of: "a refusal that was already spilled by the service",
            status: 429,
            headers: &[
                ("x-ms-spillover-from-deployment", "gpt-4o-ptu"),
                ("x-ms-spillover-error", "429"),
                ("retry-after-ms", "1500"),
            ],
            outcome: throttled(1_500),
        },
    ]);
}

#[test]
fn refusals_of_a_standard_deployment_say_when_their_window_resets() {
    assert_classified(&[
        Capture {
            of: "a day on a window of a minute",
            status: 429,
            headers: &[("retry-after", "86400"), ("x-ratelimit-renewalperiod-tokens", "60")],
            outcome: Outcome::Throttled(Hint::After(Hint::LONGEST)),
        },
        Capture {
            of: "the usual whole seconds",
            status: 429,
            headers: &[("retry-after", "45"), ("x-ms-region", "South Central US")],
            outcome: throttled(45_000),
        },
        Capture {
            of: "zero milliseconds beside a second while the window is exhausted",
            status: 429,
            headers: &[
                ("retry-after", "1"),
                ("retry-after-ms", "0"),
                ("x-ratelimit-limit-tokens", "5000"),
                ("x-ratelimit-remaining-tokens", "0"),
                ("x-ratelimit-renewalperiod-tokens", "60"),
                ("x-ratelimit-reset-tokens", "0"),
                ("x-ratelimit-type", "Tokens"),
            ],
            outcome: throttled(1_000),
        },
        Capture {
            of: "zero milliseconds beside the reset of the exhausted dimension",
            status: 429,
            headers: &[
                ("retry-after-ms", "0"),
                ("x-ratelimit-remaining-tokens", "0"),
                ("x-ratelimit-reset-tokens", "59"),
                ("x-ratelimit-remaining-requests", "7"),
                ("x-ratelimit-reset-requests", "3"),
            ],
            outcome: throttled(59_000),
        },
        Capture {
            of: "December 2023: no retry-after, the odd spelling (openai-python issue 937)",
            status: 429,
            headers: &[
                ("x-rate-limit-reset-tokens", "55"),
                ("apim-request-id", "00000000-0000-4000-8000-000000000000"),
                ("policy-id", "DeploymentRatelimit-Token"),
                ("x-ms-region", "West US"),
                ("x-ratelimit-remaining-requests", "299"),
            ],
            outcome: throttled(55_000),
        },
        Capture {
            of: "a Responses API refusal that says nothing at all (openai-dotnet issue 838)",
            status: 429,
            headers: &[
                ("x-ratelimit-limit-requests", "-1"),
                ("x-ratelimit-remaining-requests", "-1"),
                ("x-ratelimit-reset-requests", "0"),
                ("x-ratelimit-limit-tokens", "-1"),
                ("x-ratelimit-remaining-tokens", "-1"),
                ("x-ratelimit-reset-tokens", "0"),
            ],
            outcome: Outcome::Throttled(Hint::None),
        },
    ]);
}

#[test]
fn the_servers_around_the_service_are_understood() {
    assert_classified(&[
        Capture {
            of: "an OpenAI-like stand-in with durations",
            status: 429,
            headers: &[
                ("retry-after", "2"),
                ("x-ratelimit-reset-requests", "1s"),
                ("x-ratelimit-reset-tokens", "6m0s"),
            ],
            outcome: throttled(2_000),
        },
        Capture {
            of: "the same without retry-after, its tokens spent",
            status: 429,
            headers: &[
                ("x-ratelimit-remaining-requests", "9"),
                ("x-ratelimit-remaining-tokens", "0"),
                ("x-ratelimit-reset-requests", "1s"),
                ("x-ratelimit-reset-tokens", "6m0s"),
            ],
            outcome: throttled(360_000),
        },
        Capture {
            of: "no_capacity without a wait",
            status: 429,
            headers: &[("content-type", "application/json"), ("x-ms-region", "East US 2")],
            outcome: Outcome::Throttled(Hint::None),
        },
        Capture {
            of: "a serverless model, one day over UserByModelByDay and a second",
            status: 429,
            headers: &[("retry-after", "86401")],
            outcome: Outcome::Throttled(Hint::TooLong),
        },
        Capture {
            of: "an API Management rate limit",
            status: 429,
            headers: &[("retry-after", "50"), ("content-type", "application/json")],
            outcome: throttled(50_000),
        },
        Capture {
            of: "an API Management quota",
            status: 403,
            headers: &[("retry-after", "50"), ("content-type", "application/json")],
            // Its body says that it is a refusal.
            outcome: Outcome::Misconfigured,
        },
        Capture {
            of: "an API Management backend pool without a healthy member",
            status: 503,
            headers: &[("content-type", "application/json")],
            outcome: Outcome::Failed,
        },
        Capture {
            of: "a gateway that says when its breaker closes",
            status: 503,
            headers: &[("retry-after", "10")],
            outcome: throttled(10_000),
        },
        Capture {
            of: "a generic Azure front end",
            status: 503,
            headers: &[("x-ms-retry-after-ms", "250")],
            outcome: throttled(250),
        },
    ]);
}

#[test]
fn errors_that_another_attempt_would_meet_again_are_answered() {
    let reset = [("retry-after", "1"), ("x-ratelimit-remaining-tokens", "0")];
    for status in [400, 404, 408, 409, 413, 415, 422] {
        let status = StatusCode::from_u16(status).expect("a status");
        assert_eq!(Outcome::of(status, &head(&reset), never), Outcome::Answered, "{status}");
    }
}
