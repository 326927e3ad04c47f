//! One request and its answer, with times, status, backend and tokens.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::Instant;
use tower_spillover::azure::ContentKind;

use super::{client::Client, clock, plan::Question, targets::Target};

/// The result of a request.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) end: End,
    pub(super) region: String,
    pub(super) backend: String,
    /// Until the first byte of the body, or the head if there is none.
    pub(super) first_byte: Duration,
    pub(super) total: Duration,
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: u64,
    /// The error message of an unsuccessful answer.
    pub(super) message: Option<String>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    Status(u16),
    /// Status 200, with an error among the events.
    Hidden(u16),
    /// No answer, or an incomplete one, with the reason.
    Failed(String),
}

impl Seen {
    pub(super) fn failed(reason: impl Into<String>, total: Duration) -> Self {
        Self {
            end: End::Failed(reason.into()),
            region: String::new(),
            backend: String::new(),
            first_byte: total,
            total,
            prompt_tokens: 0,
            completion_tokens: 0,
            message: None,
        }
    }
}

/// Sends a question and reads the complete answer; times count from `since`.
pub(super) async fn ask(
    client: &Client,
    target: &Target,
    question: Question,
    since: Instant,
    timeout: Duration,
) -> Seen {
    let mut seen = Seen::failed("", Duration::ZERO);
    let ended = clock::within(timeout, exchange(client, target, question, since, &mut seen)).await;
    seen.end = match ended {
        Some(Ok(end)) => end,
        Some(Err(reason)) => End::Failed(reason),
        None => End::Failed("timed out".to_owned()),
    };
    seen.total = since.elapsed();
    if matches!(seen.end, End::Failed(_)) && seen.first_byte.is_zero() {
        seen.first_byte = seen.total;
    }
    seen
}

async fn exchange(
    client: &Client,
    target: &Target,
    question: Question,
    since: Instant,
    seen: &mut Seen,
) -> Result<End, String> {
    let mut request = Request::post(target.uri.clone()).header(header::CONTENT_TYPE, JSON);
    if let Some((name, value)) = &target.key {
        request = request.header(name, value);
    }
    if let Some((prompt, completion)) = question.exact {
        request = request
            .header("x-emulator-prompt-tokens", prompt)
            .header("x-emulator-completion-tokens", completion);
    }
    let request = request
        .body(Full::from(Bytes::from(question.body)))
        .map_err(|_| "the request cannot be put together".to_owned())?;
    let answer = client.request(request).await.map_err(|error| reason(&error))?;
    let (head, body) = answer.into_parts();
    seen.region = text(&head.headers, "x-ms-region");
    seen.backend = text(&head.headers, "x-spillover-backend");
    let events = ContentKind::of(&head.headers) == ContentKind::EventStream;
    let mut reader = Reader { events, ..Reader::default() };
    let read = read(body, &mut reader, since, seen).await;
    reader.finish();
    if !head.status.is_success() || reader.complained {
        seen.message = reader.message().map(|message| without_key(&message, target));
    }
    seen.prompt_tokens = reader.prompt_tokens;
    seen.completion_tokens = reader.completion_tokens;
    read.map_err(|reason| format!("broken off after {}: {reason}", head.status.as_u16()))?;
    let status = head.status.as_u16();
    Ok(if reader.complained { End::Hidden(status) } else { End::Status(status) })
}

async fn read(
    mut body: Incoming,
    reader: &mut Reader,
    since: Instant,
    seen: &mut Seen,
) -> Result<(), String> {
    seen.first_byte = since.elapsed();
    let mut begun = false;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| reason(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        if !begun && !data.is_empty() {
            seen.first_byte = since.elapsed();
            begun = true;
        }
        reader.take(&data);
    }
    Ok(())
}

/// Finds the usage in either kind of body, without storing streams.
#[derive(Default)]
struct Reader {
    events: bool,
    kept: Vec<u8>,
    overflowed: bool,
    complained: bool,
    /// The message of the first event with an error.
    complaint: Option<String>,
    prompt_tokens: u64,
    completion_tokens: u64,
}

impl Reader {
    fn take(&mut self, data: &[u8]) {
        if !self.events {
            self.keep(data);
            return;
        }
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            self.keep(piece);
            if piece.ends_with(b"\n") {
                self.line();
            }
        }
    }

    fn finish(&mut self) {
        if self.events {
            self.line();
        } else if let Ok(whole) = serde_json::from_slice::<Value>(&self.kept) {
            self.count(&whole);
        }
    }

    fn keep(&mut self, data: &[u8]) {
        self.overflowed |= self.kept.len() + data.len() > MAX_KEPT_BYTES;
        if !self.overflowed {
            self.kept.extend_from_slice(data);
        }
    }

    fn line(&mut self) {
        let line = std::mem::take(&mut self.kept);
        let overflowed = std::mem::take(&mut self.overflowed);
        let Some(data) = line.strip_prefix(b"data:").filter(|_| !overflowed) else { return };
        let holds = |word: &[u8]| data.windows(word.len()).any(|window| window == word);
        if !holds(b"\"usage\"") && !holds(b"\"error\"") {
            return;
        }
        let Ok(event) = serde_json::from_slice::<Value>(data) else { return };
        let complains = event["error"].is_object()
            || event["response"]["error"].is_object()
            || event["type"] == "error";
        if complains && !self.complained {
            self.complained = true;
            self.complaint = complaint(&event);
        }
        self.count(&event);
    }

    /// The error in the answer's words: its message, or else the beginning of its text.
    fn message(&self) -> Option<String> {
        let said = self.complaint.clone().or_else(|| {
            let whole = serde_json::from_slice::<Value>(&self.kept).ok();
            let text = || String::from_utf8_lossy(&self.kept).into_owned();
            Some(whole.as_ref().and_then(complaint).unwrap_or_else(text))
        })?;
        let words: Vec<_> = said.split_whitespace().collect();
        let plain = words.join(" ");
        let plain: String =
            plain.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE_CHARS).collect();
        (!plain.is_empty()).then_some(plain)
    }

    fn count(&mut self, value: &Value) {
        // Events of responses have it inside the response, with other field names.
        let usage = [&value["usage"], &value["response"]["usage"]];
        let tokens = |names: [&str; 2]| {
            let values = usage.iter().flat_map(|usage| names.map(|name| &usage[name]));
            values.into_iter().find_map(Value::as_u64)
        };
        self.prompt_tokens =
            tokens(["prompt_tokens", "input_tokens"]).unwrap_or(self.prompt_tokens);
        self.completion_tokens =
            tokens(["completion_tokens", "output_tokens"]).unwrap_or(self.completion_tokens);
    }
}

/// Removes the key from a message: a service that refuses a key may repeat it.
fn without_key(message: &str, target: &Target) -> String {
    let value = target.key.as_ref().and_then(|(_, value)| value.to_str().ok());
    let key = value.map(|value| value.strip_prefix("Bearer ").unwrap_or(value));
    match key.filter(|key| !key.is_empty()) {
        Some(key) => message.replace(key, "(the key)"),
        None => message.to_owned(),
    }
}

/// The message of an error, in any of the service's formats.
fn complaint(value: &Value) -> Option<String> {
    let places = [&value["error"], &value["response"]["error"], value];
    let message = |place: &&Value| place["message"].as_str().map(str::to_owned);
    places.iter().find_map(message)
}

fn text(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().chars().take(80).collect()
}

/// The innermost cause: outer errors only say "client error" and the like.
fn reason(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let said = cause.to_string();
    // "Connection refused (os error 111)": the number differs between systems.
    let said = said.split(" (os error").next().unwrap_or_default();
    said.chars().filter(|character| !character.is_control()).take(160).collect()
}

const JSON: &str = "application/json";
/// Maximum length of a message, in characters: one line or a few.
const MAX_MESSAGE_CHARS: usize = 300;
/// 8 MiB.
const MAX_KEPT_BYTES: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(events: bool, pieces: &[&str]) -> Reader {
        let mut reader = Reader { events, ..Reader::default() };
        for piece in pieces {
            reader.take(piece.as_bytes());
        }
        reader.finish();
        reader
    }

    #[test]
    fn usage_is_found_however_a_stream_is_cut() {
        let stream = "data: {\"choices\":[{\"delta\":{\"content\":\"error\"}}],\"usage\":null}\n\n\
                      data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":9}}\
                      \r\n\r\ndata: [DONE]\n\n";
        for cut in 0..stream.len() {
            let found = reader(true, &[&stream[..cut], &stream[cut..]]);
            assert_eq!((found.prompt_tokens, found.completion_tokens), (7, 9), "{cut}");
            assert!(!found.complained);
        }
    }

    #[test]
    fn the_usage_of_responses_is_found_in_streams_and_out_of_them() {
        let usage = "\"usage\":{\"input_tokens\":7,\"output_tokens\":9,\"total_tokens\":16}";
        let stream = format!(
            "event: response.created\ndata: {{\"response\":{{\"error\":null,\"usage\":null}}}}\n\n\
             event: response.completed\ndata: {{\"response\":{{\"error\":null,{usage}}}}}\n\n"
        );
        for found in [reader(true, &[&stream]), reader(false, &[&format!("{{{usage}}}")])] {
            assert_eq!((found.prompt_tokens, found.completion_tokens), (7, 9));
            assert!(!found.complained);
        }
    }

    #[test]
    fn an_error_among_events_is_noticed_and_a_body_of_errors_has_no_usage() {
        assert!(reader(true, &["data: {\"error\":{\"code\":\"429\"}}"]).complained);
        assert!(reader(true, &["data: {\"type\":\"error\",\"code\":\"429\"}"]).complained);
        let failed = "data: {\"type\":\"response.failed\",\"response\":{\"error\":{}}}";
        assert!(reader(true, &[failed]).complained);
        assert!(!reader(true, &["data: {\"error\":null,\"x\":1}\n"]).complained);
        let plain = reader(false, &["{\"usage\":{\"prompt_", "tokens\":3}}"]);
        assert_eq!((plain.prompt_tokens, plain.completion_tokens), (3, 0));
        assert_eq!(reader(false, &["{\"error\":{}}"]).prompt_tokens, 0);
    }
}
