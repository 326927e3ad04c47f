//! Checks the syntax of a JSON value and finds its end, as serde_json does with a value that it
//! ignores, in a fifth of the instructions.

use memchr::memchr2;

/// The length of the value at the beginning of `text`, after white space; `None` if it is broken or
/// has no end. Bytes that are not UTF-8 are not an error within a string, and what follows a number
/// is not looked at.
pub(super) fn length(text: &[u8]) -> Option<usize> {
    let mut reader = Reader { text, at: 0 };
    // The closing brackets of what is open.
    let mut open = Vec::new();
    loop {
        let mut has_ended = match reader.next()? {
            b'[' => match reader.takes(b']') {
                true => true,
                false => {
                    open.push(b']');
                    false
                }
            },
            b'{' => match reader.takes(b'}') {
                true => true,
                false => {
                    open.push(b'}');
                    reader.key()?;
                    false
                }
            },
            first => {
                reader.scalar(first)?;
                true
            }
        };
        while has_ended {
            let Some(&closing) = open.last() else { return Some(reader.at) };
            match reader.next()? {
                b',' if closing == b'}' => {
                    reader.key()?;
                    has_ended = false;
                }
                b',' => has_ended = false,
                byte if byte == closing => drop(open.pop()),
                _ => return None,
            }
        }
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    /// The next byte that is not white space.
    fn next(&mut self) -> Option<u8> {
        self.skip_space();
        let byte = *self.text.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// Whether this byte is next; it is read then.
    fn takes(&mut self, byte: u8) -> bool {
        self.skip_space();
        let takes = self.peek() == Some(byte);
        self.at += usize::from(takes);
        takes
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// A member's key and the colon behind it.
    fn key(&mut self) -> Option<()> {
        (self.next()? == b'"').then_some(())?;
        self.string()?;
        (self.next()? == b':').then_some(())
    }

    fn scalar(&mut self, first: u8) -> Option<()> {
        match first {
            b'"' => self.string(),
            b't' => self.word(b"rue"),
            b'f' => self.word(b"alse"),
            b'n' => self.word(b"ull"),
            b'-' | b'0'..=b'9' => self.number(first),
            _ => None,
        }
    }

    fn word(&mut self, rest: &[u8]) -> Option<()> {
        self.text[self.at..].starts_with(rest).then(|| self.at += rest.len())
    }

    fn number(&mut self, first: u8) -> Option<()> {
        let first = if first == b'-' { self.digit()? } else { first };
        if first != b'0' {
            self.digits();
        } else if self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return None;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digit()?;
            self.digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digit()?;
            self.digits();
        }
        Some(())
    }

    fn digit(&mut self) -> Option<u8> {
        let digit = self.peek().filter(u8::is_ascii_digit)?;
        self.at += 1;
        Some(digit)
    }

    fn digits(&mut self) {
        while self.digit().is_some() {}
    }

    /// What follows an opening quote.
    fn string(&mut self) -> Option<()> {
        loop {
            let rest = &self.text[self.at..];
            let plain = memchr2(b'"', b'\\', rest)?;
            // The least of them: one instruction for 16 bytes.
            if rest[..plain].iter().fold(u8::MAX, |least, &byte| least.min(byte)) < b' ' {
                return None;
            }
            self.at += plain + 1;
            if rest[plain] == b'"' {
                return Some(());
            }
            let escape = self.peek()?;
            self.at += 1;
            match escape {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                b'u' => {
                    let digits = self.text.get(self.at..self.at + 4)?;
                    digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
                    self.at += 4;
                }
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    #[test]
    fn a_value_ends_where_it_ends() {
        for (text, expected) in [
            (r#" {"a":[1,{"b":"}]\"\\"}],"c":{}} ,"#, Some(32)),
            (r#""a\u00e4\n"x"#, Some(11)),
            ("-0.5e+10,", Some(8)),
            ("[]]", Some(2)),
            ("[1,]", None),
            (r#"{"a":1,}"#, None),
            (r#"{"a" 1}"#, None),
            ("[1}", None),
            ("01", None),
            ("1.", None),
            ("\"a\nb\"", None),
            (r#""\x""#, None),
            (r#""\u00g0""#, None),
            ("\"a", None),
            ("[[", None),
            ("", None),
        ] {
            assert_eq!(length(text.as_bytes()), expected, "{text}");
        }
        let deep = [&b"[".repeat(100_000)[..], &b"]".repeat(100_000)].concat();
        assert_eq!(length(&deep), Some(200_000));
    }

    proptest! {
        #[test]
        fn what_serde_accepts_is_accepted_and_nothing_else(
            pieces in prop::collection::vec(prop::sample::select(PIECES), 0..14),
            is_list in any::<bool>(),
        ) {
            let text = match is_list {
                true => [&b"["[..], &pieces.join(&b","[..]), b"]"].concat(),
                false => pieces.concat(),
            };
            let is_whole = length(&text).is_some_and(|end| text[end..].trim_ascii().is_empty());
            let by_serde = serde_json::from_slice::<IgnoredAny>(&text).is_ok();
            prop_assert_eq!(is_whole, by_serde, "{}", String::from_utf8_lossy(&text));
        }
    }

    const PIECES: &[&[u8]] = &[
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"",
        b"\\",
        b"\\u",
        b"00e4",
        b"\"a\"",
        b"\"a\":",
        b"\"\xff\"",
        b"1",
        b"0",
        b"-",
        b".",
        b"5",
        b"e",
        b"+",
        b"true",
        b"nul",
        b"null",
        b" ",
        b"\n",
        b"\t\r",
        b"/",
        b"a long text without anything in it, over more than one vector of bytes",
    ];
}
