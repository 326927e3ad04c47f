//! Detects whether an event stream reached the end of its operation.

use memchr::memchr;

/// Reads a stream's events as they pass, just far enough to recognise the last one, in constant
/// memory.
#[derive(Debug, Default)]
pub(crate) struct EndMark {
    /// The beginning of the current line.
    line: Vec<u8>,
    /// What is known of the current event, or else of the last one.
    event: Event,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Event {
    /// The next field begins another event.
    #[default]
    Ended,
    EndedAsLast,
    Begun,
    /// Its name decides whether it is the last one.
    Named,
    Last,
}

impl EndMark {
    /// The next bytes of the stream, in any chunking.
    pub(crate) fn push(&mut self, mut piece: &[u8]) {
        while let Some(end) = memchr(b'\n', piece) {
            if self.line.is_empty() {
                self.event = self.event.after(&piece[..end.min(MAX_PREFIX_BYTES)]);
            } else {
                self.keep(&piece[..end]);
                self.event = self.event.after(&self.line);
                self.line.clear();
            }
            piece = &piece[end + 1..];
        }
        self.keep(piece);
    }

    /// Whether the last event so far ends a stream.
    pub(crate) fn is_seen(&self) -> bool {
        matches!(self.event.after(&self.line), Event::Last | Event::EndedAsLast)
    }

    fn keep(&mut self, piece: &[u8]) {
        let room = MAX_PREFIX_BYTES - self.line.len();
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
    }
}

impl Event {
    /// The state after another line, which begins with `line`.
    fn after(self, line: &[u8]) -> Self {
        let line = line.trim_ascii_end();
        if line.is_empty() {
            return if matches!(self, Self::Last | Self::EndedAsLast) {
                Self::EndedAsLast
            } else {
                Self::Ended
            };
        }
        if let Some(name) = line.strip_prefix(b"event:") {
            return if is_last(name.trim_ascii_start()) { Self::Last } else { Self::Named };
        }
        match line.strip_prefix(b"data:").map(<[u8]>::trim_ascii_start) {
            Some(b"[DONE]") => Self::Last,
            // The name takes precedence over the data that follow it.
            Some(_) if self == Self::Named || self == Self::Last => self,
            Some(data) if kind(data).is_some_and(is_last) => Self::Last,
            Some(_) => Self::Begun,
            // A comment, or an irrelevant field.
            None => self,
        }
    }
}

/// The type of an unnamed event's object, if it is at its beginning.
fn kind(data: &[u8]) -> Option<&[u8]> {
    let rest = data.strip_prefix(b"{")?.trim_ascii_start().strip_prefix(b"\"type\"")?;
    let rest =
        rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
    rest.get(..memchr(b'"', rest)?)
}

/// Whether an event of this name is the last of its stream. Parts of a response end too:
/// `response.output_text.done` is not the end of it.
fn is_last(name: &[u8]) -> bool {
    let mut parts = name.split(|byte| *byte == b'.');
    let is_part = parts.next() == Some(b"response") && parts.count() > 1;
    let last = name.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
    let ends = [&b"completed"[..], b"done", b"failed", b"incomplete", b"cancelled", b"error"];
    !is_part && ends.contains(&last)
}

/// Longer than any event name.
const MAX_PREFIX_BYTES: usize = 96;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ENDS: [(&str, bool); 14] = [
        ("data: {\"choices\":[]}\n\ndata: [DONE]\n\n", true),
        ("data:{\"choices\":[]}\r\n\r\ndata:[DONE]", true),
        ("data: [DONE]\n\n: keep-alive\n\n", true),
        ("data: {\"choices\":[]}\n\n", false),
        ("data: {\"choices\":[]}\n\ndata: [DO", false),
        ("data: {\"content\":\"data: [DONE]\"}\n\n", false),
        ("data: [DONE]\n\ndata: {\"choices\":[]}\n\n", false),
        ("event: response.completed\ndata: {\"type\":\"response.completed\"}\n\n", true),
        ("event: response.output_text.done\ndata: {}\n\n", false),
        ("event: response.created\ndata: {\"type\":\"response.completed\"}\n\n", false),
        ("event: error\ndata: {}\n\n", true),
        ("data: {\"type\": \"transcript.text.done\", \"text\":\"a\"}\n\n", true),
        ("data: {\"type\":\"transcript.text.delta\"}\n\n", false),
        ("", false),
    ];

    #[test]
    fn a_stream_has_its_end_when_its_last_event_is_one_that_ends_it() {
        for (stream, is_whole) in ENDS {
            let mut mark = EndMark::default();
            mark.push(stream.as_bytes());
            assert_eq!(mark.is_seen(), is_whole, "{stream}");
        }
    }

    proptest! {
        #[test]
        fn the_pieces_in_which_a_stream_comes_do_not_matter(
            stream in "(data: ?|event: ?|id: |:|\\[DONE\\]|response\\.completed|\\{\"type\":|\"|\r|\n|\n\n|x){0,20}",
            size in 1..9_usize,
        ) {
            let (mut whole, mut pieces) = (EndMark::default(), EndMark::default());
            whole.push(stream.as_bytes());
            stream.as_bytes().chunks(size).for_each(|piece| pieces.push(piece));
            prop_assert_eq!(whole.is_seen(), pieces.is_seen());
        }
    }

    #[test]
    fn no_line_takes_more_memory_than_a_name() {
        let mut mark = EndMark::default();
        for _ in 0..100 {
            mark.push(&[b'x'; 1000]);
        }
        assert!(mark.line.len() <= MAX_PREFIX_BYTES);
    }
}
