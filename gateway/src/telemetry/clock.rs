//! The one place of telemetry that reads the monotonic clock.

use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "uptime and the times of calls are counted from it")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
