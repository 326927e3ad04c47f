//! How the service counts a request: its kind of traffic, and the tokens that it may use.

use std::sync::LazyLock;

use http::Method;
use memchr::memmem::Finder;

use super::{Demand, Operation, error::without_mark, json::members};
use crate::{cooldown::Traffic, random};

/// The kind of traffic of a request for `path`, including the service tier in its body.
pub(crate) fn traffic(method: &Method, path: &str, content: Option<&[u8]>) -> Traffic {
    match Operation::traffic(method, path) {
        Traffic::Tokens => content.map_or(Traffic::Tokens, of_tier),
        traffic => traffic,
    }
}

/// The most tokens that a request for `path` may use, as the service counts them at admission: those
/// of the prompt, and those that may be generated. For a body that is not in memory, its length
/// suffices.
pub(crate) fn tokens(path: &str, content: Result<&[u8], u64>) -> f64 {
    let demand = match content {
        Ok([]) => Demand::nothing(),
        // A form starts like this; JSON never does.
        Ok([b'-', b'-', ..]) => Demand::upload(),
        Ok(content) => {
            let draw = random::draw_if(Demand::needs_draw(content.len()));
            Demand::read(content, None, draw)
        }
        Err(length) => Demand::unread(usize::try_from(length).unwrap_or(usize::MAX)),
    };
    if !Operation::has_output(path) {
        return demand.prompt;
    }
    let longest = demand.longest.map_or(UNSTATED_OUTPUT_TOKENS, |tokens| tokens as f64);
    demand.prompt + longest * f64::from(demand.choices)
}

/// By the body's `service_tier`; `auto`, `default` and unknown values mean the default tier.
fn of_tier(content: &[u8]) -> Traffic {
    let mut tier = Traffic::Tokens;
    if TIER.find(content).is_none() {
        return tier;
    }
    let content = without_mark(content);
    members(content, |key, scan| {
        let value = &content[scan.skip_outermost()?];
        if content[key] == *TIER.needle() {
            tier = match value {
                br#""flex""# => Traffic::Flex,
                br#""priority""# => Traffic::Priority,
                _ => Traffic::Tokens,
            };
        }
        Some(())
    });
    tier
}

static TIER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"service_tier"));

/// Tokens that a request is assumed to generate if it does not say: an ordinary answer.
const UNSTATED_OUTPUT_TOKENS: f64 = 256.0;

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: &str = "/openai/v1/chat/completions";

    #[test]
    fn the_service_tier_is_that_of_the_bodys_own_member() {
        for (body, tier) in [
            (r#"{"service_tier":"flex"}"#, Traffic::Flex),
            (r#"{"a":1, "service_tier" : "priority" }"#, Traffic::Priority),
            ("\u{feff}{\"service_tier\":\"flex\"}", Traffic::Flex),
            (r#"{"service_tier":"auto"}"#, Traffic::Tokens),
            (r#"{"service_tier":"default"}"#, Traffic::Tokens),
            (r#"{"service_tier":null}"#, Traffic::Tokens),
            (r#"{"service_tier":["flex"]}"#, Traffic::Tokens),
            (r#"{"metadata":{"service_tier":"flex"}}"#, Traffic::Tokens),
            (r#"{"input":"\"service_tier\":\"flex\""}"#, Traffic::Tokens),
            ("", Traffic::Tokens),
            (r#"{"service_tier"#, Traffic::Tokens),
        ] {
            let read = traffic(&Method::POST, CHAT, Some(body.as_bytes()));
            assert_eq!(read, tier, "{body}");
        }
        let flex = Some(&br#"{"service_tier":"flex"}"#[..]);
        assert_eq!(traffic(&Method::POST, "/openai/v1/images/edits", flex), Traffic::Images);
        assert_eq!(traffic(&Method::GET, "/openai/v1/responses/resp_1", flex), Traffic::Free);
        assert_eq!(traffic(&Method::POST, CHAT, None), Traffic::Tokens);
    }

    #[test]
    fn tokens_are_those_of_the_prompt_and_those_that_may_be_generated() {
        for (path, content, expected) in [
            (CHAT, Ok(r#"{"prompt":"12345678","max_tokens":100,"n":2}"#), 202.0),
            (CHAT, Ok(r#"{"prompt":"12345678"}"#), 258.0),
            ("/openai/v1/embeddings", Ok(r#"{"input":"12345678"}"#), 2.0),
            (CHAT, Ok("--x\r\n"), 765.0 + 256.0),
            (CHAT, Ok(""), 0.0),
            (CHAT, Err(4_000), 1_000.0 + 256.0),
        ] {
            assert_eq!(tokens(path, content.map(str::as_bytes)), expected, "{path} {content:?}");
        }
    }
}
