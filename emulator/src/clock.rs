//! The emulator's clock: time since its creation, and sleeping until a deadline.

use std::{pin::Pin, time::Duration};

use tokio::time::{Instant, Sleep};

/// Time since the emulator's creation, so that the state machines need no instants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    epoch: Instant,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "a server has a clock of its own")]
    pub(crate) fn start() -> Self {
        Self { epoch: Instant::now() }
    }

    #[expect(clippy::disallowed_methods, reason = "a server has a clock of its own")]
    pub(crate) fn now(self) -> Duration {
        Instant::now().saturating_duration_since(self.epoch)
    }

    /// Unix seconds for `created` fields: a fixed date plus the elapsed time, so that a replay
    /// under a paused clock prints the same bytes each time.
    pub(crate) fn unix_seconds(self) -> u64 {
        FIRST_DAY.saturating_add(self.now().as_secs())
    }

    #[expect(clippy::disallowed_methods, reason = "a server has a clock of its own")]
    pub(crate) fn sleep_until(self, at: Duration) -> Pin<Box<Sleep>> {
        let due = self.epoch.checked_add(at.min(FOREVER)).unwrap_or(self.epoch);
        Box::pin(tokio::time::sleep_until(due))
    }
}

/// 2026-01-01T00:00:00Z.
const FIRST_DAY: u64 = 1_767_225_600;
/// Ten years: longer than any test, and within every platform's range of instants.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 86_400);
