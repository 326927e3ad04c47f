//! Detects whether a preamble event belongs to a response that runs in the background.

use crate::azure::json::{Bracket, Mark, Token, Tokenizer};

/// Scans an event as it arrives, without keeping it, for `"background": true` in its `response`. Such
/// a response continues without its caller, who needs the id in this event to fetch it later.
#[derive(Debug, Default)]
pub(super) struct Background {
    tokens: Tokenizer,
    at: EventPosition,
    /// How much of the key's name the last string matched; `None` if it differs.
    key: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum EventPosition {
    /// Before the response.
    #[default]
    Event,
    /// Between the members of the response.
    Response,
    /// After this many letters of `true`.
    Value(usize),
    /// Decided, or the response has ended without the key.
    End,
}

impl Background {
    /// Scans the next bytes of the event; returns whether they show a background response.
    pub(super) fn push(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while self.at != EventPosition::End
            && let Some(token) = self.tokens.next(&mut rest)
        {
            match token {
                Token::Text(part, _) => {
                    self.key = self.key.filter(|&length| KEY[length..].starts_with(part));
                    self.key = self.key.map(|length| length + part.len());
                }
                Token::Between(between, mark) => {
                    if self.tokens.depth() == 2 && self.read(between) {
                        return true;
                    }
                    self.pass(mark);
                }
            }
        }
        false
    }

    /// Reads the text between strings at the level of the response's members.
    fn read(&mut self, between: &[u8]) -> bool {
        for byte in between {
            self.at = match self.at {
                EventPosition::Response if *byte == b':' && self.key == Some(KEY.len()) => {
                    EventPosition::Value(0)
                }
                EventPosition::Value(0) if byte.is_ascii_whitespace() => EventPosition::Value(0),
                EventPosition::Value(seen) if *byte == TRUE[seen] => EventPosition::Value(seen + 1),
                EventPosition::Value(_) => EventPosition::End,
                at => at,
            };
            if self.at == EventPosition::Value(TRUE.len()) {
                self.at = EventPosition::End;
                return true;
            }
        }
        false
    }

    fn pass(&mut self, mark: Option<Mark>) {
        let Some(mark) = mark else { return };
        let depth = self.tokens.depth();
        self.at = match (self.at, mark) {
            (EventPosition::Event, Mark::Bracket(Bracket::Object))
                if depth == 1 && self.tokens.name().is(b"response") =>
            {
                EventPosition::Response
            }
            (EventPosition::Response, Mark::Bracket(Bracket::Close)) if depth == 2 => {
                EventPosition::End
            }
            // A value other than a boolean.
            (EventPosition::Value(_), _) => EventPosition::End,
            (at, _) => at,
        };
        self.key = (mark == Mark::Quote && depth == 2).then_some(0);
    }
}

const KEY: &[u8] = b"background";
const TRUE: &[u8] = b"true";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_responses_own_member_counts_however_the_event_is_cut() {
        for (event, is_said) in [
            (r#"{"type":"response.created","response":{"id":"resp_1","background":true}}"#, true),
            (r#"{"response" : {"a":{"b":[]},"background" : true ,"instructions":"#, true),
            (r#"{"response":{"background":false}}"#, false),
            (r#"{"response":{"background":null,"error":null}}"#, false),
            (r#"{"response":{"background":"true"}}"#, false),
            (r#"{"response":{"background":{"background":true}}}"#, false),
            (r#"{"response":{"backgrounds":true,"ackground":true}}"#, false),
            (r#"{"response":{"tools":[{"background":true}]}}"#, false),
            (r#"{"response":{"instructions":"\"background\":true"}}"#, false),
            (r#"{"response":{"a":"background","b":true}}"#, false),
            (r#"{"response":{}, "background":true}"#, false),
            (r#"{"background":true,"response":[{"background":true}]}"#, false),
            (r#"{"item":{"background":true}}"#, false),
            (r#"{"response":{"background":tru"#, false),
        ] {
            assert_eq!(Background::default().push(event.as_bytes()), is_said, "{event}");
            for length in [1, 3] {
                let mut background = Background::default();
                let mut pieces = event.as_bytes().chunks(length);
                assert_eq!(pieces.any(|piece| background.push(piece)), is_said, "{event}");
            }
        }
    }
}
