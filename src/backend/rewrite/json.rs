//! Skips through a JSON text, member by member, without a tree or recursion.

use std::ops::Range;

use memchr::memchr;

/// A position in a JSON text. Methods that give `None` met its end or something out of place.
pub(super) struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next byte that is not white space, without consuming it.
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            match *self.bytes.get(self.at)? {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    /// Consumes `byte` and the white space before it.
    pub(super) fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Skips `"key": value`; gives where the key (without quotes) and the value (with them) are.
    pub(super) fn member(&mut self) -> Option<(Range<usize>, Range<usize>)> {
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
            let quote = self.at + quote(&self.bytes[self.at..])?;
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
            self.at += mark(&self.bytes[self.at..]);
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

/// Where the first quote is. The next is often a few bytes away, where `memchr` costs more than
/// looking at two words.
fn quote(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    for &word in bytes[..bytes.len().min(NEAR)].as_chunks().0 {
        let quotes = zeros(u64::from_le_bytes(word) ^ u64::from_le_bytes([b'"'; 8]));
        if quotes != 0 {
            return Some(at + quotes.trailing_zeros() as usize / 8);
        }
        at += word.len();
    }
    memchr(b'"', &bytes[at..]).map(|found| at + found)
}

/// Sets the high bit of the lowest byte that is zero; what is set above it means nothing
/// (Bit Twiddling Hacks, "Determine if a word has a zero byte").
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(u64::from_le_bytes([0x01; 8])) & !word & u64::from_le_bytes([0x80; 8])
}

/// Where the first quote or bracket is, or the end.
fn mark(bytes: &[u8]) -> usize {
    let near = bytes.len().min(NEAR);
    if let Some(found) = bytes[..near].iter().position(|&byte| is_mark(byte)) {
        return found;
    }
    let mut at = near;
    for block in bytes[near..].as_chunks::<BLOCK>().0 {
        // The fold has no early exit, so that it becomes a few vector compares.
        if block.iter().fold(false, |marked, &byte| marked | is_mark(byte)) {
            break;
        }
        at += BLOCK;
    }
    let rest = &bytes[at..];
    at + rest.iter().position(|&byte| is_mark(byte)).unwrap_or(rest.len())
}

fn is_mark(byte: u8) -> bool {
    // Setting bit 5 makes `[` a `{` and `]` a `}`, and moves nothing else onto them.
    byte == b'"' || byte | 0x20 == b'{' || byte | 0x20 == b'}'
}

const NEAR: usize = 16;
const BLOCK: usize = 32;

#[cfg(test)]
mod tests {
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
            assert_eq!(mark(&vec![b','; distance]), distance);
        }
        assert_eq!((0..=255).filter(|&byte| is_mark(byte)).count(), 5);
    }
}
