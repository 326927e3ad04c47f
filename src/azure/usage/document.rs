//! Finds `usage` objects in JSON text that arrives in pieces.

use super::Usage;
use crate::azure::json::{Name, Text, count, mark, members};

/// A JSON text, read as it arrives, in leaps from mark to mark. It keeps a place in the text and,
/// while it is incomplete, the object that it looks for.
///
/// That is an object called `usage` in the outermost object, or in the object `response` in that
/// one. Keys are compared as they are written: one that spells `usage` with escapes is not found.
#[derive(Debug, Default)]
pub(super) struct Document {
    text: Text,
    depth: u32,
    /// Whether the outermost value is an object.
    is_object: bool,
    /// Whether the value in which the next member of depth 3 is, is the object `response`.
    is_response: bool,
    /// The last string, if no bracket came after it: before `{` it is a key.
    name: Name,
    /// At what depth the `usage` ends that is being kept.
    keeping: Option<u32>,
    kept: Vec<u8>,
}

impl Document {
    /// Whether nothing of the text was seen yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.depth == 0 && !self.text.is_within()
    }

    /// Reads on, and gives the last usage that ended in this piece.
    pub(super) fn push(&mut self, piece: &[u8]) -> Option<Usage> {
        let mut found = None;
        let mut from = self.keeping.map(|_| 0);
        let mut at = 0;
        while at < piece.len() {
            if self.text.is_within() {
                at += self.text.read(&piece[at..], |text| self.name.extend(text));
                continue;
            }
            at += mark(&piece[at..]);
            let Some(&byte) = piece.get(at) else { break };
            match byte {
                b'"' => {
                    self.name = Name::default();
                    self.text = Text::Within;
                }
                b'{' | b'[' => {
                    if self.open(byte == b'{') {
                        from = Some(at);
                    }
                }
                _ => {
                    if self.close()
                        && let Some(from) = from.take()
                    {
                        found = self.complete(&piece[from..=at]).or(found);
                    }
                }
            }
            at += 1;
        }
        if let Some(from) = from {
            self.keep(&piece[from..]);
        }
        found
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.kept.capacity()
    }

    /// Goes into an object or array; whether it is a usage to be kept.
    fn open(&mut self, is_object: bool) -> bool {
        let name = std::mem::take(&mut self.name);
        self.depth = self.depth.saturating_add(1);
        let is_usage = is_object && name.is(b"usage");
        let is_wanted = match self.depth {
            1 => {
                self.is_object = is_object;
                false
            }
            2 => {
                self.is_response = self.is_object && is_object && name.is(b"response");
                self.is_object && is_usage
            }
            3 => self.is_response && is_usage,
            _ => false,
        };
        if is_wanted {
            self.keeping = Some(self.depth);
            self.kept.clear();
        }
        is_wanted
    }

    /// Leaves an object or array; whether it is the usage that is being kept.
    fn close(&mut self) -> bool {
        self.name = Name::default();
        let ended = self.keeping == Some(self.depth);
        if ended {
            self.keeping = None;
        }
        self.depth = self.depth.saturating_sub(1);
        ended
    }

    fn keep(&mut self, piece: &[u8]) {
        if self.kept.len() + piece.len() > LONGEST {
            self.keeping = None;
            self.kept = Vec::new();
        } else {
            self.kept.extend_from_slice(piece);
        }
    }

    fn complete(&mut self, end: &[u8]) -> Option<Usage> {
        if self.kept.len() + end.len() > LONGEST {
            return None;
        }
        if self.kept.is_empty() {
            return parse(end);
        }
        self.kept.extend_from_slice(end);
        parse(&self.kept)
    }
}

/// Reads a usage object in the spelling of chat completions or of responses; `None` when it has
/// none of their numbers.
fn parse(object: &[u8]) -> Option<Usage> {
    let (mut prompt, mut cached, mut completion) = (None, None, None);
    members(object, |key, scan| {
        let value = &object[scan.skip()?];
        match &object[key] {
            b"prompt_tokens" | b"input_tokens" => prompt = count(value, MOST_TOKENS),
            b"completion_tokens" | b"output_tokens" => completion = count(value, MOST_TOKENS),
            b"prompt_tokens_details" | b"input_tokens_details" => cached = cached_tokens(value),
            _ => {}
        }
        Some(())
    })?;
    prompt.or(completion)?;
    Some(Usage::new(
        prompt.unwrap_or_default(),
        cached.unwrap_or_default(),
        completion.unwrap_or_default(),
    ))
}

/// The cached tokens in the details of a prompt, which are `null` where the model has no cache.
fn cached_tokens(details: &[u8]) -> Option<u64> {
    let mut cached = None;
    members(details, |key, scan| {
        let value = scan.skip()?;
        if details[key] == *b"cached_tokens" {
            cached = count(&details[value], MOST_TOKENS);
        }
        Some(())
    })?;
    cached
}

/// The longest usage object that is read; those of the service have about 300 bytes.
const LONGEST: usize = 4 << 10;
/// Far above any context, and exact as a float.
const MOST_TOKENS: u64 = 1 << 40;
