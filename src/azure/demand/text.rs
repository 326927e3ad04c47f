//! Counts the text in a JSON value that a model is shown.

use std::mem;

use memchr::{memchr, memchr_iter};

use crate::azure::json::{Scan, Skipped};

/// The text of a prompt so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PromptText {
    pub(super) bytes: usize,
    messages: usize,
    pub(super) attachments: usize,
    /// Token ids sent by the caller.
    tokens: usize,
    /// The tokens of values of which windows were read.
    pub(super) estimated: f64,
}

/// What a model is shown of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// Of messages or input: strings that are text, and token ids.
    Texts,
    /// Of tools or schemas: all strings, including their keys.
    Names,
}

impl PromptText {
    /// Adds the text of the value of a member that `scan` is at, and skips it. Of a long value, only
    /// windows placed by `draw` are read.
    pub(super) fn add(
        &mut self,
        content: &[u8],
        scan: &mut Scan<'_>,
        shown: Shown,
        draw: u64,
    ) -> Option<()> {
        scan.peek()?;
        if content.len() - scan.at() <= WHOLE_BYTES {
            return self.add_whole(content, scan, shown);
        }
        let value = scan.skip_outermost()?;
        if value.len() <= WHOLE_BYTES {
            return self.add_whole(content, &mut Scan::starting(content, value.start), shown);
        }
        // A list of numbers has no quote.
        if shown == Shown::Texts && memchr(b'"', &content[value.clone()]).is_none() {
            self.tokens += count_ids(&content[value]);
        } else {
            self.add_windows(content, value, shown, draw);
        }
        Some(())
    }

    /// The same, reading all of it.
    pub(super) fn add_whole<'a>(
        &mut self,
        content: &[u8],
        scan: &mut Scan<'a>,
        shown: Shown,
    ) -> Option<()> {
        let mut key: &'a [u8] = b"";
        let mut strings = false;
        let value = scan.skip_with(|scan| {
            let string = scan.measure()?;
            strings = true;
            let is_key = scan.peek() == Some(b':');
            self.add_string(&string, is_key, &mut key, shown);
            Some(())
        })?;
        if !strings && shown == Shown::Texts && content[value.start] == b'[' {
            self.tokens += count_ids(&content[value]);
        }
        Some(())
    }

    /// Adds a string after the last `key`, if there was one since the last value.
    pub(super) fn add_string<'a>(
        &mut self,
        string: &Skipped<'a>,
        is_key: bool,
        key: &mut &'a [u8],
        shown: Shown,
    ) {
        let Skipped { raw, length } = *string;
        if shown == Shown::Names {
            self.bytes += length;
        } else if is_key {
            *key = raw;
            self.messages += usize::from(raw == b"role");
        } else {
            match mem::take(key) {
                b"type" => self.attachments += usize::from(is_attachment(raw)),
                key if is_hidden(key) => {}
                _ => self.bytes += length,
            }
        }
    }

    pub(super) fn tokens(&self) -> f64 {
        self.bytes as f64 / BYTES_PER_TOKEN
            + self.messages as f64 * MESSAGE_TOKENS
            + self.attachments as f64 * ATTACHMENT_TOKENS
            + self.tokens as f64
            + self.estimated
    }
}

/// The number of ids in a list of token ids, or in a list of such lists.
fn count_ids(list: &[u8]) -> usize {
    memchr_iter(b',', list).count() + 1
}

/// Whether a model is not shown the string with this key: URLs, the content of files and images, and
/// fields that only link items.
pub(super) fn is_hidden(key: &[u8]) -> bool {
    is_content(key)
        || matches!(
            key,
            b"filename"
                | b"role"
                | b"id"
                | b"call_id"
                | b"tool_call_id"
                | b"status"
                | b"detail"
                | b"format"
        )
}

/// Whether the string with this key is an attachment's content or address.
pub(super) fn is_content(key: &[u8]) -> bool {
    matches!(key, b"url" | b"image_url" | b"data" | b"file_data" | b"file_id")
}

fn is_attachment(kind: &[u8]) -> bool {
    matches!(
        kind,
        b"image_url"
            | b"input_image"
            | b"computer_screenshot"
            | b"input_audio"
            | b"input_file"
            | b"file"
    )
}

/// A value of so many bytes or fewer is read completely.
pub(super) const WHOLE_BYTES: usize = 4 << 10;
/// The average of English text and code (OpenAI's help page "What are tokens").
pub(super) const BYTES_PER_TOKEN: f64 = 4.0;
/// Tokens of an image of 1024 x 1024 pixels for gpt-4o: 85, and 170 for each of four tiles (Azure
/// page "Use vision-enabled chat models").
pub(super) const ATTACHMENT_TOKENS: f64 = 765.0;
/// Tokens around each message: its role and two marks (OpenAI's cookbook, "How to count tokens
/// with tiktoken").
const MESSAGE_TOKENS: f64 = 4.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::azure::json::members;

    fn text(value: &str, shown: Shown) -> PromptText {
        let body = format!("{{\"value\":{value}}}");
        let mut text = PromptText::default();
        let whole = members(body.as_bytes(), |_, scan| text.add(body.as_bytes(), scan, shown, 0));
        whole.expect("JSON");
        text
    }

    #[test]
    fn keys_are_distinguished_from_values_across_white_space() {
        let spaced = "[{\"role\" \n: \"user\" , \"content\"\t:\"a\\\"b\"},[\"role\",\"c\"]]";
        let text = text(spaced, Shown::Texts);
        assert_eq!((text.bytes, text.messages), (3 + 4 + 1, 1));
    }

    #[test]
    fn the_keys_of_a_schema_count() {
        let schema = r#"[{"type":"function","function":{"name":"weather"}}]"#;
        assert_eq!(text(schema, Shown::Names).bytes, 4 + 8 + 8 + 4 + 7);
    }
}
