//! Parses the timestamp formats of traces into one time line.

use std::time::Duration;

/// Parses `2023-11-16 18:17:03.9799600` or `2024-05-10T00:00:00.009930+00:00`: a date, a blank or
/// `T`, a time with at most nine fractional digits, optionally `Z` or an offset.
///
/// The result counts from the year 0; only the difference of two results is meaningful.
pub fn read(text: &str) -> Option<Duration> {
    let (date, rest) = text.split_once([' ', 'T'])?;
    let (clock, offset) = split_offset(rest.trim_end())?;
    let mut parts = date.splitn(3, '-');
    let (year, month, day) =
        (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let mut parts = clock.splitn(3, ':');
    let (hour, minute) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let (second, nanos) = seconds(parts.next()?)?;
    let fits = (1..=12).contains(&month)
        && (1..=length(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    // Add one day, so that no offset leads below zero.
    let whole = ((days(year, month, day) + 1) * 24 + hour) * 3_600 + minute * 60 + second;
    let whole = whole.checked_add_signed(-offset)?;
    fits.then(|| Duration::new(whole, nanos))
}

/// The time without its offset from UTC, and the offset in seconds.
fn split_offset(clock: &str) -> Option<(&str, i64)> {
    if let Some(clock) = clock.strip_suffix('Z') {
        return Some((clock, 0));
    }
    let Some(at) = clock.find(['+', '-']) else { return Some((clock, 0)) };
    let (clock, offset) = clock.split_at(at);
    let (hours, minutes) = offset[1..].split_once(':')?;
    let seconds = (digits(hours, 2)? * 60 + digits(minutes, 2)?) * 60;
    let seconds = i64::try_from(seconds).ok()?;
    Some((clock, if offset.starts_with('-') { -seconds } else { seconds }))
}

fn seconds(text: &str) -> Option<(u64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    Some((digits(whole, 2)?, nanos))
}

/// A number of exactly `count` digits.
fn digits(text: &str, count: usize) -> Option<u64> {
    let legible = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    legible.then(|| text.parse().ok()).flatten()
}

/// Days from the year 0 of the proleptic Gregorian calendar to a date.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let before = (1..month).map(|month| length(year, month)).sum::<u64>();
    let leaps =
        if year == 0 { 0 } else { (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400 + 1 };
    year * 365 + leaps + before + day
}

fn length(year: u64, month: u64) -> u64 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    fn between(earlier: &str, later: &str) -> f64 {
        let read = |text| read(text).unwrap_or_else(|| panic!("{text} is a timestamp"));
        (read(later) - read(earlier)).as_secs_f64()
    }

    #[test]
    fn both_spellings_of_the_published_traces_are_read() {
        let first = "2023-11-16 18:17:03.9799600";
        assert!((between(first, "2023-11-16 18:17:04.0319600") - 0.052).abs() < 1e-9);
        assert_eq!(between("2024-05-10 00:00:00+00:00", "2024-05-10T00:00:01Z"), 1.0);
        assert_eq!(between("2024-05-10 02:00:00+02:00", "2024-05-09 23:00:00-01:30"), 1_800.0);
    }

    #[test]
    fn days_and_leap_years_are_counted() {
        assert_eq!(between("2023-12-31 23:59:59", "2024-01-01 00:00:00"), 1.0);
        assert_eq!(between("2024-02-28 00:00:00", "2024-03-01 00:00:00"), 2.0 * 86_400.0);
        assert_eq!(between("1900-02-28 00:00:00", "1900-03-01 00:00:00"), 86_400.0);
        assert_eq!(between("1999-12-31 00:00:00", "2001-01-01 00:00:00"), 367.0 * 86_400.0);
    }

    #[test]
    fn what_is_no_timestamp_is_refused() {
        for text in [
            "",
            "2023-11-16",
            "2023-11-16 18:17",
            "2023-13-16 18:17:03",
            "2023-02-29 18:17:03",
            "2023-11-16 24:00:00",
            "2023-11-16 18:60:00",
            "2023-11-16 18:17:03.",
            "x",
            "2023-11-16 18:17:03.1234567890",
            "2023-11-16 18:17:+3",
            "2023-11-16 18:17:03+1",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn differences_agree_with_httpdate(a in 0_u64..250_000_000_000, b in 0_u64..250_000_000_000) {
            let spell = |seconds| {
                let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
                let parts: Vec<_> = date.split(' ').collect();
                let month = "JanFebMarAprMayJunJulAugSepOctNovDec".find(parts[2]).unwrap() / 3 + 1;
                format!("{}-{month:02}-{} {}", parts[3], parts[1], parts[4])
            };
            let (low, high) = (a.min(b), a.max(b));
            prop_assert_eq!(between(&spell(low), &spell(high)), (high - low) as f64);
        }

        #[test]
        fn no_text_panics(text in "[0-9 T:.+Z-]{0,40}|.{0,30}") {
            let _ = read(&text);
        }
    }
}
