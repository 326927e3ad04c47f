//! Reads the token demand from a request's body, without a JSON tree.

mod text;
mod windows;

use self::text::{ATTACHMENT_TOKENS, BYTES_PER_TOKEN, PromptText, Shown, WHOLE_BYTES};
use super::{
    fields::{BodyFields, Field},
    json::count,
};

/// The tokens that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Demand<'a> {
    /// Tokens of the prompt.
    pub(crate) prompt: f64,
    /// The most tokens of one choice, if the body says so.
    pub(crate) longest: Option<u64>,
    /// The number of choices generated, returned or not.
    pub(crate) choices: u8,
    /// The body's `model`: a JSON string, quotes included.
    pub(crate) model: Option<&'a [u8]>,
}

impl<'a> Demand<'a> {
    /// Reads a body in memory. An earlier scan found what is `known`. Of a text or list of more than
    /// [`WHOLE_BYTES`], only windows are read, which `draw` places.
    pub(crate) fn read(content: &'a [u8], known: Option<&BodyFields>, draw: u64) -> Self {
        let mut demand = Self { prompt: 0.0, longest: None, choices: 1, model: None };
        let mut text = PromptText::default();
        let is_read = BodyFields::read_only(known, content, |field, key, scan| {
            match field {
                Field::Messages
                | Field::Input
                | Field::Prompt
                | Field::Instructions
                | Field::Suffix => {
                    return text.add(content, scan, Shown::Texts, draw);
                }
                // Schemas are part of the prompt, including their key names.
                Field::Tools | Field::Schema => {
                    return text.add(content, scan, Shown::Names, draw);
                }
                _ => {}
            }
            let value = &content[scan.skip_outermost()?];
            match field {
                Field::MaxOutput => {
                    demand.longest = count(value, MAX_TOKENS).or(demand.longest);
                }
                Field::Choices => {
                    let choices = count(value, MAX_CHOICES).unwrap_or(1);
                    demand.choices = demand.choices.max(choices as u8);
                }
                Field::Model if key == b"model" => demand.model = Some(value),
                _ => {}
            }
            Some(())
        });
        if !is_read {
            return Self::unread(content.len());
        }
        demand.prompt = text.tokens().min(MAX_TOKENS as f64);
        demand
    }

    /// Whether reading a body of `length` bytes needs a draw.
    pub(crate) const fn needs_draw(length: usize) -> bool {
        length > WHOLE_BYTES
    }

    /// For a body of `length` bytes that is not JSON, or cannot be read.
    pub(crate) fn unread(length: usize) -> Self {
        let prompt = (length as f64 / BYTES_PER_TOKEN).min(MAX_TOKENS as f64);
        Self { prompt, longest: None, choices: 1, model: None }
    }

    /// For a request without a body: a list of models, a stored response.
    pub(crate) const fn nothing() -> Self {
        Self { prompt: 0.0, longest: Some(0), choices: 1, model: None }
    }

    /// For a multipart body, which carries a file.
    pub(crate) const fn upload() -> Self {
        Self { prompt: ATTACHMENT_TOKENS, longest: None, choices: 1, model: None }
    }
}

/// A little above the longest context that Azure serves, that of gpt-4.1.
const MAX_TOKENS: u64 = 1 << 20;
/// The most choices that the service allows.
const MAX_CHOICES: u64 = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use spillover_testing::prompts;

    use super::*;

    fn read(body: &str) -> Demand<'_> {
        Demand::read(body.as_bytes(), None, 0)
    }

    #[test]
    fn a_realistic_prompt_is_within_a_fifth_of_what_a_tree_counts() {
        for (name, body) in prompts::requests() {
            let expected = prompts::prompt_tokens(&body);
            for text in [body.to_string(), format!("{body:#}"), prompts::ascii(&body)] {
                let prompt = read(&text).prompt;
                let off = (prompt - expected).abs() / expected;
                assert!(off <= 0.2, "{name}: {prompt} instead of {expected}");
            }
        }
    }

    #[test]
    fn escapes_and_layout_do_not_change_the_count() {
        for (name, body) in prompts::requests() {
            let compact = body.to_string();
            if compact.len() > WHOLE_BYTES {
                continue;
            }
            assert_eq!(read(&format!("{body:#}")), read(&compact), "{name}");
            assert_eq!(read(&prompts::ascii(&body)).prompt, read(&compact).prompt, "{name}");
        }
    }

    #[test]
    fn the_limit_is_found_in_every_spelling_at_the_top_level_alone() {
        for (body, longest) in [
            (r#"{"max_tokens":100}"#, Some(100)),
            (r#"{"max_completion_tokens" : 7e2 }"#, Some(700)),
            (r#"{"max_output_tokens":99999999999999999999}"#, Some(MAX_TOKENS)),
            (r#"{"max_tokens":null,"max_completion_tokens":5}"#, Some(5)),
            (r#"{"max_completion_tokens":5,"max_tokens":null}"#, Some(5)),
            (r#"{"max_tokens":null}"#, None),
            (r#"{"max_tokens":"100"}"#, None),
            (r#"{"max_tokens":-1}"#, None),
            (r#"{"messages":[{"max_tokens":9,"content":"\"max_tokens\":8"}]}"#, None),
            ("{}", None),
        ] {
            assert_eq!(read(body).longest, longest, "{body}");
        }
    }

    #[test]
    fn choices_and_model_are_found() {
        let demand = read(r#"{"n":2,"model":"gpt \"4o\"","best_of":3}"#);
        assert_eq!((demand.choices, demand.model), (3, Some(&br#""gpt \"4o\"""#[..])));
        assert_eq!(read(r#"{"n":0}"#).choices, 1);
        assert_eq!(read(r#"{"n":1e9}"#).choices, 128);
        assert_eq!(read(r#"{"n":null}"#).choices, 1);
    }

    #[test]
    fn an_image_costs_the_same_whatever_its_size() {
        let chat = |size| {
            let url = format!("data:image/png;base64,{}", "iVBORw0K".repeat(size));
            let part = json!({"type": "image_url", "image_url": {"url": url}});
            json!({"messages": [{"role": "user", "content": [part]}]}).to_string()
        };
        assert_eq!(read(&chat(1)).prompt, ATTACHMENT_TOKENS + 4.0);
        let long = read(&chat(100_000)).prompt;
        assert!((long - (ATTACHMENT_TOKENS + 4.0)).abs() < 50.0, "{long}: windows show it");
        let input = json!([{"role": "user", "content": [
            {"type": "input_text", "text": "What is this?"},
            {"type": "input_image", "image_url": "data:image/jpeg;base64,/9j/4AAQSkZJRg"},
            {"type": "input_image", "image_url": "https://contoso.blob.core.windows.net/a.png"},
        ]}]);
        let responses = json!({"input": input}).to_string();
        assert_eq!(read(&responses).prompt, 13.0 / 4.0 + 2.0 * ATTACHMENT_TOKENS + 4.0);
    }

    #[test]
    fn talk_of_images_is_text() {
        let body = json!({"prompt": "image_url", "input": [{"role": "user", "content": "file"}]});
        assert_eq!(read(&body.to_string()).prompt, (9.0 + 4.0) / 4.0 + 4.0);
    }

    #[test]
    fn a_list_of_token_ids_costs_as_many_tokens() {
        assert_eq!(read(r#"{"prompt":[1, 22, 333]}"#).prompt, 3.0);
        assert_eq!(read(r#"{"input":[[1,2],[3,4,5]]}"#).prompt, 5.0);
    }

    #[test]
    fn metadata_and_settings_are_no_prompt() {
        let body = r#"{"metadata":{"note":"a long note"},"user":"someone","stop":["\n"],"seed":7}"#;
        assert_eq!(read(body).prompt, 0.0);
    }

    #[test]
    fn a_body_that_is_not_json_counts_as_text() {
        for body in ["plain text, not JSON", r#"{"max_tokens":5"#, r#"["a list"]"#, "{} {}", "{]"] {
            assert_eq!(read(body), Demand::unread(body.len()), "{body}");
        }
        assert_eq!(Demand::unread(usize::MAX).prompt, MAX_TOKENS as f64);
    }

    proptest! {
        #[test]
        fn a_conversation_of_any_text_is_within_a_fifth_of_what_a_tree_counts(
            contents in prop::collection::vec("(\\PC|[\"\\\\\n\t])*", 1..20),
            limit in 0_u64..100_000,
        ) {
            let message = |content| json!({"role": "user", "content": content});
            let messages: Vec<_> = contents.iter().map(message).collect();
            let body = json!({"messages": messages, "max_tokens": limit});
            let expected = prompts::prompt_tokens(&body);
            for text in [body.to_string(), prompts::ascii(&body)] {
                let demand = read(&text);
                prop_assert!((demand.prompt - expected).abs() <= 0.2 * expected);
                prop_assert_eq!(demand.longest, Some(limit));
                let known = BodyFields::of(text.as_bytes());
                prop_assert_eq!(Demand::read(text.as_bytes(), Some(&known), 0), demand, "scanned");
            }
        }

        #[test]
        fn no_body_panics(
            noise in prop::collection::vec(any::<u8>(), 0..100),
            pieces in "(\"(role|type|content|n|max_tokens|u)\":?|\\\\|\\\\u[0-9d]{0,4}|[\\[\\]{}:, 1\"]){0,30}",
        ) {
            Demand::read(&noise, None, 0);
            Demand::read(pieces.as_bytes(), None, 0);
            for wrapped in [&noise[..], pieces.as_bytes()] {
                let body = [b"{\"messages\":[\"", wrapped, b"\"],\"n\":2}"].concat();
                let demand = Demand::read(&body, None, 0);
                prop_assert!(demand.prompt >= 0.0 && demand.prompt <= MAX_TOKENS as f64);
            }
        }
    }
}
