//! OpenAI's own API.
//!
//! Sources: OpenAI's guides "Error codes" (429 for a rate or a used-up quota; 503 for an overloaded
//! engine and for `slow_down`, which newer endpoints answer with 429) and "Rate limits" (the
//! `x-ratelimit-*` headers, with resets such as `6m0s`); openai-python, `_base_client`, for
//! `retry-after-ms` and `x-should-retry`. Only the body distinguishes a used-up quota from a rate.

use std::time::SystemTime;

use http::{HeaderMap, StatusCode};

use super::{Hint, Limit, Outcome, Reason, Verdict, throttled};

pub(super) fn classify(
    status: StatusCode,
    headers: &HeaderMap,
    now: &dyn Fn() -> SystemTime,
) -> Verdict {
    match status.as_u16() {
        // Daily request limits have windows of hours, so a long wait does not depend on the weight of
        // a request.
        429 => Verdict::new(Outcome::Throttled(Hint::read(headers, now)))
            .of_limit(Limit::spent(headers)),
        // Overload, or too steep a rise in load: both ask for less traffic, with or without a hint.
        503 => throttled(Hint::asked(headers, now), Reason::Capacity),
        // An endpoint is gone, not the backend.
        410 => Outcome::Answered.into(),
        _ => Outcome::of(status, headers, now).into(),
    }
}
