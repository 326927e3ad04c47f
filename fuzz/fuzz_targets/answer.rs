//! The usage and ids of an answer, in any chunking, compared with serde_json's parse.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oracle::{pieces::pieces, tree::Tree};
use tower_spillover::{fuzzing, gate::cost::Usage};

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

fuzz_target!(|answer: &[u8]| {
    let whole = |kind| fuzzing::usage(kind, [answer].into_iter());
    let usage = whole(JSON);
    assert_eq!(fuzzing::usage(JSON, pieces(answer)), usage, "in pieces");
    assert_eq!(fuzzing::usage(EVENTS, pieces(answer)), whole(EVENTS), "in pieces");
    let shown = |most, is_whole: bool| {
        let mut shown = Vec::new();
        let mut each = |kind, text: &[u8]| shown.push((kind, text.to_vec()));
        if is_whole {
            fuzzing::shown([answer].into_iter(), most, &mut each);
        } else {
            fuzzing::shown(pieces(answer), most, &mut each);
        }
        shown
    };
    let all = shown(usize::MAX, true);
    assert_eq!(shown(usize::MAX, false), all, "in pieces");
    let some = shown(answer.len() / 2, false);
    assert!(all.starts_with(&some), "the beginning shows the beginning");

    // Names are compared as written.
    if answer.contains(&b'\\') {
        return;
    }
    let Some(Tree::Object(members)) = Tree::parse(answer) else { return };
    let mut last = None;
    for (key, value) in &members {
        match (key.as_str(), value) {
            ("usage", Tree::Object(usage)) => last = read(usage).or(last),
            ("response", Tree::Object(response)) => {
                for (key, value) in response {
                    if let ("usage", Tree::Object(usage)) = (key.as_str(), value) {
                        last = read(usage).or(last);
                    }
                }
            }
            _ => {}
        }
    }
    assert_eq!(usage, last);
    let mut expected = Vec::new();
    ids(&members, true, &mut expected);
    assert_eq!(all, expected);
    if !answer.contains(&b'\n') && !answer.contains(&b'\r') {
        let event = [b"data: ", answer, b"\n\n"].concat();
        assert_eq!(fuzzing::usage(EVENTS, pieces(&event)), last, "as an event");
    }
});

fn read(members: &[(String, Tree)]) -> Option<Usage> {
    let count = |value: &Tree| match value {
        Tree::Whole(count) => Some((*count).min(MOST_TOKENS)),
        Tree::Number(count) => (*count >= 0.0).then_some((*count as u64).min(MOST_TOKENS)),
        _ => None,
    };
    let (mut prompt, mut cached, mut completion) = (None, None, None);
    for (key, value) in members {
        match key.as_str() {
            "prompt_tokens" | "input_tokens" => prompt = count(value),
            "completion_tokens" | "output_tokens" => completion = count(value),
            "prompt_tokens_details" | "input_tokens_details" => {
                cached = None;
                if let Tree::Object(details) = value {
                    let of_cache = details.iter().rev().find(|(key, _)| key == "cached_tokens");
                    cached = of_cache.and_then(|(_, value)| count(value));
                }
            }
            _ => {}
        }
    }
    prompt.or(completion)?;
    Some(Usage::new(
        prompt.unwrap_or_default(),
        cached.unwrap_or_default(),
        completion.unwrap_or_default(),
    ))
}

/// The ids of an answer or of the response in an event, and those of their items.
fn ids(members: &[(String, Tree)], is_outermost: bool, found: &mut Vec<(&'static str, Vec<u8>)>) {
    for (key, value) in members {
        match (key.as_str(), value) {
            ("response", Tree::Object(response)) if is_outermost => ids(response, false, found),
            ("conversation", Tree::Object(conversation)) => {
                conversation.iter().for_each(|(key, value)| named(key, value, found));
            }
            ("output" | "data" | "generations", Tree::Array(items)) => {
                items.iter().for_each(|one| item(one, found));
            }
            ("item", value) if is_outermost => item(value, found),
            ("file", Tree::Object(file)) if is_outermost => {
                file.iter().for_each(|(key, value)| named(key, value, found));
            }
            (key, value) => named(key, value, found),
        }
    }
}

fn item(value: &Tree, found: &mut Vec<(&'static str, Vec<u8>)>) {
    let Tree::Object(members) = value else { return };
    for (key, value) in members {
        match (key.as_str(), value) {
            ("encrypted_content", Tree::Text(text)) if !text.is_empty() => {
                found.push(("sealed", text.as_bytes()[..text.len().min(128)].to_vec()));
            }
            ("environment", Tree::Object(environment)) => {
                environment.iter().for_each(|(key, value)| named(key, value, found));
            }
            (key, value) => named(key, value, found),
        }
    }
}

/// The ids that a member of an object has, if its name is one of an id.
fn named(key: &str, value: &Tree, found: &mut Vec<(&'static str, Vec<u8>)>) {
    match (key, value) {
        ("id" | "output_file_id" | "error_file_id" | "thread_id" | "container_id", value) => {
            id(value, found);
        }
        ("result_files", Tree::Array(ids)) => ids.iter().for_each(|one| id(one, found)),
        _ => {}
    }
}

fn id(value: &Tree, found: &mut Vec<(&'static str, Vec<u8>)>) {
    if let Tree::Text(id) = value
        && (1..=256).contains(&id.len())
    {
        found.push(("id", id.as_bytes().to_vec()));
    }
}

const MOST_TOKENS: u64 = 1 << 40;
