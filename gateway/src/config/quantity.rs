//! Sizes in human notation.

/// Bytes: `512 B`, `64 KiB`, `4 MiB`, `1.5 GiB`, `25 MB`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size; write it like \"64 KiB\" or \"4 MiB\"");
    let trimmed = text.trim();
    let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
    let (number, unit) = trimmed.split_at(end);
    let unit =
        UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim())).ok_or_else(wrong)?.1;
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = (number * unit).round();
    // Every whole number up to 2^53 is exact; a larger size is out of every range anyway.
    if bytes <= MAX_EXACT_BYTES { Ok(bytes as u64) } else { Err(wrong()) }
}

/// Formats a size in that notation.
pub(super) fn written_size(bytes: u64) -> String {
    [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
        .into_iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .map_or_else(|| format!("{bytes} B"), |(unit, name)| format!("{} {name}", bytes / unit))
}

const UNITS: [(&str, f64); 7] = [
    ("B", 1.0),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("kB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
];
const MAX_EXACT_BYTES: f64 = 9_007_199_254_740_992.0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_binary_or_decimal_and_never_without_a_unit() {
        for (text, bytes) in [
            ("4 MiB", Some(4 << 20)),
            ("64KiB", Some(64 << 10)),
            ("1.5 gib", Some(3 << 29)),
            (" 25 MB ", Some(25_000_000)),
            ("0 B", Some(0)),
            ("4", None),
            ("MiB", None),
            ("-4 MiB", None),
            ("4 M", None),
            ("1.2.3 MiB", None),
            ("99999999999 GiB", None),
        ] {
            assert_eq!(size(text).ok(), bytes, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,20}|[0-9.]{0,30} ?[KMG]?i?B") {
            let _ = (size(&text), crate::duration::parse(&text));
        }

        #[test]
        fn a_written_size_is_read_as_what_it_was(bytes in 0u64..1 << 50) {
            prop_assert_eq!(size(&written_size(bytes)), Ok(bytes));
        }
    }
}
