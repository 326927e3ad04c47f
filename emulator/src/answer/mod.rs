//! Answers: the content of a success, in one piece or as events, and of a refusal.

use std::sync::Arc;

use crate::{ask::TokenCost, routes::Operation};

pub(crate) mod errors;
pub(crate) mod events;
pub(crate) mod head;
pub(crate) mod json;
pub(crate) mod sse;

/// The content of one success.
#[derive(Clone, Debug)]
pub(crate) struct Success {
    pub(crate) operation: Operation,
    /// Without the prefix of its object type.
    pub(crate) id: String,
    /// A JSON string, quotes included.
    pub(crate) model: Arc<str>,
    pub(crate) created: u64,
    pub(crate) cost: TokenCost,
    pub(crate) truncated: bool,
    pub(crate) include_usage: bool,
    /// Whether the response contains encrypted reasoning.
    pub(crate) include_encrypted: bool,
    pub(crate) dimensions: u64,
    pub(crate) inputs: u64,
    /// The service tier that served the request, if the request named one.
    pub(crate) tier: Option<&'static str>,
    /// Whether a chat stream begins with the content filter's results.
    pub(crate) filters_prompts: bool,
    /// Keep-alive events sent so far; they count in sequence numbers.
    pub(crate) keepalives: u64,
}

impl Success {
    fn finish_reason(&self) -> &'static str {
        if self.truncated { "length" } else { "stop" }
    }

    /// The field `service_tier` with a comma before it, if the answer has one.
    fn service_tier(&self) -> String {
        self.tier.map_or_else(String::new, |tier| format!(r#","service_tier":"{tier}""#))
    }

    /// The `usage` object with the field names of chat completions, completions and embeddings.
    fn usage(&self) -> String {
        let TokenCost { prompt, cached, completion, .. } = self.cost;
        let total = prompt.saturating_add(completion);
        format!(
            r#"{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{total},"prompt_tokens_details":{{"cached_tokens":{cached}}},"completion_tokens_details":{{"reasoning_tokens":0}}}}"#
        )
    }

    /// The `usage` object with the field names of responses.
    fn responses_usage(&self) -> String {
        let TokenCost { prompt, cached, completion, .. } = self.cost;
        let total = prompt.saturating_add(completion);
        format!(
            r#"{{"input_tokens":{prompt},"input_tokens_details":{{"cached_tokens":{cached}}},"output_tokens":{completion},"output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":{total}}}"#
        )
    }
}

/// The token at `index` of every completion: a short word that JSON need not escape.
fn word(index: u64) -> &'static str {
    match index {
        0 => "the",
        _ => WORDS[(index % WORDS.len() as u64) as usize],
    }
}

/// The first `count` tokens.
fn words(count: u64) -> String {
    (0..count).map(word).collect()
}

const WORDS: [&str; 8] = [" the", " tide", " went", " out", " and", " left", " the", " shells"];
