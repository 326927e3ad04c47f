//! Finds `usage` objects in JSON text that arrives in pieces.

use memchr::memrchr;

use super::Usage;
use crate::azure::json::{Bracket, Mark, Token, Tokenizer, count, is_escaped, members};

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

/// The usage of a whole JSON text, if it is among its last members, read from the end: the service
/// writes it there. `None` if the text has to be read from its beginning.
///
/// The end is outside of strings, and a quote within a string follows an odd number of backslashes, so
/// strings are recognised from their ends as well.
pub(super) fn at_end(text: &[u8]) -> Option<Usage> {
    let members = text.trim_ascii().strip_prefix(b"{")?.strip_suffix(b"}")?;
    let tail = &members[members.len().saturating_sub(MAX_TAIL_BYTES)..];
    let is_cut = tail.len() < members.len();
    let (mut end, mut depth, mut closing) = (tail.len(), 0_usize, 0);
    // The last object that was passed, while only a colon can precede it.
    let mut object: Option<&[u8]> = None;
    loop {
        let before = &tail[..end];
        end = before.iter().rposition(|byte| matches!(byte, b'"' | b'{' | b'}' | b'[' | b']'))?;
        match before[end] {
            b'"' => {
                let opening = opening_quote(&before[..end], is_cut)?;
                let (name, after) = (&before[opening + 1..end], &before[end + 1..]);
                end = opening;
                let value = object.take().filter(|_| depth == 0 && after.trim_ascii() == b":");
                match (name, value) {
                    (b"usage", Some(value)) => {
                        if let Some(usage) = parse(value) {
                            return Some(usage);
                        }
                    }
                    // It may contain a usage, which would be the last one.
                    (b"response", Some(_)) => return None,
                    _ => {}
                }
            }
            b'}' | b']' => {
                closing = if depth == 0 { end } else { closing };
                depth += 1;
            }
            opening => {
                depth = depth.checked_sub(1)?;
                object = (depth == 0 && opening == b'{').then(|| &tail[end..=closing]);
            }
        }
    }
}

/// The position of the quote that opens the string at the end of `text`. If the text `is_cut`, it has a
/// beginning that is not known.
fn opening_quote(mut text: &[u8], is_cut: bool) -> Option<usize> {
    loop {
        let quote = memrchr(b'"', text)?;
        let before = &text[..quote];
        if is_cut && before.iter().all(|&byte| byte == b'\\') {
            return None;
        }
        if !is_escaped(before) {
            return Some(quote);
        }
        text = before;
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
/// How far from the end of an answer its usage is looked for, in bytes: the service's usage and what
/// follows it take some 400.
const MAX_TAIL_BYTES: usize = 1 << 10;
/// Far above any context, and exact as a float.
const MAX_TOKENS: u64 = 1 << 40;
