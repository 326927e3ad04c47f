//! The lines of an event stream that arrives in pieces (WHATWG HTML, section 9.2.6).

use memchr::memchr2;

use super::error::BYTE_ORDER_MARK;

/// A position in an event stream. It keeps nothing of the stream, and accepts every line ending of
/// the standard.
#[derive(Debug, Default)]
pub(crate) struct EventLines {
    at: StreamPosition,
    /// Whether a line feed here still belongs to the end of the last line.
    was_return: bool,
}

/// A field whose value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventField {
    Data,
    Event,
}

/// The next part of an event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamPart<'a> {
    /// Part of the value of a field, without the leading space.
    Value(EventField, &'a [u8]),
    /// The value of a field has ended.
    EndOfLine(EventField),
    /// An empty line, which ends an event.
    EndOfEvent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamPosition {
    /// In the byte order mark that may start a stream.
    Mark(usize),
    /// At the beginning of a line.
    Line,
    /// After this many bytes of a field's name, including its colon.
    Name(EventField, usize),
    /// After the colon.
    Colon(EventField),
    Value(EventField),
    /// In a line of another field.
    Other,
}

impl EventLines {
    /// Whether the next byte begins a line.
    pub(crate) fn is_at_line(&self) -> bool {
        self.at == StreamPosition::Line && !self.was_return
    }

    /// The next part, removed from `rest`; `None` if nothing is left to read.
    #[inline]
    pub(crate) fn next<'a>(&mut self, rest: &mut &'a [u8]) -> Option<StreamPart<'a>> {
        while let Some(&first) = rest.first() {
            if std::mem::take(&mut self.was_return) && first == b'\n' {
                *rest = &rest[1..];
                continue;
            }
            let mut takes = true;
            self.at = match self.at {
                StreamPosition::Mark(seen) if first == BYTE_ORDER_MARK[seen] => {
                    let seen = seen + 1;
                    if seen == BYTE_ORDER_MARK.len() {
                        StreamPosition::Line
                    } else {
                        StreamPosition::Mark(seen)
                    }
                }
                StreamPosition::Line | StreamPosition::Mark(0) => match first {
                    b'\r' | b'\n' => {
                        self.end_line(rest);
                        return Some(StreamPart::EndOfEvent);
                    }
                    b'd' => StreamPosition::Name(EventField::Data, 1),
                    b'e' => StreamPosition::Name(EventField::Event, 1),
                    _ => StreamPosition::Other,
                },
                StreamPosition::Name(field, seen) if first == field.name()[seen] => {
                    let seen = seen + 1;
                    if seen == field.name().len() {
                        StreamPosition::Colon(field)
                    } else {
                        StreamPosition::Name(field, seen)
                    }
                }
                StreamPosition::Colon(field) => {
                    takes = first == b' ';
                    StreamPosition::Value(field)
                }
                StreamPosition::Value(field) => {
                    let part = until_end_of_line(rest);
                    if part.is_empty() {
                        self.end_line(rest);
                        return Some(StreamPart::EndOfLine(field));
                    }
                    *rest = &rest[part.len()..];
                    return Some(StreamPart::Value(field, part));
                }
                StreamPosition::Mark(_) | StreamPosition::Name(..) | StreamPosition::Other => {
                    *rest = &rest[until_end_of_line(rest).len()..];
                    if !rest.is_empty() {
                        self.end_line(rest);
                        continue;
                    }
                    takes = false;
                    StreamPosition::Other
                }
            };
            *rest = &rest[usize::from(takes)..];
        }
        None
    }

    /// The field whose value has not ended yet.
    pub(crate) const fn unfinished(&self) -> Option<EventField> {
        match self.at {
            StreamPosition::Colon(field) | StreamPosition::Value(field) => Some(field),
            StreamPosition::Mark(_)
            | StreamPosition::Line
            | StreamPosition::Name(..)
            | StreamPosition::Other => None,
        }
    }

    fn end_line(&mut self, rest: &mut &[u8]) {
        self.was_return = rest[0] == b'\r';
        *rest = &rest[1..];
        self.at = StreamPosition::Line;
    }
}

impl EventField {
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Data => b"data:",
            Self::Event => b"event:",
        }
    }
}

impl Default for StreamPosition {
    fn default() -> Self {
        Self::Mark(0)
    }
}

/// Whether the text after a value ends its line and its event.
pub(crate) const fn ends_event(rest: &[u8]) -> bool {
    matches!(
        rest,
        [b'\n', b'\n' | b'\r', ..] | [b'\r', b'\r', ..] | [b'\r', b'\n', b'\n' | b'\r', ..]
    )
}

fn until_end_of_line(bytes: &[u8]) -> &[u8] {
    &bytes[..memchr2(b'\r', b'\n', bytes).unwrap_or(bytes.len())]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The values of the stream, one text each, and the ends of events.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<(Option<EventField>, Vec<u8>)> {
        let (mut lines, mut found, mut value) = (EventLines::default(), Vec::new(), Vec::new());
        for mut piece in pieces {
            while let Some(part) = lines.next(&mut piece) {
                match part {
                    StreamPart::Value(_, part) => value.extend_from_slice(part),
                    StreamPart::EndOfLine(field) => {
                        found.push((Some(field), std::mem::take(&mut value)));
                    }
                    StreamPart::EndOfEvent => found.push((None, Vec::new())),
                }
            }
        }
        found
    }

    #[test]
    fn the_fields_are_read_over_every_end_of_line() {
        let (data, event) = (Some(EventField::Data), Some(EventField::Event));
        for end in ["\n", "\r\n", "\r"] {
            for start in ["", "\u{feff}"] {
                let lines = [
                    "event: error",
                    ": note",
                    "data:  a",
                    "data:",
                    "datas: b",
                    "dat",
                    "id: 5",
                    "data:c: d",
                    "",
                    "data",
                    "data:e",
                    "",
                ];
                let text = format!("{start}{}{end}", lines.join(end));
                let expected = [
                    (event, "error"),
                    (data, " a"),
                    (data, ""),
                    (data, "c: d"),
                    (None, ""),
                    (data, "e"),
                    (None, ""),
                ];
                let expected = expected.map(|(field, text)| (field, text.as_bytes().to_vec()));
                assert_eq!(read([text.as_bytes()]), expected, "{text:?}");
                assert_eq!(read(text.as_bytes().chunks(1)), expected, "{text:?}");
            }
        }
    }

    #[test]
    fn a_byte_order_mark_counts_at_the_beginning_alone() {
        assert_eq!(read(["\n\u{feff}data: a\n".as_bytes()]), [(None, Vec::new())]);
        assert_eq!(read([&b"\xef\xbbdata: a\n\n"[..]]), [(None, Vec::new())]);
    }

    #[test]
    fn an_unfinished_value_is_known() {
        let unfinished = |mut text: &[u8]| {
            let mut lines = EventLines::default();
            while lines.next(&mut text).is_some() {}
            lines.unfinished()
        };
        assert_eq!(unfinished(b"data:"), Some(EventField::Data));
        assert_eq!(unfinished(b"data: a\nevent: b"), Some(EventField::Event));
        assert_eq!([&b"data"[..], b"data: a\n", b"id: 5"].map(unfinished), [None; 3]);
    }

    proptest! {
        #[test]
        fn every_cut_reads_the_same(text in "(data:|event:|[ a\r\n\u{feff}]){0,12}", cut: usize) {
            let bytes = text.as_bytes();
            let (first, second) = bytes.split_at(cut % (bytes.len() + 1));
            prop_assert_eq!(read([first, second]), read([bytes]));
        }
    }
}
