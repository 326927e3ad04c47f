//! Notes which member names occur in a body while it arrives, so that readers can skip it.

use super::json::quote;

/// The member names found in a body that decide whether it has to be read.
///
/// A name counts at any depth. Within a string, a backslash precedes its quotes, so text that a model
/// is shown does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberNames {
    file_id: bool,
    store: bool,
    asks_for_stream: bool,
}

impl MemberNames {
    /// Whether `"stream": true` occurs.
    pub const fn asks_for_stream(self) -> bool {
        self.asks_for_stream
    }

    /// Whether `"file_id"` occurs.
    pub(crate) const fn has_file_id(self) -> bool {
        self.file_id
    }

    /// Whether `"store"` occurs.
    pub(crate) const fn has_store(self) -> bool {
        self.store
    }
}

/// Finds [`MemberNames`] in a body that arrives in pieces, from quote to quote: 0.1 instructions per
/// byte of prose, and some 25 per quote.
#[derive(Clone, Debug, Default)]
pub(crate) struct NameScan {
    found: MemberNames,
    /// The end of the last piece, if one of the names may begin there.
    seam: Seam,
    /// What follows `"stream"`, as far as it was read.
    stream: StreamValue,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seam {
    text: [u8; MAX_NAME_BYTES],
    length: usize,
}

/// The next thing expected of a member `stream`, after white space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum StreamValue {
    #[default]
    Elsewhere,
    Colon,
    Value,
}

#[derive(Clone, Copy)]
enum Name {
    FileId,
    Store,
    Stream,
}

impl NameScan {
    /// Reads the next piece of the body.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.read_stream(piece);
        if self.seam.length > 0 && !self.push_seam(piece) {
            return;
        }
        let mut at = 0;
        while let Some(quote) = quote(&piece[at..]) {
            let text = &piece[at + quote..];
            at += quote + 1;
            // Most names and texts begin with another letter.
            if !matches!(text.get(1), Some(b's' | b'f') | None) {
                continue;
            }
            match name_at(text) {
                Some(Ok(name)) => self.find(name, &text[name.text().len()..]),
                Some(Err(MayBegin)) => self.seam = Seam::of(text),
                None => {}
            }
        }
    }

    /// What was found so far.
    pub(crate) const fn found(&self) -> MemberNames {
        self.found
    }

    /// Reads a name that began in the last piece; returns whether `piece` is longer than it.
    fn push_seam(&mut self, piece: &[u8]) -> bool {
        let begun = self.seam.length;
        let mut text = [0; 2 * MAX_NAME_BYTES];
        let more = piece.len().min(MAX_NAME_BYTES);
        text[..begun].copy_from_slice(&self.seam.text[..begun]);
        text[begun..begun + more].copy_from_slice(&piece[..more]);
        let text = &text[..begun + more];
        self.seam.length = 0;
        match name_at(text) {
            Some(Ok(name)) => self.find(name, &piece[name.text().len() - begun..]),
            // The piece was too short to tell.
            Some(Err(MayBegin)) => {
                self.seam = Seam::of(text);
                return false;
            }
            None => {}
        }
        true
    }

    fn find(&mut self, name: Name, after: &[u8]) {
        match name {
            Name::FileId => self.found.file_id = true,
            Name::Store => self.found.store = true,
            Name::Stream => {
                self.stream = StreamValue::Colon;
                self.read_stream(after);
            }
        }
    }

    /// Reads on after the name `stream`.
    fn read_stream(&mut self, text: &[u8]) {
        for &byte in text {
            self.stream = match (self.stream, byte) {
                (StreamValue::Elsewhere, _) => return,
                (stream, b' ' | b'\t' | b'\n' | b'\r') => stream,
                (StreamValue::Colon, b':') => StreamValue::Value,
                (StreamValue::Colon, _) => StreamValue::Elsewhere,
                // No other value begins like `true`.
                (StreamValue::Value, first) => {
                    self.found.asks_for_stream |= first == b't';
                    StreamValue::Elsewhere
                }
            };
        }
    }
}

impl Seam {
    fn of(text: &[u8]) -> Self {
        let mut seam = Self { text: [0; MAX_NAME_BYTES], length: text.len() };
        seam.text[..text.len()].copy_from_slice(text);
        seam
    }
}

impl Name {
    const ALL: [Self; 3] = [Self::FileId, Self::Store, Self::Stream];

    const fn text(self) -> &'static [u8] {
        match self {
            Self::FileId => b"\"file_id\"",
            Self::Store => b"\"store\"",
            Self::Stream => b"\"stream\"",
        }
    }
}

/// The text ends before it is clear whether it begins with a name.
struct MayBegin;

/// The name at the beginning of `text`.
fn name_at(text: &[u8]) -> Option<Result<Name, MayBegin>> {
    Name::ALL.into_iter().find_map(|name| {
        let whole = name.text();
        if text.starts_with(whole) {
            Some(Ok(name))
        } else {
            whole.starts_with(text).then_some(Err(MayBegin))
        }
    })
}

/// The length of the longest name with its quotes.
const MAX_NAME_BYTES: usize = 9;

#[cfg(test)]
mod tests {
    use memchr::memmem;
    use proptest::prelude::*;

    use super::*;

    fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> MemberNames {
        let mut scan = NameScan::default();
        pieces.into_iter().for_each(|piece| scan.push(piece));
        scan.found()
    }

    #[test]
    fn a_stream_is_asked_for_by_a_member_and_not_within_a_text() {
        for (json, asks) in [
            (r#"{"model":"m","stream":true}"#, true),
            ("{ \"stream\" :\n\ttrue }", true),
            (r#"{"stream":false}"#, false),
            (r#"{"stream":false,"a":true}"#, false),
            (r#"{"input":"say {\"stream\":true}"}"#, false),
            (r#"["stream","true"]"#, false),
            (r#"{"stream"#, false),
            (r#"{"stream_options":{"include_usage":true}}"#, false),
            ("", false),
        ] {
            assert_eq!(scan([json.as_bytes()]).asks_for_stream(), asks, "{json}");
        }
    }

    /// The same by searches of the whole text.
    fn by_searches(text: &[u8]) -> MemberNames {
        let has = |name: &[u8]| memmem::find(text, name).is_some();
        let asks_for_stream = memmem::find_iter(text, b"\"stream\"").any(|at| {
            let rest = text[at + 8..].trim_ascii_start().strip_prefix(b":");
            rest.is_some_and(|value| value.trim_ascii_start().starts_with(b"t"))
        });
        MemberNames { file_id: has(b"\"file_id\""), store: has(b"\"store\""), asks_for_stream }
    }

    proptest! {
        #[test]
        fn a_name_is_found_however_the_body_is_cut(
            text in "(\"|\"st|\"stream\"|\"store\"|\"file_|\"file_id\"|ream\"|ore\"|id\"| |:|:t|true|x|,){0,14}",
            size in 1..12_usize,
        ) {
            let text = text.as_bytes();
            prop_assert_eq!(scan(text.chunks(size)), by_searches(text));
            prop_assert_eq!(scan([text]), by_searches(text));
        }
    }
}
