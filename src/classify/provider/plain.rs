//! Plain HTTP servers.
//!
//! Sources: RFC 6585, section 4 (429, which may have `Retry-After`); RFC 9110, sections 10.2.3 and
//! 15.6.4 (`Retry-After` in seconds or as a date, on 503). No other header carries a hint here, and
//! no other status is a refusal.

use std::time::SystemTime;

use http::{HeaderMap, StatusCode};

use super::{Hint, Outcome, Reason, Verdict, by_status, throttled};
use crate::classify::retry_after;

pub(super) fn classify(
    status: StatusCode,
    headers: &HeaderMap,
    now: &dyn Fn() -> SystemTime,
) -> Verdict {
    let asked = || retry_after::seconds_or_date(headers, now);
    match status.as_u16() {
        429 => Outcome::Throttled(asked()).into(),
        503 => match asked() {
            Hint::None => Outcome::Failed.into(),
            hint => throttled(hint, Reason::Capacity),
        },
        _ => by_status(status),
    }
}
