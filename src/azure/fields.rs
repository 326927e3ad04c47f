//! One scan over the top level of a request's body, shared by all its readers.

use std::ops::Range;

use super::json::Scan;

/// The members of a body that any reader uses, with the ranges of their values. The first reader
/// reads along with the scan; later ones read the ranges.
#[derive(Clone, Debug, Default)]
pub(crate) struct BodyFields {
    /// Inline, as many as nearly all bodies have, without an allocation.
    first: [Member; INLINE_MEMBERS],
    length: usize,
    more: Vec<Member>,
    is_whole: bool,
}

/// One member of a body. Ranges are positions in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) field: Field,
    /// Without the quotes.
    pub(crate) key: Range<usize>,
    pub(crate) value: Range<usize>,
}

/// The meaning of a member that some reader uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Field {
    /// `model`, in whatever spelling JSON allows.
    Model,
    Messages,
    Input,
    Prompt,
    Instructions,
    Suffix,
    Tools,
    /// `functions`, `response_format`, `text`: shown to the model with their names.
    Schema,
    /// `max_tokens` and its newer names.
    MaxOutput,
    /// `n` and `best_of`.
    Choices,
    /// The id of an object that one resource holds: `previous_response_id`, `thread_id`, ...
    Id,
    /// An id, or an object that contains it: `conversation`, `video`.
    Conversation,
    /// The data of an evaluation.
    DataSource,
    /// The items of a conversation.
    Items,
    Store,
    PromptCacheKey,
    /// May contain ids of files and the like: `attachments`, `tool_resources`, ...
    Holder,
    #[default]
    Other,
}

impl BodyFields {
    /// Has `read` read `content` from what an earlier scan found, `known`, or else scans it. Returns
    /// what that scan found, and whether everything was read.
    ///
    /// `read` is called for each member with its key, and reads or skips the value that the scan is
    /// at. It returns `None` if that is broken, and is not called again.
    pub(crate) fn read_or_scan<'a>(
        known: Option<&Self>,
        content: &'a [u8],
        read: impl FnMut(Field, &'a [u8], &mut Scan<'a>) -> Option<()>,
    ) -> (Option<Self>, bool) {
        match known {
            Some(known) => (None, known.read(content, read)),
            None => {
                let (scanned, is_read) = Self::scan(content, read);
                (Some(scanned), is_read)
            }
        }
    }

    /// Like [`read_or_scan`](Self::read_or_scan), if the result of a scan cannot be stored; returns
    /// whether everything was read.
    pub(crate) fn read_only<'a>(
        known: Option<&Self>,
        content: &'a [u8],
        mut read: impl FnMut(Field, &'a [u8], &mut Scan<'a>) -> Option<()>,
    ) -> bool {
        match known {
            Some(known) => known.read(content, read),
            None => {
                let whole = Scan::of(content).document(|key, scan| {
                    let name = &content[key];
                    read(Field::named(name), name, scan)
                });
                whole.is_some()
            }
        }
    }

    /// Scans `content` while `read` reads along; also returns whether that read everything.
    fn scan<'a>(
        content: &'a [u8],
        mut read: impl FnMut(Field, &'a [u8], &mut Scan<'a>) -> Option<()>,
    ) -> (Self, bool) {
        Self::scan_at(content, |field, key, scan| read(field, &content[key], scan))
    }

    /// Scans `content`, and passes the range of each key to `read`.
    pub(super) fn scan_at<'a>(
        content: &'a [u8],
        mut read: impl FnMut(Field, Range<usize>, &mut Scan<'a>) -> Option<()>,
    ) -> (Self, bool) {
        let (mut fields, mut is_reading) = (Self::default(), true);
        let mut scan = Scan::of(content);
        let whole = scan.document(|key, scan| {
            let field = Field::named(&content[key.clone()]);
            scan.peek()?;
            let start = scan.at();
            is_reading = is_reading && read(field, key.clone(), scan).is_some();
            if !is_reading {
                // What one reader rejects need not be broken for others.
                *scan = Scan::starting(content, start);
                scan.skip_outermost()?;
            }
            if field != Field::Other {
                fields.push(Member { field, key, value: start..scan.at() });
            }
            Some(())
        });
        fields.is_whole = whole.is_some();
        let is_read = is_reading && fields.is_whole;
        (fields, is_read)
    }

    /// Has `read` read what a scan of `content` found; returns whether it read everything.
    fn read<'a>(
        &self,
        content: &'a [u8],
        mut read: impl FnMut(Field, &'a [u8], &mut Scan<'a>) -> Option<()>,
    ) -> bool {
        let all = self.iter().try_for_each(|Member { field, key, value }| {
            let mut scan = Scan::starting(content, value.start);
            read(*field, &content[key.clone()], &mut scan)
        });
        all.is_some() && self.is_whole
    }

    /// The result of scanning `content` without a reader.
    #[cfg(test)]
    pub(crate) fn of(content: &[u8]) -> Self {
        Self::scan(content, |_, _, scan| scan.skip().map(drop)).0
    }

    /// The members in order; those before the fault if the body is incomplete.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.first[..self.length].iter().chain(&self.more)
    }

    fn push(&mut self, member: Member) {
        match self.first.get_mut(self.length) {
            Some(slot) => {
                *slot = member;
                self.length += 1;
            }
            None => self.more.push(member),
        }
    }
}

impl Field {
    fn named(key: &[u8]) -> Self {
        match key {
            b"model" => Self::Model,
            b"messages" => Self::Messages,
            b"input" => Self::Input,
            b"prompt" => Self::Prompt,
            b"instructions" => Self::Instructions,
            b"suffix" => Self::Suffix,
            b"tools" => Self::Tools,
            b"functions" | b"response_format" | b"text" => Self::Schema,
            b"max_tokens" | b"max_completion_tokens" | b"max_output_tokens" => Self::MaxOutput,
            b"n" | b"best_of" => Self::Choices,
            b"previous_response_id"
            | b"assistant_id"
            | b"thread_id"
            | b"input_file_id"
            | b"training_file"
            | b"validation_file" => Self::Id,
            b"conversation" | b"video" => Self::Conversation,
            b"data_source" => Self::DataSource,
            b"items" => Self::Items,
            b"store" => Self::Store,
            b"prompt_cache_key" => Self::PromptCacheKey,
            b"additional_messages"
            | b"thread"
            | b"tool_resources"
            | b"attachments"
            | b"file_id"
            | b"file_ids"
            | b"files"
            | b"images"
            | b"input_reference"
            | b"mask"
            | b"skills"
            | b"vector_store_ids"
            | b"container" => Self::Holder,
            _ if is_model(key) => Self::Model,
            _ => Self::Other,
        }
    }
}

/// Whether a raw key with escapes means `model`. Among JSON's escapes only `\u` can spell a letter.
pub(crate) fn is_model(key: &[u8]) -> bool {
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
const INLINE_MEMBERS: usize = 12;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Skips every value, records its length, and stops at a member of that name.
    fn lengths<'a>(
        noted: &mut Vec<(Field, usize)>,
    ) -> impl FnMut(Field, &'a [u8], &mut Scan<'a>) -> Option<()> {
        |field, key, scan| {
            let value = scan.skip()?;
            noted.push((field, value.len()));
            (key != b"broken").then_some(())
        }
    }

    #[test]
    fn a_later_reader_is_given_what_the_first_one_was() {
        let body = br#"{"model":"a","x":[1], "messages" : [{"a":"b"}] ,"n":1,"mod\u0065l":"b"}"#;
        let mut first = Vec::new();
        let (fields, is_read) = BodyFields::scan(body, lengths(&mut first));
        first.retain(|(field, _)| *field != Field::Other);
        let mut later = Vec::new();
        assert!(is_read && fields.read(body, lengths(&mut later)));
        assert_eq!(later, first);
        let models = fields.iter().filter(|member| member.field == Field::Model);
        let models: Vec<_> = models.map(|member| &body[member.value.clone()]).collect();
        assert_eq!(models, [b"\"a\"", b"\"b\""]);
    }

    #[test]
    fn what_is_broken_for_one_reader_is_there_for_another() {
        let body = br#"{"broken":1,"model":"a","thread":{}}"#;
        let (fields, is_read) = BodyFields::scan(body, lengths(&mut Vec::new()));
        assert!(!is_read);
        let mut later = Vec::new();
        assert!(fields.read(body, lengths(&mut later)));
        assert_eq!(later, [(Field::Model, 3), (Field::Holder, 2)]);
    }

    #[test]
    fn more_members_than_fit_are_there_too() {
        let body = format!("{{{}}}", [r#""n":1"#; INLINE_MEMBERS + 3].join(","));
        let fields = BodyFields::of(body.as_bytes());
        assert_eq!(fields.iter().count(), INLINE_MEMBERS + 3);
    }

    proptest! {
        #[test]
        fn no_body_panics(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..20)) {
            let body = pieces.concat();
            let (fields, is_read) = BodyFields::scan(body.as_bytes(), lengths(&mut Vec::new()));
            prop_assert!(!is_read || fields.read(body.as_bytes(), lengths(&mut Vec::new())));
        }
    }

    const PIECES: &[&str] =
        &["{", "}", "[", "]", ":", ",", "\"model\"", "\"n\"", "1", "\"", "\\", " "];
}
