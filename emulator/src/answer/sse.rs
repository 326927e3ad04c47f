//! Successes as server-sent events, one token an event, generated while they are read.

use std::{
    fmt::Write,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::time::Sleep;

use crate::{
    EmulatorError,
    answer::{Speech, json, word, words},
    body::Cut,
    flight::Flight,
    routes::Operation,
};

/// The events of one answer: some to open, one a token, some to close.
#[derive(Debug)]
pub(crate) struct EventStream {
    speech: Speech,
    /// Taken when the last token is out, or the stream is cut.
    flight: Option<Flight>,
    sleep: Option<Pin<Box<Sleep>>>,
    step: Step,
    sent: usize,
    cut: Option<(usize, Cut)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Open(u64),
    Token(u64),
    Close(u64),
    Over,
}

impl EventStream {
    /// `cut` breaks the stream after so many events.
    pub(crate) fn new(speech: Speech, flight: Flight, cut: Option<(usize, Cut)>) -> Self {
        Self { speech, flight: Some(flight), sleep: None, step: Step::Open(0), sent: 0, cut }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.step == Step::Over
    }

    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, EmulatorError>>> {
        if self.step == Step::Over {
            return Poll::Ready(None);
        }
        if let Some((events, cut)) = &mut self.cut
            && *events == self.sent
        {
            if let Some(flight) = self.flight.take() {
                flight.abandon(self.step.tokens());
            }
            let error = ready!(cut.poll(cx));
            self.step = Step::Over;
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            } else if self.sleep_until_due() {
                continue;
            }
            self.settle_when_generated();
            let (event, next) = self.render();
            self.step = next;
            if let Some(event) = event {
                self.sent = self.sent.saturating_add(1);
                return Poll::Ready(Some(Ok(event.into())));
            }
            if next == Step::Over {
                return Poll::Ready(None);
            }
        }
    }

    /// Goes to sleep when the next token is not there yet.
    fn sleep_until_due(&mut self) -> bool {
        let (Step::Token(index), Some(flight)) = (self.step, &self.flight) else {
            return false;
        };
        let due = flight.due(index.saturating_add(1));
        let clock = flight.clock();
        if due <= clock.now() {
            return false;
        }
        self.sleep = Some(clock.sleep_until(due));
        true
    }

    fn settle_when_generated(&mut self) {
        let generated = matches!(self.step, Step::Close(_) | Step::Over)
            || self.step == Step::Token(self.speech.bill.completion.saturating_sub(1));
        if generated && let Some(flight) = self.flight.take() {
            flight.finish();
        }
    }

    /// The event of this step, if it has one, and the step after it.
    fn render(&self) -> (Option<String>, Step) {
        let speech = &self.speech;
        match self.step {
            Step::Open(at) => match open(speech, at) {
                Some(event) => (Some(event), Step::Open(at + 1)),
                None => (None, Step::Token(0)),
            },
            Step::Token(at) if at < speech.bill.completion => {
                (Some(token(speech, at)), Step::Token(at + 1))
            }
            Step::Token(_) => (None, Step::Close(0)),
            Step::Close(at) => match close(speech, at) {
                Some(event) => (Some(event), Step::Close(at + 1)),
                None => (None, Step::Over),
            },
            Step::Over => (None, Step::Over),
        }
    }
}

impl Step {
    /// How many tokens went out before this step; all of them when it is past.
    const fn tokens(self) -> u64 {
        match self {
            Self::Open(_) => 0,
            Self::Token(at) => at,
            Self::Close(_) | Self::Over => u64::MAX,
        }
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        if let Some(flight) = self.flight.take() {
            flight.abandon(self.step.tokens());
        }
    }
}

/// The stream of a refusal that hides behind status 200.
pub(crate) fn hidden_refusal(speech: &Speech, message: &str) -> String {
    let message = serde_json::Value::from(message);
    let error = format!(
        r#"{{"type":"error","sequence_number":1,"error":{{"type":"too_many_requests","code":"rate_limit_exceeded","headers":{{"x-ms-fe-error":"true"}},"message":{message},"param":null}}}}"#
    );
    let response = json::response(speech, "failed").replacen(
        r#""error":null"#,
        &format!(r#""error":{{"code":"rate_limit_exceeded","message":{message}}}"#),
        1,
    );
    let failed =
        format!(r#"{{"type":"response.failed","sequence_number":2,"response":{response}}}"#);
    let mut events = open(speech, 0).unwrap_or_default();
    let _ =
        write!(events, "event: error\ndata: {error}\n\nevent: response.failed\ndata: {failed}\n\n");
    events
}

fn open(speech: &Speech, at: u64) -> Option<String> {
    match (speech.operation, at) {
        (Operation::Responses, 0 | 1) => {
            let kind = if at == 0 { "created" } else { "in_progress" };
            let response = json::response(speech, "in_progress");
            Some(event(&format!("response.{kind}"), at, &format!(r#""response":{response}"#)))
        }
        (Operation::Responses, 2) => {
            let id = &speech.id;
            let rest = format!(
                r#""output_index":0,"item":{{"id":"msg_{id}","type":"message","status":"in_progress","role":"assistant","content":[]}}"#
            );
            Some(event("response.output_item.added", at, &rest))
        }
        (Operation::Responses, 3) => {
            let rest = part(speech, r#""part":{"type":"output_text","text":"","annotations":[]}"#);
            Some(event("response.content_part.added", at, &rest))
        }
        (Operation::Chat, 0) => {
            Some(chunk(speech, r#"{"role":"assistant","content":"","refusal":null}"#, None))
        }
        _ => None,
    }
}

fn token(speech: &Speech, at: u64) -> String {
    let word = word(at);
    match speech.operation {
        Operation::Responses => {
            let rest = part(speech, &format!(r#""delta":"{word}""#));
            event("response.output_text.delta", at.saturating_add(4), &rest)
        }
        Operation::Completions => text_chunk(speech, word, None),
        _ => chunk(speech, &format!(r#"{{"content":"{word}"}}"#), None),
    }
}

fn close(speech: &Speech, at: u64) -> Option<String> {
    if speech.operation == Operation::Responses {
        return close_response(speech, at);
    }
    let usage = u64::from(speech.include_usage);
    match at {
        0 if speech.operation == Operation::Completions => {
            Some(text_chunk(speech, "", Some(speech.finish_reason())))
        }
        0 => Some(chunk(speech, "{}", Some(speech.finish_reason()))),
        1 if speech.include_usage => Some(usage_chunk(speech)),
        _ if at == 1 + usage => Some("data: [DONE]\n\n".to_owned()),
        _ => None,
    }
}

fn close_response(speech: &Speech, at: u64) -> Option<String> {
    let number = speech.bill.completion.saturating_add(4 + at);
    let (kind, rest) = match at {
        0 => {
            let text = words(speech.bill.completion);
            ("response.output_text.done", part(speech, &format!(r#""text":"{text}""#)))
        }
        1 => {
            let text = words(speech.bill.completion);
            let done =
                format!(r#""part":{{"type":"output_text","text":"{text}","annotations":[]}}"#);
            ("response.content_part.done", part(speech, &done))
        }
        2 => {
            let item = json::message(speech);
            ("response.output_item.done", format!(r#""output_index":0,"item":{item}"#))
        }
        3 => {
            let response = json::response(speech, "completed");
            ("response.completed", format!(r#""response":{response}"#))
        }
        _ => return None,
    };
    Some(event(kind, number, &rest))
}

fn event(kind: &str, number: u64, rest: &str) -> String {
    format!("event: {kind}\ndata: {{\"type\":\"{kind}\",\"sequence_number\":{number},{rest}}}\n\n")
}

fn part(speech: &Speech, rest: &str) -> String {
    let id = &speech.id;
    format!(r#""item_id":"msg_{id}","output_index":0,"content_index":0,{rest}"#)
}

fn chunk(speech: &Speech, delta: &str, reason: Option<&str>) -> String {
    let choice = format!(
        r#"{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{}}}"#,
        quoted(reason)
    );
    data(speech, &choice, "null")
}

fn text_chunk(speech: &Speech, text: &str, reason: Option<&str>) -> String {
    let choice = format!(
        r#"{{"index":0,"text":"{text}","logprobs":null,"finish_reason":{}}}"#,
        quoted(reason)
    );
    data(speech, &choice, "null")
}

fn usage_chunk(speech: &Speech) -> String {
    data(speech, "", &speech.usage())
}

fn data(speech: &Speech, choices: &str, usage: &str) -> String {
    let (prefix, object) = match speech.operation {
        Operation::Completions => ("cmpl-", "text_completion"),
        _ => ("chatcmpl-", "chat.completion.chunk"),
    };
    let Speech { id, model, created, .. } = speech;
    // `usage` appears, as null, in every chunk of a stream that was asked to end with it.
    let usage = if speech.include_usage { format!(r#","usage":{usage}"#) } else { String::new() };
    format!(
        "data: {{\"id\":\"{prefix}{id}\",\"object\":\"{object}\",\"created\":{created},\"model\":{model},\"choices\":[{choices}]{usage}}}\n\n"
    )
}

fn quoted(reason: Option<&str>) -> String {
    reason.map_or_else(|| "null".to_owned(), |reason| format!("\"{reason}\""))
}
