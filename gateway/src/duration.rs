//! Durations as people write them: one notation for files, flags and headers.

use std::time::Duration;

/// `4s`, `250ms`, `1m 30s`.
///
/// # Errors
///
/// What is wrong, and how to write one; a number needs its unit.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim())
        .map_err(|_| format!("{text:?} is not a duration; write it like \"4s\" or \"250ms\""))
}

/// As [`parse`], of an argument, which the message about it repeats.
///
/// # Errors
///
/// As of [`parse`].
pub(crate) fn argument(text: &str) -> Result<Duration, String> {
    parse(text).map_err(|_| "a duration has a unit: write it like 4s, 250ms or 1m30s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_without_a_unit_is_no_duration() {
        for (text, millis) in [
            ("4s", Some(4_000)),
            (" 250ms ", Some(250)),
            ("1m30s", Some(90_000)),
            ("1m 30s", Some(90_000)),
            ("0", Some(0)),
            ("5", None),
            ("5.0", None),
            ("-1s", None),
            ("1x", None),
            ("", None),
        ] {
            assert_eq!(parse(text).ok().map(|time| time.as_millis()), millis, "{text}");
            assert_eq!(argument(text).is_ok(), millis.is_some(), "{text}");
        }
    }
}
