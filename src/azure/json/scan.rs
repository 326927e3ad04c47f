//! Skips through a JSON text, member by member, without a tree or recursion.

use std::ops::Range;

use memchr::{memchr, memchr2};

use super::long_array;

/// Calls `each(key, scan)` for every member of the outermost object. `key` is the range of the key
/// without quotes; `scan` is at the value, and `each` must consume it.
///
/// Only the grammar of that object is checked. `None` if the text is not one whole object; the
/// members before the fault were passed to `each`.
pub(crate) fn members<'a>(
    text: &'a [u8],
    each: impl FnMut(Range<usize>, &mut Scan<'a>) -> Option<()>,
) -> Option<()> {
    Scan::of(text).document(each)
}

/// A position in a JSON text. A method returns `None` at the end of the text or at a syntax error.
pub(crate) struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A string that was skipped.
pub(crate) struct Skipped<'a> {
    /// As written, without its quotes.
    pub(crate) raw: &'a [u8],
    /// The length of its text in UTF-8, with escapes decoded.
    pub(crate) length: usize,
}

impl<'a> Scan<'a> {
    /// A scan at the start of `text`.
    pub(crate) const fn of(text: &'a [u8]) -> Self {
        Self::starting(text, 0)
    }

    /// A scan at position `at` of `text`.
    pub(crate) const fn starting(text: &'a [u8], at: usize) -> Self {
        Self { bytes: text, at }
    }

    /// Its position.
    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    /// Skips the whole text, and calls `each` as [`members`] does.
    pub(crate) fn document(
        &mut self,
        each: impl FnMut(Range<usize>, &mut Self) -> Option<()>,
    ) -> Option<()> {
        self.object(each)?;
        // Anything more is a second document, or the rest of a broken one.
        self.peek().is_none().then_some(())
    }

    /// The next byte that is not white space, without consuming it.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        loop {
            match *self.bytes.get(self.at)? {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    /// Skips a value, and returns its range.
    pub(crate) fn skip(&mut self) -> Option<Range<usize>> {
        self.skip_with(|scan| scan.string().map(drop))
    }

    /// Skips a value of the outermost object of the whole text, and returns its range. A long array
    /// is not read: see [`long_array`].
    pub(crate) fn skip_outermost(&mut self) -> Option<Range<usize>> {
        if self.peek()? != b'[' {
            return self.skip();
        }
        let start = self.at;
        match long_array::end(self.bytes, start) {
            Some(end) => {
                self.at = end;
                Some(start..end)
            }
            None => self.skip(),
        }
    }

    /// Skips a value. `string` skips each string in it, keys included, whose opening quote is
    /// consumed.
    pub(crate) fn skip_with(
        &mut self,
        mut string: impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<Range<usize>> {
        let first = self.peek()?;
        let start = self.at;
        match first {
            b'"' => {
                self.at += 1;
                string(self)?;
            }
            b'{' | b'[' => self.nested(string, |_| true)?,
            _ => self.scalar()?,
        }
        Some(start..self.at)
    }

    /// Skips an object, and calls `each` as [`members`] does.
    pub(crate) fn object(
        &mut self,
        mut each: impl FnMut(Range<usize>, &mut Self) -> Option<()>,
    ) -> Option<()> {
        self.expect(b'{')?;
        if self.peek()? != b'}' {
            loop {
                self.expect(b'"')?;
                let key = self.at..self.string()?;
                self.expect(b':')?;
                each(key, self)?;
                if self.peek()? != b',' {
                    break;
                }
                self.expect(b',')?;
            }
        }
        self.expect(b'}')
    }

    /// Skips an array; `each` skips each of its elements.
    pub(crate) fn array(&mut self, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.expect(b'[')?;
        if self.peek()? != b']' {
            loop {
                each(self)?;
                if self.peek()? != b',' {
                    break;
                }
                self.expect(b',')?;
            }
        }
        self.expect(b']')
    }

    /// Skips a string whose opening quote is consumed, and measures its text.
    pub(crate) fn measure(&mut self) -> Option<Skipped<'a>> {
        let (start, mut length) = (self.at, 0_usize);
        loop {
            let plain = quote_or_backslash(self.bytes.get(self.at..)?)?;
            self.at += plain;
            length += plain;
            if self.bytes[self.at] == b'"' {
                let raw = &self.bytes[start..self.at];
                self.at += 1;
                return Some(Skipped { raw, length });
            }
            // Some clients send non-English text as one escape after another.
            while self.bytes.get(self.at) == Some(&b'\\') {
                let (raw, text) = escape(&self.bytes[self.at..])?;
                self.at += raw;
                length += text;
            }
        }
    }

    /// Reads what follows a value of the outermost object, up to the end of the text. `None` if that
    /// is not how an object ends; also if there is a backslash outside of its strings.
    pub(super) fn ends_document(&mut self) -> Option<()> {
        while self.peek()? == b',' {
            self.at += 1;
            self.expect(b'"')?;
            self.string()?;
            self.expect(b':')?;
            match self.peek()? {
                b'{' | b'[' => {
                    let has_no_backslash = |between: &[u8]| !between.contains(&b'\\');
                    self.nested(|scan| scan.string().map(drop), has_no_backslash)?;
                }
                _ => {
                    self.skip()?;
                }
            }
        }
        self.expect(b'}')?;
        self.peek().is_none().then_some(())
    }

    /// Consumes `byte` and the white space before it.
    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Skips a string whose opening quote is consumed; returns the position of its closing quote.
    ///
    /// It searches for quotes only and counts the backslashes before each: text that is all escapes,
    /// as Python writes non-ASCII, is skipped as fast as any other.
    fn string(&mut self) -> Option<usize> {
        let start = self.at;
        loop {
            let quote = self.at + quote(&self.bytes[self.at..])?;
            self.at = quote + 1;
            if !is_escaped(&self.bytes[start..quote]) {
                return Some(quote);
            }
        }
    }

    /// Skips an array or object by its depth; only strings can hide a bracket. `None` if
    /// `may_be_between` returns false for what is between two strings or brackets.
    fn nested(
        &mut self,
        mut string: impl FnMut(&mut Self) -> Option<()>,
        may_be_between: impl Fn(&[u8]) -> bool,
    ) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            let between = mark(&self.bytes[self.at..]);
            if !may_be_between(&self.bytes[self.at..self.at + between]) {
                return None;
            }
            self.at += between;
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            match byte {
                b'"' => string(self)?,
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

/// The length of the escape at the beginning of `raw`, and that of its text in UTF-8.
fn escape(raw: &[u8]) -> Option<(usize, usize)> {
    match raw.get(1)? {
        b'u' => Some((6, utf8_length(raw.get(2..6)?))),
        _ => Some((2, 1)),
    }
}

/// The length of a part of a string in UTF-8, with escapes decoded.
pub(crate) fn decoded_length(mut raw: &[u8]) -> usize {
    let mut length = 0;
    while let Some(plain) = memchr(b'\\', raw) {
        length += plain;
        raw = &raw[plain..];
        // An escape that is cut off is no text.
        let Some((escape, text)) = escape(raw) else { return length };
        length += text;
        raw = &raw[escape..];
    }
    length + raw.len()
}

/// The number of UTF-8 bytes of the code unit with these four digits.
fn utf8_length(digits: &[u8]) -> usize {
    match digits {
        [b'0', b'0', b'0'..=b'7', _] => 1,
        [b'0', b'0'..=b'7', ..] => 2,
        // The first half of a surrogate pair counts for both.
        [b'd' | b'D', b'8' | b'9' | b'a' | b'A' | b'b' | b'B', ..] => 4,
        [b'd' | b'D', b'c'..=b'f' | b'C'..=b'F', ..] => 0,
        _ => 3,
    }
}

/// Whether what follows `text`, which begins outside of an escape, is escaped.
#[inline]
pub(crate) fn is_escaped(text: &[u8]) -> bool {
    text.iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1
}

/// The position of the first quote. The next one is often a few bytes away, where `memchr` costs more
/// than checking two words.
#[inline]
pub(super) fn quote(bytes: &[u8]) -> Option<usize> {
    match near(bytes, |word| equal(word, b'"')) {
        Ok(found) => Some(found),
        Err(at) => memchr(b'"', &bytes[at..]).map(|found| at + found),
    }
}

/// The position of the first quote or backslash, found in the same way.
pub(crate) fn quote_or_backslash(bytes: &[u8]) -> Option<usize> {
    match near(bytes, |word| equal(word, b'"') | equal(word, b'\\')) {
        Ok(found) => Some(found),
        Err(at) => memchr2(b'"', b'\\', &bytes[at..]).map(|found| at + found),
    }
}

/// Checks two words: the position of the first byte that `find` marks, or the number of bytes without
/// one.
fn near(bytes: &[u8], find: impl Fn(u64) -> u64) -> Result<usize, usize> {
    let mut at = 0;
    for &word in bytes[..bytes.len().min(NEAR_BYTES)].as_chunks().0 {
        let found = find(u64::from_le_bytes(word));
        if found != 0 {
            return Ok(at + found.trailing_zeros() as usize / 8);
        }
        at += word.len();
    }
    Err(at)
}

/// Sets the high bit of the lowest byte that is `byte`.
fn equal(word: u64, byte: u8) -> u64 {
    zeros(word ^ u64::from_le_bytes([byte; 8]))
}

/// Sets the high bit of the lowest zero byte; bits above that are meaningless (Bit Twiddling Hacks,
/// "Determine if a word has a zero byte").
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(u64::from_le_bytes([0x01; 8])) & !word & u64::from_le_bytes([0x80; 8])
}

/// The position of the first quote or bracket, or the end.
pub(crate) fn mark(bytes: &[u8]) -> usize {
    let near = bytes.len().min(NEAR_BYTES);
    if let Some(found) = bytes[..near].iter().position(|&byte| is_mark(byte)) {
        return found;
    }
    let mut at = near;
    for block in bytes[near..].as_chunks::<BLOCK_BYTES>().0 {
        // The fold has no early exit, so that it vectorises.
        if block.iter().fold(false, |marked, &byte| marked | is_mark(byte)) {
            break;
        }
        at += BLOCK_BYTES;
    }
    let rest = &bytes[at..];
    at + rest.iter().position(|&byte| is_mark(byte)).unwrap_or(rest.len())
}

fn is_mark(byte: u8) -> bool {
    // Setting bit 5 maps `[` to `{` and `]` to `}`, and no other byte to them.
    byte == b'"' || byte | 0x20 == b'{' || byte | 0x20 == b'}'
}

const NEAR_BYTES: usize = 16;
const BLOCK_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn marks_are_found_at_every_distance() {
        for distance in 0..200 {
            for byte in *b"\"[]{}" {
                let mut bytes = vec![b'1'; distance];
                bytes.push(byte);
                bytes.extend_from_slice(b",,,,");
                assert_eq!(mark(&bytes), distance);
                assert_eq!(quote(&bytes), (byte == b'"').then_some(distance));
            }
            for byte in *b"\"\\" {
                let mut bytes = vec![b'!'; distance];
                bytes.extend_from_slice(&[byte, b'#', b'"', b'\\']);
                assert_eq!(quote_or_backslash(&bytes), Some(distance));
            }
            assert_eq!(mark(&vec![b','; distance]), distance);
        }
        assert_eq!((0..=255).filter(|&byte| is_mark(byte)).count(), 5);
    }

    fn measured(text: &[u8]) -> Option<(&[u8], usize)> {
        let skipped = Scan { bytes: text, at: 1 }.measure()?;
        Some((skipped.raw, skipped.length))
    }

    #[test]
    fn a_string_that_does_not_end_is_not_measured() {
        for text in [r#"""#, r#""a"#, r#""a\""#, r#""\"#, r#""\u12"#, r#""\u123"#] {
            assert_eq!(measured(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_length_is_that_of_the_text_however_it_is_escaped(
            text in "(\\PC|[\"\\\\\n\t\u{7f}\u{1F600}])*",
        ) {
            let raw = serde_json::to_string(&text).unwrap();
            let all: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            for raw in [&raw[1..raw.len() - 1], &all] {
                let quoted = format!("\"{raw}\"");
                prop_assert_eq!(measured(quoted.as_bytes()), Some((raw.as_bytes(), text.len())));
            }
        }
    }
}
