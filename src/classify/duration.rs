//! Durations as text: `6m0s`, `1h2m3.5s`, `120ms` in headers, "1 minute and 5 seconds" in messages.

use super::number;

/// Parses a duration in the form of OpenAI-like headers (Go's form), in seconds.
///
/// Numbers with one unit each, without a sign or spaces, in any order. `None` for anything else,
/// including a number without a unit; infinite if too large to represent.
pub(super) fn parse(bytes: &[u8]) -> Option<f64> {
    let mut rest = bytes.trim_ascii();
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let (amount, tail) = amount(rest);
        let (unit, tail) = unit(tail);
        seconds += number::parse(amount)? * seconds_in(unit, Spelling::Short)?;
        rest = tail;
    }
    Some(seconds)
}

/// Parses the duration at the start of a text in lower case, in seconds: numbers with a unit each, as
/// words or symbols, with spaces, commas and `and` between them. Infinite if too large to represent.
pub(crate) fn at_start(text: &[u8]) -> Option<f64> {
    let mut total = None;
    let mut rest = text;
    while let Some((seconds, after)) = in_words(rest.trim_ascii_start()) {
        total = Some(total.unwrap_or(0.0) + seconds);
        rest = after.trim_ascii_start();
        rest = rest.strip_prefix(b",").unwrap_or(rest).trim_ascii_start();
        rest = rest.strip_prefix(b"and ").unwrap_or(rest);
    }
    total
}

/// One number with its unit, and what follows.
fn in_words(text: &[u8]) -> Option<(f64, &[u8])> {
    let (amount, rest) = amount(text);
    // A full stop is not a decimal point.
    let is_number = amount.first().is_some_and(u8::is_ascii_digit) && !amount.ends_with(b".");
    let (unit, rest) = unit(rest.trim_ascii_start());
    let seconds = number::parse(amount).filter(|_| is_number)?;
    Some((seconds * seconds_in(unit, Spelling::Words)?, rest))
}

fn amount(text: &[u8]) -> (&[u8], &[u8]) {
    split(text, |byte| byte.is_ascii_digit() || byte == b'.')
}

fn unit(text: &[u8]) -> (&[u8], &[u8]) {
    split(text, |byte| byte.is_ascii_alphabetic())
}

/// Splits off the longest prefix of `bytes` that `belongs`.
fn split(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| !belongs(*byte));
    bytes.split_at(end.unwrap_or(bytes.len()))
}

/// The spelling of a duration's units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// Only the first of their names.
    Short,
    Words,
}

fn seconds_in(unit: &[u8], spelling: Spelling) -> Option<f64> {
    let is_named = |names: &[&str]| {
        let names = if spelling == Spelling::Short { &names[..1] } else { names };
        names.iter().any(|name| name.as_bytes() == unit)
    };
    UNITS.iter().find(|(names, _)| is_named(names)).map(|&(_, seconds)| seconds)
}

const UNITS: [(&[&str], f64); 7] = [
    (&["d", "day", "days"], 86_400.0),
    (&["h", "hr", "hrs", "hour", "hours"], 3_600.0),
    (&["m", "min", "mins", "minute", "minutes"], 60.0),
    (&["s", "sec", "secs", "second", "seconds"], 1.0),
    (&["ms", "millisecond", "milliseconds"], 1e-3),
    (&["us"], 1e-6),
    (&["ns"], 1e-9),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::classify::Hint;

    #[test]
    fn each_part_counts_in_its_unit() {
        for (text, seconds) in [
            ("6m0s", 360.0),
            ("1s", 1.0),
            ("20s", 20.0),
            ("0s", 0.0),
            ("120ms", 0.12),
            ("1h2m3.5s", 3_723.5),
            ("2m59.56s", 179.56),
            (".5s", 0.5),
            ("1d", 86_400.0),
            ("1500us", 0.0015),
            (" 1s ", 1.0),
        ] {
            let read = parse(text.as_bytes()).expect(text);
            assert!((read - seconds).abs() < 1e-9, "{text}: {read}");
        }
    }

    #[test]
    fn what_has_no_unit_or_an_unknown_one_is_no_duration() {
        for text in [
            "", " ", "5", "s", "6m0", "6m 0s", "-6m0s", "+6m0s", "1e3s", "1.2.3s", ".s", "5x",
            "5S", "5sec", "infs", "6m0s,", "5µs", "1h-2m",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse(b"5s\xff"), None);
    }

    #[test]
    fn absurd_lengths_are_infinite_and_vanishing_ones_are_not_zero() {
        let mut text = vec![b'9'; 400];
        text.push(b'h');
        assert_eq!(parse(&text), Some(f64::INFINITY));

        let vanishing = format!("0.{}1ns", "0".repeat(400));
        assert!(parse(vanishing.as_bytes()).is_some_and(|seconds| seconds > 0.0));
    }

    proptest! {
        #[test]
        fn whole_milliseconds_are_exact(
            (h, m, s, ms) in (0_u64..24, 0_u64..60, 0_u64..60, 0_u64..1_000),
        ) {
            let total = ((h * 60 + m) * 60 + s) * 1_000 + ms;
            prop_assume!(total > 0);
            let expected = Hint::After(std::time::Duration::from_millis(total));
            for text in [format!("{h}h{m}m{s}s{ms}ms"), format!("{h}h{m}m{s}.{ms:03}s")] {
                let read = parse(text.as_bytes()).expect("a duration");
                prop_assert_eq!(Hint::from_seconds(read), expected, "{}", text);
            }
        }
    }
}
