//! Replaces ranges of a body, byte for byte the same elsewhere.

use std::ops::Range;

use bytes::Bytes;

/// A range of a body, and its replacement.
pub(super) type Edit<'a> = (Range<usize>, &'a [u8]);

/// A body after its edits.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Edited {
    Whole(Bytes),
    /// The unchanged parts of a long body, which are not copied, and the replacements between them.
    Pieces(Vec<Bytes>),
}

/// The edits of a body in the order of their ranges, which do not overlap. The first is inline: a
/// body has one `model`, so the list allocates only for duplicates.
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

    /// The edited body, or `None` if there is nothing to edit.
    pub(super) fn apply(&self, body: &Bytes) -> Option<Edited> {
        self.first.as_ref()?;
        if body.len() < MIN_PIECES_BYTES {
            Some(Edited::Whole(self.copy(body)))
        } else {
            Some(Edited::Pieces(self.cut(body)))
        }
    }

    fn cut(&self, body: &Bytes) -> Vec<Bytes> {
        let (mut pieces, mut copied) = (Vec::with_capacity(3), 0);
        for (range, with) in self.iter() {
            pieces.push(body.slice(copied..range.start));
            pieces.push(Bytes::copy_from_slice(with));
            copied = range.end;
        }
        pieces.push(body.slice(copied..));
        pieces.retain(|piece| !piece.is_empty());
        pieces
    }

    /// The edited body in one exactly sized allocation.
    fn copy(&self, body: &[u8]) -> Bytes {
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
        edited.into()
    }

    fn iter(&self) -> impl Iterator<Item = &Edit<'a>> {
        self.first.iter().chain(&self.more)
    }
}

impl Edited {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Whole(body) => body.len(),
            Self::Pieces(pieces) => pieces.iter().map(Bytes::len).sum(),
        }
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Self::Whole(body) => body,
            Self::Pieces(pieces) => pieces.concat().into(),
        }
    }
}

/// Length in bytes from which a copy costs more than writing the body in three pieces.
const MIN_PIECES_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_ranges_change() {
        let mut edits = BodyEdits::default();
        let body = Bytes::from_static(b"abcdef");
        let applied = |edits: &BodyEdits<'_>| edits.apply(&body).unwrap().into_bytes();
        assert_eq!(edits.apply(&body), None);
        edits.push(1..2, b"xyz");
        assert_eq!(applied(&edits), "axyzcdef");
        edits.push(2..2, b"-");
        edits.push(4..6, b"");
        assert_eq!(applied(&edits), "axyz-cd");
        assert_eq!(edits.cut(&body), ["a", "xyz", "-", "cd"]);
    }

    #[test]
    fn a_long_body_is_not_copied() {
        let body = Bytes::from(vec![b'a'; MIN_PIECES_BYTES]);
        let mut edits = BodyEdits::default();
        edits.push(10..12, b"name");
        let Some(Edited::Pieces(pieces)) = edits.apply(&body) else { panic!("a copy") };
        assert_eq!(pieces[0].as_ptr(), body.as_ptr());
        assert_eq!(pieces[2].as_ptr(), body[12..].as_ptr());
        let whole = Edited::Pieces(pieces);
        assert_eq!(whole.len(), MIN_PIECES_BYTES + 2);
        assert_eq!(whole.into_bytes(), edits.copy(&body));
    }
}
