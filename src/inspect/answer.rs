//! A JSON answer of the Responses API: whether the response failed.

use super::stream::{self, StreamVerdict};
use crate::azure::{
    error::{BYTE_ORDER_MARK, Members, without_mark},
    json::{Bracket, Mark, Name, Token, Tokenizer},
};

/// Reads the start of a JSON text, in any chunking, until the `status` of the outermost object is
/// known, or its `object` shows that it is not a response.
#[derive(Debug, Default)]
pub(crate) struct Status {
    tokens: Tokenizer,
    /// The key whose value is next.
    key: StatusKey,
    /// Whether the response is known to have failed, so that only its end decides.
    has_failed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum StatusKey {
    #[default]
    Other,
    Status,
    Object,
}

impl Status {
    /// Reads the next bytes. Do not call it again after a decision.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> StreamVerdict {
        let mut rest = bytes;
        while !self.has_failed
            && let Some(token) = self.tokens.next(&mut rest)
        {
            if let Token::Between(between, mark) = token
                && self.read(between, mark).is_none()
            {
                return StreamVerdict::Answer;
            }
        }
        StreamVerdict::Undecided
    }

    /// The answer has ended and is `text`. Judges the error of a response that failed before it cost
    /// anything.
    pub(crate) fn finish(&self, text: &[u8]) -> StreamVerdict {
        let members = Members::of(without_mark(text));
        let is_candidate = self.has_failed && members.is_whole && !members.is_paid_for();
        if is_candidate && !members.error.is_empty() {
            stream::by_error(members.error)
        } else {
            StreamVerdict::Answer
        }
    }

    /// Reads the text between strings; `None` if the answer is not a failed response.
    fn read(&mut self, between: &[u8], mark: Option<Mark>) -> Option<()> {
        match self.tokens.depth() {
            // An answer that is not an object.
            0 => between.iter().all(|&byte| may_precede(byte)).then_some(())?,
            1 => {
                for byte in between {
                    match byte {
                        b':' => self.key = StatusKey::of(self.tokens.name()),
                        b',' => self.end_member()?,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        match (mark, self.tokens.depth()) {
            (Some(Mark::Bracket(Bracket::Close)), 0) => None,
            (Some(Mark::Bracket(Bracket::Close)), 1) => self.end_member(),
            _ => Some(()),
        }
    }

    /// The value of a member of the outermost object has ended.
    fn end_member(&mut self) -> Option<()> {
        match std::mem::take(&mut self.key) {
            StatusKey::Status if self.tokens.name().is(b"failed") => self.has_failed = true,
            StatusKey::Status => return None,
            StatusKey::Object if !self.tokens.name().is(b"response") => return None,
            StatusKey::Object | StatusKey::Other => {}
        }
        Some(())
    }
}

impl StatusKey {
    fn of(name: &Name) -> Self {
        if name.is(b"status") {
            Self::Status
        } else if name.is(b"object") {
            Self::Object
        } else {
            Self::Other
        }
    }
}

/// Whether the byte may precede an object; the end of the text shows whether it was the mark.
fn may_precede(byte: u8) -> bool {
    byte.is_ascii_whitespace() || BYTE_ORDER_MARK.contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::Reason;

    fn read(text: &str) -> (bool, StreamVerdict) {
        let mut status = Status::default();
        let is_released = status.push(text.as_bytes()) == StreamVerdict::Answer;
        (is_released, status.finish(text.as_bytes()))
    }

    #[track_caller]
    fn assert_refused(text: &str, is_refused: bool) {
        let (is_released, end) = read(text);
        assert!(!is_released, "{text}");
        assert_eq!(matches!(end, StreamVerdict::Refused(_)), is_refused, "{text}");
    }

    #[test]
    fn an_answer_is_released_with_its_status() {
        for text in [
            r#"{"status":"completed","#,
            r#"{"status":"in_progress"}"#,
            r#"{"status":null,"#,
            r#"{"status":{"status":"failed"},"#,
            r#"{"status":"failed\u0020","#,
            r#"{"object":"list","#,
            r#"{"object":"response.compaction","#,
            "true",
            "12",
            "}",
        ] {
            assert!(read(text).0, "{text}");
        }
    }

    #[test]
    fn only_the_outermost_status_counts() {
        let error = r#""error":{"code":"429"}"#;
        assert_refused(&format!(r#"{{"status":"failed",{error}}}"#), true);
        assert_refused(&format!(r#"{{{error},"status" : "failed" }}"#), true);
        assert_refused(
            &format!(r#"{{"a":{{"status":"completed"}},"status":"failed",{error}}}"#),
            true,
        );
        assert_refused(
            &format!(r#"{{"a":["status","completed"],"status":"failed",{error}}}"#),
            true,
        );
        assert_refused(
            &format!(r#"{{"a":"\"status\":\"completed\"","status":"failed",{error}}}"#),
            true,
        );
        assert_refused(&format!(r#"{{"a":{{"status":"failed"}},{error}}}"#), false);
        assert_refused(&format!(r#"{{"statuses":"failed",{error}}}"#), false);
        assert_refused(&format!(r#"{{{error}}}"#), false);
        assert_refused(&format!("\u{feff}{{\"status\":\"failed\",{error}}}"), true);
        assert_refused(&format!("\u{feff}\u{feff}{{\"status\":\"failed\",{error}}}"), false);
    }

    #[test]
    fn a_failure_is_no_refusal_once_it_is_paid_for_or_without_its_error() {
        assert_refused(r#"{"status":"failed","error":{"code":"429"},"output":[]}"#, true);
        assert_refused(r#"{"status":"failed","error":{"code":"429"},"output":null}"#, true);
        assert_refused(r#"{"status":"failed","error":{"code":"429"},"output":[{}]}"#, false);
        let used =
            r#"{"status":"failed","error":{"code":"429"},"output":[],"usage":{"total_tokens":"#;
        assert_refused(&format!("{used}0}}}}"), true);
        assert_refused(&format!("{used}1600}}}}"), false);
        assert_refused(r#"{"status":"failed","error":null}"#, false);
        assert_refused(r#"{"status":"failed","error":{"code":"invalid_prompt"}}"#, false);
        assert_refused(r#"{"status":"failed","error":{"code":"429"}"#, false);
    }

    #[test]
    fn a_failure_for_overload_or_length_is_a_refusal() {
        let reason = |error: &str| match read(&format!(r#"{{"status":"failed",{error}}}"#)).1 {
            StreamVerdict::Refused(refused) => Some(refused.verdict.reason),
            _ => None,
        };
        let overloaded = r#""error":{"code":"server_is_overloaded","message":"x"}"#;
        assert_eq!(reason(overloaded), Some(Reason::Capacity));
        let long = r#""error":{"code":"context_length_exceeded","message":"x"}"#;
        assert_eq!(reason(long), Some(Reason::ContextLength));
        let words = r#""error":{"code":null,"message":"Your input exceeds the context window of this model."}"#;
        assert_eq!(reason(words), Some(Reason::ContextLength));
        assert_eq!(reason(&format!(r#"{long},"usage":{{"input_tokens":9}}"#)), None);
        assert_eq!(reason(r#""error":{"code":"server_error","message":"x"}"#), None);
    }
}
