//! An event stream: a refusal, or an answer that passes byte for byte.
#![no_main]

use http::StatusCode;
use libfuzzer_sys::fuzz_target;
use oracle::{event, inspecting::inspect, tree::Members};
use tower_spillover::classify::Reason;

fuzz_target!(|body: &[u8]| {
    let seen = inspect(StatusCode::OK, "text/event-stream", body, true);
    assert_eq!(inspect(StatusCode::OK, "text/event-stream", body, false), seen, "in pieces");
    match &seen.refusal {
        None => {
            assert!(seen.status == StatusCode::OK && seen.headers.len() == 1);
            assert!(seen.body == body && seen.is_complete, "an answer passes as it came");
        }
        Some(refusal) => {
            let is_too_long = refusal.reason() == Reason::ContextLength;
            assert_eq!(seen.status, if is_too_long { 400 } else { 429 });
            assert_eq!(seen.headers["content-type"], "application/json");
            assert_eq!(seen.headers["content-length"], seen.body.len().to_string());
        }
    }
    let Ok(text) = str::from_utf8(body) else { return };
    if body.contains(&b'\\') {
        return;
    }
    if let Ok(expected) = event::refusal(text) {
        assert_eq!(seen.refusal.map(|refusal| refusal.reason()), expected);
        if expected.is_some() {
            let body = Members::parse(&seen.body).expect("a refusal is JSON");
            assert!(body.last("error").is_some());
        }
    }
});
