//! Parses a complete event stream line by line (WHATWG HTML, section 9.2.6).

use tower_spillover::classify::Reason;

use crate::{fault, tree::Members};

/// Why the beginning of this stream is a refusal, if it is one. `Err` if its JSON is such that a
/// second parser may disagree.
pub fn refusal(stream: &str) -> Result<Option<Reason>, Unclear> {
    let text = stream.replace("\r\n", "\n").replace('\r', "\n");
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let (mut name, mut data, mut preamble) = ("", Vec::new(), Vec::new());
    // The end of a stream counts as the end of its last event.
    for line in text.split('\n').chain([""]) {
        if let Some(value) = line.strip_prefix("data:") {
            let value = value.strip_prefix(' ').unwrap_or(value);
            if PREAMBLE.contains(&name) {
                preamble.push(value);
            } else if !KEEP_ALIVE.contains(&name) {
                data.push(value);
            }
        } else if let Some(value) = line.strip_prefix("event:") {
            name = value.strip_prefix(' ').unwrap_or(value);
            // The name of an event without one.
            name = if name == "message" { "" } else { name };
            if is_answer(name) {
                return Ok(None);
            }
            if PREAMBLE.contains(&name) {
                preamble.append(&mut data);
            } else if KEEP_ALIVE.contains(&name) {
                data.clear();
            }
        } else if line.is_empty() {
            let (data, preamble) = (std::mem::take(&mut data), std::mem::take(&mut preamble));
            let name = std::mem::take(&mut name);
            if is_in_background(&preamble.join("\n"))? {
                return Ok(None);
            }
            if data.is_empty() {
                continue;
            }
            match judge(name, data.join("\n").trim_ascii())? {
                Step::Next => {}
                Step::Answer => return Ok(None),
                Step::Refused(reason) => return Ok(Some(reason)),
            }
        }
    }
    Ok(None)
}

/// A second parser may give another result.
#[derive(Debug)]
pub struct Unclear;

enum Step {
    Next,
    Answer,
    Refused(Reason),
}

fn judge(name: &str, data: &str) -> Result<Step, Unclear> {
    let Some(members) = Members::parse(data.as_bytes()) else {
        return match data {
            _ if is_judged(name) => Err(Unclear),
            "" => Ok(Step::Next),
            _ if data.starts_with('{') => Err(Unclear),
            _ => Ok(Step::Answer),
        };
    };
    let kind = members.last("type").unwrap_or_default();
    let kind = kind.strip_prefix('"').and_then(|kind| kind.strip_suffix('"'));
    let name = if name.is_empty() { kind.unwrap_or_default() } else { name };
    let decide = |reason: Option<Reason>| reason.map_or(Step::Answer, Step::Refused);
    Ok(match name {
        _ if PREAMBLE.contains(&name) && is_in_background(data)? => Step::Answer,
        _ if PREAMBLE.contains(&name) || KEEP_ALIVE.contains(&name) => Step::Next,
        _ if is_answer(name) => Step::Answer,
        "error" if members.are_paid_for() => Step::Answer,
        "error" => decide(match members.last("error") {
            Some(error) => fault::reason_in_answer(error, false),
            None => fault::reason_in_answer(data, true),
        }),
        "response.failed" => {
            let response = members.last("response").unwrap_or_default();
            let response = Members::parse(response.as_bytes());
            if response.as_ref().is_some_and(Members::are_paid_for) {
                return Ok(Step::Answer);
            }
            match response.and_then(|it| it.last("error")).or_else(|| members.last("error")) {
                None => Step::Next,
                Some(error) => decide(fault::reason_in_answer(error, false)),
            }
        }
        _ if members.are_paid_for() => Step::Answer,
        _ => match members.last("error") {
            Some(error) => decide(fault::reason_in_answer(error, false)),
            None if is_silent(&members) => Step::Next,
            None => Step::Answer,
        },
    })
}

/// Whether an event carries no output, judged by all its values.
fn is_silent(members: &Members<'_>) -> bool {
    let choices = |(key, value): &(_, &str)| *key == "choices" && value.starts_with('[');
    let is_empty = |value: &str| match value.as_bytes() {
        [b'[' | b'{', within @ .., _] => within.trim_ascii().is_empty(),
        _ => value == r#""""#,
    };
    let of_chat: Vec<_> = members.0.iter().filter(|member| choices(member)).collect();
    if !of_chat.is_empty() {
        return of_chat.iter().all(|(_, value)| is_empty(value));
    }
    members.0.iter().all(|(key, value)| match value.as_bytes()[0] {
        b'"' => is_empty(value) || NAMES.contains(&&**key) || key.ends_with("_id"),
        b'[' | b'{' => is_empty(value),
        _ => true,
    })
}

/// Whether the first response in an event runs in the background.
fn is_in_background(event: &str) -> Result<bool, Unclear> {
    let Some(members) = Members::parse(event.as_bytes()) else {
        return if event.contains("background") { Err(Unclear) } else { Ok(false) };
    };
    let is_response = |key: &str, value: &str| key == "response" && value.starts_with('{');
    let response = members.0.iter().find(|(key, value)| is_response(key, value));
    let response = response.and_then(|(_, response)| Members::parse(response.as_bytes()));
    let Some(response) = response else { return Ok(false) };
    let found = response.0.iter().find(|(key, _)| key == "background");
    Ok(found.is_some_and(|(_, value)| *value == "true"))
}

fn is_judged(name: &str) -> bool {
    matches!(name, "error" | "response.failed")
}

/// Whether an event of this name carries output, whatever its data is.
fn is_answer(name: &str) -> bool {
    !is_judged(name)
        && !PREAMBLE.contains(&name)
        && ANSWERS.iter().any(|start| name.starts_with(start))
}

const PREAMBLE: [&str; 3] = ["response.created", "response.in_progress", "response.queued"];
const KEEP_ALIVE: [&str; 5] = ["keepalive", "ping", "keep-alive", "keep_alive", "heartbeat"];
const NAMES: [&str; 3] = ["type", "object", "id"];
const ANSWERS: [&str; 13] = [
    "response.",
    "thread.",
    "conversation.",
    "image_generation.",
    "image_edit.",
    "transcript.",
    "speech.",
    "chat.completion",
    "text_completion",
    "message_",
    "content_block_",
    "completion",
    "done",
];
