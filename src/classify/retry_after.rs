//! The explicit hint of a refusal: `retry-after-ms` and its variants, then `retry-after`.

use std::{cell::LazyCell, time::SystemTime};

use http::{HeaderMap, HeaderName, header::RETRY_AFTER};

use super::{Hint, members, names, number};

/// The first two rungs of [`Hint::read`]'s ladder.
pub(super) fn read(headers: &HeaderMap, now: impl FnOnce() -> SystemTime) -> Hint {
    milliseconds(headers, &names::RETRY_AFTER_MS)
        .or_longer(|| milliseconds(headers, &names::X_MS_RETRY_AFTER_MS))
        .or_longer(|| seconds_or_date(headers, now))
}

fn milliseconds(headers: &HeaderMap, name: &'static HeaderName) -> Hint {
    let hint = |member| number::parse(member).map(|ms| Hint::from_seconds(ms / 1_000.0));
    let longest = members::of(headers, name).filter_map(hint).max();
    longest.unwrap_or(Hint::None)
}

/// `retry-after` alone.
pub(super) fn seconds_or_date(headers: &HeaderMap, now: impl FnOnce() -> SystemTime) -> Hint {
    let now = LazyCell::new(now);
    let lines = headers.get_all(RETRY_AFTER).iter();
    let longest = lines.map(|line| longest(line.as_bytes(), &now)).max();
    longest.unwrap_or(Hint::None)
}

/// The longest wait among the members of one line. A date takes up one or two members.
fn longest(line: &[u8], now: &LazyCell<SystemTime, impl FnOnce() -> SystemTime>) -> Hint {
    let mut longest = Hint::None;
    let (mut before, mut start) = (0, 0);
    for end in members::ends(line) {
        let member = &line[start..end];
        let hint = match number::parse(member) {
            Some(seconds) => Hint::from_seconds(seconds),
            None => date(member, now).or_longer(|| date(&line[before..end], now)),
        };
        longest = longest.max(hint);
        (before, start) = (start, end + 1);
    }
    longest
}

/// Any of the three forms of RFC 9110, 5.6.7; a past date is zero (10.2.3), a malformed one no hint.
fn date(text: &[u8], now: &LazyCell<SystemTime, impl FnOnce() -> SystemTime>) -> Hint {
    let Ok(text) = std::str::from_utf8(text) else {
        return Hint::None;
    };
    let Ok(date) = httpdate::parse_http_date(text) else {
        return Hint::None;
    };
    date.duration_since(**now).map_or(Hint::Zero, Hint::from_wait)
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, time::Duration};

    use proptest::prelude::*;

    use super::*;
    use crate::classify::heads::{NOW, head, never};

    fn after(seconds: f64) -> Hint {
        Hint::After(Duration::from_secs_f64(seconds))
    }

    #[track_caller]
    fn assert_read(lines: &[(&'static str, &str)], expected: Hint) {
        assert_eq!(read(&head(lines), NOW), expected, "{lines:?}");
    }

    #[test]
    fn milliseconds_come_before_seconds_and_the_plain_name_before_the_azure_one() {
        assert_read(&[("retry-after-ms", "43"), ("retry-after", "1")], after(0.043));
        assert_read(&[("x-ms-retry-after-ms", "43"), ("retry-after", "1")], after(0.043));
        assert_read(&[("x-ms-retry-after-ms", "9"), ("retry-after-ms", "12.5")], after(0.0125));
        assert_read(&[("retry-after", "1.5")], after(1.5));
    }

    #[test]
    fn a_zero_gives_way_to_a_wait_and_is_kept_without_one() {
        assert_read(&[("retry-after-ms", "0"), ("retry-after", "1")], after(1.0));
        assert_read(&[("retry-after-ms", "0"), ("x-ms-retry-after-ms", "7")], after(0.007));
        assert_read(&[("retry-after-ms", "0")], Hint::Zero);
        assert_read(&[("retry-after-ms", "-0")], Hint::Zero);
        assert_read(&[("retry-after-ms", "0.0"), ("retry-after", "-1")], Hint::Zero);
        assert_read(&[("retry-after", "0")], Hint::Zero);
    }

    #[test]
    fn an_illegible_value_leaves_the_next_rung_its_say() {
        for illegible in ["", " ", "-5", "soon", "inf", "nan", "6m0s", "0x20", "5\u{b5}"] {
            assert_read(&[("retry-after-ms", illegible), ("retry-after", "2")], after(2.0));
            assert_read(&[("retry-after", illegible)], Hint::None);
        }
    }

    #[test]
    fn a_number_beyond_belief_is_too_long() {
        for absurd in ["999999999999999999999999999999999999", "1e400", "86400001"] {
            assert_read(&[("retry-after-ms", absurd), ("retry-after", "1")], Hint::TooLong);
            assert_read(&[("retry-after", absurd)], Hint::TooLong);
        }
        assert_read(&[("retry-after-ms", "86400000")], Hint::After(Hint::LONGEST));
        assert_read(&[("retry-after", "86400")], Hint::After(Hint::LONGEST));
    }

    #[test]
    fn a_date_is_the_time_until_it_in_each_of_the_three_forms() {
        for in_20_s in [
            "Fri, 29 Sep 2023 16:26:57 GMT",
            "Friday, 29-Sep-23 16:26:57 GMT",
            "Fri Sep 29 16:26:57 2023",
        ] {
            assert_read(&[("retry-after", in_20_s)], after(20.0));
        }
        assert_read(&[("retry-after", "Fri, 29 Sep 2023 16:26:37 GMT")], Hint::Zero);
        assert_read(&[("retry-after", "Thu, 01 Jan 1970 00:00:00 GMT")], Hint::Zero);
        assert_read(&[("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT")], Hint::TooLong);
        assert_read(&[("retry-after", "Fri, 31 Sep 2023 16:26:57 GMT")], Hint::None);
        assert_read(&[("retry-after", "Fri, 29 Sep 2023 16:26:57 CEST")], Hint::None);
    }

    #[test]
    fn a_clock_before_1970_or_between_two_seconds_is_a_clock_too() {
        let headers = head(&[("retry-after", "Fri, 29 Sep 2023 16:26:38 GMT")]);
        let half_past = || NOW() + Duration::from_millis(500);
        assert_eq!(read(&headers, half_past), after(0.5));

        let before_time = || SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(read(&headers, before_time), Hint::TooLong);
    }

    #[test]
    fn of_repeated_headers_the_longest_legible_one_wins() {
        let later = "Fri, 29 Sep 2023 16:26:57 GMT";
        assert_read(&[("retry-after-ms", "9"), ("retry-after-ms", "80")], after(0.08));
        assert_read(&[("retry-after", "3"), ("retry-after", "soon")], after(3.0));
        assert_read(&[("retry-after", "3"), ("retry-after", later)], after(20.0));
        assert_read(
            &[("retry-after", "0"), ("retry-after", "3"), ("retry-after", "1")],
            after(3.0),
        );
    }

    #[test]
    fn a_joined_list_is_read_like_repeated_headers_dates_included() {
        assert_read(&[("retry-after", "1, 5")], after(5.0));
        assert_read(&[("retry-after-ms", "80,9")], after(0.08));
        assert_read(&[("retry-after", ",,5,")], after(5.0));
        for joined in [
            "3, Fri, 29 Sep 2023 16:26:57 GMT",
            "Fri, 29 Sep 2023 16:26:57 GMT, 3",
            "Fri, 29 Sep 2023 16:26:47 GMT,Fri Sep 29 16:26:57 2023",
        ] {
            assert_read(&[("retry-after", joined)], after(20.0));
        }
    }

    #[test]
    fn the_clock_is_read_once_and_only_for_a_date() {
        read(&head(&[("retry-after-ms", "soon"), ("retry-after", "5, later")]), never);

        let date = "Fri, 29 Sep 2023 16:26:57 GMT";
        let (reads, headers) = (Cell::new(0), head(&[("retry-after", date); 3]));
        read(&headers, || {
            reads.set(reads.get() + 1);
            NOW()
        });
        assert_eq!(reads.get(), 1);
    }

    proptest! {
        #[test]
        fn whole_milliseconds_are_exact(ms in 1_u64..=86_400_000) {
            let expected = Hint::After(Duration::from_millis(ms));
            let text = ms.to_string();
            prop_assert_eq!(read(&head(&[("retry-after-ms", &text)]), never), expected);
            let text = format!("{}.{:03}", ms / 1_000, ms % 1_000);
            prop_assert_eq!(read(&head(&[("retry-after", &text)]), never), expected);
        }

        #[test]
        fn one_more_header_never_shortens_the_wait(
            first in "[0-9.e-]{0,8}|Fri, 29 Sep 2023 16:2[0-9]:57 GMT",
            second in "[ -~]{0,12}|Fri, 29 Sep 2023 16:2[0-9]:57 GMT",
        ) {
            let one = read(&head(&[("retry-after", &first)]), NOW);
            let two = read(&head(&[("retry-after", &first), ("retry-after", &second)]), NOW);
            let joined = format!("{first},{second}");
            prop_assert!(two >= one);
            prop_assert_eq!(read(&head(&[("retry-after", &joined)]), NOW), two);
        }
    }
}
