//! Replaces the top-level `model` of a JSON body without building a tree.

use std::ops::Range;

use bytes::Bytes;
use memchr::memchr;

use crate::backend::rewrite::deployment::Deployment;
use crate::backend::rewrite::splice::Edits;

/// The body with every top-level `model` string replaced, other bytes as they were.
///
/// `None` when there is nothing to replace: no such member, its value is not a string or is the
/// deployment already, or the body is not one whole JSON object. The scan is linear, does not
/// recurse, and checks the grammar of the outermost object alone; what is wrong further inside is
/// for the service to refuse.
pub(crate) fn replace_model(body: &Bytes, deployment: &Deployment) -> Option<Bytes> {
    let mut scan = Scan { bytes: body, at: 0 };
    let mut edits = Edits::default();
    scan.expect(b'{')?;
    if scan.peek()? != b'}' {
        loop {
            let (key, value) = scan.member()?;
            if is_model(&body[key])
                && body[value.start] == b'"'
                && body[value.clone()] != *deployment.json()
            {
                edits.push(value, deployment.json());
            }
            if scan.peek()? != b',' {
                break;
            }
            scan.at += 1;
        }
    }
    scan.expect(b'}')?;
    match scan.peek() {
        None => edits.apply(body),
        // A second document, or what is left of a broken one.
        Some(_) => None,
    }
}

/// A position in a JSON text. Methods that give `None` met its end or something out of place.
struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    /// The next byte that is not white space, without consuming it.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match *self.bytes.get(self.at)? {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Skips `"key": value`; gives where the key (without quotes) and the value (with them) are.
    fn member(&mut self) -> Option<(Range<usize>, Range<usize>)> {
        self.expect(b'"')?;
        let key = self.at..self.string()?;
        self.expect(b':')?;
        let first = self.peek()?;
        let start = self.at;
        match first {
            b'"' => {
                self.at += 1;
                self.string()?;
            }
            b'{' | b'[' => self.nested()?,
            _ => self.scalar()?,
        }
        Some((key, start..self.at))
    }

    /// Skips a string whose opening quote is consumed; gives where its closing quote is.
    ///
    /// Looks for quotes alone and counts the backslashes before each: text that is all escapes, as
    /// Python writes whatever is not ASCII, is skipped as fast as any other.
    fn string(&mut self) -> Option<usize> {
        let start = self.at;
        loop {
            let quote = self.at + memchr(b'"', &self.bytes[self.at..])?;
            self.at = quote + 1;
            let backslashes =
                self.bytes[start..quote].iter().rev().take_while(|&&byte| byte == b'\\').count();
            if backslashes % 2 == 0 {
                return Some(quote);
            }
        }
    }

    /// Skips an array or object by its depth; only strings can hide a bracket.
    fn nested(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            self.at += plain_prefix(&self.bytes[self.at..]);
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            match byte {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => depth += 1,
                _ => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(());
                    }
                }
            }
        }
    }

    /// Skips a number, `true`, `false` or `null`.
    fn scalar(&mut self) -> Option<()> {
        let rest = &self.bytes[self.at..];
        let length = rest
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
            .count();
        self.at += length;
        (length > 0).then_some(())
    }
}

/// How many bytes come before the first quote or bracket, or before the end.
fn plain_prefix(bytes: &[u8]) -> usize {
    // Most are a comma or a colon away, so a block at a time pays only after a few bytes.
    let near = bytes.len().min(NEAR);
    if let Some(found) = bytes[..near].iter().position(|&byte| is_mark(byte)) {
        return found;
    }
    let mut plain = near;
    // The fold has no early exit, so that the compiler turns it into vector compares.
    for block in bytes[near..].chunks_exact(BLOCK) {
        if block.iter().fold(false, |marked, &byte| marked | is_mark(byte)) {
            break;
        }
        plain += BLOCK;
    }
    let rest = &bytes[plain..];
    plain + rest.iter().position(|&byte| is_mark(byte)).unwrap_or(rest.len())
}

fn is_mark(byte: u8) -> bool {
    // Setting bit 5 makes `[` a `{` and `]` a `}`, and moves nothing else onto them.
    byte == b'"' || byte | 0x20 == b'{' || byte | 0x20 == b'}'
}

/// Whether a raw key means `model`. Of JSON's escapes only `\u` can spell a letter.
fn is_model(key: &[u8]) -> bool {
    if key == MODEL {
        return true;
    }
    let mut rest = key;
    for expected in MODEL {
        rest = match rest {
            [byte, next @ ..] if byte == expected => next,
            [b'\\', b'u', b'0', b'0', high, low, next @ ..]
                if hex(*high) == Some(u32::from(expected >> 4))
                    && hex(*low) == Some(u32::from(expected & 15)) =>
            {
                next
            }
            _ => return false,
        };
    }
    rest.is_empty()
}

fn hex(digit: u8) -> Option<u32> {
    char::from(digit).to_digit(16)
}

const MODEL: &[u8; 5] = b"model";
const NEAR: usize = 8;
const BLOCK: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn replaced(body: &[u8]) -> Option<Bytes> {
        replace_model(&Bytes::copy_from_slice(body), &Deployment::new("ptu \"eu\"").unwrap())
    }

    #[test]
    fn the_top_level_model_is_replaced_and_nothing_else() {
        for (body, expected) in [
            (r#"{"model":"a"}"#, r#"{"model":"ptu \"eu\""}"#),
            (r#"{"model":"","x":1}"#, r#"{"model":"ptu \"eu\"","x":1}"#),
            (
                " \r\n{\t\"model\" :\n\"a\\\"b\\\\\" , \"n\" : -1.5e+3 } \n",
                " \r\n{\t\"model\" :\n\"ptu \\\"eu\\\"\" , \"n\" : -1.5e+3 } \n",
            ),
            (r#"{"mod\u0065l":"a"}"#, r#"{"mod\u0065l":"ptu \"eu\""}"#),
            (r#"{"\u006D\u006f\u0064el":"a"}"#, r#"{"\u006D\u006f\u0064el":"ptu \"eu\""}"#),
            (
                r#"{"model":"a","m":{"model":"x"},"model":null,"model":"b"}"#,
                r#"{"model":"ptu \"eu\"","m":{"model":"x"},"model":null,"model":"ptu \"eu\""}"#,
            ),
            (
                r#"{"a":[{"model":"]"},"}{",[[]]],"b":"\"model\":\"x\"","c":true,"model":"a"}"#,
                r#"{"a":[{"model":"]"},"}{",[[]]],"b":"\"model\":\"x\"","c":true,"model":"ptu \"eu\""}"#,
            ),
        ] {
            assert_eq!(replaced(body.as_bytes()).as_deref(), Some(expected.as_bytes()), "{body}");
        }
    }

    #[test]
    fn a_body_with_nothing_to_replace_is_left_alone() {
        for body in [
            r#"{}"#,
            r#" { } "#,
            r#"{"model":null}"#,
            r#"{"model":4}"#,
            r#"{"model":["a"]}"#,
            r#"{"model":{"model":"a"}}"#,
            r#"{"model":"ptu \"eu\""}"#,
            r#"{"Model":"a","models":"b","mode":"c","":"d"}"#,
            r#"{"mod\u0045l":"a","mod\\u0065l":"b","model\u0000":"c","mod\u00":"d","\model":"e"}"#,
            r#"{"messages":[{"model":"a"}]}"#,
            r#"[{"model":"a"}]"#,
            r#""model""#,
            "null",
        ] {
            assert_eq!(replaced(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn a_broken_body_is_left_alone() {
        for body in [
            "",
            " ",
            "\u{feff}{\"model\":\"a\"}",
            r#"{"model":"a"}}"#,
            r#"{"model":"a"}{"model":"b"}"#,
            r#"{"model":"a",}"#,
            r#"{"model":"a""x":1}"#,
            r#"{"model":"a" x}"#,
            r#"{"model" "a"}"#,
            r#"{"model":"a","x":}"#,
            r#"{"model":"a","x"}"#,
            r#"{"model":"a","x":1 2}"#,
            r#"{"model":"a","x":[1}"#,
            r#"{,"model":"a"}"#,
            r#"{model:"a"}"#,
            r#"{'model':'a'}"#,
            "--XX\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nx\r\n--XX--",
        ] {
            assert_eq!(replaced(body.as_bytes()), None, "{body}");
        }
        let whole = br#"{"model":"a\\","x":[{"y":"\""}],"z":null}"#;
        for length in 0..whole.len() {
            assert_eq!(replaced(&whole[..length]), None, "{length}");
        }
        assert!(replaced(whole).is_some());
    }

    #[test]
    fn deep_nesting_does_not_recurse() {
        let deep = 1 << 20;
        let body = format!(r#"{{"a":{}{},"model":"a"}}"#, "[".repeat(deep), "]".repeat(deep));
        assert_eq!(replaced(body.as_bytes()).unwrap().len(), body.len() + 9);
    }

    #[test]
    fn marks_are_found_at_every_distance() {
        for distance in 0..200 {
            for mark in *b"\"[]{}" {
                let mut bytes = vec![b'1'; distance];
                bytes.push(mark);
                bytes.extend_from_slice(b",,,,");
                assert_eq!(plain_prefix(&bytes), distance);
            }
            assert_eq!(plain_prefix(&vec![b','; distance]), distance);
        }
        assert_eq!((0..=255).filter(|&byte| is_mark(byte)).count(), 5);
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "(model|[\"\\\\\\[\\]{}:,]|\\PC){0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                object(inner).prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn object(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Vec<(String, Value)>> {
        prop::collection::vec(("(model|mo|[\"\\\\]|\\PC){0,3}", value), 0..6)
    }

    const PIECES: &str = "(\"model\":\"[ab]\",?|\"x\":null,|[\\[\\]{}:, 1\"\\\\]){0,20}";

    proptest! {
        #[test]
        fn an_edit_equals_parse_change_and_serialise(
            members in object(json()),
            model in "\\PC{0,12}",
            name in "\\PC{1,12}",
            pretty in any::<bool>(),
        ) {
            let Some(deployment) = Deployment::new(&name) else { return Ok(()) };
            let mut tree: serde_json::Map<_, _> = members.into_iter().collect();
            tree.insert("model".into(), model.clone().into());
            let write = |tree: &serde_json::Map<String, Value>| {
                let text = if pretty {
                    serde_json::to_string_pretty(tree)
                } else {
                    serde_json::to_string(tree)
                };
                Bytes::from(text.unwrap())
            };
            let body = write(&tree);
            let edited = replace_model(&body, &deployment);
            tree.insert("model".into(), name.clone().into());
            if model == name {
                prop_assert_eq!(edited, None);
            } else {
                prop_assert_eq!(edited, Some(write(&tree)), "the same bytes but for the value");
            }
        }

        #[test]
        fn arbitrary_bytes_change_only_in_the_values_of_model(
            pieces in PIECES,
            wrapped in any::<bool>(),
        ) {
            let mut body = pieces.into_bytes();
            if wrapped {
                body = [b"{", &*body, b"\"z\":0}"].concat();
            }
            let body = Bytes::from(body);
            let long = replace_model(&body, &Deployment::new("*").unwrap());
            if let Some(edited) = long {
                let (mut old, mut new) = (&body[..], &edited[..]);
                while let Some(at) = memchr::memmem::find(new, b"\"model\":\"*\"") {
                    let value = at + b"\"model\":".len();
                    prop_assert_eq!(&new[..value], &old[..value]);
                    let was = &old[value..value + 3];
                    prop_assert!(was == b"\"a\"" || was == b"\"b\"", "{was:?}");
                    (old, new) = (&old[value + 3..], &new[value + 3..]);
                }
                prop_assert_eq!(old, new);
            }
        }

        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..100)) {
            replaced(&noise);
            replaced(&[b"{\"model\":\"a\",\"x\":", &*noise, b"}"].concat());
        }
    }
}
