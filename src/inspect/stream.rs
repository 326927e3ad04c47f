//! The beginning of an event stream: preamble, a refusal, or an answer that has begun.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    azure::{
        error::{ApiError, Members},
        events::{EventLines, Field, Part},
        message,
    },
    classify::Reason,
};

/// Reads the beginning of an event stream, in whatever pieces it comes, until it is decided.
///
/// The events `response.created`, `.in_progress` and `.queued` decide nothing, however long they
/// are: one echoes the whole request. An `error` is judged, and a `response.failed` that is not paid
/// for. With any other event the answer has begun; its name is enough.
#[derive(Debug, Default)]
pub(crate) struct Preamble {
    lines: EventLines,
    /// The unfinished name of the event, as far as it may matter.
    name: Vec<u8>,
    event: Event,
    /// The data of the event, where it may matter.
    data: Vec<u8>,
}

/// What the beginning of an answer turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// Nothing but preamble so far.
    Undecided,
    /// The answer has begun, or ends with an error that is the caller's.
    Answer,
    Refused(Refused),
}

/// A refusal that was found in an answer, for rate, capacity or quota, or for the request's length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) reason: Reason,
    /// How long its words ask to wait.
    pub(crate) wait: Option<Duration>,
    /// Its error in the shape of a refusal's body.
    pub(crate) body: Bytes,
}

impl Refused {
    /// A refusal that the head of an answer tells alone.
    pub(crate) fn by_head() -> Self {
        let body = br#"{"error":{"code":"429","type":"too_many_requests","message":"The service asked to retry later instead of beginning its answer.","param":null}}"#;
        Self { reason: Reason::Rate, wait: None, body: Bytes::from_static(body) }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Event {
    /// Without a name: its data tells.
    #[default]
    Nameless,
    Preamble,
    Error,
    Failed,
    Other,
}

impl Preamble {
    /// The next bytes of the stream. Nothing that follows a decision is to be read.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Beginning {
        while let Some(part) = self.lines.next(&mut bytes) {
            let decided = match part {
                Part::Value(field, text) => {
                    self.keep(field, text);
                    Beginning::Undecided
                }
                Part::EndOfLine(field) => self.end_line(field),
                Part::EndOfEvent => self.dispatch(),
            };
            if decided != Beginning::Undecided {
                return decided;
            }
        }
        Beginning::Undecided
    }

    /// The stream has ended; an event that was not finished by an empty line counts too.
    pub(crate) fn finish(mut self) -> Beginning {
        let unfinished = self.lines.unfinished();
        match unfinished.map_or(Beginning::Undecided, |field| self.end_line(field)) {
            Beginning::Undecided => self.dispatch(),
            decided => decided,
        }
    }

    fn keep(&mut self, field: Field, text: &[u8]) {
        match field {
            Field::Event => {
                let room = MAX_NAME_BYTES.saturating_sub(self.name.len());
                self.name.extend_from_slice(&text[..text.len().min(room)]);
            }
            Field::Data if self.event == Event::Preamble => {}
            Field::Data => self.data.extend_from_slice(text),
        }
    }

    fn end_line(&mut self, field: Field) -> Beginning {
        match field {
            Field::Data if self.event == Event::Preamble => {}
            Field::Data => self.data.push(b'\n'),
            Field::Event => {
                self.event = Event::named(&self.name);
                self.name.clear();
                match self.event {
                    Event::Other => return Beginning::Answer,
                    Event::Preamble => self.data.clear(),
                    _ => {}
                }
            }
        }
        Beginning::Undecided
    }

    fn dispatch(&mut self) -> Beginning {
        let event = std::mem::take(&mut self.event);
        let data = std::mem::take(&mut self.data);
        if data.is_empty() { Beginning::Undecided } else { judge(event, data.trim_ascii()) }
    }
}

impl Event {
    fn named(name: &[u8]) -> Self {
        match name {
            // Which is the name of those without one.
            b"" | b"message" => Self::Nameless,
            b"response.created" | b"response.in_progress" | b"response.queued" => Self::Preamble,
            b"error" => Self::Error,
            b"response.failed" => Self::Failed,
            _ => Self::Other,
        }
    }

    /// An event without a name has it in its data, or an error where a chat stream's choices are.
    fn of(data: &Members<'_>) -> Self {
        let kind = data.kind.strip_prefix(b"\"").and_then(|kind| kind.strip_suffix(b"\""));
        match kind {
            Some(kind) => Self::named(kind),
            None if data.error.is_empty() => Self::Other,
            None => Self::Error,
        }
    }
}

fn judge(event: Event, data: &[u8]) -> Beginning {
    let members = Members::of(data);
    let event = match event {
        Event::Nameless if !members.is_whole => Event::Other,
        Event::Nameless => Event::of(&members),
        named => named,
    };
    match event {
        Event::Nameless | Event::Other => Beginning::Answer,
        Event::Preamble => Beginning::Undecided,
        Event::Error if members.is_paid_for() => Beginning::Answer,
        Event::Error if !members.error.is_empty() => by_error(members.error),
        Event::Error => by_event(&members, data),
        Event::Failed => {
            let response = Members::of(members.response);
            match (response.error, members.error) {
                _ if response.is_paid_for() => Beginning::Answer,
                // One order that was seen has the error in an event of its own.
                (b"", b"") => Beginning::Undecided,
                (b"", error) | (error, _) => by_error(error),
            }
        }
    }
}

/// Judges the value of an `error` member.
pub(super) fn by_error(error: &[u8]) -> Beginning {
    decide(&ApiError::of(error), |_| Bytes::from([b"{\"error\":", error, b"}"].concat()))
}

/// Judges an event that is the error itself: `{"type":"error","code":…,"message":…}`.
fn by_event(members: &Members<'_>, data: &[u8]) -> Beginning {
    if !members.is_whole {
        return decide(&ApiError::saying(data), |reason| {
            Bytes::from_static(match reason {
                Reason::ContextLength => br#"{"error":{"code":"context_length_exceeded"}}"#,
                _ => br#"{"error":{"code":"429"}}"#,
            })
        });
    }
    let mut fault = *members;
    // The type is the event's, not the error's.
    fault.kind = b"";
    let fault = fault.as_error();
    decide(&fault, |_| {
        let (code, message) = (or_null(members.code), or_null(members.message));
        Bytes::from([b"{\"error\":{\"code\":", code, b",\"message\":", message, b"}}"].concat())
    })
}

fn or_null(value: &[u8]) -> &[u8] {
    if value.is_empty() { b"null" } else { value }
}

/// What an error in the place of an answer makes of it. One that says that the request is too long is
/// the backend's limit, and another may take it.
fn decide(fault: &ApiError<'_>, body: impl FnOnce(Reason) -> Bytes) -> Beginning {
    let too_long = || fault.is_too_long().then_some(Reason::ContextLength);
    match fault.reason().or_else(too_long) {
        None => Beginning::Answer,
        Some(reason) => {
            let wait = match reason {
                Reason::ContextLength => None,
                _ => message::wait(fault.message),
            };
            Beginning::Refused(Refused { reason, wait, body: body(reason) })
        }
    }
}

/// Longer than the name of every event that is no answer.
const MAX_NAME_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Beginning {
        Preamble::default().push(text.as_bytes())
    }

    #[track_caller]
    fn assert_refused(beginning: Beginning, reason: Reason, body: &str) {
        let Beginning::Refused(refused) = beginning else { panic!("{beginning:?}") };
        assert_eq!((refused.reason, &refused.body[..]), (reason, body.as_bytes()));
    }

    #[test]
    fn an_events_name_counts_over_every_line_ending_and_after_a_byte_order_mark() {
        let body = r#"{"error":{"code":"too_many_requests","message":null}}"#;
        for end in ["\n", "\r\n", "\r"] {
            for start in ["", "\u{feff}", ": note\n", "retry: 5\n", "id\n", "\n\n"] {
                let data = r#"data:{"code":"too_many_requests"}"#;
                let event = format!("{start}event: error{end}{data}{end}{end}");
                assert_refused(read(&event), Reason::Rate, body);
                // The name may come last.
                let event = format!("{start}{data}{end}event:error{end}{end}");
                assert_refused(read(&event), Reason::Rate, body);
            }
        }
    }

    #[test]
    fn an_event_called_message_is_one_without_a_name() {
        let error = r#"{"error":{"code":"429"}}"#;
        let event = format!("event: message\ndata: {error}\n\n");
        assert_refused(read(&event), Reason::Rate, error);
        let created = "event: message\ndata: {\"type\":\"response.created\"}\n\n";
        assert_refused(read(&format!("{created}{event}")), Reason::Rate, error);
        let chunk = "event: message\ndata: {\"choices\":[]}\n\n";
        assert_eq!(read(&format!("{chunk}{event}")), Beginning::Answer);
    }

    #[test]
    fn data_on_several_lines_is_one_text() {
        let event = "event: error\ndata: {\"error\":\ndata: {\"code\":429}\ndata: }\n\n";
        assert_refused(read(event), Reason::Rate, r#"{"error":{"code":429}}"#);
    }

    #[test]
    fn an_error_in_plain_words_is_one() {
        let refused = read("event: error\ndata: Rate limit. Retry after 3 seconds\n\n");
        let Beginning::Refused(refused) = refused else { panic!("{refused:?}") };
        assert_eq!(refused.wait, Some(Duration::from_secs(3)));
        assert_eq!(read("event: error\ndata: out of cheese\n\n"), Beginning::Answer);
    }

    #[test]
    fn a_failure_that_is_paid_for_is_the_answer() {
        let failed = |rest: &str| {
            let response = format!(r#"{{"status":"failed","error":{{"code":"429"}},{rest}}}"#);
            read(&format!("event: response.failed\ndata: {{\"response\":{response}}}\n\n"))
        };
        let unpaid = failed(r#""output":[],"usage":{"total_tokens":0}"#);
        assert_refused(unpaid, Reason::Rate, r#"{"error":{"code":"429"}}"#);
        assert_eq!(failed(r#""output":[],"usage":{"total_tokens":1600}"#), Beginning::Answer);
        assert_eq!(failed(r#""output":[{"type":"message"}]"#), Beginning::Answer);
        // Nor does an event after it make it one.
        let used =
            "event: response.failed\ndata: {\"response\":{\"usage\":{\"total_tokens\":9}}}\n\n";
        assert_eq!(read(used), Beginning::Answer);
    }

    #[test]
    fn overload_is_a_refusal_in_an_error_and_in_a_failed_response() {
        for error in [
            r#"{"type":"service_unavailable_error","code":"server_is_overloaded","message":"x"}"#,
            r#"{"code":null,"message":"The engine is currently overloaded"}"#,
            r#"{"type":"overloaded_error","message":"Overloaded"}"#,
        ] {
            let body = format!(r#"{{"error":{error}}}"#);
            for event in [
                format!("event: error\ndata: {{\"type\":\"error\",\"error\":{error}}}\n\n"),
                format!("event: response.failed\ndata: {{\"response\":{{\"error\":{error}}}}}\n\n"),
                format!("data: {{\"error\":{error}}}\n\n"),
            ] {
                assert_refused(read(&event), Reason::Capacity, &body);
            }
        }
        let failed =
            r#"{"type":"server_error","code":"server_error","message":"The server had an error"}"#;
        let event = format!("event: error\ndata: {{\"error\":{failed}}}\n\n");
        assert_eq!(read(&event), Beginning::Answer);
    }

    #[test]
    fn a_request_that_is_too_long_is_one_in_an_error_and_in_a_failed_response() {
        for error in [
            r#"{"code":"context_length_exceeded","message":"Retry after 3 seconds."}"#,
            r#"{"code":400,"message":"This model's maximum context length is 8192 tokens."}"#,
        ] {
            let body = format!(r#"{{"error":{error}}}"#);
            for event in [
                format!("event: error\ndata: {{\"error\":{error}}}\n\n"),
                format!("event: response.failed\ndata: {{\"response\":{{\"error\":{error}}}}}\n\n"),
            ] {
                let beginning = read(&event);
                assert!(!matches!(&beginning, Beginning::Refused(it) if it.wait.is_some()));
                assert_refused(beginning, Reason::ContextLength, &body);
            }
            let paid = format!(r#"{{"error":{error},"usage":{{"input_tokens":9}}}}"#);
            let event = format!("event: response.failed\ndata: {{\"response\":{paid}}}\n\n");
            assert_eq!(read(&event), Beginning::Answer);
            let event = format!("event: error\ndata: {paid}\n\n");
            assert_eq!(read(&event), Beginning::Answer);
        }
        let words = "event: error\ndata: maximum context length is 8192\n\n";
        let body = r#"{"error":{"code":"context_length_exceeded"}}"#;
        assert_refused(read(words), Reason::ContextLength, body);
    }

    #[test]
    fn the_name_of_an_event_is_forgotten_with_it() {
        let text = "event: error\n\ndata: {\"code\":\"429\"}\n\n";
        assert_eq!(read(text), Beginning::Answer, "an event without data is none");
        let text = "event: response.created\ndata: {}\n\ndata: {\"choices\":[]}\n\n";
        assert_eq!(read(text), Beginning::Answer);
    }

    #[test]
    fn an_event_decides_once_it_is_whole_or_the_stream_has_ended() {
        let mut preamble = Preamble::default();
        let event = b"event: error\ndata: {\"error\":{\"code\":\"no_capacity\"}}";
        assert_eq!(preamble.push(event), Beginning::Undecided);
        assert_refused(preamble.finish(), Reason::Capacity, r#"{"error":{"code":"no_capacity"}}"#);
        assert_eq!(Preamble::default().finish(), Beginning::Undecided);
        assert_eq!(read("event: response.output_text.delta"), Beginning::Undecided);
        assert_eq!(read("event: response.output_text.delta\n"), Beginning::Answer);
    }

    #[test]
    fn a_long_preamble_is_not_kept() {
        let mut preamble = Preamble::default();
        assert_eq!(preamble.push(b"event: response.created\ndata: "), Beginning::Undecided);
        for _ in 0..1_000 {
            assert_eq!(preamble.push(&[b'a'; 1 << 10]), Beginning::Undecided);
        }
        assert!(preamble.name.capacity() < 8 << 10 && preamble.data.is_empty());
        assert_eq!(preamble.push(b"\n\nevent: response.completed\n"), Beginning::Answer);
    }
}
