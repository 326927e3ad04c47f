//! Reads a request body: what it requests, and what that will cost.

use http::HeaderMap;
use serde_json::Value;

use crate::{request_body::BadRequest, routes::Operation, tier::Tier};

/// The token counts of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TokenCost {
    pub(crate) prompt: u64,
    pub(crate) cached: u64,
    /// The maximum that may be generated, all choices together; admission uses it as the estimate.
    pub(crate) max_completion: u64,
    /// What is generated unless the client disconnects.
    pub(crate) completion: u64,
}

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Limited by the number of requests; costs no tokens.
    pub(crate) media: bool,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) prompt: u64,
    pub(crate) cached: u64,
    /// Whether the request specifies its cached tokens, and its prompt tokens.
    pub(crate) names_cached: bool,
    pub(crate) names_prompt: bool,
    /// Hashes of the prompt's prefixes, for a resource that caches prompts.
    pub(crate) beginnings: Vec<u64>,
    pub(crate) max_completion: u64,
    /// One choice's `max_tokens`; `max_completion` has it times the number of choices.
    pub(crate) longest: u64,
    /// The exact completion length, if the request specifies one.
    pub(crate) exact: Option<u64>,
    /// Whether `max_tokens` cuts the exact completion.
    pub(crate) truncated: bool,
    pub(crate) dimensions: u64,
    pub(crate) inputs: u64,
    pub(crate) previous: Option<String>,
    /// The id of an object that another resource keeps.
    pub(crate) foreign: Option<String>,
    /// Encrypted reasoning, which only the resource that made it can read.
    pub(crate) encrypted: Vec<String>,
    pub(crate) include_encrypted: bool,
    /// `None` if the request does not name one; then its answer does not either.
    pub(crate) tier: Option<Tier>,
}

impl Ask {
    pub(crate) fn read(
        operation: Operation,
        headers: &HeaderMap,
        body: &Value,
        default_max_tokens: u64,
    ) -> Result<Self, BadRequest> {
        if operation.is_media() {
            return Ok(Self { media: true, exact: Some(0), ..Self::default() });
        }
        let subject = required(operation, body)?;
        let stated = longest(operation, body)?;
        let longest = stated.unwrap_or(default_max_tokens);
        let named = |header, field| named(headers, header, body, field);
        let exact = named("x-emulator-completion-tokens", "emulator_completion_tokens");
        let named_prompt = named("x-emulator-prompt-tokens", "emulator_prompt_tokens");
        let prompt = named_prompt.unwrap_or_else(|| prompt_tokens(subject, body));
        let cached = named("x-emulator-cached-tokens", "emulator_cached_tokens");
        let previous = body.get("previous_response_id").and_then(Value::as_str);
        Ok(Self {
            media: false,
            stream: flag(body, "stream")?,
            include_usage: body
                .pointer("/stream_options/include_usage")
                .is_some_and(|include| include == true),
            prompt,
            cached: cached.unwrap_or(0).min(prompt),
            names_cached: cached.is_some(),
            names_prompt: named_prompt.is_some(),
            beginnings: Vec::new(),
            max_completion: longest * choices(body)?,
            longest,
            exact: exact.map(|exact| exact.min(stated.unwrap_or(exact))),
            truncated: exact > stated && stated.is_some(),
            dimensions: number(body, "dimensions")?.unwrap_or(16).clamp(1, 4_096),
            inputs: inputs(subject),
            previous: previous.map(str::to_owned),
            foreign: None,
            encrypted: encrypted(subject),
            include_encrypted: body
                .get("include")
                .and_then(Value::as_array)
                .is_some_and(|parts| parts.contains(&"reasoning.encrypted_content".into())),
            tier: tier(body)?,
        })
    }
}

/// The field that is mandatory for this operation.
fn required(operation: Operation, body: &Value) -> Result<&Value, BadRequest> {
    let field = match operation {
        Operation::Chat => "messages",
        Operation::Completions => "prompt",
        _ => "input",
    };
    let value = match body.get(field) {
        Some(value) => value,
        // Completions may have no prompt, and a response may continue a conversation without input.
        None if operation == Operation::Completions => &Value::Null,
        None if body.get("previous_response_id").is_some() => &Value::Null,
        None => {
            return Err(BadRequest {
                message: format!("Missing required parameter: '{field}'."),
                param: Some(field),
            });
        }
    };
    if operation == Operation::Chat && value.as_array().is_none_or(Vec::is_empty) {
        return Err(wrong_type(field, "a list of at least one message"));
    }
    Ok(value)
}

/// The most tokens that one choice may have, if the body limits them.
fn longest(operation: Operation, body: &Value) -> Result<Option<u64>, BadRequest> {
    if operation == Operation::Embeddings {
        return Ok(Some(0));
    }
    for field in ["max_completion_tokens", "max_output_tokens", "max_tokens"] {
        if let Some(tokens) = number(body, field)? {
            return Ok(Some(tokens));
        }
    }
    Ok(None)
}

/// A count from a header or, failing that, from the metadata.
fn named(headers: &HeaderMap, header: &str, body: &Value, field: &str) -> Option<u64> {
    let from_header = || headers.get(header)?.to_str().ok()?.parse().ok();
    let from_metadata = || loose(body.get("metadata")?.get(field)?);
    let count: Option<u64> = from_header().or_else(from_metadata);
    count.map(|count| count.min(MAX_STATED_TOKENS))
}

fn prompt_tokens(subject: &Value, body: &Value) -> u64 {
    let instructions = body.get("instructions").map_or(0, text_bytes);
    (text_bytes(subject) + instructions).div_ceil(4).max(1)
}

/// How many choices are generated, whether returned or not.
fn choices(body: &Value) -> Result<u64, BadRequest> {
    let returned = number(body, "n")?.unwrap_or(1);
    let best_of = number(body, "best_of")?.unwrap_or(1);
    Ok(returned.max(best_of).clamp(1, 128))
}

/// How many texts to embed; a list of token ids is one text.
fn inputs(subject: &Value) -> u64 {
    match subject.as_array() {
        Some(texts) if !texts.first().is_some_and(Value::is_number) => {
            (texts.len() as u64).min(2_048)
        }
        _ => 1,
    }
}

fn number(body: &Value, field: &'static str) -> Result<Option<u64>, BadRequest> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(number) => Ok(Some(number.min(MAX_STATED_TOKENS))),
            None => Err(wrong_type(field, "a whole number, not negative")),
        },
    }
}

fn flag(body: &Value, field: &'static str) -> Result<bool, BadRequest> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(false),
        Some(value) => value.as_bool().ok_or_else(|| wrong_type(field, "true or false")),
    }
}

fn tier(body: &Value) -> Result<Option<Tier>, BadRequest> {
    match body.get("service_tier") {
        None | Some(Value::Null) => Ok(None),
        Some(name) => match name.as_str().and_then(Tier::parse) {
            Some(tier) => Ok(Some(tier)),
            None => Err(wrong_type("service_tier", "auto, default, flex or priority")),
        },
    }
}

fn wrong_type(field: &'static str, expected: &str) -> BadRequest {
    BadRequest {
        message: format!("Invalid type for '{field}': expected {expected}."),
        param: Some(field),
    }
}

/// The encrypted reasoning among a response's input items.
fn encrypted(input: &Value) -> Vec<String> {
    let items = input.as_array().map_or(&[][..], Vec::as_slice);
    let content = |item: &Value| Some(item.get("encrypted_content")?.as_str()?.to_owned());
    items.iter().filter_map(content).collect()
}

/// A count written as a number or, in metadata, as a string.
fn loose(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// The bytes of text in a prompt of any shape; a token id counts as four.
fn text_bytes(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.len() as u64,
        Value::Number(_) => 4,
        Value::Array(parts) => parts.iter().map(text_bytes).sum(),
        Value::Object(part) => {
            ["content", "text"].iter().filter_map(|field| part.get(*field)).map(text_bytes).sum()
        }
        Value::Null | Value::Bool(_) => 0,
    }
}

/// The limit of completions that do not specify one: Azure's default for its oldest operation.
pub(crate) const DEFAULT_MAX_TOKENS: u64 = 16;
/// The upper limit on stated tokens: ten times the largest context window, small enough to
/// multiply.
pub(crate) const MAX_STATED_TOKENS: u64 = 10_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::request_body::parse;

    #[expect(clippy::needless_pass_by_value, reason = "reads better at the call")]
    fn read(operation: Operation, body: Value) -> Result<Ask, BadRequest> {
        Ask::read(operation, &HeaderMap::new(), &body, DEFAULT_MAX_TOKENS)
    }

    #[test]
    fn a_prompt_costs_a_token_for_every_four_bytes_of_text() {
        let chat = json!({"messages": [
            {"role": "system", "content": "12345678"},
            {"role": "user", "content": [{"type": "text", "text": "123"}, {"type": "image_url"}]},
        ]});
        assert_eq!(read(Operation::Chat, chat).unwrap().prompt, 3);
        let embeddings = json!({"input": [[1, 2, 3], "12345"]});
        let ask = read(Operation::Embeddings, embeddings).unwrap();
        assert_eq!((ask.prompt, ask.inputs, ask.max_completion), (5, 2, 0));
        let responses = json!({"input": "1234", "instructions": "1234"});
        assert_eq!(read(Operation::Responses, responses).unwrap().prompt, 2);
    }

    #[test]
    fn metadata_names_exact_costs_and_headers_win() {
        let body = json!({"messages": [{"content": "x"}], "metadata": {
            "emulator_prompt_tokens": "2048", "emulator_completion_tokens": 28,
            "emulator_cached_tokens": "9999",
        }});
        let ask = read(Operation::Chat, body.clone()).unwrap();
        assert_eq!((ask.prompt, ask.exact, ask.cached), (2_048, Some(28), 2_048));
        let mut headers = HeaderMap::new();
        headers.insert("x-emulator-prompt-tokens", "7".parse().unwrap());
        headers.insert("x-emulator-completion-tokens", "nonsense".parse().unwrap());
        let ask = Ask::read(Operation::Chat, &headers, &body, 16).unwrap();
        assert_eq!((ask.prompt, ask.exact), (7, Some(28)));
    }

    #[test]
    fn choices_multiply_what_may_be_generated() {
        let body = json!({"prompt": "x", "max_tokens": 100, "n": 2, "best_of": 3});
        assert_eq!(read(Operation::Completions, body).unwrap().max_completion, 300);
        let silent = json!({"prompt": "x"});
        assert_eq!(read(Operation::Completions, silent).unwrap().max_completion, 16);
    }

    #[test]
    fn complaints_name_what_is_wrong() {
        let error = |body| read(Operation::Chat, body).unwrap_err();
        assert_eq!(error(json!({})).param, Some("messages"));
        assert_eq!(error(json!({"messages": []})).param, Some("messages"));
        let messages = json!([{"content": "x"}]);
        let negative = json!({"messages": messages, "max_tokens": -1});
        assert!(error(negative).message.contains("'max_tokens'"));
        assert_eq!(error(json!({"messages": messages, "stream": "yes"})).param, Some("stream"));
    }

    #[test]
    fn absurd_numbers_are_capped() {
        let body = json!({"prompt": "x", "max_tokens": u64::MAX, "n": u64::MAX,
            "metadata": {"emulator_prompt_tokens": "18446744073709551615"}});
        let ask = read(Operation::Completions, body).unwrap();
        assert_eq!((ask.prompt, ask.max_completion), (MAX_STATED_TOKENS, MAX_STATED_TOKENS * 128));
    }

    proptest! {
        #[test]
        fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(body) = parse(&body) {
                let _ = read(Operation::Chat, body);
            }
        }
    }
}
