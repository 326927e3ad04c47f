//! Finds the ids in an object that is whole in the bytes read so far.

use std::{mem, sync::LazyLock};

use memchr::memmem::Finder;

use super::{
    answer::{MemberName, Shown},
    references::{ENCRYPTED_PREFIX_BYTES, MAX_ID_BYTES},
};
use crate::azure::json::Scan;

/// A walk that descends only into the objects that may hold ids.
///
/// [`AnswerScan`](super::answer::AnswerScan) finds the same in any chunking, at more than twice the cost: it
/// keeps its position after every token.
pub(super) struct WholeAnswer<'a, F> {
    bytes: &'a [u8],
    /// Whether to find out after a list of items if there is more that counts. Only once, because
    /// that may read all that is left.
    may_stop: bool,
    /// Whether it has found all that counts in these bytes.
    is_over: bool,
    /// How often `each` was called for the last object.
    pub(super) found: usize,
    each: F,
}

/// An object whose ids count.
#[derive(Clone, Copy)]
enum Place {
    Outermost,
    Response,
    /// The conversation of an answer, or the file that an upload became.
    Named,
    Item,
    Environment,
}

impl<'a, F: FnMut(Shown<'a>)> WholeAnswer<'a, F> {
    /// A walk through `bytes`, which nothing follows if they are the last.
    pub(super) const fn new(bytes: &'a [u8], are_last: bool, each: F) -> Self {
        Self { bytes, may_stop: are_last, is_over: false, found: 0, each }
    }

    /// Reads the object that begins at `at`, and returns where it ends; also the end of the bytes, if
    /// nothing that counts is in what is left of them. `None` if the object does not end here, or is
    /// not JSON: what counts up to there has been found.
    pub(super) fn read(&mut self, at: usize) -> Option<usize> {
        self.found = 0;
        let mut scan = Scan::starting(self.bytes, at);
        match self.object(&mut scan, Place::Outermost) {
            Some(()) => Some(scan.at()),
            None => self.is_over.then_some(self.bytes.len()),
        }
    }

    fn object(&mut self, scan: &mut Scan<'a>, place: Place) -> Option<()> {
        let bytes = self.bytes;
        scan.object(|key, scan| {
            let name = MemberName::of(&bytes[key]);
            match (name, scan.peek()?) {
                (MemberName::Other, _) => scan.skip().map(drop),
                (MemberName::Id, b'"') => self.id(scan),
                (MemberName::Encrypted, b'"') if matches!(place, Place::Item) => {
                    let text = self.text(scan)?;
                    if !text.is_empty() {
                        let prefix = &text[..text.len().min(ENCRYPTED_PREFIX_BYTES)];
                        self.show(Shown::Encrypted(prefix));
                    }
                    Some(())
                }
                (MemberName::Ids, b'[') => scan.array(|scan| match scan.peek()? {
                    b'"' => self.id(scan),
                    _ => scan.skip().map(drop),
                }),
                (MemberName::Items, b'[')
                    if matches!(place, Place::Outermost | Place::Response) =>
                {
                    scan.array(|scan| match scan.peek()? {
                        b'{' => self.object(scan, Place::Item),
                        _ => scan.skip().map(drop),
                    })?;
                    // Few answers have an id after their items.
                    self.is_over = mem::take(&mut self.may_stop) && !may_show(&bytes[scan.at()..]);
                    (!self.is_over).then_some(())
                }
                (_, b'{') => match place.of_member(name) {
                    Some(place) => self.object(scan, place),
                    None => scan.skip().map(drop),
                },
                _ => scan.skip().map(drop),
            }
        })
    }

    fn id(&mut self, scan: &mut Scan<'a>) -> Option<()> {
        let text = self.text(scan)?;
        if (1..=MAX_ID_BYTES).contains(&text.len()) {
            self.show(Shown::Id(text));
        }
        Some(())
    }

    fn show(&mut self, shown: Shown<'a>) {
        self.found += 1;
        (self.each)(shown);
    }

    /// Skips a string, and returns it as written.
    fn text(&self, scan: &mut Scan<'a>) -> Option<&'a [u8]> {
        let value = scan.skip()?;
        Some(&self.bytes[value.start + 1..value.end - 1])
    }
}

impl Place {
    /// The place of the object with this name in it.
    const fn of_member(self, name: MemberName) -> Option<Self> {
        match (self, name) {
            (Self::Outermost, MemberName::Response) => Some(Self::Response),
            (Self::Outermost, MemberName::Item) => Some(Self::Item),
            (Self::Outermost, MemberName::Conversation | MemberName::File)
            | (Self::Response, MemberName::Conversation) => Some(Self::Named),
            (Self::Item, MemberName::Environment) => Some(Self::Environment),
            _ => None,
        }
    }
}

/// Whether the name of something that counts may be in here.
fn may_show(bytes: &[u8]) -> bool {
    let is_name = |end: usize| {
        let name = bytes[..end].rsplit(|&byte| byte == b'"').next();
        name.is_some_and(|name| MemberName::of(name) == MemberName::Id)
    };
    END_OF_ID.find_iter(bytes).any(|at| is_name(at + 2))
        || OTHERS.iter().any(|name| name.find(bytes).is_some())
}

/// The end of the names of ids.
static END_OF_ID: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"id\""));
/// The other names of what counts.
static OTHERS: LazyLock<[Finder<'static>; 2]> =
    LazyLock::new(|| [Finder::new(b"result_files\""), Finder::new(b"encrypted_content\"")]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_what_counts_is_noticed() {
        for name in ["id", "output_file_id", "error_file_id", "thread_id", "container_id"] {
            assert_eq!(MemberName::of(name.as_bytes()), MemberName::Id);
            assert!(may_show(format!(r#","x":"y","{name}" : "z""#).as_bytes()), "{name}");
        }
        for name in ["result_files", "encrypted_content"] {
            assert!(may_show(format!(r#","{name}":"#).as_bytes()), "{name}");
        }
        for rest in ["", r#","previous_response_id":null,"xid":"ids","y":"\"id \""}"#, "id"] {
            assert!(!may_show(rest.as_bytes()), "{rest}");
        }
    }
}
