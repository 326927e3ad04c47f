//! Finds `usage` objects in JSON text that arrives in pieces.

use super::Usage;
use crate::azure::json::{Bracket, Mark, Token, Tokenizer, count, members};

/// A JSON text, read as it arrives. It keeps its position in the text and, while that is incomplete,
/// the object that it looks for.
///
/// That object is called `usage` and is in the outermost object, or in the object `response` of that.
/// Keys are compared as written: one that spells `usage` with escapes is not found.
#[derive(Debug, Default)]
pub(super) struct Document {
    tokens: Tokenizer,
    /// Whether the outermost value is an object.
    is_object: bool,
    /// Whether the value that contains the next member of depth 2 is the object `response`.
    is_response: bool,
    /// The depth at which the `usage` being kept ends.
    keeping: Option<usize>,
    kept: Vec<u8>,
}

impl Document {
    /// Whether nothing of the text was read yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.tokens.is_outermost()
    }

    /// Reads on, and returns the last usage that ended in this piece.
    pub(super) fn push(&mut self, piece: &[u8]) -> Option<Usage> {
        let mut found = None;
        let mut from = self.keeping.map(|_| 0);
        let mut rest = piece;
        while let Some(token) = self.tokens.next(&mut rest) {
            let Token::Between(_, Some(Mark::Bracket(bracket))) = token else { continue };
            let end = piece.len() - rest.len();
            if bracket != Bracket::Close {
                if self.open(bracket == Bracket::Object) {
                    from = Some(end - 1);
                }
            } else if self.close()
                && let Some(from) = from.take()
            {
                found = self.complete(&piece[from..end]).or(found);
            }
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

    /// Enters an object or array; returns whether it is a usage to keep.
    fn open(&mut self, is_object: bool) -> bool {
        let (depth, name) = (self.tokens.depth(), self.tokens.name());
        let is_usage = is_object && name.is(b"usage");
        let is_wanted = match depth {
            0 => {
                self.is_object = is_object;
                false
            }
            1 => {
                self.is_response = self.is_object && is_object && name.is(b"response");
                self.is_object && is_usage
            }
            2 => self.is_response && is_usage,
            _ => false,
        };
        if is_wanted {
            self.keeping = Some(depth + 1);
            self.kept.clear();
        }
        is_wanted
    }

    /// Leaves an object or array; returns whether it is the usage being kept.
    fn close(&mut self) -> bool {
        let ended = self.keeping == Some(self.tokens.depth());
        if ended {
            self.keeping = None;
        }
        ended
    }

    fn keep(&mut self, piece: &[u8]) {
        if self.kept.len() + piece.len() > MAX_USAGE_BYTES {
            self.keeping = None;
            self.kept = Vec::new();
        } else {
            self.kept.extend_from_slice(piece);
        }
    }

    fn complete(&mut self, end: &[u8]) -> Option<Usage> {
        if self.kept.len() + end.len() > MAX_USAGE_BYTES {
            return None;
        }
        if self.kept.is_empty() {
            return parse(end);
        }
        self.kept.extend_from_slice(end);
        parse(&self.kept)
    }
}

/// Parses a usage object in the spelling of chat completions or of responses; `None` if it has none
/// of their numbers.
fn parse(object: &[u8]) -> Option<Usage> {
    let (mut prompt, mut cached, mut completion) = (None, None, None);
    members(object, |key, scan| {
        let value = &object[scan.skip()?];
        match &object[key] {
            b"prompt_tokens" | b"input_tokens" => prompt = count(value, MAX_TOKENS),
            b"completion_tokens" | b"output_tokens" => completion = count(value, MAX_TOKENS),
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

/// The cached tokens in the details of a prompt, which are `null` if the model has no cache.
fn cached_tokens(details: &[u8]) -> Option<u64> {
    let mut cached = None;
    members(details, |key, scan| {
        let value = scan.skip()?;
        if details[key] == *b"cached_tokens" {
            cached = count(&details[value], MAX_TOKENS);
        }
        Some(())
    })?;
    cached
}

/// The longest usage object that is read, in bytes; the service's have about 300.
const MAX_USAGE_BYTES: usize = 4 << 10;
/// Far above any context, and exact as a float.
const MAX_TOKENS: u64 = 1 << 40;
