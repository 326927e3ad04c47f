//! Mistral's API.
//!
//! Sources: Mistral's page "Error glossary" (429 with `Retry-After`; 402, 403 and 503), and heads
//! from mistralai/client-ts issue 169 (`x-ratelimit-remaining-req-minute`, `-tokens-minute`) and
//! tidyllm's recorded answers (`x-ratelimitbysize-remaining-minute`, `ratelimitbysize-reset` in
//! seconds).

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, StatusCode};

use super::{Hint, Limit, Outcome, Verdict, by_status, throttled};
use crate::classify::{Reason, number, retry_after};

pub(super) fn classify(
    status: StatusCode,
    headers: &HeaderMap,
    now: &dyn Fn() -> SystemTime,
) -> Verdict {
    match status.as_u16() {
        429 => {
            let hint = retry_after::read(headers, now).or_longer(|| reset(headers));
            Verdict::new(Outcome::Throttled(hint)).of_limit(spent(headers))
        }
        503 => match retry_after::read(headers, now) {
            Hint::None => by_status(status),
            hint => throttled(hint, Reason::Capacity),
        },
        _ => by_status(status),
    }
}

/// When the token limit is reset, if that is the exhausted one.
fn reset(headers: &HeaderMap) -> Hint {
    let is_for_calls = spent(headers) == Some(Limit::Calls);
    let seconds = value(headers, &TOKENS_RESET).filter(|seconds| !is_for_calls && *seconds > 0.0);
    seconds.map_or(Hint::None, Hint::from_seconds)
}

fn spent(headers: &HeaderMap) -> Option<Limit> {
    let is_spent = |names: &'static [HeaderName]| {
        names.iter().any(|name| value(headers, name).is_some_and(|left| left <= 0.0))
    };
    if is_spent(&CALLS_LEFT) {
        Some(Limit::Calls)
    } else {
        is_spent(&TOKENS_LEFT).then_some(Limit::Tokens)
    }
}

fn value(headers: &HeaderMap, name: &HeaderName) -> Option<f64> {
    number::parse(headers.get(name)?.as_bytes())
}

static CALLS_LEFT: [HeaderName; 2] = [
    HeaderName::from_static("x-ratelimit-remaining-req-minute"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
];
static TOKENS_LEFT: [HeaderName; 4] = [
    HeaderName::from_static("x-ratelimit-remaining-tokens-minute"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimitbysize-remaining-minute"),
    HeaderName::from_static("ratelimitbysize-remaining"),
];
static TOKENS_RESET: HeaderName = HeaderName::from_static("ratelimitbysize-reset");
