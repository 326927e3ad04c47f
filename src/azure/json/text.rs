//! The strings of a JSON text that arrives in pieces.

use super::scan::{is_escaped, quote};

/// Whether the current position in a chunked JSON text is within a string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum StringState {
    #[default]
    Between,
    Within,
    /// After a backslash in one.
    Escape,
}

impl StringState {
    /// Whether a string has begun and not ended.
    pub(super) fn is_within(self) -> bool {
        self != Self::Between
    }

    /// Continues reading a string; returns the part that belongs to it, as written, and the number of
    /// bytes read.
    pub(super) fn read<'a>(&mut self, rest: &'a [u8]) -> (&'a [u8], usize) {
        if *self == Self::Escape {
            let length = rest.len().min(1);
            *self = Self::Within;
            return (&rest[..length], length);
        }
        // Only quotes are searched for: a text has many escaped line breaks.
        let mut from = 0;
        while let Some(found) = quote(&rest[from..]) {
            let end = from + found;
            if !is_escaped(&rest[from..end]) {
                *self = Self::Between;
                return (&rest[..end], end + 1);
            }
            from = end + 1;
        }
        if is_escaped(&rest[from..]) {
            *self = Self::Escape;
        }
        (rest, rest.len())
    }
}

/// The start of a string, long enough for the names that are searched for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Name {
    bytes: [u8; 8],
    /// More than eight if the string is longer.
    length: usize,
}

impl Name {
    pub(super) fn extend(&mut self, more: &[u8]) {
        let length = self.length.saturating_add(more.len());
        if let Some(free) = self.bytes.get_mut(self.length..length) {
            free.copy_from_slice(more);
        }
        self.length = length;
    }

    /// Whether it is written as `name`, without escapes.
    pub(crate) fn is(&self, name: &[u8]) -> bool {
        self.bytes.get(..self.length) == Some(name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The part of `rest` that belongs to the string at its start, and the number of bytes read.
    fn read(mut pieces: Vec<&[u8]>) -> (Vec<u8>, usize) {
        let (mut text, mut kept, mut total) = (StringState::Within, Vec::new(), 0);
        while text.is_within() && !pieces.is_empty() {
            let (part, read) = text.read(pieces[0]);
            kept.extend_from_slice(part);
            total += read;
            pieces[0] = &pieces[0][read..];
            if pieces[0].is_empty() {
                pieces.remove(0);
            }
        }
        (kept, total)
    }

    proptest! {
        #[test]
        fn a_string_ends_at_its_quote_wherever_it_is_cut(text in "(\\PC|[\"\\\\])*", cut: usize) {
            let raw = serde_json::to_string(&text).unwrap();
            let rest = format!("{}, \"b\"", &raw[1..]);
            let (first, second) = rest.as_bytes().split_at(cut % (rest.len() + 1));
            let (kept, total) = read(vec![first, second]);
            prop_assert_eq!(kept, &raw.as_bytes()[1..raw.len() - 1]);
            prop_assert_eq!(total, raw.len() - 1);
        }
    }

    #[test]
    fn a_name_is_compared_whole() {
        let mut name = Name::default();
        assert!(name.is(b""));
        name.extend(b"sta");
        assert!(!name.is(b"status"));
        name.extend(b"tus");
        assert!(name.is(b"status"));
        name.extend(b"es");
        assert!(name.is(b"statuses") && !name.is(b"status"));
        name.extend(b"!");
        assert!(!name.is(b"statuses") && !name.is(b"statuses!"), "longer than what is kept");
    }
}
