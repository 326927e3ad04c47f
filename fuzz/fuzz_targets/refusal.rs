//! A JSON body with a refusal's status, or of an answer that reports a failure.
#![no_main]

use http::StatusCode;
use libfuzzer_sys::fuzz_target;
use oracle::{
    fault,
    inspecting::{Seen, inspect},
    tree::Members,
};
use tower_spillover::classify::{Hint, Reason};

// The first byte selects the status.
fuzz_target!(|input: &[u8]| {
    let Some((status, body)) = input.split_first() else { return };
    let status = match status {
        b'0' => StatusCode::BAD_REQUEST,
        b'2' => StatusCode::OK,
        b'3' => StatusCode::FORBIDDEN,
        b'4' => StatusCode::PAYLOAD_TOO_LARGE,
        b'5' => StatusCode::SERVICE_UNAVAILABLE,
        b'6' => StatusCode::NOT_FOUND,
        b'9' => StatusCode::from_u16(529).expect("a status"),
        _ => StatusCode::TOO_MANY_REQUESTS,
    };
    let seen = inspect(status, "application/json", body, true);
    assert_eq!(inspect(status, "application/json", body, false), seen, "in pieces");
    if let Some(Hint::After(wait)) = seen.refusal.as_ref().map(|refusal| refusal.hint()) {
        assert!(!wait.is_zero() && wait <= Hint::LONGEST);
    }
    let is_rewritten = status == StatusCode::OK && seen.status != StatusCode::OK;
    if !is_rewritten {
        assert!(seen.body == body && seen.is_complete, "a body is given back as it came");
    }
    match &seen.refusal {
        None => assert!(seen.status == status && seen.headers.len() == 1, "nothing was found"),
        Some(it) if it.reason() == Reason::ContextLength => {
            let expected = if is_rewritten { StatusCode::BAD_REQUEST } else { status };
            assert_eq!(seen.status, expected);
        }
        Some(it) if it.reason() == Reason::ServiceTier => {
            assert_eq!((seen.status, status), (StatusCode::BAD_REQUEST, StatusCode::BAD_REQUEST));
        }
        Some(it) if matches!(it.reason(), Reason::Content | Reason::Misconfigured) => {
            assert_eq!(seen.status, status);
        }
        Some(_) => assert_eq!(seen.status, if status == 529 { 529 } else { 429 }),
    }

    // Text with escapes is compared as written.
    let Ok(text) = str::from_utf8(body) else { return };
    if body.contains(&b'\\') {
        return;
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let Some(members) = Members::parse(text.as_bytes()) else { return };
    let expected = if status == StatusCode::OK {
        failed(&members, &seen)
    } else {
        refused(status, text, &members)
    };
    assert_eq!(seen.refusal.map(|refusal| refusal.reason()), expected);
});

/// The verdict on an answer of the Responses API that was read completely.
fn failed(members: &Members<'_>, seen: &Seen) -> Option<Reason> {
    // The first of these members that indicates success decides.
    let has_failed = members.0.iter().find_map(|(key, value)| match (&**key, *value) {
        ("status", r#""failed""#) => Some(true),
        ("status", _) => Some(false),
        ("object", value) if value != r#""response""# => Some(false),
        _ => None,
    });
    if has_failed != Some(true) || members.are_paid_for() {
        return None;
    }
    let error = members.last("error")?;
    let reason = fault::reason_in_answer(error, false)?;
    let body = Members::parse(&seen.body).expect("a refusal is JSON");
    assert_eq!(body.last("error"), Some(error), "in its own words");
    assert_eq!(seen.headers["content-length"], seen.body.len().to_string());
    Some(reason)
}

fn refused(status: StatusCode, text: &str, members: &Members<'_>) -> Option<Reason> {
    let error = members.last("error").unwrap_or(text);
    let (code, kind, mut message) = fault::parts(error, false);
    if members.last("error").is_none() && code.is_empty() && message.is_empty() {
        message = text;
    }
    let reason = |knows_it_refuses| {
        fault::reason_of(code, kind, message, knows_it_refuses)
            .or_else(|| knows_it_refuses.then(|| fault::reason_of("", "", message, true)).flatten())
    };
    let lower = message.to_ascii_lowercase();
    match status.as_u16() {
        429 => reason(true).or(Some(Reason::Rate)),
        529 => reason(true).or(Some(Reason::Capacity)),
        503 if lower.contains("backend pool") && lower.contains("temporarily unavailable") => {
            Some(Reason::Capacity)
        }
        503 if lower.contains("temporarily unable") => None,
        503 => reason(true),
        403 => {
            let its = Members::parse(error.as_bytes());
            let is_gateways = its.is_some_and(|its| its.last("statusCode").is_some());
            let is_spent =
                reason(false) == Some(Reason::Quota) || (is_gateways && lower.contains("quota"));
            let is_filtered = fault::is_about_content(code, kind, message);
            is_spent.then_some(Reason::Quota).or(is_filtered.then_some(Reason::Content))
        }
        404 => fault::is_missing_deployment(code, kind, message).then_some(Reason::Misconfigured),
        400 if is_about_tier(error) => Some(Reason::ServiceTier),
        _ => fault::is_too_long(code, kind, message).then_some(Reason::ContextLength),
    }
}

fn is_about_tier(error: &str) -> bool {
    let members = Members::parse(error.as_bytes());
    members.is_some_and(|its| matches!(its.last("param"), Some(r#""service_tier""#)))
}
