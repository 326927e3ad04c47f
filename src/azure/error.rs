//! What an error object says about itself, and why a backend refuses by it.

use super::json::{Token, Tokens, members};
use crate::classify::Reason;

/// An error, as the parts of its JSON text: strings without their quotes, escapes as written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ApiError<'a> {
    /// A string, or a number's digits; empty when absent or null.
    code: &'a [u8],
    kind: &'a [u8],
    pub(crate) message: &'a [u8],
    /// API Management's form, `{"statusCode": 429, "message": "…"}`.
    pub(crate) is_gateways: bool,
}

/// The members of an error or an event that are looked at, as their JSON text.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Members<'a> {
    pub(crate) error: &'a [u8],
    pub(crate) response: &'a [u8],
    pub(crate) status: &'a [u8],
    output: &'a [u8],
    usage: &'a [u8],
    pub(crate) kind: &'a [u8],
    pub(crate) code: &'a [u8],
    pub(crate) message: &'a [u8],
    status_code: &'a [u8],
    /// Whether the text was one whole object.
    pub(crate) is_whole: bool,
}

impl<'a> Members<'a> {
    /// The members of `object`; those before the fault, when it is not whole.
    pub(crate) fn of(object: &'a [u8]) -> Self {
        let mut found = Self::default();
        let whole = members(object, |key, scan| {
            let value = &object[scan.skip()?];
            let member = match &object[key] {
                b"error" => &mut found.error,
                b"response" => &mut found.response,
                b"status" => &mut found.status,
                b"output" => &mut found.output,
                b"usage" => &mut found.usage,
                b"type" => &mut found.kind,
                b"code" => &mut found.code,
                b"message" => &mut found.message,
                b"statusCode" => &mut found.status_code,
                _ => return Some(()),
            };
            *member = if value == b"null" { b"" } else { value };
            Some(())
        });
        found.is_whole = whole.is_some();
        found
    }

    /// Whether a response has any output, or used any tokens: it is paid for then, and would be a
    /// second time if it were sent again.
    pub(crate) fn is_paid_for(&self) -> bool {
        let has_output = self.output.iter().any(|byte| !b"[] \t\r\n".contains(byte));
        has_output || counts(self.usage)
    }

    /// The error that the members themselves are.
    pub(crate) fn as_error(self) -> ApiError<'a> {
        let code = if self.code.is_empty() { self.status_code } else { self.code };
        ApiError {
            code: bare(code),
            kind: bare(self.kind),
            message: bare(self.message),
            is_gateways: !self.status_code.is_empty(),
        }
    }
}

impl<'a> ApiError<'a> {
    /// The error that `value` is: an object, or a string that is its message.
    pub(crate) fn of(value: &'a [u8]) -> Self {
        if value.first() == Some(&b'{') {
            Members::of(value).as_error()
        } else {
            Self::saying(bare(value))
        }
    }

    /// The error that says nothing but `message`.
    pub(crate) fn saying(message: &'a [u8]) -> Self {
        Self { message, ..Self::default() }
    }

    /// The error in the body of a response: `{"error": …}`, API Management's form, or whatever it
    /// is, as a message.
    pub(crate) fn in_body(body: &'a [u8]) -> Self {
        let body = without_mark(body);
        let members = Members::of(body);
        if !members.error.is_empty() {
            return Self::of(members.error);
        }
        let fault = members.as_error();
        let is_silent = fault.code.is_empty() && fault.message.is_empty();
        if is_silent { Self { message: body, ..fault } } else { fault }
    }

    pub(crate) fn has_code(&self, code: &str) -> bool {
        is(self.code, code) || is(self.kind, code)
    }

    /// Why a backend refuses with this error; `None` when it is no refusal, as far as it tells.
    ///
    /// A code that says something else is believed. One that only repeats a status, or none,
    /// leaves it to the message.
    pub(crate) fn reason(&self) -> Option<Reason> {
        let names = [self.code, self.kind];
        let any = |list: &[&str]| names.iter().any(|name| list.iter().any(|code| is(name, code)));
        if any(&QUOTA) {
            return Some(Reason::Quota);
        }
        if any(&CAPACITY) {
            return Some(Reason::Capacity);
        }
        if any(&RATE) {
            return Some(Reason::Rate);
        }
        let throttled = any(&THROTTLED);
        let is_coded = !self.code.is_empty() && !is_number(self.code);
        if is_coded && !throttled {
            return None;
        }
        self.reason_in_message().or_else(|| throttled.then_some(Reason::Rate))
    }

    /// Why, by the words of the message alone.
    pub(crate) fn reason_in_message(&self) -> Option<Reason> {
        let message = self.message.to_ascii_lowercase();
        let says = |phrases: &[&str]| {
            phrases.iter().any(|phrase| memchr::memmem::find(&message, phrase.as_bytes()).is_some())
        };
        if says(&["high demand", "peak load", "temporarily unable"]) {
            Some(Reason::Capacity)
        } else if says(&["rate limit", "ratelimit", "too many requests", "token limit is exceeded"])
        {
            Some(Reason::Rate)
        } else {
            None
        }
    }

    pub(crate) fn says(&self, phrase: &str) -> bool {
        memchr::memmem::find(&self.message.to_ascii_lowercase(), phrase.as_bytes()).is_some()
    }
}

/// A text without the byte order mark that some proxies write before it (RFC 8259, section 8.1:
/// a reader may ignore it).
pub(crate) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(&BYTE_ORDER_MARK).unwrap_or(text)
}

/// Whether a code is the one that is spelled `code`, in lower case without separators:
/// `RateLimitReached` and `rate_limit_reached` are one.
fn is(name: &[u8], code: &str) -> bool {
    let letters = name.iter().filter(|byte| !matches!(byte, b'_' | b'-' | b' '));
    letters.map(u8::to_ascii_lowercase).eq(code.bytes())
}

/// Whether any number of a JSON text is other than zero.
fn counts(mut json: &[u8]) -> bool {
    let mut tokens = Tokens::default();
    while let Some(token) = tokens.next(&mut json) {
        if let Token::Between(between, _) = token
            && between.iter().any(|byte| matches!(byte, b'1'..=b'9'))
        {
            return true;
        }
    }
    false
}

fn is_number(code: &[u8]) -> bool {
    code.iter().all(u8::is_ascii_digit)
}

/// A JSON string without its quotes; another scalar as it is.
fn bare(value: &[u8]) -> &[u8] {
    match value {
        [b'"', text @ .., b'"'] => text,
        [b'{' | b'[', ..] | b"null" => b"",
        _ => value,
    }
}

pub(crate) const BYTE_ORDER_MARK: [u8; 3] = *b"\xef\xbb\xbf";
/// No wait helps (the list of promptfoo pull request 8896).
const QUOTA: [&str; 5] = [
    "insufficientquota",
    "billinghardlimitreached",
    "billingnotactive",
    "accessterminated",
    "quotaexceeded",
];
const CAPACITY: [&str; 1] = ["nocapacity"];
/// Those of v1, of models as a service, and of models of other makers.
const RATE: [&str; 3] = ["ratelimitexceeded", "ratelimitreached", "ratelimiterror"];
/// Sent for both a rate and capacity.
const THROTTLED: [&str; 2] = ["toomanyrequests", "429"];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_reason(body: &str, reason: impl Into<Option<Reason>>) {
        assert_eq!(ApiError::in_body(body.as_bytes()).reason(), reason.into(), "{body}");
    }

    #[test]
    fn codes_are_read_in_every_spelling_and_type() {
        for (error, reason) in [
            (r#"{"code":"429","message":"exceeded token rate limit"}"#, Reason::Rate),
            (r#"{"code":429,"message":"slow down"}"#, Reason::Rate),
            (r#"{"type":"too_many_requests","code":"no_capacity"}"#, Reason::Capacity),
            (r#"{"type":"too_many_requests","code":"rate_limit_exceeded"}"#, Reason::Rate),
            (r#"{"type":"too_many_requests","code":"too_many_requests"}"#, Reason::Rate),
            (r#"{"code":"too_many_requests","message":"high demand"}"#, Reason::Capacity),
            (r#"{"code":"RateLimitReached"}"#, Reason::Rate),
            (r#"{"type":"insufficient_quota","code":null}"#, Reason::Quota),
            (r#"{"code":"insufficient_quota","type":"insufficient_quota"}"#, Reason::Quota),
            (r#"{"code":"billing_not_active"}"#, Reason::Quota),
            (r#"{"code":null,"type":null,"message":"Too Many Requests"}"#, Reason::Rate),
            (r#""Too many requests""#, Reason::Rate),
        ] {
            assert_reason(&format!(r#"{{"error":{error}}}"#), reason);
            assert_reason(&format!("{{ \"id\": 1,\r\n \"error\" : {error} }}"), reason);
        }
        assert_reason(r#"{"statusCode":429,"message":"Rate limit is exceeded."}"#, Reason::Rate);
    }

    #[test]
    fn other_codes_are_believed_over_their_message() {
        for error in [
            r#"{"code":"content_filter","message":"too many requests"}"#,
            r#"{"code":"server_error","message":"rate limit"}"#,
            r#"{"code":"DeploymentNotFound","message":"The API deployment does not exist."}"#,
            r#"{"code":null,"message":"The server had an error"}"#,
            "{}",
            "null",
            "[]",
            "true",
        ] {
            assert_reason(&format!(r#"{{"error":{error}}}"#), None);
        }
    }

    #[test]
    fn output_or_any_number_of_the_usage_is_paid_for() {
        for (response, is_paid_for) in [
            (r#"{"output":[],"usage":{"input_tokens":900,"output_tokens":0}}"#, true),
            (r#"{"usage":{"output_tokens_details":{"reasoning_tokens":0.5}}}"#, true),
            (r#"{"output":[{}],"usage":null}"#, true),
            (r#"{"output":[ ],"usage":{"input_tokens":0,"details":[{"total_tokens":0}]}}"#, false),
            (r#"{"usage":{"gpt-5 \"4\"":0,"tier":"1"}}"#, false),
            (r#"{"usage":null,"output":null}"#, false),
            ("{}", false),
        ] {
            assert_eq!(Members::of(response.as_bytes()).is_paid_for(), is_paid_for, "{response}");
        }
    }

    #[test]
    fn an_error_with_nothing_but_a_type_is_of_that_type_and_says_what_there_is() {
        let fault = ApiError::in_body(br#"{"type":"context_length_exceeded"}"#);
        assert!(fault.has_code("contextlengthexceeded"));
        assert_eq!(
            ApiError::in_body(br#"{"type":"insufficient_quota"}"#).reason(),
            Some(Reason::Quota)
        );
        let body = br#"{"type":"error","detail":"Rate limit. Retry after 5 seconds."}"#;
        assert_eq!(ApiError::in_body(body).message, body);
    }

    #[test]
    fn whatever_is_no_error_is_a_message() {
        assert_reason("<h1>429 Too Many Requests</h1>", Reason::Rate);
        assert_reason("", None);
        assert_reason(r#"{"error":{"code":"no_capa"#, None);
        assert_reason("[1,2]", None);
    }
}
