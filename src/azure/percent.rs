//! Percent-encoding, as in one segment of a path (RFC 3986, section 2).

use std::borrow::Cow;

/// Keeps the unreserved characters (section 2.3) and encodes every other byte.
pub(crate) fn encode(name: &str) -> String {
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                segment.push(char::from(byte));
            }
            _ => {
                segment.push('%');
                segment.push(char::from(HEX[usize::from(byte >> 4)]));
                segment.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
    segment
}

/// Decodes `text`. Anything that is not a valid escape stands for itself.
pub(crate) fn decode(text: &[u8]) -> impl Iterator<Item = u8> {
    units(text).map(|unit| unit.unwrap_or(b'%'))
}

/// Decodes `segment`; `None` if it has a percent sign without a valid escape, or its bytes are not
/// UTF-8.
pub fn decode_text(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(segment.into());
    }
    let bytes = units(segment.as_bytes()).collect::<Option<Vec<_>>>()?;
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// Decodes each byte or escape of `text`; `None` for a percent sign without a valid escape.
fn units(text: &[u8]) -> impl Iterator<Item = Option<u8>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (byte, after) = match rest {
            [b'%', high, low, after @ ..] => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (Some(high << 4 | low), after),
                _ => (None, &rest[1..]),
            },
            [b'%', after @ ..] => (None, after),
            [byte, after @ ..] => (Some(*byte), after),
            [] => return None,
        };
        rest = after;
        Some(byte)
    })
}

fn digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_escape_stands_for_itself() {
        for (text, bytes) in [
            ("resp%5F1", "resp_1"),
            ("%72esp_1", "resp_1"),
            ("a%2fb%2Fc", "a/b/c"),
            ("100%", "100%"),
            ("%4", "%4"),
            ("%zz%41", "%zzA"),
            ("%%41", "%A"),
            ("", ""),
        ] {
            assert!(decode(text.as_bytes()).eq(bytes.bytes()), "{text}");
        }
    }

    #[test]
    fn a_text_is_decoded_whole_or_not_at_all() {
        assert_eq!(decode_text("gpt%2D4o").as_deref(), Some("gpt-4o"));
        assert_eq!(decode_text("a b").as_deref(), Some("a b"));
        for broken in ["%zz", "%4", "100%", "%ff"] {
            assert_eq!(decode_text(broken), None, "{broken}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_reads_back(text in "\\PC{0,20}") {
            let encoded = encode(&text);
            prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/'));
            prop_assert!(decode(encoded.as_bytes()).eq(text.bytes()));
        }

        #[test]
        fn no_bytes_panic(text in prop::collection::vec(any::<u8>(), 0..20)) {
            prop_assert!(decode(&text).count() <= text.len());
        }
    }
}
