//! Replaces ranges of a body, byte for byte the same elsewhere.

use std::ops::Range;

use bytes::Bytes;

/// One range of a body and what takes its place.
pub(super) type Edit<'a> = (Range<usize>, &'a [u8]);

/// BodyEdits in the order of their ranges, which do not overlap. The first is kept inline: a body has
/// one `model`, so the list allocates only for duplicates.
#[derive(Debug, Default)]
pub(super) struct BodyEdits<'a> {
    first: Option<Edit<'a>>,
    more: Vec<Edit<'a>>,
}

impl<'a> BodyEdits<'a> {
    pub(super) fn push(&mut self, range: Range<usize>, with: &'a [u8]) {
        if self.first.is_none() {
            self.first = Some((range, with));
        } else {
            self.more.push((range, with));
        }
    }

    /// The edited body in one exactly sized allocation, or `None` when there is nothing to edit.
    pub(super) fn apply(&self, body: &[u8]) -> Option<Bytes> {
        self.first.as_ref()?;
        let (mut removed, mut added) = (0, 0);
        for (range, with) in self.iter() {
            removed += range.len();
            added += with.len();
        }
        let mut edited = Vec::with_capacity(body.len() - removed + added);
        let mut copied = 0;
        for (range, with) in self.iter() {
            edited.extend_from_slice(&body[copied..range.start]);
            edited.extend_from_slice(with);
            copied = range.end;
        }
        edited.extend_from_slice(&body[copied..]);
        Some(edited.into())
    }

    fn iter(&self) -> impl Iterator<Item = &Edit<'a>> {
        self.first.iter().chain(&self.more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_ranges_change() {
        let mut edits = BodyEdits::default();
        assert_eq!(edits.apply(b"abcdef"), None);
        edits.push(1..2, b"xyz");
        assert_eq!(edits.apply(b"abcdef").unwrap(), "axyzcdef");
        edits.push(2..2, b"-");
        edits.push(4..6, b"");
        assert_eq!(edits.apply(b"abcdef").unwrap(), "axyz-cd");
    }
}
