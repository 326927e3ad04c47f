//! The history of one request, line by line.

use std::fmt::Write as _;

use serde_json::Value;

/// The history of a request of `/-/requests`. Fields missing in other versions are left out.
pub(super) fn of(request: &Value) -> String {
    let mut text = String::new();
    let word = |key: &str| plain(&request[key]);
    let _ = write!(text, "{}", word("id").unwrap_or_default());
    for (before, key) in
        [(": ", "operation"), (" of ", "model"), (" for ", "client"), (", class ", "class")]
    {
        if let Some(word) = word(key) {
            let _ = write!(text, "{before}{word}");
        }
    }
    if let Some(at) = word("at") {
        let _ = write!(text, ", {at}");
    }
    text.push_str("\n\n");
    steps(&mut text, request);
    text.push('\n');
    let lines = [why(request), end(request), times(request), tokens(request), ids(request)];
    for line in lines.into_iter().flatten() {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// Its arrival, each attempt, and its end.
fn steps(text: &mut String, request: &Value) {
    let mut step = |at: u64, what: &str| {
        let _ = writeln!(text, "{:>9}  {what}", format!("{at} ms"));
    };
    step(0, "arrived");
    let attempts = request["attempts"].as_array().map(Vec::as_slice).unwrap_or_default();
    for attempt in attempts {
        let backend = plain(&attempt["backend"]).unwrap_or_default();
        let tier = plain(&attempt["tier"]).map(|tier| format!(" ({tier})")).unwrap_or_default();
        let mut came = match attempt["status"].as_u64() {
            Some(status) => status.to_string(),
            None => "no answer".to_owned(),
        };
        if let Some(hint) = attempt["hint_ms"].as_u64() {
            let _ = write!(came, ", asks for {hint} ms");
        } else if attempt["hint_is_too_long"] == true {
            came.push_str(", asks for an implausibly long wait");
        }
        if let Some(reason) = plain(&attempt["reason"]) {
            let _ = write!(came, ": {reason}");
        }
        step(attempt["at_ms"].as_u64().unwrap_or_default(), &format!("{backend}{tier}: {came}"));
    }
    let is_head = request["status"].as_u64().is_some_and(|status| status != CLIENT_LEFT);
    if let Some(at) = request["to_head_ms"].as_u64().filter(|_| is_head) {
        step(at, "head of the answer");
    }
    if let Some(at) = request["first_token_ms"].as_u64() {
        step(at, "first token");
    }
    if let Some(at) = request["total_ms"].as_u64() {
        step(at, &format!("over: {}", plain(&request["ended"]).unwrap_or_default()));
    }
}

/// Why it waited, spilled, or was refused.
fn why(request: &Value) -> Option<String> {
    let mut parts = Vec::new();
    for what in ["waited", "spilled", "refused"] {
        if let Some(why) = plain(&request["why"][what]["text"]) {
            parts.push(format!("{what}: {why}"));
        }
    }
    (!parts.is_empty()).then(|| parts.join("\n"))
}

/// The source of the answer.
fn end(request: &Value) -> Option<String> {
    let (status, decision) = (request["status"].as_u64()?, plain(&request["decision"])?);
    Some(match (plain(&request["backend"]), &*decision) {
        _ if status == CLIENT_LEFT => "the client left before there was an answer".to_owned(),
        (_, "refused") => format!("refused with {status}: no backend had room"),
        (Some(backend), tier) => format!("answered by {backend} ({tier}) with {status}"),
        (None, _) => format!("answered by the gateway itself with {status}"),
    })
}

fn times(request: &Value) -> Option<String> {
    let waited = request["waited_ms"].as_u64().filter(|waited| *waited > 0)?;
    Some(format!("waited {waited} ms in total"))
}

fn tokens(request: &Value) -> Option<String> {
    let number = |key: &str| request["tokens"][key].as_u64();
    let (prompt, completion) = (number("prompt")?, number("completion")?);
    let cached = number("cached").unwrap_or_default();
    Some(format!(
        "tokens: {prompt} of the prompt ({cached} cached), {completion} of the completion"
    ))
}

/// The ids in other systems.
fn ids(request: &Value) -> Option<String> {
    let ids = request["ids"].as_object().into_iter().flatten();
    let mut ids: Vec<_> =
        ids.filter_map(|(name, id)| Some(format!("{name} {}", plain(id)?))).collect();
    ids.extend(plain(&request["trace_id"]).map(|id| format!("trace {id}")));
    (!ids.is_empty()).then(|| format!("also known as: {}", ids.join(", ")))
}

/// A text without control characters, which could move a terminal's cursor.
fn plain(value: &Value) -> Option<String> {
    Some(value.as_str()?.chars().filter(|c| !c.is_control()).collect())
}

/// The recorded status if the client disconnected.
const CLIENT_LEFT: u64 = 499;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_story_has_each_attempt_in_order_and_what_came_of_them() {
        let request = json!({
            "id": "r-1", "at": "2026-11-30T21:14:03.120Z", "client": "team-a", "model": "gpt-4o",
            "class": null, "operation": "chat.completions", "status": 200, "decision": "standard",
            "why": { "spilled": { "text": "queue (4.3s > 4s)" } }, "backend": "sweden",
            "attempts": [
                { "backend": "ptu-east", "tier": "ptu", "at_ms": 0, "status": 429, "hint_ms": 43, "reason": "rate" },
                { "backend": "sweden", "tier": "standard", "at_ms": 50, "status": 200, "reason": null },
            ],
            "waited_ms": 43, "to_head_ms": 170, "first_token_ms": 180, "total_ms": 900,
            "ended": "complete", "tokens": { "prompt": 11, "cached": 0, "completion": 7 },
            "ids": { "apim-request-id": "a-1\u{1b}[2J" }, "trace_id": null,
        });
        let expected = "\
r-1: chat.completions of gpt-4o for team-a, 2026-11-30T21:14:03.120Z

     0 ms  arrived
     0 ms  ptu-east (ptu): 429, asks for 43 ms: rate
    50 ms  sweden (standard): 200
   170 ms  head of the answer
   180 ms  first token
   900 ms  over: complete

spilled: queue (4.3s > 4s)
answered by sweden (standard) with 200
waited 43 ms in total
tokens: 11 of the prompt (0 cached), 7 of the completion
also known as: apim-request-id a-1[2J
";
        assert_eq!(of(&request), expected);
        assert!(of(&Value::Null).contains("arrived"), "nothing panics");
    }
}
