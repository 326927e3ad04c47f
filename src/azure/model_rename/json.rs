//! Finds the top-level `model` of a JSON object that arrives in pieces.

use std::ops::Range;

use super::{Models, Span};
use crate::azure::{fields, json};

/// A position in a JSON object. Checks only the grammar of the outermost object, and passes broken
/// text on unchanged: the service rejects it.
#[derive(Clone, Default)]
pub(crate) struct JsonReader {
    at: JsonPosition,
    key: PartialKey,
    pub(super) models: Models,
}

/// What comes next.
#[derive(Clone, Copy, Default)]
enum JsonPosition {
    /// The object.
    #[default]
    Start,
    /// A key's opening quote.
    Key,
    /// The rest of a key.
    InKey {
        is_escaped: bool,
    },
    Colon,
    Value,
    /// The rest of a string value.
    InText {
        is_escaped: bool,
        is_model: bool,
    },
    /// The rest of an array or object value, and whether it is in a string.
    Nested {
        depth: usize,
        text: Option<bool>,
    },
    /// The rest of a number or a word.
    Scalar,
    Comma,
    /// Nothing relevant.
    End,
}

impl JsonReader {
    /// Whether no model can follow.
    pub(super) const fn is_done(&self) -> bool {
        matches!(self.at, JsonPosition::End)
    }

    pub(super) fn read(&mut self, piece: &[u8], emit: &mut impl FnMut(Span<'_>)) {
        let (mut at, mut stays_from) = (0, 0);
        while let Some(rest @ [first, ..]) = piece.get(at..) {
            match &mut self.at {
                JsonPosition::End => break,
                JsonPosition::InKey { is_escaped } => {
                    let end = text_end(rest, is_escaped);
                    self.key.push(&rest[..end.map_or(rest.len(), |end| end - 1)]);
                    at += end.unwrap_or(rest.len());
                    if end.is_some() {
                        self.at = JsonPosition::Colon;
                    }
                }
                JsonPosition::InText { is_escaped, is_model } => {
                    let (end, is_model) = (text_end(rest, is_escaped), *is_model);
                    at += end.unwrap_or(rest.len());
                    if is_model {
                        stays_from = at;
                        self.models.ended += usize::from(end.is_some());
                    }
                    if end.is_some() {
                        self.at = JsonPosition::Comma;
                    }
                }
                JsonPosition::Nested { text: text @ Some(_), .. } => {
                    let end = text.as_mut().and_then(|is_escaped| text_end(rest, is_escaped));
                    at += end.unwrap_or(rest.len());
                    if end.is_some() {
                        *text = None;
                    }
                }
                JsonPosition::Nested { depth, text } => {
                    at += json::mark(rest);
                    match piece.get(at) {
                        Some(b'"') => *text = Some(false),
                        Some(b'{' | b'[') => *depth += 1,
                        Some(_) if *depth > 1 => *depth -= 1,
                        Some(_) => self.at = JsonPosition::Comma,
                        None => break,
                    }
                    at += 1;
                }
                JsonPosition::Scalar => {
                    at += rest.iter().take_while(|byte| !ends_scalar(**byte)).count();
                    if at < piece.len() {
                        self.at = JsonPosition::Comma;
                    }
                }
                JsonPosition::Start
                | JsonPosition::Key
                | JsonPosition::Colon
                | JsonPosition::Value
                | JsonPosition::Comma => {
                    if matches!(self.at, JsonPosition::Value)
                        && *first == b'"'
                        && self.key.is_model()
                    {
                        self.models.begun += 1;
                        emit(Span::Piece(stays_from..at));
                        emit(Span::Name);
                        stays_from = at + 1;
                    }
                    let is_first = matches!(self.at, JsonPosition::Key);
                    if *first == b'}' && (is_first || matches!(self.at, JsonPosition::Comma)) {
                        self.end(stays_from..at, is_first, emit);
                        stays_from = at;
                    }
                    self.step(*first);
                    at += 1;
                }
            }
        }
        emit(Span::Piece(stays_from..piece.len()));
    }

    /// The object ends; this range of the piece comes before the end.
    fn end(&self, stays: Range<usize>, is_first: bool, emit: &mut impl FnMut(Span<'_>)) {
        emit(Span::Piece(stays));
        if self.models.begun == 0 {
            emit(Span::End { is_first });
        }
    }

    /// Takes one byte between the strings and values.
    fn step(&mut self, byte: u8) {
        self.at = match (self.at, byte) {
            (at, b' ' | b'\t' | b'\n' | b'\r') => at,
            // A byte order mark, which some readers skip (RFC 8259, section 8.1).
            (JsonPosition::Start, 0xEF | 0xBB | 0xBF) => JsonPosition::Start,
            (JsonPosition::Start, b'{') | (JsonPosition::Comma, b',') => JsonPosition::Key,
            (JsonPosition::Key, b'"') => {
                self.key = PartialKey::default();
                JsonPosition::InKey { is_escaped: false }
            }
            (JsonPosition::Colon, b':') => JsonPosition::Value,
            (JsonPosition::Value, b'"') => {
                JsonPosition::InText { is_escaped: false, is_model: self.key.is_model() }
            }
            (JsonPosition::Value, b'{' | b'[') => JsonPosition::Nested { depth: 1, text: None },
            (JsonPosition::Value, byte) if !ends_scalar(byte) => JsonPosition::Scalar,
            _ => JsonPosition::End,
        };
    }
}

/// The end of a string, including its closing quote; `None` if it is in a later piece.
fn text_end(bytes: &[u8], is_escaped: &mut bool) -> Option<usize> {
    let mut at = 0;
    loop {
        if *is_escaped {
            bytes.get(at)?;
            at += 1;
            *is_escaped = false;
        }
        at += json::quote_or_backslash(&bytes[at..])? + 1;
        if bytes[at - 1] == b'"' {
            return Some(at);
        }
        *is_escaped = true;
    }
}

const fn ends_scalar(byte: u8) -> bool {
    matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r')
}

/// The part of a key that `model` can have, and one byte more.
#[derive(Clone, Default)]
struct PartialKey {
    bytes: [u8; MAX_MODEL_KEY_BYTES + 1],
    length: usize,
}

impl PartialKey {
    fn push(&mut self, text: &[u8]) {
        let room = &mut self.bytes[self.length..];
        let length = text.len().min(room.len());
        room[..length].copy_from_slice(&text[..length]);
        self.length += length;
    }

    fn is_model(&self) -> bool {
        fields::is_model(&self.bytes[..self.length])
    }
}

/// `model` with every letter written as `\u006d`.
const MAX_MODEL_KEY_BYTES: usize = 30;
