//! Classifies errors from complete JSON, using only the tables of codes and words.

use tower_spillover::classify::Reason;

use crate::tree::Members;

/// Why an error is a refusal, as far as a text without escapes shows: the value of `error`, or an
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
        if says(&OVERLOAD_IN_WORDS) {
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
    } else if any(&OVERLOAD) {
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

/// Why an error in place of an answer is a refusal: as in [`reason`], or because of its length.
pub fn reason_in_answer(error: &str, ignores_kind: bool) -> Option<Reason> {
    let (code, kind, message) = parts(error, ignores_kind);
    let too_long = || is_too_long(code, kind, message).then_some(Reason::ContextLength);
    reason_of(code, kind, message, false).or_else(too_long)
}

/// Whether an error with these parts, on a 404, reports a missing deployment or address.
pub fn is_missing_deployment(code: &str, kind: &str, message: &str) -> bool {
    let name = |name: &str| name.replace(['_', '-', ' '], "").to_ascii_lowercase();
    let named = ["deploymentnotfound", "modelnotfound", "unknownmodel"];
    if [name(code), name(kind)].iter().any(|name| named.contains(&name.as_str())) {
        return true;
    }
    let says_nothing = code.bytes().all(|byte| byte.is_ascii_digit())
        || ["notfound", "resourcenotfound", "invalidrequesterror"].contains(&name(code).as_str());
    let message = message.to_ascii_lowercase();
    let words = [
        "api deployment",
        "resource not found",
        "unknown model",
        "you do not have access to it",
        "404 not found",
        "page not found",
    ];
    says_nothing && (message.is_empty() || words.iter().any(|words| message.contains(words)))
}

/// Whether an error with these parts is about the request's content.
pub fn is_about_content(code: &str, kind: &str, message: &str) -> bool {
    let name = |name: &str| name.replace(['_', '-', ' '], "").to_ascii_lowercase();
    let named = ["contentfilter", "responsibleaipolicyviolation", "contentpolicyviolation"];
    let message = message.to_ascii_lowercase();
    let words = ["content safety", "content management policy", "content filter", "content policy"];
    [name(code), name(kind)].iter().any(|name| named.contains(&name.as_str()))
        || words.iter().any(|words| message.contains(words))
}

/// Whether an error with these parts reports that the request is too long.
pub fn is_too_long(code: &str, kind: &str, message: &str) -> bool {
    let name = |name: &str| name.replace(['_', '-', ' '], "").to_ascii_lowercase();
    if [name(code), name(kind)].iter().any(|name| TOO_LONG.contains(&name.as_str())) {
        return true;
    }
    let says_nothing = code.bytes().all(|byte| byte.is_ascii_digit())
        || BAD_REQUEST.contains(&name(code).as_str());
    let message = message.to_ascii_lowercase();
    says_nothing && TOO_LONG_IN_WORDS.iter().any(|phrase| message.contains(phrase))
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
const OVERLOAD: [&str; 6] = [
    "nocapacity",
    "resourceunavailable",
    "serverisoverloaded",
    "serviceunavailableerror",
    "overloadederror",
    "engineoverloadederror",
];
const OVERLOAD_IN_WORDS: [&str; 5] =
    ["high demand", "peak load", "temporarily unable", "currently overloaded", "at capacity"];
const TOO_LONG: [&str; 3] = ["contextlengthexceeded", "stringabovemaxlength", "tokenslimitreached"];
const BAD_REQUEST: [&str; 4] =
    ["badrequest", "badrequesterror", "invalidrequest", "invalidrequesterror"];
const TOO_LONG_IN_WORDS: [&str; 3] =
    ["maximum context length is", "exceeds the context window", "prompt is too long"];
