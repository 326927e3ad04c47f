//! Joins the events of a burst into one write.

use std::time::{Duration, Instant};

/// Decides whether written events wait for the next ones, which are already here.
///
/// A backend's connection and its client's are two tasks that take turns, one event each: without
/// this, every event of a burst is a system call. An event that follows the last write closely waits
/// while each turn of the other tasks brings another event, and never for one that has not arrived.
#[derive(Debug, Default)]
pub(super) struct Burst {
    /// When events were written last.
    wrote_at: Option<Instant>,
    /// Since when events have been waiting.
    waiting_since: Option<Instant>,
}

impl Burst {
    /// Whether what is to be written waits for another turn. `has_event` is whether there is an event
    /// that was not there in the last call.
    pub(super) fn waits(&mut self, has_event: bool, now: impl FnOnce() -> Instant) -> bool {
        if !has_event && self.waiting_since.is_none() {
            return false;
        }
        let now = now();
        let since = *self.waiting_since.get_or_insert(now);
        let is_close = |at| since.saturating_duration_since(at) < CLOSE;
        let is_young = now.saturating_duration_since(since) < LONGEST_WAIT;
        if has_event && is_young && self.wrote_at.is_some_and(is_close) {
            return true;
        }
        *self = Self { wrote_at: Some(now), waiting_since: None };
        false
    }
}

/// Events further apart are written at once: a model generates a token in several milliseconds.
const CLOSE: Duration = Duration::from_micros(500);
/// However many events there are.
const LONGEST_WAIT: Duration = Duration::from_micros(500);

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether each write waits, which comes so many microseconds after the first one, with an event
    /// or without.
    fn waits<const N: usize>(writes: [(u64, bool); N]) -> [bool; N] {
        #[expect(clippy::disallowed_methods, reason = "an instant to count from")]
        let begin = Instant::now();
        let mut burst = Burst::default();
        writes.map(|(at, has_event)| burst.waits(has_event, || begin + Duration::from_micros(at)))
    }

    #[test]
    fn the_events_of_a_burst_wait_for_the_next_until_there_is_none() {
        let writes = [(0, true), (9, true), (18, true), (20, false), (21, false), (30, true)];
        assert_eq!(waits(writes), [false, true, true, false, false, true]);
    }

    #[test]
    fn events_that_are_apart_are_written_at_once() {
        assert_eq!(waits([(0, true), (600, true), (1_200, true)]), [false; 3]);
        assert_eq!(waits([(0, false), (1, false), (2, true)]), [false; 3], "the first one");
    }

    #[test]
    fn a_burst_without_end_is_written_in_time() {
        let writes = [(0, true), (100, true), (350, true), (599, true), (600, true), (700, true)];
        assert_eq!(waits(writes), [false, true, true, true, false, true]);
    }
}
