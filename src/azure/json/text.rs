//! The strings of a JSON text that arrives in pieces.

use super::quote_or_backslash;

/// Whether a JSON text that arrives in pieces is within a string just now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Text {
    #[default]
    Between,
    Within,
    /// After a backslash in one.
    Escape,
}

impl Text {
    /// Whether a string has begun and not ended.
    pub(crate) fn is_within(self) -> bool {
        self != Self::Between
    }

    /// Reads on in a string, with `keep` called for what belongs to it, as it is written; gives how
    /// many bytes were read.
    pub(crate) fn read(&mut self, rest: &[u8], mut keep: impl FnMut(&[u8])) -> usize {
        if *self == Self::Escape {
            let length = rest.len().min(1);
            keep(&rest[..length]);
            *self = Self::Within;
            return length;
        }
        let Some(end) = quote_or_backslash(rest) else {
            keep(rest);
            return rest.len();
        };
        if rest[end] == b'"' {
            keep(&rest[..end]);
            *self = Self::Between;
        } else {
            keep(&rest[..=end]);
            *self = Self::Escape;
        }
        end + 1
    }
}

/// The beginning of a string, long enough for the names that are looked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Name {
    bytes: [u8; 8],
    /// More than eight when the string is longer.
    length: usize,
}

impl Name {
    pub(crate) fn extend(&mut self, more: &[u8]) {
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

    /// What of `rest` belongs to the string that begins it, and how much was read.
    fn read(mut pieces: Vec<&[u8]>) -> (Vec<u8>, usize) {
        let (mut text, mut kept, mut total) = (Text::Within, Vec::new(), 0);
        while text.is_within() && !pieces.is_empty() {
            let read = text.read(pieces[0], |piece| kept.extend_from_slice(piece));
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
