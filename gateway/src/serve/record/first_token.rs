//! Detects the first output in an event stream.

use memchr::memchr_iter;

/// Scans the beginning of an event stream for the model's first text.
///
/// The service sends a head, and an event with the prompt's filter results, before the model
/// begins: users wait for the first text. That is the first of the API's members for output that is
/// not empty.
#[derive(Debug, Default)]
pub(crate) struct FirstToken {
    /// The end of the last piece, in which a member may have begun.
    tail: Vec<u8>,
}

impl FirstToken {
    /// Whether the output begins in the next bytes of the stream. Not called again after that.
    pub(crate) fn is_in(&mut self, piece: &[u8]) -> bool {
        if shows_output(piece) {
            return true;
        }
        let mut seam = std::mem::take(&mut self.tail);
        seam.extend_from_slice(&piece[..piece.len().min(SEAM_BYTES)]);
        if shows_output(&seam) {
            return true;
        }
        if piece.len() >= SEAM_BYTES {
            seam.clear();
            seam.extend_from_slice(&piece[piece.len() - SEAM_BYTES..]);
        } else {
            seam.drain(..seam.len().saturating_sub(SEAM_BYTES));
        }
        self.tail = seam;
        false
    }
}

/// Whether `text` contains a non-empty member for output.
fn shows_output(text: &[u8]) -> bool {
    memchr_iter(b':', text).any(|colon| {
        let (before, after) =
            (text[..colon].trim_ascii_end(), text[colon + 1..].trim_ascii_start());
        let is_text = matches!(after, [b'"', first, ..] if *first != b'"');
        is_text && MEMBERS.iter().any(|member| is_named(before, member))
    })
}

/// Whether `before` ends with a quoted name without a preceding backslash, which would be part of a
/// text.
fn is_named(before: &[u8], name: &str) -> bool {
    let Some(rest) = before.strip_suffix(b"\"").and_then(|it| it.strip_suffix(name.as_bytes()))
    else {
        return false;
    };
    rest.ends_with(b"\"")
}

/// The members for output in chunks of chat completions and completions, and in events of
/// responses, of transcriptions and of speech.
const MEMBERS: [&str; 7] =
    ["content", "delta", "text", "arguments", "reasoning_content", "refusal", "audio"];
/// Longer than the longest member name with the beginning of its value.
const SEAM_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "data: {\"choices\":[],\"prompt_filter_results\":[{\"prompt_index\":0}]}\n\n\
        data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";

    /// The number of bytes of the stream until its output began.
    fn begins(stream: &str, size: usize) -> Option<usize> {
        let (mut reader, mut read) = (FirstToken::default(), 0);
        for piece in stream.as_bytes().chunks(size) {
            read += piece.len();
            if reader.is_in(piece) {
                return Some(read);
            }
        }
        None
    }

    #[test]
    fn the_first_token_is_the_first_text_of_the_model_however_the_stream_is_cut() {
        for token in [
            "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n",
            "data: {\"choices\":[{\"delta\": {\"content\" : \"Hi\"}}]}\n\n",
            "data: {\"choices\":[{\"text\":\"Hi\"}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"function\":{\"arguments\":\"{\\\"\"}}]}}]}\n\n",
            "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Hi\"}\n\n",
        ] {
            let stream = format!("{HEAD}{token}");
            for size in 1..stream.len() {
                let at = begins(&stream, size).unwrap_or_else(|| panic!("{size}: {stream}"));
                assert!(at > HEAD.len(), "{size}: {stream}");
            }
        }
    }

    #[test]
    fn a_head_is_no_output_nor_is_what_echoes_the_request() {
        let created = "data: {\"type\":\"response.created\",\"response\":{\"instructions\":\"Say hi\",\
                       \"text\":{\"format\":{\"type\":\"text\"}},\"output\":[],\"usage\":null}}\n\n";
        for stream in [HEAD, created, "data: [DONE]\n\n", ": keep-alive\n\n", ""] {
            for size in 1..stream.len().max(2) {
                assert_eq!(begins(stream, size), None, "{stream}");
            }
        }
    }
}
