//! Parses RFC 3339 timestamps.

use std::time::{Duration, SystemTime};

use http::HeaderValue;

/// The instant in a header, to the second; `None` if it is not a timestamp, or before 1970.
pub(super) fn read(value: &HeaderValue) -> Option<SystemTime> {
    parse(value.as_bytes().trim_ascii())
}

/// `2024-03-26T20:00:00Z`, optionally with a fraction of a second, which is rounded up, or an offset.
fn parse(text: &[u8]) -> Option<SystemTime> {
    let (date, rest) = text.split_at_checked(10)?;
    let (time, rest) = rest.split_at_checked(9)?;
    let [y @ .., b'-', m1, m2, b'-', d1, d2] = date else { return None };
    let [b'T' | b't' | b' ', h1, h2, b':', n1, n2, b':', s1, s2] = time else { return None };
    let [year, month, day] = [digits(y)?, digits(&[*m1, *m2])?, digits(&[*d1, *d2])?];
    let [hour, minute, second] = [digits(&[*h1, *h2])?, digits(&[*n1, *n2])?, digits(&[*s1, *s2])?];
    let is_valid = (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        // A leap second.
        && second <= 60;
    if !is_valid {
        return None;
    }
    let (is_later, zone) = fraction(rest)?;
    let seconds = ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second
        - offset(zone)?
        + i64::from(is_later);
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

/// Whether there is a fraction of a second, and the text after it.
fn fraction(text: &[u8]) -> Option<(bool, &[u8])> {
    let Some(rest) = text.strip_prefix(b".") else { return Some((false, text)) };
    let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (fraction, zone) = rest.split_at(length);
    (length > 0).then(|| (fraction.iter().any(|digit| *digit != b'0'), zone))
}

/// How many seconds a zone is ahead of UTC.
fn offset(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
            let seconds = (hours * 60 + minutes) * 60;
            (hours < 24 && minutes < 60).then_some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

fn digits(text: &[u8]) -> Option<i64> {
    let add =
        |number, digit: &u8| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0'));
    text.iter().try_fold(0, add)
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date. The year starts in March here, so that the leap day comes last
/// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`).
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn assert_read(text: &str, seconds: impl Into<Option<u64>>) {
        let expected = seconds.into().map(|it| SystemTime::UNIX_EPOCH + Duration::from_secs(it));
        assert_eq!(parse(text.as_bytes()), expected, "{text}");
    }

    #[test]
    fn an_instant_is_read_in_every_form_of_the_rfc() {
        for text in [
            "2024-03-26T20:00:00Z",
            "2024-03-26t20:00:00z",
            "2024-03-26 20:00:00Z",
            "2024-03-26T20:00:00.000Z",
            "2024-03-26T19:59:59.25Z",
            "2024-03-26T21:30:00+01:30",
            "2024-03-26T12:00:00-08:00",
        ] {
            assert_read(text, 1_711_483_200);
        }
        assert_read("1970-01-01T00:00:00Z", 0);
        assert_read("2000-02-29T00:00:00Z", 951_782_400);
        assert_read("9999-12-31T23:59:60Z", 253_402_300_800);
    }

    #[test]
    fn what_is_no_instant_is_none_and_never_a_panic() {
        for text in [
            "",
            "60",
            "2024-03-26",
            "2024-03-26T20:00Z",
            "2024-03-26T20:00:00",
            "2024-3-26T20:00:00Z",
            "2024-02-30T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-00-01T00:00:00Z",
            "2024-03-00T00:00:00Z",
            "2024-03-26T24:00:00Z",
            "2024-03-26T20:60:00Z",
            "2024-03-26T20:00:00.Z",
            "2024-03-26T20:00:00+1:00",
            "2024-03-26T20:00:00+24:00",
            "1969-12-31T23:59:59Z",
            "2024-03-26T20:00:00Zx",
            "Tue, 26 Mar 2024 19:59:59 GMT",
            "+024-03-26T20:00:00Z",
        ] {
            assert_read(text, None);
        }
    }

    proptest! {
        #[test]
        fn any_second_reads_back_as_the_one_that_http_dates_have(seconds in 0_u64..253_402_300_800) {
            let instant = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let date = httpdate::HttpDate::from(instant).to_string();
            // `Tue, 26 Mar 2024 19:59:59 GMT`
            let parts: Vec<&str> = date.split([' ', ',']).filter(|part| !part.is_empty()).collect();
            let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
            let month = months.find(parts[2]).expect("a month") / 3 + 1;
            let text = format!("{}-{month:02}-{}T{}Z", parts[3], parts[1], parts[4]);
            prop_assert_eq!(parse(text.as_bytes()), Some(instant), "{}", text);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            parse(&bytes);
        }
    }
}
