//! Numbers in headers: decimal, with a fraction or an exponent, of any length.

use http::HeaderValue;

/// Parses a decimal number like `f64::from_str`, without its words (`inf`, `nan`).
///
/// A number too large for `f64` is infinite, and one too small keeps its sign and is not zero, so
/// that overflow and underflow are not mistaken for a missing header. Anything else is `None`. Never
/// NaN.
pub(super) fn parse(bytes: &[u8]) -> Option<f64> {
    let text = bytes.trim_ascii();
    // Nearly all are a few digits, which an integer and `f64` both hold exactly.
    if let 1..=MAX_EXACT_DIGITS = text.len()
        && let Some(whole) = digits(text)
    {
        return Some(whole as f64);
    }
    let unsigned = match text {
        [b'+' | b'-', unsigned @ ..] => unsigned,
        _ => text,
    };
    match unsigned {
        [b'0'..=b'9', ..] | [b'.', b'0'..=b'9', ..] => {}
        _ => return None,
    }
    let value = std::str::from_utf8(text).ok()?.parse::<f64>().ok()?;
    if value.abs() < f64::MIN_POSITIVE && names_a_quantity(text) {
        return Some(f64::MIN_POSITIVE.copysign(value));
    }
    Some(value)
}

/// The number written in digits alone.
fn digits(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0, |number, byte| match byte {
        b'0'..=b'9' => Some(number * 10 + u64::from(byte - b'0')),
        _ => None,
    })
}

/// 2^53 has 16.
const MAX_EXACT_DIGITS: usize = 15;

/// Whether any digit before the exponent is not zero.
fn names_a_quantity(text: &[u8]) -> bool {
    text.iter()
        .take_while(|byte| !byte.eq_ignore_ascii_case(&b'e'))
        .any(|byte| matches!(byte, b'1'..=b'9'))
}

/// A number in decimal. `write!` takes ten times as many instructions, and a pool that is closed
/// writes several for every request.
pub(crate) struct Digits {
    digits: [u8; MAX_DIGITS],
    start: usize,
}

impl Digits {
    pub(crate) fn of(mut number: u64) -> Self {
        let (mut digits, mut start) = ([0; MAX_DIGITS], MAX_DIGITS);
        loop {
            start -= 1;
            digits[start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return Self { digits, start };
            }
        }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.digits[self.start..]).expect("digits are ASCII")
    }

    /// The number as the value of a header. `HeaderValue::from` allocates twice: it reserves room for
    /// the longest number.
    pub(crate) fn value(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.digits[self.start..]).expect("digits are a value")
    }
}

/// Those of `u64::MAX`.
const MAX_DIGITS: usize = 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_is_written_in_decimal() {
        for number in [0, 7, 10, 60_000, 1_234_567_890, u64::MAX] {
            let digits = Digits::of(number);
            assert_eq!(digits.text(), number.to_string());
            assert_eq!(digits.value(), HeaderValue::from(number));
        }
    }

    #[test]
    fn plain_fractional_and_exponent_numbers_are_read() {
        for (text, value) in [
            ("43", 43.0),
            (" \t43\t ", 43.0),
            ("+43", 43.0),
            ("-10", -10.0),
            ("12.5", 12.5),
            (".5", 0.5),
            ("-.5", -0.5),
            ("5.", 5.0),
            ("1e3", 1000.0),
            ("1E-3", 0.001),
            ("007", 7.0),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(value), "{text:?}");
        }
    }

    #[test]
    fn a_number_beyond_f64_is_infinite_and_one_below_it_is_not_zero() {
        assert_eq!(parse(b"1e400"), Some(f64::INFINITY));
        assert_eq!(parse(b"-1e400"), Some(f64::NEG_INFINITY));
        assert_eq!(parse(&[b'9'; 10_000]), Some(f64::INFINITY));
        assert_eq!(parse(b"1e-400"), Some(f64::MIN_POSITIVE));
        assert_eq!(parse(b"-1e-400"), Some(-f64::MIN_POSITIVE));
        assert_eq!(parse(b"0e-400"), Some(0.0), "a zero stays one");
        assert_eq!(parse(b"-0"), Some(0.0));
        assert_eq!(parse(b"0.0e9"), Some(0.0), "the exponent is not the quantity");
    }

    #[test]
    fn words_and_garbage_are_no_number() {
        for text in [
            "",
            " ",
            "+",
            "-",
            ".",
            "-.",
            "e5",
            "inf",
            "+inf",
            "-inf",
            "Infinity",
            "-infinity",
            "nan",
            "+nan",
            "NaN",
            "soon",
            "0x10",
            "1_000",
            "1 000",
            "5s",
            "--5",
            "+-5",
            "1.2.3",
            "1e",
            "٣",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse(b"5\xff"), None);
    }

    proptest! {
        #[test]
        fn a_number_is_what_the_standard_library_reads(value in prop::num::f64::NORMAL) {
            prop_assert_eq!(parse(format!("{value:e}").as_bytes()), Some(value));
            prop_assert_eq!(parse(format!("{value}").as_bytes()), Some(value));
        }

        #[test]
        fn digits_are_read_as_the_standard_library_does(text in "[0-9]{1,18}") {
            prop_assert_eq!(parse(text.as_bytes()), text.parse().ok());
        }

        #[test]
        fn arbitrary_bytes_are_never_nan(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(!parse(&bytes).is_some_and(f64::is_nan));
        }
    }
}
