//! Durations in reset headers: `6m0s`, `1s`, `1h2m3.5s`, `120ms`.

use super::number;

/// Reads a duration as OpenAI-like servers write it (Go's form), in seconds.
///
/// Numbers with a unit each, without a sign or spaces, in any order. `None` for anything else, a
/// number without a unit included; infinite when it is too large to say.
pub(super) fn parse(bytes: &[u8]) -> Option<f64> {
    let mut rest = bytes.trim_ascii();
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let (amount, tail) = split(rest, |byte| byte.is_ascii_digit() || byte == b'.');
        let (unit, tail) = split(tail, |byte| byte.is_ascii_alphabetic());
        seconds += number::parse(amount)? * seconds_in(unit)?;
        rest = tail;
    }
    Some(seconds)
}

/// The longest prefix of `bytes` that `belongs`, and the rest.
fn split(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| !belongs(*byte));
    bytes.split_at(end.unwrap_or(bytes.len()))
}

fn seconds_in(unit: &[u8]) -> Option<f64> {
    match unit {
        b"d" => Some(86_400.0),
        b"h" => Some(3_600.0),
        b"m" => Some(60.0),
        b"s" => Some(1.0),
        b"ms" => Some(1e-3),
        b"us" => Some(1e-6),
        b"ns" => Some(1e-9),
        _ => None,
    }
}

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
