//! The minute and ten-second counters of a Standard deployment.

use std::time::Duration;

use crate::Refusal;

/// The quota of a Standard deployment.
///
/// Follows the Azure page "Manage quota": the estimate of a request (prompt and `max_tokens`) is
/// added to a counter on arrival; once the counter has reached the tokens per minute, requests are
/// refused until it is reset. Requests per minute are enforced over windows of ten seconds. Refused
/// and failed requests count as requests too, so frequent retries make things worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standard {
    tokens: Option<u64>,
    requests: Option<u64>,
    /// The hint of refusals for a request's size.
    too_large_for: Option<Duration>,
}

impl Standard {
    /// A limit on tokens per minute (at least 1), and 6 requests per minute for every 1,000 of
    /// them, Azure's ratio.
    pub const fn tokens_per_minute(tokens: u64) -> Self {
        let requests = (tokens / 1_000).saturating_mul(6);
        Self {
            tokens: Some(if tokens == 0 { 1 } else { tokens }),
            requests: Some(if requests == 0 { 1 } else { requests }),
            too_large_for: None,
        }
    }

    /// No limits and no `x-ratelimit-*` headers.
    pub const fn unlimited() -> Self {
        Self { tokens: None, requests: None, too_large_for: None }
    }

    /// Sets the requests per minute instead of the default; each window of ten seconds allows its
    /// share, at least 1.
    #[must_use]
    pub const fn requests_per_minute(mut self, requests: u64) -> Self {
        self.requests = Some(requests);
        self
    }

    /// Refuses a request that is larger than the remaining tokens, always with this hint, instead
    /// of letting the last one overshoot: the service was observed to send 86,400 s while smaller
    /// requests continued to pass.
    #[must_use]
    pub const fn refuses_by_size(mut self, hint: Duration) -> Self {
        self.too_large_for = Some(hint);
        self
    }
}

/// One counter, in the form of the `x-ratelimit-*` headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) limit: u64,
    /// Negative after the last admitted request overshot, as the service sends it.
    pub(crate) remaining: i64,
    pub(crate) reset: Duration,
    pub(crate) period: Duration,
}

/// Both counters; windows start with the first request and follow each other without gaps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    begun: Option<Duration>,
    tokens: Option<Counter>,
    requests: Option<Counter>,
    too_large_for: Option<Duration>,
}

impl Windows {
    pub(crate) fn new(quota: Standard) -> Self {
        let per_ten_seconds = |requests: u64| (requests / 6).max(1);
        Self {
            begun: None,
            tokens: quota.tokens.map(|limit| Counter::new(limit, MINUTE)),
            requests: quota.requests.map(|limit| Counter::new(per_ten_seconds(limit), TEN_SECONDS)),
            too_large_for: quota.too_large_for,
        }
    }

    /// Counts a request of `tokens`; refuses it if a counter had already reached its limit.
    ///
    /// A refused request counts as a request; counting its tokens would make the hint too short.
    pub(crate) fn admit(&mut self, now: Duration, tokens: u64) -> Result<(), (Duration, Refusal)> {
        let age = self.age(now);
        let mut refused: Option<(Duration, Refusal)> = None;
        let counters = [(Refusal::Calls, &mut self.requests), (Refusal::Tokens, &mut self.tokens)];
        for (refusal, counter) in counters {
            let Some(counter) = counter else { continue };
            // Requests pass again only when both counters are below their limits, so use the longer
            // wait.
            if let Some(wait) = counter.closed_for(age)
                && refused.is_none_or(|(other, _)| other < wait)
            {
                refused = Some((wait, refusal));
            }
        }
        if let (Some(hint), Some(counter)) = (self.too_large_for, &self.tokens)
            && counter.used.saturating_add(tokens) > counter.limit
        {
            refused = Some((hint, Refusal::Tokens));
        }
        let tokens = if refused.is_some() { 0 } else { tokens };
        for (counter, amount) in [(&mut self.requests, 1), (&mut self.tokens, tokens)] {
            if let Some(counter) = counter {
                counter.used = counter.used.saturating_add(amount);
            }
        }
        refused.map_or(Ok(()), Err)
    }

    pub(crate) fn tokens(&self, now: Duration) -> Option<Reading> {
        self.tokens.map(|counter| counter.read(self.peek(now)))
    }

    pub(crate) fn requests(&self, now: Duration) -> Option<Reading> {
        self.requests.map(|counter| counter.read(self.peek(now)))
    }

    fn age(&mut self, now: Duration) -> Duration {
        now.saturating_sub(*self.begun.get_or_insert(now))
    }

    fn peek(&self, now: Duration) -> Duration {
        now.saturating_sub(self.begun.unwrap_or(now))
    }
}

#[derive(Clone, Copy, Debug)]
struct Counter {
    limit: u64,
    period: Duration,
    window: u64,
    used: u64,
}

impl Counter {
    const fn new(limit: u64, period: Duration) -> Self {
        Self { limit, period, window: 0, used: 0 }
    }

    /// How long the counter stays at its limit, if it is; first advances to the window of `age`.
    fn closed_for(&mut self, age: Duration) -> Option<Duration> {
        let window = self.window_at(age);
        if window > self.window {
            self.window = window;
            self.used = 0;
        }
        (self.used >= self.limit).then(|| self.reset(age))
    }

    fn reset(&self, age: Duration) -> Duration {
        let next = self.window_at(age).saturating_add(1);
        let end = Duration::from_secs(next.saturating_mul(self.period.as_secs()));
        end.saturating_sub(age)
    }

    fn read(&self, age: Duration) -> Reading {
        let used = if self.window_at(age) > self.window { 0 } else { self.used };
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        Reading {
            limit: self.limit,
            remaining: signed(self.limit).saturating_sub(signed(used)),
            reset: self.reset(age),
            period: self.period,
        }
    }

    fn window_at(&self, age: Duration) -> u64 {
        age.as_secs() / self.period.as_secs()
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const TEN_SECONDS: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T0: Duration = Duration::from_millis(7_300);

    fn after(seconds: f64) -> Duration {
        T0 + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn tokens_are_refused_until_the_minute_that_began_with_the_first_request_ends() {
        let mut windows = Windows::new(Standard::tokens_per_minute(10_000));
        assert_eq!(windows.admit(T0, 9_999), Ok(()));
        assert_eq!(windows.admit(after(1.0), 5_000), Ok(()), "the counter had not reached it");
        assert_eq!(windows.tokens(after(1.0)).unwrap().remaining, -4_999);
        let refused = windows.admit(after(20.5), 1).unwrap_err();
        assert_eq!(refused, (Duration::from_millis(39_500), Refusal::Tokens));
        assert!(windows.admit(after(59.999), 1).is_err());
        assert_eq!(windows.admit(after(60.0), 1), Ok(()));
        assert_eq!(windows.tokens(after(60.0)).unwrap().remaining, 9_999);
    }

    #[test]
    fn requests_are_judged_over_ten_seconds() {
        let mut windows = Windows::new(Standard::tokens_per_minute(3_000));
        for _ in 0..3 {
            assert_eq!(windows.admit(T0, 0), Ok(()));
        }
        let refused = windows.admit(after(2.0), 0).unwrap_err();
        assert_eq!(refused, (Duration::from_secs(8), Refusal::Calls));
        assert_eq!(windows.admit(after(10.0), 0), Ok(()));
    }

    #[test]
    fn when_both_are_used_up_the_later_reset_is_told() {
        let mut windows = Windows::new(Standard::tokens_per_minute(1_000).requests_per_minute(6));
        assert_eq!(windows.admit(T0, 1_000), Ok(()));
        assert_eq!(windows.admit(T0, 1), Err((MINUTE, Refusal::Tokens)));
    }

    #[test]
    fn what_is_larger_than_the_rest_is_refused_for_a_day_and_smaller_ones_pass() {
        const DAY: Duration = Duration::from_secs(86_400);
        let quota = Standard::tokens_per_minute(10_000).refuses_by_size(DAY);
        let mut windows = Windows::new(quota);
        assert_eq!(windows.admit(T0, 10_001), Err((DAY, Refusal::Tokens)), "whatever is left");
        assert_eq!(windows.admit(T0, 6_000), Ok(()));
        assert_eq!(windows.admit(after(1.0), 4_001), Err((DAY, Refusal::Tokens)));
        assert_eq!(windows.admit(after(2.0), 4_000), Ok(()));
        assert_eq!(windows.tokens(after(2.0)).unwrap().remaining, 0);
        assert_eq!(windows.admit(after(60.0), 10_001), Err((DAY, Refusal::Tokens)));
        assert_eq!(windows.admit(after(60.0), 10_000), Ok(()));
    }

    #[test]
    fn without_limits_nothing_is_refused_or_shown() {
        let mut windows = Windows::new(Standard::unlimited());
        assert_eq!(windows.admit(T0, u64::MAX), Ok(()));
        assert_eq!(windows.tokens(T0), None);
        assert_eq!(windows.requests(T0), None);
    }

    #[test]
    fn absurd_amounts_do_not_overflow() {
        let mut windows = Windows::new(Standard::tokens_per_minute(u64::MAX));
        assert_eq!(windows.admit(Duration::ZERO, u64::MAX), Ok(()));
        assert!(windows.admit(Duration::from_secs(1), u64::MAX).is_err());
        assert!(windows.admit(Duration::MAX, u64::MAX).is_ok());
        assert!(windows.tokens(Duration::MAX).is_some());
    }

    proptest! {
        #[test]
        fn a_request_that_comes_when_it_was_told_to_is_admitted(
            tpm in 1_u64..100_000,
            rpm in 1_u64..600,
            arrivals in prop::collection::vec((0_u64..15_000, 0_u64..20_000), 1..80),
        ) {
            let quota = Standard::tokens_per_minute(tpm).requests_per_minute(rpm);
            let mut windows = Windows::new(quota);
            let mut now = T0;
            for (gap, tokens) in arrivals {
                now += Duration::from_millis(gap);
                if let Err((wait, _)) = windows.admit(now, tokens) {
                    prop_assert!(wait > Duration::ZERO && wait <= MINUTE);
                    let early = now + wait - Duration::from_nanos(1);
                    prop_assert!(windows.clone().admit(early, tokens).is_err());
                    prop_assert!(windows.clone().admit(now + wait, tokens).is_ok());
                }
            }
        }
    }
}
