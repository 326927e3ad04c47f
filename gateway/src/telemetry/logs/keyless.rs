//! Limits the log lines that unauthenticated clients can cause.

use std::{
    sync::{Mutex, PoisonError, TryLockError},
    time::{Duration, Instant},
};

/// Decides which requests without a known client are logged: those without a valid key, or with an
/// unknown path. Without a limit, anyone who reaches the port could fill the disk. The metrics
/// count all of them.
#[derive(Debug)]
pub(crate) struct KeylessLines(Mutex<Window>);

#[derive(Debug)]
struct Window {
    begun: Instant,
    logged: u32,
    withheld: u64,
}

impl KeylessLines {
    pub(crate) const fn new(now: Instant) -> Self {
        Self(Mutex::new(Window { begun: now, logged: 0, withheld: 0 }))
    }

    /// Whether to log one more.
    pub(crate) fn take(&self, now: Instant) -> bool {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        window.advance(now);
        let is_logged = window.logged < MAX_LINES_PER_WINDOW;
        if is_logged {
            window.logged += 1;
        } else {
            window.withheld += 1;
        }
        is_logged
    }

    /// Reports the suppressed lines after their window has ended; called periodically.
    pub(crate) fn tell(&self, now: Instant) {
        match self.0.try_lock() {
            Ok(mut window) => window.advance(now),
            Err(TryLockError::Poisoned(window)) => window.into_inner().advance(now),
            // The holder of the lock reports them.
            Err(TryLockError::WouldBlock) => {}
        }
    }
}

impl Window {
    fn advance(&mut self, now: Instant) {
        if now.saturating_duration_since(self.begun) < WINDOW {
            return;
        }
        let Self { withheld, .. } =
            std::mem::replace(self, Self { begun: now, logged: 0, withheld: 0 });
        if withheld > 0 {
            tracing::warn!(
                target: "spillover::log",
                requests = withheld,
                "requests without a key were not logged"
            );
        }
    }
}

const WINDOW: Duration = Duration::from_secs(10);
/// Enough to see who has the wrong key and what they request.
const MAX_LINES_PER_WINDOW: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::clock;

    #[test]
    fn a_window_takes_so_many_and_the_next_one_as_many_again() {
        let now = clock::now();
        let lines = KeylessLines::new(now);
        let taken = |now| (0..500).filter(|_| lines.take(now)).count();
        assert_eq!((taken(now), taken(now + WINDOW / 2)), (100, 0));
        assert_eq!((taken(now + WINDOW), taken(now + WINDOW)), (100, 0));
        lines.tell(now + 2 * WINDOW);
        assert!(lines.take(now + 2 * WINDOW));
    }
}
