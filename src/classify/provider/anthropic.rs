//! Anthropic's API.
//!
//! Sources: Anthropic's pages "Errors" (429 `rate_limit_error`, 529 `overloaded_error`, 504
//! `timeout_error`) and "Rate limits" (`retry-after` in seconds; limit, remaining and reset of requests,
//! tokens, input and output tokens, resets in RFC 3339); anthropic-sdk-typescript issue 357, a 429 without
//! `retry-after`, with the reset of its requests. Microsoft's page "Anthropic 529 overloaded_error" has the
//! 429 of a spend limit, which asks for no wait and says why in its body.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, StatusCode, header::DATE};

use super::{Hint, Limit, Outcome, Reason, Verdict, by_status, throttled, timestamp};
use crate::classify::{number, retry_after};

pub(super) fn classify(
    status: StatusCode,
    headers: &HeaderMap,
    now: &dyn Fn() -> SystemTime,
) -> Verdict {
    match status.as_u16() {
        429 => {
            let hint = retry_after::read(headers, now).or_longer(|| reset(headers, now));
            Verdict::new(Outcome::Throttled(hint)).of_limit(spent(headers))
        }
        529 => throttled(retry_after::read(headers, now), Reason::Capacity),
        _ => match retry_after::read(headers, now) {
            // Like Anthropic's client libraries, which wait for any 5xx with a hint.
            hint if status.is_server_error() && hint != Hint::None => {
                throttled(hint, Reason::Unknown)
            }
            _ => by_status(status),
        },
    }
}

/// A limit that is counted, and the names of its headers.
struct CountedLimit {
    limit: Limit,
    remaining: HeaderName,
    reset: HeaderName,
}

macro_rules! dimension {
    ($limit:ident, $name:literal) => {
        CountedLimit {
            limit: Limit::$limit,
            remaining: HeaderName::from_static(concat!(
                "anthropic-ratelimit-",
                $name,
                "-remaining"
            )),
            reset: HeaderName::from_static(concat!("anthropic-ratelimit-", $name, "-reset")),
        }
    };
}

/// Without `anthropic-priority-*`: a request beyond the priority tier's capacity continues in the
/// standard tier, so these limits never cause a refusal.
static DIMENSIONS: [CountedLimit; 4] = [
    dimension!(Calls, "requests"),
    dimension!(Tokens, "tokens"),
    dimension!(Tokens, "input-tokens"),
    dimension!(Tokens, "output-tokens"),
];

/// What remains of a limit; `None` if the head does not say.
fn remaining(headers: &HeaderMap, dimension: &CountedLimit) -> Option<f64> {
    number::parse(headers.get(&dimension.remaining)?.as_bytes())
}

/// The exhausted limit: that of calls if it is one of several, since a lighter request would be
/// refused too.
fn spent(headers: &HeaderMap) -> Option<Limit> {
    let is_spent = |it: &&CountedLimit| remaining(headers, it).is_some_and(|left| left <= 0.0);
    let spent = DIMENSIONS.iter().filter(is_spent).map(|dimension| dimension.limit);
    spent.min_by_key(|limit| *limit == Limit::Tokens)
}

/// When every exhausted limit has been reset. If none is known to be exhausted, the earliest reset
/// among the limits with an unknown remainder.
fn reset(headers: &HeaderMap, now: &dyn Fn() -> SystemTime) -> Hint {
    let mut asked_at = None;
    let (mut latest, mut soonest) = (None, None::<Duration>);
    for dimension in &DIMENSIONS {
        let left = remaining(headers, dimension);
        if left.is_some_and(|left| left > 0.0) {
            continue;
        }
        let Some(reset) = headers.get(&dimension.reset).and_then(timestamp::read) else { continue };
        // Measure the reset by the server's clock, which may differ from this machine's.
        let from = *asked_at.get_or_insert_with(|| date(headers).unwrap_or_else(now));
        let Some(wait) = reset.duration_since(from).ok().filter(|wait| !wait.is_zero()) else {
            continue;
        };
        match left {
            Some(_) => latest = latest.max(Some(wait)),
            None => soonest = Some(soonest.map_or(wait, |known| known.min(wait))),
        }
    }
    latest.or(soonest).map_or(Hint::None, Hint::from_wait)
}

fn date(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()
}
