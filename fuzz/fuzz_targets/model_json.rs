//! A JSON body with another `model`: equal except for that, according to serde_json.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use oracle::tree::{Members, Tree};
use tower_spillover::fuzzing;

// The first line is the deployment, the rest the body.
fuzz_target!(|input: &[u8]| {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let Ok(name) = str::from_utf8(&input[..end]) else { return };
    let name = if name.is_empty() { "gpt-4o \"é\\" } else { name };
    let body = Bytes::copy_from_slice(input.get(end + 1..).unwrap_or_default());
    let Some(rewritten) = fuzzing::rewrite_json(&body, name) else { return };
    if let Some(new) = &rewritten {
        assert_eq!(fuzzing::rewrite_json(new, name), Some(None), "a second time");
    }
    let Some(given) = Members::parse(&body) else { return };
    let new = Members::parse(rewritten.as_ref().unwrap_or(&body)).expect("JSON stays JSON");
    assert_eq!(given.0.len(), new.0.len());
    let mut has_model = false;
    for ((key, value), (new_key, new_value)) in given.0.iter().zip(&new.0) {
        assert_eq!(key, new_key);
        if key == "model" && value.starts_with('"') {
            has_model |= value != new_value;
            // A string that cannot be decoded is left or replaced, but never corrupted.
            match Tree::parse(new_value.as_bytes()) {
                Some(Tree::Text(text)) => assert_eq!(text, name),
                other => panic!("{other:?}"),
            }
        } else {
            assert_eq!(value, new_value, "another member");
        }
    }
    assert_eq!(rewritten.is_some(), has_model, "a body is not copied in vain");
    fuzzing::cache_key(&body);
});
