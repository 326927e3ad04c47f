//! When the exhausted dimension resets, for refusals without an explicit hint.

use http::HeaderMap;

use super::{
    Hint, duration,
    limit::{Limit, Stock, both_spellings, stock},
    names::{Dimension, REQUESTS, TOKENS},
    number,
};

/// The last rule of [`Hint::read`]. Never [`Hint::Zero`].
pub(super) fn read(headers: &HeaderMap) -> Hint {
    let (tokens, requests) = (reset(headers, &TOKENS), reset(headers, &REQUESTS));
    if tokens.max(requests) == Hint::None {
        return Hint::None;
    }
    match Limit::named(headers) {
        Some(Limit::Tokens) => return tokens,
        Some(Limit::Calls) => return requests,
        None => {}
    }
    match (stock(headers, &TOKENS), stock(headers, &REQUESTS)) {
        // Both have to reset before the next attempt is admitted.
        (Stock::Spent, Stock::Spent) => tokens.max(requests),
        (Stock::Spent, _) | (Stock::Unknown, Stock::Left) => tokens,
        (_, Stock::Spent) | (Stock::Left, Stock::Unknown) => requests,
        (Stock::Unknown, Stock::Unknown) => sooner(tokens, requests),
        (Stock::Left, Stock::Left) => Hint::None,
    }
}

/// The longest positive reset of `dimension`; zero means "no information" there.
fn reset(headers: &HeaderMap, dimension: &'static Dimension) -> Hint {
    let seconds = |member| number::parse(member).or_else(|| duration::parse(member));
    let longest =
        both_spellings(headers, &dimension.reset).filter_map(seconds).map(Hint::from_seconds).max();
    match longest {
        None | Some(Hint::Zero) => Hint::None,
        Some(wait) => wait,
    }
}

/// The earlier of two resets, ignoring an unknown one.
fn sooner(one: Hint, other: Hint) -> Hint {
    match (one, other) {
        (Hint::None, known) | (known, Hint::None) => known,
        _ => one.min(other),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::classify::heads::head;

    const RESETS: [(&str, &str); 2] =
        [("x-ratelimit-reset-tokens", "55"), ("x-ratelimit-reset-requests", "6")];

    #[track_caller]
    fn assert_read(lines: &[(&'static str, &str)], seconds: impl Into<Option<u64>>) {
        let wait = |seconds| Hint::After(Duration::from_secs(seconds));
        let expected = seconds.into().map_or(Hint::None, wait);
        assert_eq!(read(&head(lines)), expected, "{lines:?}");
    }

    #[track_caller]
    fn assert_both(lines: &[(&'static str, &str)], seconds: impl Into<Option<u64>>) {
        assert_read(&[&RESETS, lines].concat(), seconds);
    }

    #[test]
    fn seconds_durations_and_both_spellings_are_read() {
        assert_read(&[("x-ratelimit-reset-tokens", "55")], 55);
        assert_read(&[("x-rate-limit-reset-tokens", "55")], 55);
        assert_read(&[("x-ratelimit-reset-requests", "6m0s")], 360);
        assert_read(&[("x-rate-limit-reset-requests", "1s")], 1);
        assert_read(&[("x-ratelimit-reset-tokens", "5"), ("x-rate-limit-reset-tokens", "7s")], 7);
    }

    #[test]
    fn a_zero_reset_says_nothing() {
        for nothing in ["0", "0s", "-3", "", "soon", "-0"] {
            assert_read(&[("x-ratelimit-reset-tokens", nothing)], None);
        }
        let one_zero = [("x-ratelimit-reset-tokens", "0"), ("x-ratelimit-reset-requests", "6")];
        assert_read(&one_zero, 6);
    }

    #[test]
    fn the_dimension_that_the_service_names_decides() {
        assert_both(&[("x-ratelimit-type", "Tokens")], 55);
        assert_both(&[("x-ratelimit-type", "requests")], 6);
        assert_both(&[("policy-id", "DeploymentRatelimit-Token")], 55);
        assert_both(&[("policy-id", "DeploymentRatelimit-Request")], 6);
    }

    #[test]
    fn the_type_outranks_the_policy_and_the_policy_what_remains() {
        let policy = ("policy-id", "DeploymentRatelimit-Token");
        let remains = ("x-ratelimit-remaining-requests", "0");
        assert_both(&[("x-ratelimit-type", "Requests"), policy], 6);
        assert_both(&[("x-ratelimit-type", "Vibes"), policy, remains], 55);
        assert_both(&[("policy-id", "Token"), remains], 6);
        assert_both(&[("policy-id", "DeploymentRatelimit-"), remains], 6);
    }

    #[test]
    fn a_named_dimension_without_a_reset_does_not_borrow_the_other_one() {
        let tokens = ("x-ratelimit-type", "Tokens");
        assert_read(&[tokens, ("x-ratelimit-reset-requests", "6")], None);
        assert_read(&[tokens, ("x-ratelimit-reset-tokens", "0"), RESETS[1]], None);
    }

    #[test]
    fn a_spent_dimension_is_the_exhausted_one() {
        assert_both(&[("x-ratelimit-remaining-tokens", "0")], 55);
        assert_both(&[("x-ratelimit-remaining-tokens", "-27689")], 55);
        assert_both(&[("x-rate-limit-remaining-requests", "0")], 6);
        let requests = ("x-ratelimit-remaining-requests", "0");
        assert_both(&[("x-ratelimit-remaining-tokens", "900"), requests], 6);
    }

    #[test]
    fn both_spent_wait_for_the_later_reset() {
        let spent =
            [("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-remaining-requests", "0")];
        assert_both(&spent, 55);
    }

    #[test]
    fn otherwise_the_earlier_reset_of_those_without_stock_counts() {
        assert_both(&[], 6);
        assert_both(&[("x-ratelimit-remaining-requests", "19")], 55);
        assert_both(&[("x-ratelimit-remaining-tokens", "19")], 6);
        let left = [("x-ratelimit-remaining-tokens", "9"), ("x-ratelimit-remaining-requests", "9")];
        assert_both(&left, None);
    }

    #[test]
    fn minus_one_of_minus_one_or_of_no_limit_is_unknown() {
        let remaining = ("x-ratelimit-remaining-tokens", "-1");
        assert_both(&[remaining], 6);
        assert_both(&[remaining, ("x-ratelimit-limit-tokens", "-1")], 6);
        assert_both(&[remaining, ("x-ratelimit-limit-tokens", "unlimited")], 6);
        assert_both(&[remaining, ("x-ratelimit-limit-tokens", "5000")], 55);
        assert_both(&[("x-ratelimit-remaining-tokens", "-2")], 55);
    }

    #[test]
    fn of_repeated_stocks_the_least_counts() {
        let tokens = ["19568", "0"].map(|left| ("x-ratelimit-remaining-tokens", left));
        assert_both(&tokens, 55);
    }

    #[test]
    fn a_reset_beyond_a_day_is_too_long() {
        let headers = head(&[("x-ratelimit-reset-tokens", "25h")]);
        assert_eq!(read(&headers), Hint::TooLong);
        assert_both(&[("x-ratelimit-reset-tokens", "1e400")], 6);
    }
}
