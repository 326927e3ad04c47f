//! OpenAI's own API.
//!
//! Sources: OpenAI's guides "Error codes" (429 for a rate or a used-up quota; 503 for an engine that is
//! overloaded and for `slow_down`, which newer endpoints answer with 429) and "Rate limits" (the
//! `x-ratelimit-*` headers, with resets such as `6m0s`); openai-python, `_base_client`, for
//! `retry-after-ms` and `x-should-retry`. A used-up quota is told from a rate by the body alone.

use std::time::SystemTime;

use http::{HeaderMap, StatusCode};

use super::{Hint, Limit, Outcome, Reason, Verdict, throttled};

pub(super) fn classify(
    status: StatusCode,
    headers: &HeaderMap,
    now: &dyn Fn() -> SystemTime,
) -> Verdict {
    match status.as_u16() {
        // Requests per day have windows of hours, so that a long wait says nothing of a request's weight.
        429 => Verdict::new(Outcome::Throttled(Hint::read(headers, now)))
            .of_limit(Limit::spent(headers)),
        // Overloaded, or too steep a rise: both ask for less, with or without a time.
        503 => throttled(Hint::asked(headers, now), Reason::Capacity),
        // Gone is an endpoint, not the backend.
        410 => Outcome::Answered.into(),
        _ => Outcome::of(status, headers, now).into(),
    }
}
