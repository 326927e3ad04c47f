//! The log lines that anybody can cause, so many a second.

use std::{
    sync::{Mutex, PoisonError, TryLockError},
    time::{Duration, Instant},
};

/// Which requests of nobody's are logged: those with no key in use, or to no place that there is.
/// Without a bound, whoever reaches the port fills the disk. They are all counted in the metrics.
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

    /// Whether one more is logged.
    pub(crate) fn take(&self, now: Instant) -> bool {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        window.advance(now);
        let is_logged = window.logged < MOST_IN_WINDOW;
        if is_logged {
            window.logged += 1;
        } else {
            window.withheld += 1;
        }
        is_logged
    }

    /// Tells of those that were withheld, once their time is over; to be asked now and then.
    pub(crate) fn tell(&self, now: Instant) {
        match self.0.try_lock() {
            Ok(mut window) => window.advance(now),
            Err(TryLockError::Poisoned(window)) => window.into_inner().advance(now),
            // Whoever holds it does that.
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
/// Enough to see who has the wrong key and what it asks for.
const MOST_IN_WINDOW: u32 = 100;

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
