//! Notes which member names occur in a body while it arrives, so that readers can skip it.

use memchr::memchr_iter;

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

/// Finds [`MemberNames`] in a body that arrives in pieces, by the colons that follow them: most
/// bodies have fewer colons than quotes.
#[derive(Clone, Debug, Default)]
pub(crate) struct NameScan {
    found: MemberNames,
    seam: Seam,
    /// Whether the value of a member `stream` follows.
    at_stream: bool,
}

/// The end of what was read, without white space after it.
#[derive(Clone, Copy, Debug, Default)]
struct Seam {
    text: [u8; MAX_NAME_BYTES],
    length: usize,
    /// Whether white space followed, so that no name continues.
    is_over: bool,
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
        self.read_value(piece);
        for colon in memchr_iter(b':', piece) {
            match self.name_at_end(&piece[..colon]) {
                Some(Name::FileId) => self.found.file_id = true,
                Some(Name::Store) => self.found.store = true,
                Some(Name::Stream) => {
                    self.at_stream = true;
                    self.read_value(&piece[colon + 1..]);
                }
                None => {}
            }
        }
        self.seam.push(piece);
    }

    /// What was found so far.
    pub(crate) const fn found(&self) -> MemberNames {
        self.found
    }

    /// The name at the end of a piece that is cut before a colon.
    fn name_at_end(&self, piece: &[u8]) -> Option<Name> {
        // Most names end in another letter.
        if let [.., letter, b'"'] = piece
            && !matches!(letter, b'd' | b'e' | b'm')
        {
            return None;
        }
        let text = piece.trim_ascii_end();
        if text.len() >= MAX_NAME_BYTES {
            return Name::at_end(text);
        }
        let mut seam = self.seam;
        seam.push(piece);
        Name::at_end(&seam.text[..seam.length])
    }

    /// Reads the value of `stream`, if it is next.
    fn read_value(&mut self, text: &[u8]) {
        if self.at_stream
            && let Some(first) = text.trim_ascii_start().first()
        {
            // No other value begins like `true`.
            self.found.asks_for_stream |= *first == b't';
            self.at_stream = false;
        }
    }
}

impl Seam {
    fn push(&mut self, piece: &[u8]) {
        let text = piece.trim_ascii_end();
        let is_spaced = text.len() < piece.len();
        if text.is_empty() {
            self.is_over |= is_spaced;
            return;
        }
        let text = &text[text.len().saturating_sub(MAX_NAME_BYTES)..];
        let before = if self.is_over { 0 } else { self.length };
        let before = before.min(MAX_NAME_BYTES - text.len());
        self.text.copy_within(self.length - before..self.length, 0);
        self.length = before + text.len();
        self.text[before..self.length].copy_from_slice(text);
        self.is_over = is_spaced;
    }
}

impl Name {
    fn at_end(text: &[u8]) -> Option<Self> {
        match text {
            [.., b'"', b's', b't', b'r', b'e', b'a', b'm', b'"'] => Some(Self::Stream),
            [.., b'"', b's', b't', b'o', b'r', b'e', b'"'] => Some(Self::Store),
            [.., b'"', b'f', b'i', b'l', b'e', b'_', b'i', b'd', b'"'] => Some(Self::FileId),
            _ => None,
        }
    }
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
        let values = |name: &'static [u8]| {
            memmem::find_iter(text, name)
                .filter_map(move |at| text[at + name.len()..].trim_ascii_start().strip_prefix(b":"))
        };
        let mut streams = values(b"\"stream\"");
        MemberNames {
            file_id: values(b"\"file_id\"").next().is_some(),
            store: values(b"\"store\"").next().is_some(),
            asks_for_stream: streams.any(|value| value.trim_ascii_start().starts_with(b"t")),
        }
    }

    proptest! {
        #[test]
        fn a_name_is_found_however_the_body_is_cut(
            text in "(\"|\"st|\"stream\"|\"store\"|\"file_|\"file_id\"|ream\"|ore\"|id\"| |\n|:|:|:t|true|x|,|\\\\){0,14}",
            size in 1..12_usize,
        ) {
            let text = text.as_bytes();
            prop_assert_eq!(scan(text.chunks(size)), by_searches(text));
            prop_assert_eq!(scan([text]), by_searches(text));
        }
    }
}
