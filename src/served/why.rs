//! Why a request waited, spilled or was refused: one name for one event.

use std::{fmt, num::NonZeroU32, time::Duration};

use super::Attempt;
use crate::classify::{Outcome, Reason};

/// Why a request waited, spilled to the fallback, or was refused.
///
/// The same reason has the same name wherever it is shown. `Display` shows the [label](Self::label)
/// with the figures that decided: `queue (4.3s > 4s)` is a predicted wait of 4.3 s when 4 s were
/// left.
///
/// ```
/// use tower_spillover::{Served, served::Why};
///
/// # fn log(served: &Served) {
/// match served.why_spilled() {
///     Some(Why::Queue(times)) => println!("{:?} behind others", times.time()),
///     Some(why) => println!("{why}"), // hint (20s > 3.9s)
///     None => {}
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// The primary refused, or is remembered to refuse, for this time, which is its hint or, without
    /// one, an assumption. The limit is what was left of `max_wait`.
    Hint(TimeAndLimit),
    /// The gate predicts this wait behind the requests in its queue. The limit is what is left of
    /// `max_wait`, or the part of it that is worth waiting.
    Queue(TimeAndLimit),
    /// Like [`Queue`](Self::Queue), with the limit cut because the queue has been standing for longer
    /// than [`standing_queue_interval`](crate::Gate::standing_queue_interval).
    StandingQueue(TimeAndLimit),
    /// It waited, and its time was up before its turn. The time is that since its arrival, the limit
    /// its `max_wait`, of which a little is reserved for the spill.
    Deadline(TimeAndLimit),
    /// The tier refuses its kind of traffic (images, batches, another service tier) for this time,
    /// but not others.
    Kind(TimeAndLimit),
    /// The tier refuses requests of about this many tokens or more; a lighter one would have been
    /// sent.
    Weight(NonZeroU32),
    /// Other requests already wait for the service to reopen.
    Behind,
    /// Its `max_wait` is zero: its own, its class's, or the layer's.
    NeverWaits,
    /// Its class [never spills](crate::wait::Class::never_spill).
    NeverSpills,
    /// It is pinned to a resource of this tier alone; see [`Sticky`](crate::Sticky).
    Sticky,
    /// The [budget of spills](crate::smart_fallback::SpillBudget) is spent.
    SpillBudget,
    /// The [budget of moves after failures](crate::policy::MoveOn::budget) is spent.
    RetryBudget,
    /// No attempt is left: by its [`AttemptBudget`](crate::AttemptBudget), the limit of the pool, or
    /// that of the gate.
    Attempts,
    /// Its body cannot be sent again.
    NotReplayable,
    /// The quota is used up.
    Quota,
    /// The service forbids a retry: `x-should-retry: false`.
    Forbidden,
    /// It is too long for the deployment.
    ContextLength,
    /// The deployment does not offer its service tier.
    ServiceTier,
    /// The backend rejects its credential, or lacks the deployment.
    Misconfigured,
    /// The attempt failed.
    Failed,
    /// The primary failed so often lately that the fallback is called first.
    Failing,
    /// A backend could not be connected to.
    Unreachable,
    /// The first token was late.
    FirstTokenLate,
    /// Azure spilled it within the requested resource.
    ByAzure,
    /// A custom [`FallbackPolicy`](crate::policy::FallbackPolicy) decided it.
    Policy,
    /// The fallback refuses as well.
    FallbackClosed,
    /// No backend of the pool is open to it. The time is that until the first one reopens; the limit
    /// is zero, since a pool does not wait.
    AllClosed(TimeAndLimit),
    /// The backend refused it for its token or call limit.
    Rate,
    /// The backend's region has no capacity left for the model.
    Capacity,
}

/// A time, and the limit that it was compared with, both to the millisecond.
///
/// `Display` shows `4.3s > 4s` if the time exceeds the limit, and `43ms of 4s` if it fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeAndLimit {
    time: Millis,
    limit: Millis,
}

/// Milliseconds, at most 49 days. Small, because every response carries an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Millis(u32);

impl Why {
    /// The name, from a closed set: suitable as a metric label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Hint(_) => "hint",
            Self::Queue(_) => "queue",
            Self::StandingQueue(_) => "standing-queue",
            Self::Deadline(_) => "deadline",
            Self::Kind(_) => "kind",
            Self::Weight(_) => "weight",
            Self::Behind => "behind",
            Self::NeverWaits => "never-waits",
            Self::NeverSpills => "never-spills",
            Self::Sticky => "sticky",
            Self::SpillBudget => "spill-budget",
            Self::RetryBudget => "retry-budget",
            Self::Attempts => "attempts",
            Self::NotReplayable => "not-replayable",
            Self::Quota => "quota",
            Self::Forbidden => "forbidden",
            Self::ContextLength => "context-length",
            Self::ServiceTier => "service-tier",
            Self::Misconfigured => "misconfigured",
            Self::Failed => "failed",
            Self::Failing => "failing",
            Self::Unreachable => "unreachable",
            Self::FirstTokenLate => "first-token-late",
            Self::ByAzure => "by-azure",
            Self::Policy => "policy",
            Self::FallbackClosed => "fallback-closed",
            Self::AllClosed(_) => "all-closed",
            Self::Rate => "rate",
            Self::Capacity => "capacity",
        }
    }

    /// The time that decided and its limit, if there is one.
    pub const fn times(&self) -> Option<TimeAndLimit> {
        match *self {
            Self::Hint(times)
            | Self::Queue(times)
            | Self::StandingQueue(times)
            | Self::Deadline(times)
            | Self::Kind(times)
            | Self::AllClosed(times) => Some(times),
            _ => None,
        }
    }

    /// The smallest number of tokens that is refused, if that was the reason.
    pub const fn tokens(&self) -> Option<u32> {
        match self {
            Self::Weight(from) => Some(from.get()),
            _ => None,
        }
    }

    /// Why `attempt` was not answered for the caller.
    pub(super) fn of(attempt: &Attempt) -> Option<Self> {
        match attempt.outcome {
            Outcome::Answered => None,
            Outcome::Late => Some(Self::FirstTokenLate),
            Outcome::Failed => Some(Self::Failed),
            Outcome::ContextTooLong => Some(Self::ContextLength),
            Outcome::TierNotOffered => Some(Self::ServiceTier),
            Outcome::Misconfigured => Some(Self::Misconfigured),
            Outcome::Throttled(_) => Some(match attempt.reason {
                Some(Reason::Capacity) => Self::Capacity,
                Some(Reason::Quota) => Self::Quota,
                Some(Reason::ContextLength) => Self::ContextLength,
                Some(Reason::ServiceTier) => Self::ServiceTier,
                Some(Reason::Misconfigured) => Self::Misconfigured,
                Some(Reason::Rate | Reason::Content | Reason::Unknown) | None => Self::Rate,
            }),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())?;
        match self {
            Self::Weight(from) => write!(f, " (from {from} tokens)"),
            _ => self.times().map_or(Ok(()), |times| write!(f, " ({times})")),
        }
    }
}

impl TimeAndLimit {
    /// Rounded so that a time that exceeds its limit is also shown to exceed it, and one that fits to
    /// fit.
    pub(crate) fn new(time: Duration, limit: Duration) -> Self {
        match time > limit {
            true => Self { time: Millis::ceil(time), limit: Millis::floor(limit) },
            false => Self { time: Millis::floor(time), limit: Millis::ceil(limit) },
        }
    }

    /// The same in seconds, which may be infinite.
    pub(crate) fn from_seconds(time: f64, limit: f64) -> Self {
        let duration =
            |seconds: f64| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
        Self::new(duration(time), duration(limit))
    }

    /// The time.
    pub const fn time(&self) -> Duration {
        self.time.duration()
    }

    /// The limit.
    pub const fn limit(&self) -> Duration {
        self.limit.duration()
    }
}

impl fmt::Display for TimeAndLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relation = if self.time > self.limit { ">" } else { "of" };
        write!(f, "{} {relation} {}", self.time, self.limit)
    }
}

impl Millis {
    const fn duration(self) -> Duration {
        Duration::from_millis(self.0 as u64)
    }

    fn floor(time: Duration) -> Self {
        Self(u32::try_from(time.as_millis()).unwrap_or(u32::MAX))
    }

    fn ceil(time: Duration) -> Self {
        Self::floor(time.saturating_add(Duration::from_nanos(999_999)))
    }
}

/// Formatted like a setting: `43ms`, `4.3s`.
impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0s"),
            _ => write!(f, "{:?}", self.duration()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn times(time: Duration, limit: Duration) -> TimeAndLimit {
        TimeAndLimit::new(time, limit)
    }

    #[test]
    fn a_reason_is_displayed_with_the_figures_that_decided() {
        for (why, expected) in [
            (Why::Queue(times(4_300 * MS, 4_000 * MS)), "queue (4.3s > 4s)"),
            (Why::Hint(times(43 * MS, 4_000 * MS)), "hint (43ms of 4s)"),
            (Why::Weight(NonZeroU32::new(52_000).unwrap()), "weight (from 52000 tokens)"),
            (Why::AllClosed(times(1_500 * MS, Duration::ZERO)), "all-closed (1.5s > 0s)"),
            (Why::NeverSpills, "never-spills"),
        ] {
            assert_eq!(why.to_string(), expected);
        }
    }

    #[test]
    fn what_exceeds_its_limit_by_less_than_a_millisecond_is_displayed_so() {
        let (four, more) = (4_000 * MS, 4_000 * MS + Duration::from_nanos(1));
        assert_eq!(times(more, four).to_string(), "4.001s > 4s");
        assert_eq!(times(four, more).to_string(), "4s of 4.001s");
        assert_eq!(times(four, four).to_string(), "4s of 4s");
    }

    #[test]
    fn no_figure_is_too_large() {
        let endless = TimeAndLimit::from_seconds(f64::INFINITY, 4.0);
        assert_eq!(endless.time(), Millis(u32::MAX).duration());
        assert_eq!(times(Duration::MAX, Duration::MAX).to_string(), "4294967.295s of 4294967.295s");
        assert_eq!(TimeAndLimit::from_seconds(f64::NAN, -1.0).to_string(), "0s of 0s");
    }

    #[test]
    fn it_takes_little_room_in_every_response() {
        assert_eq!(size_of::<Option<Why>>(), 12);
    }
}
