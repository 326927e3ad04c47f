//! Counts the text in a JSON value that a model is shown.

use std::mem;

use memchr::memchr_iter;

use crate::azure::json::{Scan, Skipped};

/// The text of a prompt so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PromptText {
    bytes: usize,
    messages: usize,
    attachments: usize,
    /// Token ids sent by the caller.
    tokens: usize,
}

impl PromptText {
    /// Adds the text of messages or input, whose value `scan` skips: strings shown to the model, and
    /// token ids.
    pub(super) fn add_prompt<'a>(&mut self, content: &[u8], scan: &mut Scan<'a>) -> Option<()> {
        let mut key: &'a [u8] = b"";
        let mut strings = false;
        let value = scan.skip_with(|scan| {
            let Skipped { raw, length } = scan.measure()?;
            strings = true;
            if scan.peek() == Some(b':') {
                key = raw;
                self.messages += usize::from(raw == b"role");
                return Some(());
            }
            match mem::take(&mut key) {
                b"type" => self.attachments += usize::from(is_attachment(raw)),
                // URLs, and the content of files and images; and fields that only link items.
                b"url" | b"image_url" | b"data" | b"file_data" | b"filename" | b"file_id"
                | b"role" | b"id" | b"call_id" | b"tool_call_id" | b"status" | b"detail"
                | b"format" => {}
                _ => self.bytes += length,
            }
            Some(())
        })?;
        if !strings && content[value.start] == b'[' {
            // Lists of token ids, or lists of such lists.
            self.tokens += memchr_iter(b',', &content[value]).count() + 1;
        }
        Some(())
    }

    /// Adds the text of tools or schemas, whose value `scan` skips, including their keys.
    pub(super) fn add_schema(&mut self, scan: &mut Scan<'_>) -> Option<()> {
        let value = scan.skip_with(|scan| {
            self.bytes += scan.measure()?.length;
            Some(())
        });
        value.map(drop)
    }

    pub(super) fn tokens(&self) -> f64 {
        self.bytes as f64 / BYTES_PER_TOKEN
            + self.messages as f64 * MESSAGE_TOKENS
            + self.attachments as f64 * ATTACHMENT_TOKENS
            + self.tokens as f64
    }
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

    fn text(
        value: &str,
        add: impl Fn(&mut PromptText, &[u8], &mut Scan<'_>) -> Option<()>,
    ) -> PromptText {
        let body = format!("{{\"value\":{value}}}");
        let mut text = PromptText::default();
        let whole = members(body.as_bytes(), |_, scan| add(&mut text, body.as_bytes(), scan));
        whole.expect("JSON");
        text
    }

    #[test]
    fn keys_are_distinguished_from_values_across_white_space() {
        let spaced = "[{\"role\" \n: \"user\" , \"content\"\t:\"a\\\"b\"},[\"role\",\"c\"]]";
        let text = text(spaced, PromptText::add_prompt);
        assert_eq!((text.bytes, text.messages), (3 + 4 + 1, 1));
    }

    #[test]
    fn the_keys_of_a_schema_count() {
        let schema = r#"[{"type":"function","function":{"name":"weather"}}]"#;
        let text = text(schema, |text, _, scan| text.add_schema(scan));
        assert_eq!(text.bytes, 4 + 8 + 8 + 4 + 7);
    }
}
