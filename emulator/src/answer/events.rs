//! The events of one answer, each as text.

use std::fmt::Write;

use crate::{
    Refusal,
    answer::{Speech, json, word, words},
    routes::Operation,
};

/// A refusal hidden in a stream of status 200: the events that precede output, then an error.
pub(crate) fn hidden_refusal(speech: &Speech, refusal: Refusal, message: &str) -> String {
    let (kind, code) = (refusal.kind(), serde_json::Value::from(refusal.code()));
    let message = serde_json::Value::from(message);
    let mut events = open(speech, 0).unwrap_or_default();
    if speech.operation != Operation::Responses {
        let error = format!(
            r#"{{"error":{{"type":"{kind}","code":{code},"message":{message},"param":null}}}}"#
        );
        let _ = write!(events, "data: {error}\n\n");
        return events;
    }
    let error = format!(
        r#"{{"type":"error","sequence_number":1,"error":{{"type":"{kind}","code":{code},"headers":{{"x-ms-fe-error":"true"}},"message":{message},"param":null}}}}"#
    );
    let response = json::failed_response(speech, refusal, &message);
    let failed =
        format!(r#"{{"type":"response.failed","sequence_number":2,"response":{response}}}"#);
    let _ =
        write!(events, "event: error\ndata: {error}\n\nevent: response.failed\ndata: {failed}\n\n");
    events
}

pub(super) fn open(speech: &Speech, at: u64) -> Option<String> {
    match (speech.operation, at) {
        (Operation::Responses, 0 | 1) => {
            let kind = if at == 0 { "created" } else { "in_progress" };
            let response = json::response(speech, "in_progress");
            Some(event(
                speech,
                &format!("response.{kind}"),
                at,
                &format!(r#""response":{response}"#),
            ))
        }
        (Operation::Responses, 2) => {
            let id = &speech.id;
            let rest = format!(
                r#""output_index":0,"item":{{"id":"msg_{id}","type":"message","status":"in_progress","role":"assistant","content":[]}}"#
            );
            Some(event(speech, "response.output_item.added", at, &rest))
        }
        (Operation::Responses, 3) => {
            let rest = part(speech, r#""part":{"type":"output_text","text":"","annotations":[]}"#);
            Some(event(speech, "response.content_part.added", at, &rest))
        }
        (Operation::Chat, 0) if speech.filters_prompts => Some(filter_chunk(speech)),
        (Operation::Chat, at) if at == u64::from(speech.filters_prompts) => {
            Some(chunk(speech, r#"{"role":"assistant","content":"","refusal":null}"#, None))
        }
        _ => None,
    }
}

pub(super) fn token(speech: &Speech, at: u64) -> String {
    let word = word(at);
    match speech.operation {
        Operation::Responses => {
            let rest = part(speech, &format!(r#""delta":"{word}""#));
            event(speech, "response.output_text.delta", at.saturating_add(4), &rest)
        }
        Operation::Completions => text_chunk(speech, word, None),
        _ => chunk(speech, &format!(r#"{{"content":"{word}"}}"#), None),
    }
}

pub(super) fn close(speech: &Speech, at: u64) -> Option<String> {
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
    Some(event(speech, kind, number, &rest))
}

/// A keep-alive event before the token at `at`.
pub(super) fn keepalive(speech: &Speech, at: u64) -> String {
    if speech.operation != Operation::Responses {
        return ": keepalive\n\n".to_owned();
    }
    let number = at.saturating_add(4 + speech.keepalives);
    format!("event: keepalive\ndata: {{\"type\":\"keepalive\",\"sequence_number\":{number}}}\n\n")
}

fn event(speech: &Speech, kind: &str, number: u64, rest: &str) -> String {
    let number = number.saturating_add(speech.keepalives);
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

/// The content filter's results for the prompt.
fn filter_chunk(speech: &Speech) -> String {
    let Speech { model, .. } = speech;
    format!(
        "data: {{\"choices\":[],\"created\":0,\"id\":\"\",\"model\":{model},\"object\":\"\",\"prompt_filter_results\":[{{\"prompt_index\":0,\"content_filter_results\":{{\"hate\":{{\"filtered\":false,\"severity\":\"safe\"}}}}}}]}}\n\n"
    )
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
    let tier = speech.service_tier();
    // In a stream that ends with `usage`, every earlier chunk has it as null.
    let usage = if speech.include_usage { format!(r#","usage":{usage}"#) } else { String::new() };
    format!(
        "data: {{\"id\":\"{prefix}{id}\",\"object\":\"{object}\",\"created\":{created},\"model\":{model},\"choices\":[{choices}]{usage}{tier}}}\n\n"
    )
}

fn quoted(reason: Option<&str>) -> String {
    reason.map_or_else(|| "null".to_owned(), |reason| format!("\"{reason}\""))
}
