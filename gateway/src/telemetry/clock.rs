//! The only module of telemetry that reads clocks.

use std::time::{Instant, SystemTime};

#[expect(clippy::disallowed_methods, reason = "uptime and the times of calls are counted from it")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The time of day.
#[expect(clippy::disallowed_methods, reason = "people are told when it was")]
pub(crate) fn time_of_day() -> SystemTime {
    SystemTime::now()
}
