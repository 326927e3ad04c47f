//! Reads error objects, and the reason of a refusal in them.

use super::json::{Token, Tokenizer, members};
use crate::classify::{Limit, Reason};

/// An error, as slices of its JSON text: strings without their quotes, escapes as written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ApiError<'a> {
    /// A string, or the digits of a number; empty if absent or null.
    code: &'a [u8],
    kind: &'a [u8],
    pub(crate) message: &'a [u8],
    /// The member of the request that it is about.
    param: &'a [u8],
    /// API Management's form, `{"statusCode": 429, "message": "…"}`.
    pub(crate) is_gateways: bool,
}

/// The relevant members of an error or an event, as their JSON text.
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
    param: &'a [u8],
    status_code: &'a [u8],
    details: &'a [u8],
    /// Whether the text was one whole object.
    pub(crate) is_whole: bool,
}

impl<'a> Members<'a> {
    /// The members of `object`; those before the fault if it is incomplete.
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
                b"param" => &mut found.param,
                b"statusCode" => &mut found.status_code,
                b"details" => &mut found.details,
                _ => return Some(()),
            };
            *member = if value == b"null" { b"" } else { value };
            Some(())
        });
        found.is_whole = whole.is_some();
        found
    }

    /// Whether a response has any output or used any tokens: it is billed then, and would be billed
    /// again if it were sent again.
    pub(crate) fn is_paid_for(&self) -> bool {
        let has_output = self.output.iter().any(|byte| !b"[] \t\r\n".contains(byte));
        has_output || counts(self.usage)
    }

    /// The error whose fields are these members.
    pub(crate) fn as_error(self) -> ApiError<'a> {
        let code = if self.code.is_empty() { self.status_code } else { self.code };
        let code = if code.is_empty() { error_code(self.details) } else { code };
        ApiError {
            code: bare(code),
            kind: bare(self.kind),
            message: bare(self.message),
            param: bare(self.param),
            is_gateways: !self.status_code.is_empty(),
        }
    }
}

impl<'a> ApiError<'a> {
    /// The error in `value`: an object, or a string that is its message.
    pub(crate) fn of(value: &'a [u8]) -> Self {
        if value.first() == Some(&b'{') {
            Members::of(value).as_error()
        } else {
            Self::saying(bare(value))
        }
    }

    /// An error with only a `message`.
    pub(crate) fn saying(message: &'a [u8]) -> Self {
        Self { message, ..Self::default() }
    }

    /// The error in the body of a response: `{"error": …}`, API Management's form, or else the body
    /// as a message.
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

    /// Whether the request is longer than the deployment accepts: by its code or type or, if they
    /// only say that the request is bad, by its message.
    pub(crate) fn is_too_long(&self) -> bool {
        if self.has_any(&TOO_LONG) {
            return true;
        }
        let is_coded = !self.code.is_empty() && !is_number(self.code);
        let is_believed = is_coded && !BAD_REQUEST.iter().any(|code| is(self.code, code));
        !is_believed && says_any(self.message, &TOO_LONG_IN_WORDS)
    }

    /// Whether, with a 404, the backend lacks the deployment, or the address does not exist: by its
    /// code or, if that is missing or only repeats the status, by its message. An id that was not
    /// found does not count.
    pub(crate) fn is_missing_deployment(&self) -> bool {
        if self.has_any(&NO_DEPLOYMENT) {
            return true;
        }
        let is_believed =
            !is_number(self.code) && !NOT_FOUND.iter().any(|code| is(self.code, code));
        !is_believed && (self.message.is_empty() || says_any(self.message, &NO_DEPLOYMENT_IN_WORDS))
    }

    /// Whether every backend would refuse the content: a content filter, or a policy on content.
    pub(crate) fn is_about_content(&self) -> bool {
        self.has_any(&CONTENT) || says_any(self.message, &CONTENT_IN_WORDS)
    }

    /// Why a backend refuses with this error; `None` if it does not indicate a refusal.
    ///
    /// A code with another meaning is believed. If the code is missing or only repeats a status, the
    /// message decides.
    pub(crate) fn reason(&self) -> Option<Reason> {
        if self.has_any(&QUOTA) {
            return Some(Reason::Quota);
        }
        if self.has_any(&CAPACITY) {
            return Some(Reason::Capacity);
        }
        if self.has_any(&RATE) {
            return Some(Reason::Rate);
        }
        let throttled = self.has_any(&THROTTLED);
        let is_coded = !self.code.is_empty() && !is_number(self.code);
        if is_coded && !throttled {
            return None;
        }
        self.reason_in_message().or_else(|| throttled.then_some(Reason::Rate))
    }

    /// The reason by the words of the message alone.
    pub(crate) fn reason_in_message(&self) -> Option<Reason> {
        if says_any(self.message, &CAPACITY_IN_WORDS) {
            Some(Reason::Capacity)
        } else if says_any(self.message, &RATE_IN_WORDS) {
            Some(Reason::Rate)
        } else {
            None
        }
    }

    /// The limit that was exceeded: by the error's type, as OpenAI writes it, or by its message.
    pub(crate) fn limit(&self) -> Option<Limit> {
        if is(self.kind, "tokens") || says_any(self.message, &TOKENS_IN_WORDS) {
            Some(Limit::Tokens)
        } else if is(self.kind, "requests") || says_any(self.message, &CALLS_IN_WORDS) {
            Some(Limit::Calls)
        } else {
            None
        }
    }

    /// Whether the deployment does not offer the requested service tier.
    pub(crate) fn is_about_service_tier(&self) -> bool {
        self.param == b"service_tier"
    }

    pub(crate) fn says(&self, phrase: &str) -> bool {
        says_any(self.message, &[phrase])
    }

    fn has_any(&self, codes: &[&str]) -> bool {
        codes.iter().any(|code| is(self.code, code) || is(self.kind, code))
    }
}

/// The code in an error's details, the only place where Anthropic distinguishes a spend limit from a rate.
fn error_code(details: &[u8]) -> &[u8] {
    let mut code: &[u8] = b"";
    members(details, |key, scan| {
        let value = &details[scan.skip()?];
        if details[key] == *b"error_code" {
            code = value;
        }
        Some(())
    });
    code
}

/// Whether `message` contains any of these phrases, given in lower case.
fn says_any(message: &[u8], phrases: &[&str]) -> bool {
    let message = message.to_ascii_lowercase();
    phrases.iter().any(|phrase| memchr::memmem::find(&message, phrase.as_bytes()).is_some())
}

/// Removes the byte order mark that some proxies write (RFC 8259, section 8.1: a reader may ignore
/// it).
pub(crate) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(&BYTE_ORDER_MARK).unwrap_or(text)
}

/// Whether a code equals `code`, which is in lower case without separators: `RateLimitReached` and
/// `rate_limit_reached` are the same.
fn is(name: &[u8], code: &str) -> bool {
    let letters = name.iter().filter(|byte| !matches!(byte, b'_' | b'-' | b' '));
    letters.map(u8::to_ascii_lowercase).eq(code.bytes())
}

/// Whether a JSON text has any number other than zero.
fn counts(mut json: &[u8]) -> bool {
    let mut tokens = Tokenizer::default();
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

/// A JSON string without its quotes; any other scalar as it is.
fn bare(value: &[u8]) -> &[u8] {
    match value {
        [b'"', text @ .., b'"'] => text,
        [b'{' | b'[', ..] | b"null" => b"",
        _ => value,
    }
}

pub(crate) const BYTE_ORDER_MARK: [u8; 3] = *b"\xef\xbb\xbf";
/// Waiting does not help (the list of promptfoo pull request 8896).
const QUOTA: [&str; 7] = [
    "insufficientquota",
    // OpenAI's and Anthropic's of 2026.
    "creditbalanceexhausted",
    "enforcedspendlimitreached",
    "billinghardlimitreached",
    "billingnotactive",
    "accessterminated",
    "quotaexceeded",
];
/// The first is Azure's, the second that of its flex tier, the next two those of overload within
/// streams (opencode issue 25730, codex-lb issue 1313), the others those of other vendors' models.
const CAPACITY: [&str; 6] = [
    "nocapacity",
    "resourceunavailable",
    "serverisoverloaded",
    "serviceunavailableerror",
    "overloadederror",
    "engineoverloadederror",
];
/// Those of v1, of models as a service, and of other vendors' models.
const RATE: [&str; 3] = ["ratelimitexceeded", "ratelimitreached", "ratelimiterror"];
/// Sent for both rate and capacity.
const THROTTLED: [&str; 2] = ["toomanyrequests", "429"];
const CAPACITY_IN_WORDS: [&str; 6] = [
    "high demand",
    "peak load",
    "temporarily unable",
    "currently overloaded",
    "at capacity",
    // Mistral's, of a service tier.
    "capacity exceeded",
];
const RATE_IN_WORDS: [&str; 4] =
    ["rate limit", "ratelimit", "too many requests", "token limit is exceeded"];
/// Azure's, OpenAI's ("on tokens per min (TPM)"), and API Management's.
const TOKENS_IN_WORDS: [&str; 3] =
    ["token rate limit", "tokens per min", "token limit is exceeded"];
const CALLS_IN_WORDS: [&str; 3] = ["call rate limit", "request rate limit", "requests per min"];
/// The whole request, one string in it, and the whole in the spelling of models as a service.
const TOO_LONG: [&str; 3] = ["contextlengthexceeded", "stringabovemaxlength", "tokenslimitreached"];
/// Azure's, OpenAI's, and that of Foundry's model inference.
const NO_DEPLOYMENT: [&str; 3] = ["deploymentnotfound", "modelnotfound", "unknownmodel"];
/// Codes that only repeat a 404.
const NOT_FOUND: [&str; 3] = ["notfound", "resourcenotfound", "invalidrequesterror"];
/// For a deployment, for a path or version unknown to a resource, and from servers of another kind.
const NO_DEPLOYMENT_IN_WORDS: [&str; 6] = [
    "api deployment",
    "resource not found",
    "unknown model",
    "you do not have access to it",
    "404 not found",
    "page not found",
];
/// The filter of Azure, and the codes within it.
const CONTENT: [&str; 3] =
    ["contentfilter", "responsibleaipolicyviolation", "contentpolicyviolation"];
/// API Management's `llm-content-safety`, and the filter.
const CONTENT_IN_WORDS: [&str; 4] =
    ["content safety", "content management policy", "content filter", "content policy"];
/// Codes that only repeat a 400.
const BAD_REQUEST: [&str; 4] =
    ["badrequest", "badrequesterror", "invalidrequest", "invalidrequesterror"];
/// Of chat, of the Responses API, and of Claude.
const TOO_LONG_IN_WORDS: [&str; 3] =
    ["maximum context length is", "exceeds the context window", "prompt is too long"];

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
    fn overload_is_a_lack_of_capacity_in_all_its_words() {
        for error in [
            r#"{"type":"service_unavailable_error","code":"server_is_overloaded","message":"Our servers are currently overloaded. Please try again later."}"#,
            r#"{"type":"service_unavailable_error","code":null}"#,
            r#"{"type":"overloaded_error","message":"Overloaded"}"#,
            r#"{"type":"engine_overloaded_error","message":"try again later"}"#,
            r#"{"code":null,"message":"The engine is currently overloaded, please try again later"}"#,
            r#"{"type":"server_error","code":null,"message":"That model is currently overloaded with other requests."}"#,
            r#"{"code":null,"message":"Selected model is at capacity. Please try a different model."}"#,
            r#"{"code":503,"message":"Selected model is at capacity."}"#,
            r#""The engine is currently overloaded""#,
        ] {
            assert_reason(&format!(r#"{{"error":{error}}}"#), Reason::Capacity);
        }
        for error in [
            r#"{"type":"server_error","code":"server_error","message":"The server had an error"}"#,
            r#"{"type":"server_error","code":null,"message":"The server had an error"}"#,
            r#"{"code":"ServiceUnavailable","message":"Try again later."}"#,
        ] {
            assert_reason(&format!(r#"{{"error":{error}}}"#), None);
        }
    }

    #[test]
    fn a_request_is_too_long_by_its_code_or_in_words_that_no_other_code_belies() {
        const WORDS: &str = "This model's maximum context length is 128000 tokens.";
        for (error, is_too_long) in [
            (r#"{"code":"context_length_exceeded"}"#.to_owned(), true),
            (r#"{"type":"ContextLengthExceeded","code":null}"#.to_owned(), true),
            (r#"{"code":"string_above_max_length","message":"string too long"}"#.to_owned(), true),
            (r#"{"code":"tokens_limit_reached"}"#.to_owned(), true),
            (format!(r#"{{"code":400,"type":"BadRequestError","message":"{WORDS}"}}"#), true),
            (format!(r#"{{"code":"400","message":"{WORDS}"}}"#), true),
            (
                format!(r#"{{"code":null,"type":"invalid_request_error","message":"{WORDS}"}}"#),
                true,
            ),
            (format!(r#"{{"code":"invalid_request_error","message":"{WORDS}"}}"#), true),
            (format!(r#""{WORDS}""#), true),
            (r#"{"message":"Your input exceeds the context window of this model."}"#.to_owned(), true),
            (
                r#"{"type":"invalid_request_error","message":"prompt is too long: 200001 tokens > 200000 maximum"}"#
                    .to_owned(),
                true,
            ),
            (format!(r#"{{"code":"content_filter","message":"{WORDS}"}}"#), false),
            (r#"{"code":400,"message":"messages is too long an array"}"#.to_owned(), false),
            (r#"{"code":"413","message":"The request body is larger than 104857600 bytes."}"#.to_owned(), false),
        ] {
            let body = format!(r#"{{"error":{error}}}"#);
            let fault = ApiError::in_body(body.as_bytes());
            assert_eq!(fault.is_too_long(), is_too_long, "{error}");
            assert_eq!(fault.reason(), None, "a fault of the request: {error}");
        }
    }

    #[test]
    fn the_limit_is_read_from_the_type_and_from_all_its_words() {
        for (error, limit) in [
            (
                r#"{"code":"429","message":"Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-02-01 have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 86400 seconds."}"#,
                Some(Limit::Tokens),
            ),
            (
                r#"{"code":"429","message":"Your requests to gpt-4.1-nano for gpt-4.1-nano in Sweden Central have exceeded the token rate limit for your current AIServices S0 pricing tier."}"#,
                Some(Limit::Tokens),
            ),
            (
                r#"{"code":"429","message":"Requests to the Creates a completion Operation have exceeded call rate limit of your current OpenAI S0 pricing tier. Please retry after 3 seconds."}"#,
                Some(Limit::Calls),
            ),
            (
                r#"{"message":"Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 30601.","type":"tokens","code":"rate_limit_exceeded"}"#,
                Some(Limit::Tokens),
            ),
            (r#"{"message":"Limit reached","type":"requests","code":"x"}"#, Some(Limit::Calls)),
            (r#"{"code":"429","message":"Rate limit is exceeded. Try again in 2 seconds."}"#, None),
        ] {
            let body = format!(r#"{{"error":{error}}}"#);
            assert_eq!(ApiError::in_body(body.as_bytes()).limit(), limit, "{error}");
        }
        let gateways =
            br#"{"statusCode":429,"message":"Token limit is exceeded. Try again in 9 seconds."}"#;
        assert_eq!(ApiError::in_body(gateways).limit(), Some(Limit::Tokens));
    }

    #[test]
    fn only_the_parameter_says_that_it_is_about_the_service_tier() {
        for (error, is_it) in [
            (r#"{"code":"invalid_value","param":"service_tier","message":"x"}"#, true),
            (r#"{"code":"invalid_value","param":"max_tokens","message":"service_tier"}"#, false),
            (r#"{"param":null}"#, false),
        ] {
            let body = format!(r#"{{"error":{error}}}"#);
            assert_eq!(
                ApiError::in_body(body.as_bytes()).is_about_service_tier(),
                is_it,
                "{error}"
            );
        }
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
        assert!(fault.is_too_long());
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
