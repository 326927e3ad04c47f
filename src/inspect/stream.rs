//! The start of an event stream: preamble, a refusal, or an answer that has begun.

use bytes::Bytes;

use super::{
    background::Background,
    body::BodyVerdict,
    event_kind::{EventKind, is_silent},
};
use crate::{
    azure::{
        error::{ApiError, Members},
        events::{EventField, EventLines, StreamPart},
    },
    classify::Reason,
};

/// Reads the start of an event stream, in any chunking, until it is decided.
///
/// The events `response.created`, `.in_progress` and `.queued` decide nothing, whatever their length:
/// one echoes the whole request. The exception is a response that runs in the background: there the
/// answer has begun, because the caller needs its id. Keep-alive events, chunks of chat with empty
/// choices, and other events without output decide nothing either. An `error` is judged, and so is a
/// `response.failed` without used tokens. Any other event means that the answer has begun; a known
/// name is enough.
#[derive(Debug, Default)]
pub(crate) struct Preamble {
    lines: EventLines,
    /// The unfinished name of the event, as far as it may matter.
    name: Vec<u8>,
    kind: EventKind,
    background: Background,
    /// The data of the event, if it may matter.
    data: Vec<u8>,
}

/// The verdict on the start of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StreamVerdict {
    /// Only preamble so far.
    Undecided,
    /// The answer has begun, or ends with an error for the caller.
    Answer,
    Refused(HiddenRefusal),
}

/// A refusal found in an answer: for rate, capacity or quota, or for the request's length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HiddenRefusal {
    /// Why, and the wait that its message asks for.
    pub(crate) verdict: BodyVerdict,
    /// Its error in the shape of a refusal's body.
    pub(crate) body: Bytes,
}

impl HiddenRefusal {
    /// A refusal that the head of an answer shows alone.
    pub(crate) fn by_head() -> Self {
        let body = br#"{"error":{"code":"429","type":"too_many_requests","message":"The service asked to retry later instead of beginning its answer.","param":null}}"#;
        let verdict = BodyVerdict { reason: Reason::Rate, limit: None, wait: None };
        Self { verdict, body: Bytes::from_static(body) }
    }
}

impl Preamble {
    /// Reads the next bytes of the stream. Do not call it again after a decision.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> StreamVerdict {
        while let Some(part) = self.lines.next(&mut bytes) {
            let decided = match part {
                StreamPart::Value(field, text) => self.keep(field, text),
                StreamPart::EndOfLine(field) => self.end_line(field),
                StreamPart::EndOfEvent => self.dispatch(),
            };
            if decided != StreamVerdict::Undecided {
                return decided;
            }
        }
        StreamVerdict::Undecided
    }

    /// The stream has ended; an event not finished by an empty line counts too.
    pub(crate) fn finish(mut self) -> StreamVerdict {
        let unfinished = self.lines.unfinished();
        match unfinished.map_or(StreamVerdict::Undecided, |field| self.end_line(field)) {
            StreamVerdict::Undecided => self.dispatch(),
            decided => decided,
        }
    }

    fn keep(&mut self, field: EventField, text: &[u8]) -> StreamVerdict {
        match field {
            EventField::Event => {
                let room = MAX_NAME_BYTES.saturating_sub(self.name.len());
                self.name.extend_from_slice(&text[..text.len().min(room)]);
                StreamVerdict::Undecided
            }
            EventField::Data => self.keep_data(text),
        }
    }

    fn end_line(&mut self, field: EventField) -> StreamVerdict {
        match field {
            EventField::Data => self.keep_data(b"\n"),
            EventField::Event => {
                self.kind = EventKind::named(&self.name);
                self.name.clear();
                if self.kind == EventKind::Answer {
                    return StreamVerdict::Answer;
                }
                // The data came before the name.
                let data = std::mem::take(&mut self.data);
                self.keep_data(&data)
            }
        }
    }

    /// Keeps the data of an event, if it may matter.
    fn keep_data(&mut self, text: &[u8]) -> StreamVerdict {
        let is_answer = match self.kind {
            EventKind::Preamble => self.background.push(text),
            EventKind::KeepAlive => false,
            kind => {
                self.data.extend_from_slice(text);
                // An event without output is short.
                kind == EventKind::Unknown && self.data.len() > MAX_UNKNOWN_BYTES
            }
        };
        if is_answer { StreamVerdict::Answer } else { StreamVerdict::Undecided }
    }

    fn dispatch(&mut self) -> StreamVerdict {
        let kind = std::mem::take(&mut self.kind);
        let data = std::mem::take(&mut self.data);
        self.background = Background::default();
        if data.is_empty() { StreamVerdict::Undecided } else { judge(kind, data.trim_ascii()) }
    }
}

fn judge(kind: EventKind, data: &[u8]) -> StreamVerdict {
    let members = Members::of(data);
    let kind = match kind {
        EventKind::Nameless if members.is_whole => EventKind::of(&members),
        named => named,
    };
    match kind {
        EventKind::Preamble if Background::default().push(data) => StreamVerdict::Answer,
        EventKind::Preamble | EventKind::KeepAlive => StreamVerdict::Undecided,
        EventKind::Answer => StreamVerdict::Answer,
        EventKind::Error if members.is_paid_for() => StreamVerdict::Answer,
        EventKind::Error if !members.error.is_empty() => by_error(members.error),
        EventKind::Error => by_event(&members, data),
        EventKind::Failed => {
            let response = Members::of(members.response);
            match (response.error, members.error) {
                _ if response.is_paid_for() => StreamVerdict::Answer,
                // In one observed order, the error comes in an event of its own.
                (b"", b"") => StreamVerdict::Undecided,
                (b"", error) | (error, _) => by_error(error),
            }
        }
        EventKind::Nameless | EventKind::Unknown => by_data(&members, data),
    }
}

/// Judges an event by its data alone.
fn by_data(members: &Members<'_>, data: &[u8]) -> StreamVerdict {
    if data.is_empty() {
        return StreamVerdict::Undecided;
    }
    if !members.is_whole || members.is_paid_for() {
        return StreamVerdict::Answer;
    }
    // A chat stream has its choices here.
    if !members.error.is_empty() {
        return by_error(members.error);
    }
    if is_silent(data) { StreamVerdict::Undecided } else { StreamVerdict::Answer }
}

/// Judges the value of an `error` member.
pub(super) fn by_error(error: &[u8]) -> StreamVerdict {
    decide(&ApiError::of(error), |_| Bytes::from([b"{\"error\":", error, b"}"].concat()))
}

/// Judges an event that is the error itself: `{"type":"error","code":…,"message":…}`.
fn by_event(members: &Members<'_>, data: &[u8]) -> StreamVerdict {
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

/// The verdict on an error in place of an answer. If the request is too long, that is the backend's
/// limit, and another may accept it.
fn decide(fault: &ApiError<'_>, body: impl FnOnce(Reason) -> Bytes) -> StreamVerdict {
    let too_long = || fault.is_too_long().then_some(Reason::ContextLength);
    match fault.reason().or_else(too_long) {
        None => StreamVerdict::Answer,
        Some(reason) => StreamVerdict::Refused(HiddenRefusal {
            verdict: BodyVerdict::of(fault, reason),
            body: body(reason),
        }),
    }
}

/// Longer than the name of every event that precedes an answer.
const MAX_NAME_BYTES: usize = 32;
/// In bytes: far more than a name, an id and a few numbers take.
const MAX_UNKNOWN_BYTES: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(text: &str) -> StreamVerdict {
        Preamble::default().push(text.as_bytes())
    }

    #[track_caller]
    fn assert_refused(beginning: StreamVerdict, reason: Reason, body: &str) {
        let StreamVerdict::Refused(refused) = beginning else { panic!("{beginning:?}") };
        assert_eq!((refused.verdict.reason, &refused.body[..]), (reason, body.as_bytes()));
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
        let chunk = "event: message\ndata: {\"choices\":[{}]}\n\n";
        assert_eq!(read(&format!("{chunk}{event}")), StreamVerdict::Answer);
    }

    #[test]
    fn data_on_several_lines_is_one_text() {
        let event = "event: error\ndata: {\"error\":\ndata: {\"code\":429}\ndata: }\n\n";
        assert_refused(read(event), Reason::Rate, r#"{"error":{"code":429}}"#);
    }

    #[test]
    fn an_error_in_plain_words_is_one() {
        let refused = read("event: error\ndata: Rate limit. Retry after 3 seconds\n\n");
        let StreamVerdict::Refused(refused) = refused else { panic!("{refused:?}") };
        assert_eq!(refused.verdict.wait, Some(Duration::from_secs(3)));
        assert_eq!(read("event: error\ndata: out of cheese\n\n"), StreamVerdict::Answer);
    }

    #[test]
    fn a_failure_that_is_paid_for_is_the_answer() {
        let failed = |rest: &str| {
            let response = format!(r#"{{"status":"failed","error":{{"code":"429"}},{rest}}}"#);
            read(&format!("event: response.failed\ndata: {{\"response\":{response}}}\n\n"))
        };
        let unpaid = failed(r#""output":[],"usage":{"total_tokens":0}"#);
        assert_refused(unpaid, Reason::Rate, r#"{"error":{"code":"429"}}"#);
        assert_eq!(failed(r#""output":[],"usage":{"total_tokens":1600}"#), StreamVerdict::Answer);
        assert_eq!(failed(r#""output":[{"type":"message"}]"#), StreamVerdict::Answer);
        // Nor does an event after it make it one.
        let used =
            "event: response.failed\ndata: {\"response\":{\"usage\":{\"total_tokens\":9}}}\n\n";
        assert_eq!(read(used), StreamVerdict::Answer);
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
        assert_eq!(read(&event), StreamVerdict::Answer);
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
                assert!(
                    !matches!(&beginning, StreamVerdict::Refused(it) if it.verdict.wait.is_some())
                );
                assert_refused(beginning, Reason::ContextLength, &body);
            }
            let paid = format!(r#"{{"error":{error},"usage":{{"input_tokens":9}}}}"#);
            let event = format!("event: response.failed\ndata: {{\"response\":{paid}}}\n\n");
            assert_eq!(read(&event), StreamVerdict::Answer);
            let event = format!("event: error\ndata: {paid}\n\n");
            assert_eq!(read(&event), StreamVerdict::Answer);
        }
        let words = "event: error\ndata: maximum context length is 8192\n\n";
        let body = r#"{"error":{"code":"context_length_exceeded"}}"#;
        assert_refused(read(words), Reason::ContextLength, body);
    }

    #[test]
    fn the_name_of_an_event_is_forgotten_with_it() {
        let text = "event: error\n\ndata: {\"code\":\"429\"}\n\n";
        assert_eq!(read(text), StreamVerdict::Answer, "an event without data is none");
        let text = "event: response.created\ndata: {}\n\ndata: {\"choices\":[{}]}\n\n";
        assert_eq!(read(text), StreamVerdict::Answer);
    }

    #[test]
    fn an_event_decides_once_it_is_whole_or_the_stream_has_ended() {
        let mut preamble = Preamble::default();
        let event = b"event: error\ndata: {\"error\":{\"code\":\"no_capacity\"}}";
        assert_eq!(preamble.push(event), StreamVerdict::Undecided);
        assert_refused(preamble.finish(), Reason::Capacity, r#"{"error":{"code":"no_capacity"}}"#);
        assert_eq!(Preamble::default().finish(), StreamVerdict::Undecided);
        assert_eq!(read("event: response.output_text.delta"), StreamVerdict::Undecided);
        assert_eq!(read("event: response.output_text.delta\n"), StreamVerdict::Answer);
    }

    const REFUSED: &str = "event: error\ndata: {\"error\":{\"code\":\"429\"}}\n\n";

    #[test]
    fn what_says_nothing_is_preamble() {
        for preamble in [
            "event: keepalive\ndata: {\"type\":\"keepalive\",\"sequence_number\":3}\n\n",
            "data: {\"type\":\"keepalive\",\"sequence_number\":3}\n\n",
            "event: ping\ndata: {\"type\":\"ping\"}\n\n",
            "event: ping\ndata: still here\n\n",
            ": keep-alive\n\n",
            "event: unknown\n\n",
            "data:\n\n",
            "event: unknown\ndata: {\"type\":\"unknown\",\"item_id\":\"a\",\"at\":1}\n\n",
            "data: {\"type\":\"unknown\",\"at\":1}\n\n",
            "data: {\"choices\":[],\"created\":0,\"id\":\"\",\"model\":\"gpt-4o\",\"prompt_filter_results\":[{\"prompt_index\":0}]}\n\n",
            "data: {\"choices\":[],\"usage\":null}\n\n",
            "data: {\"choices\":[],\"usage\":{\"total_tokens\":0}}\n\n",
        ] {
            assert_eq!(read(preamble), StreamVerdict::Undecided, "{preamble}");
            let text = preamble.repeat(3) + REFUSED;
            assert_refused(read(&text), Reason::Rate, r#"{"error":{"code":"429"}}"#);
        }
    }

    #[test]
    fn an_event_with_output_is_the_answer_whether_its_name_is_known_or_not() {
        for answer in [
            "event: response.something_new\n",
            "event: thread.run.created\n",
            "event: unknown\ndata: {\"delta\":\"Hello\"}\n\n",
            "event: unknown\ndata: Hello\n\n",
            "event: unknown\ndata: {\"at\":1\n\n",
            "event: unknown\ndata: {\"usage\":{\"total_tokens\":9}}\n\n",
            "data: {\"type\":\"unknown\",\"delta\":\"Hello\"}\n\n",
            "data: {\"choices\":[],\"usage\":{\"total_tokens\":9}}\n\n",
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n",
            "data: [DONE]\n\n",
        ] {
            assert_eq!(read(answer), StreamVerdict::Answer, "{answer}");
        }
        // An error in it still counts.
        let error = r#"{"error":{"code":"429"}}"#;
        let event = format!("event: unknown\ndata: {error}\n\n");
        assert_refused(read(&event), Reason::Rate, error);
    }

    #[test]
    fn a_long_event_that_is_not_known_is_not_kept() {
        let mut preamble = Preamble::default();
        assert_eq!(preamble.push(b"event: unknown\ndata: {\"a\":1"), StreamVerdict::Undecided);
        let mut length = 0;
        while preamble.push(&[b'1'; 1 << 10]) == StreamVerdict::Undecided {
            length += 1;
        }
        assert_eq!(length, 3, "and with the fourth KiB the answer has begun");
        // If its name comes last, it is kept until then.
        let late = format!("data: {}\nevent: unknown\n", "1".repeat(5 << 10));
        assert_eq!(read(&late), StreamVerdict::Answer);
    }

    #[test]
    fn a_response_in_the_background_is_the_answer_with_its_id() {
        let data = r#"{"type":"response.created","response":{"id":"resp_1","background":true,"#;
        for event in [
            format!("event: response.created\ndata: {data}"),
            format!("event: response.queued\ndata: {data}"),
            format!("data: {data}\nevent: response.created\n"),
            format!("data: {data}\"a\":1}}}}\n\n"),
        ] {
            assert_eq!(read(&event), StreamVerdict::Answer, "{event}");
            let event = event.replace("true", "false");
            assert_eq!(read(&event), StreamVerdict::Undecided, "{event}");
        }
        // Each event is read separately.
        let first = "event: response.created\ndata: {\"response\":{\"background\":false}}\n\n";
        let second = first.replace("false", "true");
        assert_eq!(read(&format!("{first}{second}")), StreamVerdict::Answer);
    }

    #[test]
    fn a_long_preamble_is_not_kept() {
        let mut preamble = Preamble::default();
        assert_eq!(preamble.push(b"event: response.created\ndata: "), StreamVerdict::Undecided);
        for _ in 0..1_000 {
            assert_eq!(preamble.push(&[b'a'; 1 << 10]), StreamVerdict::Undecided);
        }
        assert!(preamble.name.capacity() < 8 << 10 && preamble.data.is_empty());
        assert_eq!(preamble.push(b"\n\nevent: response.completed\n"), StreamVerdict::Answer);
    }
}
