//! The events of one answer, each as text.

use std::fmt::Write;

use crate::{
    Refusal,
    answer::{Success, json, word, words},
    routes::Operation,
};

/// A refusal hidden in a stream of status 200: the events that precede output, then an error.
pub(crate) fn hidden_refusal(success: &Success, refusal: Refusal, message: &str) -> String {
    let (kind, code) = (refusal.kind(), serde_json::Value::from(refusal.code()));
    let message = serde_json::Value::from(message);
    let mut events = open(success, 0).unwrap_or_default();
    if success.operation != Operation::Responses {
        let error = format!(
            r#"{{"error":{{"type":"{kind}","code":{code},"message":{message},"param":null}}}}"#
        );
        let _ = write!(events, "data: {error}\n\n");
        return events;
    }
    let error = format!(
        r#"{{"type":"error","sequence_number":1,"error":{{"type":"{kind}","code":{code},"headers":{{"x-ms-fe-error":"true"}},"message":{message},"param":null}}}}"#
    );
    let response = json::failed_response(success, refusal, &message);
    let failed =
        format!(r#"{{"type":"response.failed","sequence_number":2,"response":{response}}}"#);
    let _ =
        write!(events, "event: error\ndata: {error}\n\nevent: response.failed\ndata: {failed}\n\n");
    events
}

pub(super) fn open(success: &Success, at: u64) -> Option<String> {
    match (success.operation, at) {
        (Operation::Responses, 0 | 1) => {
            let kind = if at == 0 { "created" } else { "in_progress" };
            let response = json::response(success, "in_progress");
            Some(event(
                success,
                &format!("response.{kind}"),
                at,
                &format!(r#""response":{response}"#),
            ))
        }
        (Operation::Responses, 2) => {
            let id = &success.id;
            let rest = format!(
                r#""output_index":0,"item":{{"id":"msg_{id}","type":"message","status":"in_progress","role":"assistant","content":[]}}"#
            );
            Some(event(success, "response.output_item.added", at, &rest))
        }
        (Operation::Responses, 3) => {
            let rest = part(success, r#""part":{"type":"output_text","text":"","annotations":[]}"#);
            Some(event(success, "response.content_part.added", at, &rest))
        }
        (Operation::Chat, 0) if success.filters_prompts => Some(filter_chunk(success)),
        (Operation::Chat, at) if at == u64::from(success.filters_prompts) => {
            Some(chunk(success, r#"{"role":"assistant","content":"","refusal":null}"#, None))
        }
        _ => None,
    }
}

pub(super) fn token(success: &Success, at: u64) -> String {
    let word = word(at);
    match success.operation {
        Operation::Responses => {
            let rest = part(success, &format!(r#""delta":"{word}""#));
            event(success, "response.output_text.delta", at.saturating_add(4), &rest)
        }
        Operation::Completions => text_chunk(success, word, None),
        _ => chunk(success, &format!(r#"{{"content":"{word}"}}"#), None),
    }
}

pub(super) fn close(success: &Success, at: u64) -> Option<String> {
    if success.operation == Operation::Responses {
        return close_response(success, at);
    }
    let usage = u64::from(success.include_usage);
    match at {
        0 if success.operation == Operation::Completions => {
            Some(text_chunk(success, "", Some(success.finish_reason())))
        }
        0 => Some(chunk(success, "{}", Some(success.finish_reason()))),
        1 if success.include_usage => Some(usage_chunk(success)),
        _ if at == 1 + usage => Some("data: [DONE]\n\n".to_owned()),
        _ => None,
    }
}

fn close_response(success: &Success, at: u64) -> Option<String> {
    let number = success.cost.completion.saturating_add(4 + at);
    let (kind, rest) = match at {
        0 => {
            let text = words(success.cost.completion);
            ("response.output_text.done", part(success, &format!(r#""text":"{text}""#)))
        }
        1 => {
            let text = words(success.cost.completion);
            let done =
                format!(r#""part":{{"type":"output_text","text":"{text}","annotations":[]}}"#);
            ("response.content_part.done", part(success, &done))
        }
        2 => {
            let item = json::message(success);
            ("response.output_item.done", format!(r#""output_index":0,"item":{item}"#))
        }
        3 => {
            let response = json::response(success, "completed");
            ("response.completed", format!(r#""response":{response}"#))
        }
        _ => return None,
    };
    Some(event(success, kind, number, &rest))
}

/// A keep-alive event before the token at `at`.
pub(super) fn keepalive(success: &Success, at: u64) -> String {
    if success.operation != Operation::Responses {
        return ": keepalive\n\n".to_owned();
    }
    let number = at.saturating_add(4 + success.keepalives);
    format!("event: keepalive\ndata: {{\"type\":\"keepalive\",\"sequence_number\":{number}}}\n\n")
}

fn event(success: &Success, kind: &str, number: u64, rest: &str) -> String {
    let number = number.saturating_add(success.keepalives);
    format!("event: {kind}\ndata: {{\"type\":\"{kind}\",\"sequence_number\":{number},{rest}}}\n\n")
}

fn part(success: &Success, rest: &str) -> String {
    let id = &success.id;
    format!(r#""item_id":"msg_{id}","output_index":0,"content_index":0,{rest}"#)
}

fn chunk(success: &Success, delta: &str, reason: Option<&str>) -> String {
    let choice = format!(
        r#"{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{}}}"#,
        quoted(reason)
    );
    data(success, &choice, "null")
}

fn text_chunk(success: &Success, text: &str, reason: Option<&str>) -> String {
    let choice = format!(
        r#"{{"index":0,"text":"{text}","logprobs":null,"finish_reason":{}}}"#,
        quoted(reason)
    );
    data(success, &choice, "null")
}

/// The content filter's results for the prompt.
fn filter_chunk(success: &Success) -> String {
    let Success { model, .. } = success;
    format!(
        "data: {{\"choices\":[],\"created\":0,\"id\":\"\",\"model\":{model},\"object\":\"\",\"prompt_filter_results\":[{{\"prompt_index\":0,\"content_filter_results\":{{\"hate\":{{\"filtered\":false,\"severity\":\"safe\"}}}}}}]}}\n\n"
    )
}

fn usage_chunk(success: &Success) -> String {
    data(success, "", &success.usage())
}

fn data(success: &Success, choices: &str, usage: &str) -> String {
    let (prefix, object) = match success.operation {
        Operation::Completions => ("cmpl-", "text_completion"),
        _ => ("chatcmpl-", "chat.completion.chunk"),
    };
    let Success { id, model, created, .. } = success;
    let tier = success.service_tier();
    // In a stream that ends with `usage`, every earlier chunk has it as null.
    let usage = if success.include_usage { format!(r#","usage":{usage}"#) } else { String::new() };
    format!(
        "data: {{\"id\":\"{prefix}{id}\",\"object\":\"{object}\",\"created\":{created},\"model\":{model},\"choices\":[{choices}]{usage}{tier}}}\n\n"
    )
}

fn quoted(reason: Option<&str>) -> String {
    reason.map_or_else(|| "null".to_owned(), |reason| format!("\"{reason}\""))
}
