//! Reads errors from whole JSON, by the table of codes alone.

use tower_spillover::classify::Reason;

use crate::tree::Members;

/// Why an error is a refusal, as far as a text without escapes tells: the value of `error`, or an
/// object with the same members.
pub fn reason(error: &str, ignores_kind: bool, knows_it_refuses: bool) -> Option<Reason> {
    let (code, kind, message) = parts(error, ignores_kind);
    reason_of(code, kind, message, knows_it_refuses)
}

/// Why an error with these parts is a refusal.
pub fn reason_of(code: &str, kind: &str, message: &str, knows_it_refuses: bool) -> Option<Reason> {
    let name = |name: &str| name.replace(['_', '-', ' '], "").to_ascii_lowercase();
    let names = [name(code), name(kind)];
    let any = |codes: &[&str]| names.iter().any(|name| codes.contains(&name.as_str()));
    let message = message.to_ascii_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
    let by_message = || {
        if says(&["high demand", "peak load", "temporarily unable"]) {
            Some(Reason::Capacity)
        } else if says(&["rate limit", "ratelimit", "too many requests", "token limit is exceeded"])
        {
            Some(Reason::Rate)
        } else {
            None
        }
    };
    if any(&QUOTA) {
        Some(Reason::Quota)
    } else if any(&["nocapacity"]) {
        Some(Reason::Capacity)
    } else if any(&["ratelimitexceeded", "ratelimitreached", "ratelimiterror"]) {
        Some(Reason::Rate)
    } else if any(&["toomanyrequests", "429"]) {
        by_message().or(Some(Reason::Rate))
    } else if knows_it_refuses || code.bytes().all(|byte| byte.is_ascii_digit()) {
        by_message()
    } else {
        None
    }
}

/// Code, type and message.
pub fn parts(error: &str, ignores_kind: bool) -> (&str, &str, &str) {
    let Some(members) = Members::parse(error.as_bytes()) else { return ("", "", bare(error)) };
    let part = |name| bare(members.last(name).unwrap_or_default());
    let code = members.last("code").or_else(|| members.last("statusCode")).unwrap_or_default();
    (bare(code), if ignores_kind { "" } else { part("type") }, part("message"))
}

fn bare(value: &str) -> &str {
    match value.as_bytes() {
        [b'"', .., b'"'] => &value[1..value.len() - 1],
        [b'{' | b'[', ..] => "",
        _ => value,
    }
}

const QUOTA: [&str; 5] = [
    "insufficientquota",
    "billinghardlimitreached",
    "billingnotactive",
    "accessterminated",
    "quotaexceeded",
];
