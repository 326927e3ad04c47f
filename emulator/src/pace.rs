//! How fast a deployment answers.

use std::time::Duration;

/// How long an answer takes. Defaults to zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// From the arrival of a request to its first generated token.
    pub first_token: Duration,
    /// Between two generated tokens.
    pub per_token: Duration,
}

impl Pace {
    /// When `tokens` tokens are generated, counted from the arrival; zero tokens take as long as
    /// one.
    pub(crate) fn time_for(&self, tokens: u64) -> Duration {
        let more = u32::try_from(tokens.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first_token.saturating_add(self.per_token.saturating_mul(more))
    }

    /// How many tokens are generated `age` after the arrival.
    pub(crate) fn tokens_by(&self, age: Duration) -> u64 {
        let Some(generating) = age.checked_sub(self.first_token) else {
            return 0;
        };
        let more =
            generating.as_nanos().checked_div(self.per_token.as_nanos()).unwrap_or(u128::MAX);
        u64::try_from(more).unwrap_or(u64::MAX).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_counts_the_first_token_once() {
        let pace =
            Pace { first_token: Duration::from_millis(300), per_token: Duration::from_millis(20) };
        assert_eq!(pace.time_for(0), Duration::from_millis(300));
        assert_eq!(pace.time_for(1), Duration::from_millis(300));
        assert_eq!(pace.time_for(11), Duration::from_millis(500));
        assert_eq!(pace.tokens_by(Duration::from_millis(299)), 0);
        assert_eq!(pace.tokens_by(Duration::from_millis(300)), 1);
        assert_eq!(pace.tokens_by(Duration::from_millis(499)), 10);
        assert_eq!(Pace::default().tokens_by(Duration::ZERO), u64::MAX);
    }
}
