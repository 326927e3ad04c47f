//! Reads a JSON number as a count.

/// Parses a JSON value as a count of at most `most`; `None` if it is not a number or is negative.
pub(crate) fn count(value: &[u8], most: u64) -> Option<u64> {
    if value.iter().all(u8::is_ascii_digit) && !value.is_empty() {
        let shift = |count: u64, digit: &u8| {
            count.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
        };
        return Some(value.iter().fold(0, shift).min(most));
    }
    // Some languages write whole numbers as `100.0` or `1e3`.
    let number: f64 = str::from_utf8(value).ok()?.parse().ok()?;
    (number >= 0.0).then_some((number as u64).min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_a_number_that_is_not_negative() {
        for (value, expected) in [
            ("0", Some(0)),
            ("4096", Some(4_096)),
            ("100.0", Some(100)),
            ("1.5e3", Some(1_500)),
            ("99999999999999999999999999", Some(1_000_000)),
            ("1e300", Some(1_000_000)),
            ("-1", None),
            ("null", None),
            ("NaN", None),
            ("\"100\"", None),
            ("[1]", None),
            ("", None),
        ] {
            assert_eq!(count(value.as_bytes(), 1_000_000), expected, "{value}");
        }
    }
}
