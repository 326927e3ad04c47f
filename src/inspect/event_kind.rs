//! Classifies an event of a stream: by its name or, if that is unknown, by its data.

use crate::azure::{error::Members, json::members};

/// The role of an event at the start of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum EventKind {
    /// Without a name: its data decides.
    #[default]
    Nameless,
    /// It repeats the request, and shows that nothing has happened yet.
    Preamble,
    /// It keeps the connection alive.
    KeepAlive,
    Error,
    Failed,
    /// An unknown name: its data decides.
    Unknown,
    /// The answer has begun, whatever the data.
    Answer,
}

impl EventKind {
    pub(super) fn named(name: &[u8]) -> Self {
        match name {
            // The default name of an event without one.
            b"" | b"message" => Self::Nameless,
            b"response.created" | b"response.in_progress" | b"response.queued" => Self::Preamble,
            // Azure writes the first (vercel/ai issue 20574), Claude the second.
            b"keepalive" | b"ping" | b"keep-alive" | b"keep_alive" | b"heartbeat" => {
                Self::KeepAlive
            }
            b"error" => Self::Error,
            b"response.failed" => Self::Failed,
            _ if ANSWERS.iter().any(|start| name.starts_with(start)) => Self::Answer,
            _ => Self::Unknown,
        }
    }

    /// An event without a name has its type in the data.
    pub(super) fn of(data: &Members<'_>) -> Self {
        let kind = data.kind.strip_prefix(b"\"").and_then(|kind| kind.strip_suffix(b"\""));
        kind.map_or(Self::Nameless, Self::named)
    }
}

/// Whether an event with an unknown name carries no output: `object` has nothing but its type, ids,
/// numbers, booleans and empty values. A chunk of chat may have more, as long as it has choices and
/// they are empty, since its output is nowhere else.
pub(super) fn is_silent(object: &[u8]) -> bool {
    let (mut is_chat, mut is_silent) = (false, true);
    let read = members(object, |key, scan| {
        let value = &object[scan.skip()?];
        let (key, is_empty) = (&object[key], is_empty(value));
        match (key, value.first()) {
            (b"choices", Some(b'[')) if is_empty => is_chat = true,
            (b"choices", Some(b'[')) => return None,
            (_, Some(b'[' | b'{')) if !is_empty => is_silent = false,
            (_, Some(b'"')) if !is_empty && !is_name(key) => is_silent = false,
            _ => {}
        }
        Some(())
    });
    read.is_some() && (is_chat || is_silent)
}

/// Whether a string, array or object is empty. White space counts as text.
fn is_empty(value: &[u8]) -> bool {
    match value {
        [b'"', within @ .., _] => within.is_empty(),
        [b'[' | b'{', within @ .., _] => within.trim_ascii().is_empty(),
        _ => false,
    }
}

/// Whether a member of this name identifies rather than carries output.
fn is_name(key: &[u8]) -> bool {
    matches!(key, b"type" | b"object" | b"id") || key.ends_with(b"_id")
}

/// Prefixes of names of events that carry or announce output: responses, assistants, images, audio,
/// chat, and Claude's messages.
const ANSWERS: [&[u8]; 13] = [
    b"response.",
    b"thread.",
    b"conversation.",
    b"image_generation.",
    b"image_edit.",
    b"transcript.",
    b"speech.",
    b"chat.completion",
    b"text_completion",
    b"message_",
    b"content_block_",
    b"completion",
    b"done",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_to_carry_output_is_the_answer_by_its_name() {
        for (name, kind) in [
            ("response.created", EventKind::Preamble),
            ("response.output_item.added", EventKind::Answer),
            ("response.something_new", EventKind::Answer),
            ("thread.message.delta", EventKind::Answer),
            ("message_start", EventKind::Answer),
            ("keepalive", EventKind::KeepAlive),
            ("ping", EventKind::KeepAlive),
            ("message", EventKind::Nameless),
            ("responses", EventKind::Unknown),
            ("codex.rate_limits", EventKind::Unknown),
        ] {
            assert_eq!(EventKind::named(name.as_bytes()), kind, "{name}");
        }
    }

    #[test]
    fn an_object_is_silent_that_has_only_names_and_numbers_or_empty_choices() {
        for (object, silent) in [
            ("{}", true),
            (r#"{"type":"x","id":"a","item_id":"b","object":"c","sequence_number":3}"#, true),
            (r#"{"is_new":true,"at":1.5,"error":null,"list":[ ],"map":{},"text":""}"#, true),
            (r#"{"type":"x","text":"Hello"}"#, false),
            (r#"{"type":"x","delta":{"content":"Hello"}}"#, false),
            (r#"{"type":"x","delta":" "}"#, false),
            (r#"{"type":"x","output":[1]}"#, false),
            (r#"{"choices":[],"model":"m","prompt_filter_results":[{"prompt_index":0}]}"#, true),
            (r#"{"choices":[{"delta":{"role":"assistant"}}]}"#, false),
            (r#"{"choices":[],"choices":[{}]}"#, false),
            (r#"{"choices":null,"text":"Hello"}"#, false),
            (r#"{"choices":[]"#, false),
            ("[DONE]", false),
            ("", false),
        ] {
            assert_eq!(is_silent(object.as_bytes()), silent, "{object}");
        }
    }
}
