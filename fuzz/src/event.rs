//! Reads a whole event stream at once, line by line (WHATWG HTML, section 9.2.6).

use tower_spillover::classify::Reason;

use crate::{fault, tree::Members};

/// Why the beginning of this stream is a refusal, if it is one. `Err` when its JSON is not such
/// that a second reading must agree.
pub fn refusal(stream: &str) -> Result<Option<Reason>, Unclear> {
    let text = stream.replace("\r\n", "\n").replace('\r', "\n");
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let (mut name, mut data) = ("", Vec::new());
    // The end of a stream counts as the end of its last event.
    for line in text.split('\n').chain([""]) {
        if let Some(value) = line.strip_prefix("data:") {
            if !PREAMBLE.contains(&name) {
                data.push(value.strip_prefix(' ').unwrap_or(value));
            }
        } else if let Some(value) = line.strip_prefix("event:") {
            name = value.strip_prefix(' ').unwrap_or(value);
            // The name of an event without one.
            name = if name == "message" { "" } else { name };
            if !is_judged(name) && !PREAMBLE.contains(&name) && !name.is_empty() {
                return Ok(None);
            }
            if PREAMBLE.contains(&name) {
                data.clear();
            }
        } else if line.is_empty() {
            let data = std::mem::take(&mut data);
            let name = std::mem::take(&mut name);
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

/// A second reading may come to another end.
#[derive(Debug)]
pub struct Unclear;

enum Step {
    Next,
    Answer,
    Refused(Reason),
}

fn judge(name: &str, data: &str) -> Result<Step, Unclear> {
    let Some(members) = Members::parse(data.as_bytes()) else {
        return if name.is_empty() && !data.starts_with('{') {
            Ok(Step::Answer)
        } else {
            Err(Unclear)
        };
    };
    let kind = members.last("type").unwrap_or_default();
    let name = match (name, kind) {
        ("", "") if members.last("error").is_none() => return Ok(Step::Answer),
        ("", "") => "error",
        ("", kind) => match kind.strip_prefix('"').and_then(|kind| kind.strip_suffix('"')) {
            Some(kind) => kind,
            None if members.last("error").is_none() => return Ok(Step::Answer),
            None => "error",
        },
        (name, _) => name,
    };
    let decide = |reason: Option<Reason>| reason.map_or(Step::Answer, Step::Refused);
    Ok(match name {
        _ if PREAMBLE.contains(&name) => Step::Next,
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
        _ => Step::Answer,
    })
}

fn is_judged(name: &str) -> bool {
    matches!(name, "error" | "response.failed")
}

const PREAMBLE: [&str; 3] = ["response.created", "response.in_progress", "response.queued"];
