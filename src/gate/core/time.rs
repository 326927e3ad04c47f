//! Time in the core: nanoseconds since the gate was made.

use std::time::Duration;

/// Nanoseconds since the gate was made.
pub(crate) type Nanos = i64;

pub(crate) fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e9
}

/// Saturates.
pub(crate) fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

/// Saturates.
pub(super) fn from_seconds(seconds: f64) -> Nanos {
    (seconds * 1e9) as Nanos
}

pub(super) const SECOND: Nanos = 1_000_000_000;
pub(super) const MILLISECOND: Nanos = 1_000_000;
/// Long enough ago to have no effect, and far from overflowing.
pub(super) const NEVER: Nanos = Nanos::MIN / 4;
