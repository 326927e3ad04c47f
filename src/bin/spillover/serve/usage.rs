//! Finds what an answer says that it used, in JSON and in event streams, as it passes by.

use memchr::memmem;
use serde::Deserialize;

use crate::account::Tokens;

/// Watches the pieces of an answer for its last `usage` object.
#[derive(Debug, Default)]
pub(super) struct UsageWatch {
    /// The last bytes of the piece before, where the name may have begun.
    tail: Vec<u8>,
    /// What followed the last name, as much as an object needs.
    found: Vec<u8>,
    is_following: bool,
}

impl UsageWatch {
    pub(super) fn see(&mut self, piece: &[u8]) {
        let mut rest = piece;
        if !self.tail.is_empty() {
            let head = piece.get(..NAME.len()).unwrap_or(piece);
            let joint = [&self.tail, head].concat();
            if let Some(at) = memmem::find(&joint, NAME) {
                rest = &piece[(at + NAME.len()).saturating_sub(self.tail.len())..];
                self.start();
            }
        }
        match memmem::rfind(rest, NAME) {
            Some(at) => {
                self.start();
                self.follow(&rest[at + NAME.len()..]);
            }
            None => self.follow(rest),
        }
        self.keep_tail(piece);
    }

    /// What was said last.
    pub(super) fn finish(&self) -> Option<Tokens> {
        let object = self.found.trim_ascii_start().strip_prefix(b":")?;
        let usage =
            serde_json::Deserializer::from_slice(object).into_iter::<Usage>().next()?.ok()?;
        Some(Tokens {
            prompt: usage.prompt_tokens,
            cached: usage.prompt_tokens_details.unwrap_or_default().cached_tokens,
            completion: usage.completion_tokens,
        })
    }

    fn start(&mut self) {
        self.is_following = true;
        self.found.clear();
    }

    fn follow(&mut self, bytes: &[u8]) {
        if self.is_following {
            let room = LONGEST.saturating_sub(self.found.len());
            self.found.extend_from_slice(&bytes[..bytes.len().min(room)]);
            self.is_following = self.found.len() < LONGEST;
        }
    }

    fn keep_tail(&mut self, piece: &[u8]) {
        let keep = NAME.len() - 1;
        self.tail.extend_from_slice(&piece[piece.len().saturating_sub(keep)..]);
        let surplus = self.tail.len().saturating_sub(keep);
        self.tail.drain(..surplus);
    }
}

#[derive(Debug, Deserialize)]
struct Usage {
    #[serde(default, alias = "input_tokens")]
    prompt_tokens: u64,
    #[serde(default, alias = "output_tokens")]
    completion_tokens: u64,
    #[serde(default, alias = "input_tokens_details")]
    prompt_tokens_details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
struct Details {
    #[serde(default)]
    cached_tokens: u64,
}

/// Inside of a text its quotes would be escaped.
const NAME: &[u8] = b"\"usage\"";
const LONGEST: usize = 2_048;

#[cfg(test)]
mod tests {
    use super::*;

    fn seen<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<Tokens> {
        let mut watch = UsageWatch::default();
        pieces.into_iter().for_each(|piece| watch.see(piece));
        watch.finish()
    }

    const ANSWER: &[u8] = br#"{"choices":[{"text":"\"usage\": 3"}],"usage": {"prompt_tokens":7,
        "completion_tokens":5,"prompt_tokens_details":{"cached_tokens":2}},"id":"x"}"#;
    const TOKENS: Tokens = Tokens { prompt: 7, cached: 2, completion: 5 };

    #[test]
    fn an_answer_cut_anywhere_says_the_same() {
        for at in 0..ANSWER.len() {
            assert_eq!(seen([&ANSWER[..at], &ANSWER[at..]]), Some(TOKENS), "{at}");
        }
        assert_eq!(seen(ANSWER.chunks(1)), Some(TOKENS));
    }

    #[test]
    fn the_last_event_counts_in_either_spelling() {
        let events: [&[u8]; 3] = [
            b"data: {\"usage\":null,\"a\":1}\n\n",
            b"data: {\"response\":{\"usage\":{\"input_tokens\":7,\"output_tokens\":5,\
              \"input_tokens_details\":{\"cached_tokens\":2}}}}\n\n",
            b"data: [DONE]\n\n",
        ];
        assert_eq!(seen(events), Some(TOKENS));
        assert_eq!(seen([events[0], events[2]]), None);
        assert_eq!(seen([&b"{}"[..]]), None);
    }
}
