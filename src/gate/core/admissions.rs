//! Evidence that the PTU admits: the last admission, and the refusals since.

use super::time::{NEVER, Nanos, seconds};

/// The last admission, and the refusals since.
#[derive(Clone, Debug)]
pub(super) struct Admissions {
    /// Refusals since then. Only an attempt made after the previous refusal was known counts.
    refusals: u32,
    last: Nanos,
}

impl Admissions {
    pub(super) const fn new() -> Self {
        Self { refusals: 0, last: NEVER }
    }

    /// An attempt that was sent at `sent_at` was admitted.
    pub(super) fn on_admitted(&mut self, sent_at: Nanos, refused_at: Nanos) {
        if sent_at > refused_at {
            self.refusals = 0;
        }
        self.last = self.last.max(sent_at);
    }

    pub(super) const fn on_refused(&mut self) {
        self.refusals = self.refusals.saturating_add(1);
    }

    /// Until `now` nothing was known of the PTU, so it admitted everything.
    pub(super) const fn on_first_refusal(&mut self, now: Nanos) {
        (self.refusals, self.last) = (0, now);
    }

    pub(super) const fn refusals(&self) -> u32 {
        self.refusals
    }

    /// The shortest wait to expect, in seconds, because nothing was admitted for that long although
    /// attempts were made. With no other information, what has lasted for some time lasts as long
    /// again, in the median (Gott's rule, also called the Lindy effect). Zero while the gap is normal
    /// for a PTU that admits a request every `fill` seconds.
    pub(super) fn drought(&self, now: Nanos, fill: f64) -> f64 {
        let dry = seconds(now.saturating_sub(self.last));
        let is_dry =
            self.refusals >= MIN_REFUSALS && dry > MIN_DROUGHT_S.max(MIN_DROUGHT_FILLS * fill);
        if is_dry { dry } else { 0.0 }
    }
}

// The table in `core/mod.rs` shows the effect of halving and doubling these.

/// Consecutive refusals, one after the other, that make a drought.
const MIN_REFUSALS: u32 = 3;
/// The shortest drought, in seconds and in times to drain a request.
const MIN_DROUGHT_S: f64 = 1.0;
const MIN_DROUGHT_FILLS: f64 = 4.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::core::time::SECOND;

    fn refused(times: u32) -> Admissions {
        let mut admissions = Admissions::new();
        admissions.on_first_refusal(0);
        (0..times).for_each(|_| admissions.on_refused());
        admissions
    }

    #[test]
    fn what_has_lasted_for_some_time_lasts_as_long_again() {
        assert_eq!(refused(3).drought(4 * SECOND, 0.1), 4.0);
        assert_eq!(refused(3).drought(SECOND, 0.1), 0.0, "a second is ordinary");
        assert_eq!(refused(2).drought(4 * SECOND, 0.1), 0.0, "it was hardly asked");
        assert_eq!(refused(3).drought(4 * SECOND, 2.0), 0.0, "each request takes two seconds");
    }

    #[test]
    fn an_admission_ends_it() {
        let mut admissions = refused(9);
        admissions.on_admitted(5 * SECOND, 4 * SECOND);
        assert_eq!(admissions.drought(9 * SECOND, 0.1), 0.0);
        assert_eq!(admissions.refusals(), 0);
    }

    #[test]
    fn one_that_was_sent_before_the_last_refusal_does_not() {
        let mut admissions = refused(9);
        admissions.on_admitted(SECOND, 4 * SECOND);
        assert_eq!(admissions.refusals(), 9);
        assert_eq!(admissions.drought(9 * SECOND, 0.1), 8.0, "but it began later");
    }
}
