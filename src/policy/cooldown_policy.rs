//! How long a backend cools down after a refusal: the decision of `RegionRotateLayer`.

use std::time::Duration;

use crate::classify::{Hint, Outcome};

/// How long a backend cools down after a refusal, and how long it is deferred after a failure, that
/// is, called only after the others.
///
/// ```
/// use std::time::Duration;
/// use tower_spillover::{classify::{Hint, Outcome}, policy::CooldownPolicy};
///
/// let day = Outcome::Throttled(Hint::After(Duration::from_secs(86_400)));
/// assert_eq!(CooldownPolicy::default().after(day), Duration::from_secs(60));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CooldownPolicy {
    longest: Duration,
    unknown: Duration,
    failed: Duration,
    misconfigured: [Duration; 2],
}

impl CooldownPolicy {
    /// The longest cooldown, whatever the backend asks for. Defaults to 60 s: Azure's windows are no
    /// longer, and the `retry-after: 86400` that it sends for some of them would otherwise park a
    /// region for a day.
    #[must_use]
    pub const fn longest(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    /// The cooldown after a refusal without a hint. Defaults to 1 s: trying again costs one refused
    /// attempt, staying away costs the capacity of a region.
    #[must_use]
    pub const fn unknown(mut self, unknown: Duration) -> Self {
        self.unknown = unknown;
        self
    }

    /// How long a backend is deferred after it was found to fail, or its credential could not be
    /// obtained. Defaults to 1 s, since a restart takes less. It doubles each time the backend is
    /// found to fail without an answer in between, up to the longest.
    #[must_use]
    pub const fn failed(mut self, failed: Duration) -> Self {
        self.failed = failed;
        self
    }

    /// How long a backend is deferred after it was found to be
    /// [misconfigured](Outcome::Misconfigured): first, and at most, since it doubles each time a
    /// probe finds it unchanged.
    ///
    /// Defaults to a minute and an hour. A role assignment takes minutes to take effect and a new
    /// deployment up to five, so a repaired one is found soon; one that stays misconfigured costs one
    /// attempt an hour.
    #[must_use]
    pub const fn misconfigured(mut self, first: Duration, longest: Duration) -> Self {
        self.misconfigured = [first, longest];
        self
    }

    /// The cooldown after `outcome`.
    pub fn after(&self, outcome: Outcome) -> Duration {
        let rest = match outcome {
            Outcome::Answered
            | Outcome::ContextTooLong
            | Outcome::TierNotOffered
            | Outcome::Late => return Duration::ZERO,
            Outcome::Misconfigured => return self.after_misconfigured(1),
            Outcome::Throttled(Hint::After(wait)) => wait,
            Outcome::Throttled(Hint::TooLong) => self.longest,
            // Zero with a refusal is a rounding error, but the backend expects to reopen immediately.
            Outcome::Throttled(Hint::Zero) => COOLDOWN_AFTER_ZERO,
            Outcome::Throttled(Hint::None) => self.unknown,
            Outcome::Failed => self.failed,
        };
        rest.min(self.longest)
    }

    /// The cooldown of a backend whose quota is used up, whatever it asks for: the longest. No
    /// request can wait for an account to be refilled; one request a minute checks whether it was.
    pub(crate) const fn after_quota(&self) -> Duration {
        self.longest
    }

    /// How long a backend is deferred that was found to fail this many times in a row, from 1.
    pub(crate) fn after_failures(&self, failures: u32) -> Duration {
        doubled(self.failed, failures).min(self.longest)
    }

    /// How long a backend is deferred that was found to be misconfigured this many times in a row,
    /// from 1.
    pub(crate) fn after_misconfigured(&self, times: u32) -> Duration {
        let [first, longest] = self.misconfigured;
        doubled(first, times).min(longest)
    }
}

impl Default for CooldownPolicy {
    fn default() -> Self {
        Self {
            longest: Duration::from_secs(60),
            unknown: Duration::from_secs(1),
            failed: Duration::from_secs(1),
            misconfigured: [Duration::from_secs(60), Duration::from_secs(3_600)],
        }
    }
}

/// `first`, doubled for every time after the first.
fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1u32.checked_shl(times.saturating_sub(1)).unwrap_or(u32::MAX))
}

/// Prevents a busy loop at a backend that keeps refusing with a hint of zero. A PTU's bucket that was
/// full a tenth of a second ago is not empty yet, so no capacity goes unused.
const COOLDOWN_AFTER_ZERO: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_obeyed_up_to_the_cap() {
        let policy = CooldownPolicy::default().longest(Duration::from_secs(10));
        let after = |hint| policy.after(Outcome::Throttled(hint));
        assert_eq!(after(Hint::After(Duration::from_millis(43))), Duration::from_millis(43));
        assert_eq!(after(Hint::After(Duration::from_secs(11))), Duration::from_secs(10));
        assert_eq!(after(Hint::TooLong), Duration::from_secs(10));
        assert_eq!(after(Hint::None), Duration::from_secs(1));
        assert_eq!(after(Hint::Zero), COOLDOWN_AFTER_ZERO);
    }

    #[test]
    fn an_answer_needs_no_rest_and_a_failure_a_short_one() {
        assert_eq!(CooldownPolicy::default().after(Outcome::Answered), Duration::ZERO);
        assert_eq!(CooldownPolicy::default().after(Outcome::Failed), Duration::from_secs(1));
    }

    // Lesson 22: eviction times multiplied without a cap.
    #[test]
    fn a_rest_doubles_with_every_failure_in_a_row_and_not_beyond_the_longest() {
        let policy = CooldownPolicy::default();
        let seconds =
            [0, 1, 2, 3, 6, 7, 8, 33, u32::MAX].map(|n| policy.after_failures(n).as_secs());
        assert_eq!(seconds, [1, 1, 2, 4, 32, 60, 60, 60, 60]);
    }

    #[test]
    fn what_is_misconfigured_policy_for_minutes_and_not_beyond_its_own_longest() {
        let policy = CooldownPolicy::default().longest(Duration::from_secs(5));
        let minutes =
            [1, 2, 3, 6, 7, u32::MAX].map(|n| policy.after_misconfigured(n).as_secs() / 60);
        assert_eq!(minutes, [1, 2, 4, 32, 60, 60]);
    }
}
