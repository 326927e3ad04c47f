//! Finds the end of a long array in the outermost object without reading the array.
//!
//! Where a conversation ends is decided by what follows: the rest of the text must be the rest of the
//! outermost object. So each `]` is a candidate, found by `memchr`, and nearly all are rejected by the
//! next two bytes.
//!
//! In JSON, a candidate that is accepted is the end of the array. Were it within a string, then every
//! quote that is not escaped would change from inside to outside, for this reader in reverse, up to the
//! end of the text, where it would be within a string. Only a quote that is escaped could set it right,
//! and it rejects the backslash of that, which JSON has in strings only. So it agrees with any parser
//! about what is a string from the candidate on, and so about the depth, which is that of a member at
//! the end of the text. No earlier candidate has this depth, because each is tried in turn. A text
//! that is not JSON is rejected by the service.

use std::ops::Range;

use memchr::memchr_iter;

use super::Scan;

/// The end of the array at `start`, which is the value of a member of the outermost object of the
/// whole `text`. `None` if it has to be read to find that.
pub(super) fn end(text: &[u8], start: usize) -> Option<usize> {
    let near = text.len().min(start + NEAR_BYTES);
    if let Some(array) = Scan::starting(&text[..near], start).skip() {
        return Some(array.end);
    }
    candidate(text, near..text.len())
}

/// Whether the array at `start` ends before the position `end`.
pub(crate) fn ends_before(text: &[u8], start: usize, end: usize) -> bool {
    candidate(text, start..end).is_some()
}

/// The first end of an array in this range of `text`, which may begin within the array.
fn candidate(text: &[u8], range: Range<usize>) -> Option<usize> {
    // What follows a candidate may be long, such as tools, and there may be many candidates: together
    // they are read once.
    let (start, mut left) = (range.start, text.len());
    for bracket in memchr_iter(b']', text.get(range)?) {
        let end = start + bracket + 1;
        // Most brackets are those of a text.
        if !matches!(text.get(end), Some(b',' | b'}' | b' ' | b'\t' | b'\n' | b'\r')) {
            continue;
        }
        let mut rest = Scan::starting(text, end);
        if rest.ends_document().is_some() {
            return Some(end);
        }
        left = left.checked_sub(rest.at() - end)?;
    }
    None
}

/// Most arrays end within so many bytes.
const NEAR_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::azure::json::members;

    /// The ranges of all members, found with and without reading long arrays.
    fn ranges(text: &[u8]) -> [Option<Vec<std::ops::Range<usize>>>; 2] {
        [true, false].map(|is_read| {
            let mut ranges = Vec::new();
            let whole = members(text, |_, scan| {
                ranges.push(if is_read { scan.skip()? } else { scan.skip_outermost()? });
                Some(())
            });
            whole.map(|()| ranges)
        })
    }

    /// Texts that look like the ends of arrays, members and documents.
    const LOOKALIKES: &[&str] = &[
        "]",
        "],",
        "],\"",
        "\"",
        ",\"model\":\"x\"}",
        ":[\"",
        "\\",
        "{",
        "}",
        "[",
        "]}",
        ":",
        "\\\"",
        "\":{\"",
        "a",
    ];

    fn value() -> impl Strategy<Value = Value> {
        let text = prop::collection::vec(prop::sample::select(LOOKALIKES), 0..8);
        let leaf = prop_oneof![
            text.prop_map(|pieces| Value::from(pieces.concat())),
            Just(Value::Null),
            any::<i16>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 5, |inner| {
            let key = prop::sample::select(LOOKALIKES);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(key, inner, 0..5).prop_map(|members| {
                    members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn the_end_of_any_array_is_where_reading_it_ends(
            elements in prop::collection::vec(value(), 0..6),
            before in prop::collection::vec(value(), 0..2),
            after in prop::collection::vec(value(), 0..4),
            is_indented in any::<bool>(),
        ) {
            // Longer than what is read in any case.
            let elements = [vec![json!("x".repeat(NEAR_BYTES))], elements].concat();
            let members: Vec<_> = before.into_iter().chain([json!(elements)]).chain(after).collect();
            let object: serde_json::Map<_, _> =
                (0..).map(|at: u32| at.to_string()).zip(members).collect();
            let text = match is_indented {
                true => serde_json::to_string_pretty(&object),
                false => serde_json::to_string(&object),
            };
            let [expected, found] = ranges(text.expect("JSON").as_bytes());
            prop_assert!(expected.is_some());
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn no_text_panics(pieces in prop::collection::vec(prop::sample::select(LOOKALIKES), 0..20)) {
            let text = format!("{{\"a\":[\"{}\",{}", "x".repeat(NEAR_BYTES), pieces.concat());
            ranges(text.as_bytes());
            ranges(format!("{text}]}}").as_bytes());
        }
    }

    #[test]
    fn a_string_cannot_pass_for_the_end() {
        let long = "x".repeat(NEAR_BYTES);
        for (element, after) in [
            // Read from within the string, the model would be in a string of the metadata.
            ("],", r#","model":"evil]","metadata":{"k":":[\"" }"#),
            ("],\\\":[\\\"", r#","model":"evil""#),
            ("]}", r#","model":"evil""#),
            (r#"]\",\"model\":\"x\"}"#, r#","model":"evil""#),
        ] {
            let text = format!(r#"{{"a":["{long}","{element}",":["]{after}}}"#);
            let _: Value = serde_json::from_str(&text).expect("JSON");
            let [expected, found] = ranges(text.as_bytes());
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn candidates_are_not_read_again_and_again_where_each_is_followed_by_much() {
        let nested = |depth: usize| {
            let (open, close) = (r#"{"b":[],"c":"#.repeat(depth), "}".repeat(depth));
            format!(r#"{{"a":["{}",{open}1{close}],"z":1}}"#, "x".repeat(NEAR_BYTES))
        };
        let (few, many) = (nested(3), nested(1_000));
        let z = |text: &str| text.find(r#","z""#);
        assert_eq!(end(few.as_bytes(), 5), z(&few));
        assert_eq!(end(many.as_bytes(), 5), None);
        let [expected, found] = ranges(many.as_bytes());
        assert!(expected.is_some() && found == expected);
    }
}
