//! How long a refusal asks to wait, and the order of headers that say so.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

use super::{grpc, reset, retry_after};

/// How long the service asks to wait before the next attempt.
///
/// Ordered by length: no hint, zero, the waits, too long. Deliberately exhaustive, so that a `match`
/// on a hint never needs a catch-all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hint {
    /// No legible hint. The caller's own backoff decides.
    None,
    /// The service allows an immediate attempt. It is known to say so while a window is exhausted, so
    /// the next attempt has to count as one.
    Zero,
    /// A wait from 1 ns to [`Hint::LONGEST`]. The consumer should cap it before sleeping.
    After(Duration),
    /// More than [`Hint::LONGEST`], or a server's request not to be tried again.
    TooLong,
}

impl Hint {
    /// The longest wait that is believed: 24 hours, 86,400 s.
    ///
    /// No window of the service is longer (`UserByModelByDay`). The same number also appears as
    /// `retry-after` for ordinary windows of a minute, so consumers cap it much lower.
    pub const LONGEST: Duration = Duration::from_secs(86_400);

    /// Reads the hint of a refusal from its headers, whatever its status.
    ///
    /// The first rule with a nonzero wait wins:
    ///
    /// 1. `retry-after-ms`, then `x-ms-retry-after-ms`: milliseconds, fractions allowed.
    /// 2. `retry-after`: seconds, fractions allowed, or an HTTP-date, compared with `now`. A date
    ///    in the past is zero.
    /// 3. The reset of the exhausted dimension, `x-ratelimit-reset-tokens` or `-requests` (also
    ///    spelled `x-rate-limit-`): seconds, or a duration such as `6m0s`. Zero means nothing here.
    ///    `x-ratelimit-type` names the exhausted dimension, else `policy-id`, else it is the one with
    ///    nothing remaining; if both are exhausted, the later reset counts. If none of these decides, it is
    ///    the earlier reset among those not known to have something remaining: an early attempt costs
    ///    one refusal, a late one idles capacity.
    ///
    /// A zero from the first two rules is remembered, and returned if no other rule gives a wait.
    ///
    /// A value that is negative, empty or not a number is ignored; a number too large to represent is
    /// [`TooLong`](Self::TooLong). Of repeated headers, or of a list, the longest legible value wins,
    /// since the longest wait is early for none of them.
    ///
    /// `now` is called at most once, and only for an HTTP-date.
    pub fn read(headers: &HeaderMap, now: impl FnOnce() -> SystemTime) -> Self {
        retry_after::read(headers, now).or_longer(|| reset::read(headers))
    }

    /// The explicit hint of `headers`, without rate-limit resets, which a success has, too.
    pub(crate) fn asked(headers: &HeaderMap, now: impl FnOnce() -> SystemTime) -> Self {
        grpc::dictated(headers).unwrap_or_else(|| retry_after::read(headers, now))
    }

    /// The wait itself; `None` without a hint, or for an unlimited one.
    #[must_use]
    pub const fn duration(self) -> Option<Duration> {
        match self {
            Self::Zero => Some(Duration::ZERO),
            Self::After(wait) => Some(wait),
            Self::None | Self::TooLong => None,
        }
    }

    /// Whether it does not say how long to wait.
    pub(crate) const fn lacks_time(self) -> bool {
        matches!(self, Self::None | Self::Zero)
    }

    /// Whether it is longer than any window of the service's limits, which last a minute at most.
    pub(crate) const fn is_beyond_windows(self) -> bool {
        match self {
            Self::After(wait) => wait.as_secs() > 60,
            Self::TooLong => true,
            Self::None | Self::Zero => false,
        }
    }

    /// A number of seconds from the network. A negative one is [`Hint::None`].
    pub(super) fn from_seconds(seconds: f64) -> Self {
        if seconds == 0.0 {
            return Self::Zero;
        }
        if seconds.is_nan() || seconds < 0.0 {
            return Self::None;
        }
        if seconds > Self::LONGEST.as_secs_f64() {
            return Self::TooLong;
        }
        // Rounds to the nearest nanosecond, which keeps whole milliseconds exact up to the cap.
        let wait = Duration::try_from_secs_f64(seconds);
        wait.map_or(Self::TooLong, |wait| Self::After(wait.max(NANOSECOND)))
    }

    pub(super) fn from_wait(wait: Duration) -> Self {
        if wait.is_zero() {
            Self::Zero
        } else if wait > Self::LONGEST {
            Self::TooLong
        } else {
            Self::After(wait)
        }
    }

    /// This hint if it is nonzero, else the longer of it and that of the next rule.
    pub(super) fn or_longer(self, next: impl FnOnce() -> Self) -> Self {
        match self {
            Self::None | Self::Zero => self.max(next()),
            Self::After(_) | Self::TooLong => self,
        }
    }
}

const NANOSECOND: Duration = Duration::from_nanos(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hints_are_ordered_by_the_length_of_the_wait() {
        let ladder = [
            Hint::None,
            Hint::Zero,
            Hint::After(NANOSECOND),
            Hint::After(Hint::LONGEST),
            Hint::TooLong,
        ];
        assert!(ladder.is_sorted());
    }

    #[test]
    fn only_a_zero_and_a_value_have_a_duration() {
        assert_eq!(Hint::None.duration(), None);
        assert_eq!(Hint::Zero.duration(), Some(Duration::ZERO));
        assert_eq!(Hint::After(NANOSECOND).duration(), Some(NANOSECOND));
        assert_eq!(Hint::TooLong.duration(), None);
    }

    #[test]
    fn a_day_is_believed_and_a_nanosecond_more_is_not() {
        assert_eq!(Hint::from_seconds(86_400.0), Hint::After(Hint::LONGEST));
        assert_eq!(Hint::from_seconds(86_400.001), Hint::TooLong);
        assert_eq!(Hint::from_wait(Hint::LONGEST), Hint::After(Hint::LONGEST));
        assert_eq!(Hint::from_wait(Hint::LONGEST + NANOSECOND), Hint::TooLong);
    }

    #[test]
    fn a_vanishing_wait_is_a_nanosecond_and_a_negative_one_is_none() {
        assert_eq!(Hint::from_seconds(f64::MIN_POSITIVE), Hint::After(NANOSECOND));
        assert_eq!(Hint::from_seconds(-f64::MIN_POSITIVE), Hint::None);
        assert_eq!(Hint::from_seconds(-0.0), Hint::Zero);
        assert_eq!(Hint::from_seconds(f64::NEG_INFINITY), Hint::None);
        assert_eq!(Hint::from_seconds(f64::INFINITY), Hint::TooLong);
        assert_eq!(Hint::from_seconds(f64::NAN), Hint::None);
    }

    #[test]
    fn a_later_rung_is_asked_only_after_none_or_zero() {
        let wait = Hint::After(NANOSECOND);
        assert_eq!(wait.or_longer(|| unreachable!()), wait);
        assert_eq!(Hint::TooLong.or_longer(|| unreachable!()), Hint::TooLong);
        assert_eq!(Hint::Zero.or_longer(|| Hint::None), Hint::Zero);
        assert_eq!(Hint::Zero.or_longer(|| wait), wait);
        assert_eq!(Hint::None.or_longer(|| wait), wait);
    }

    proptest! {
        #[test]
        fn any_number_of_seconds_is_a_hint_within_bounds(seconds in any::<f64>()) {
            match Hint::from_seconds(seconds) {
                Hint::After(wait) => prop_assert!(!wait.is_zero() && wait <= Hint::LONGEST),
                Hint::Zero => prop_assert_eq!(seconds, 0.0),
                Hint::None => prop_assert!(seconds.is_nan() || seconds < 0.0),
                Hint::TooLong => prop_assert!(seconds > 86_400.0),
            }
        }
    }
}
