//! Finds requests that may share a prompt cache: a key of the body, equal in every process.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::{
    azure::{
        fields::{BodyFields, Field},
        json::ends_before,
    },
    hash::fnv1a,
    random::split_mix,
};

/// The rule that keeps requests with the same start of prompt together; see
/// [`RegionRotateLayer::cache_affinity`](crate::RegionRotateLayer::cache_affinity).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheAffinity {
    /// The caller's `prompt_cache_key`. Requests without one go anywhere.
    Key,
    /// The same or, if absent, the first 1,024 characters of the prompt, which is about what the
    /// service itself distinguishes prompts by. Shorter prompts go anywhere: the service caches none
    /// below 1,024 tokens.
    ///
    /// Not for an application whose prompts all begin with the same long instructions: they would all
    /// start with one backend, whatever its weight.
    KeyOrPrompt,
}

impl CacheAffinity {
    /// The key of a body in memory.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn key(self, content: &[u8]) -> Option<u64> {
        self.key_known(content, None)
    }

    /// The key of a body in memory. An earlier scan found what is `known`.
    pub(super) fn key_known(self, content: &[u8], known: Option<&BodyFields>) -> Option<u64> {
        let has_key = KEY.find(content).is_some();
        if !has_key && self == Self::Key {
            return None;
        }
        let (mut given, mut instructions, mut prompt) = (None, None, None);
        BodyFields::read_only(known, content, |field, _, scan| {
            if field == Field::Messages && !has_key && scan.peek() == Some(b'[') {
                // Nothing else of a conversation counts, so it is read no further.
                let (start, end) = (scan.at(), scan.at() + PROMPT_KEY_CHARS);
                let beginning = content.get(start..end)?;
                prompt = (!ends_before(content, start, end)).then_some(beginning);
                instructions = None;
                return None;
            }
            let value = &content[scan.skip_outermost()?];
            match field {
                Field::PromptCacheKey if value.len() > 2 && value[0] == b'"' => {
                    given = Some(fnv1a([value]));
                }
                // A response is given these before its input.
                Field::Instructions => instructions = Some(value),
                // A `prompt` that is an object refers to a stored one; the input is elsewhere.
                Field::Messages | Field::Input | Field::Prompt
                    if matches!(value.first(), Some(b'"' | b'[')) =>
                {
                    prompt = Some(value);
                }
                _ => {}
            }
            Some(())
        });
        let by_prompt = || prompt.and_then(|prompt| prompt_key(instructions, prompt));
        if self == Self::Key { given } else { given.or_else(by_prompt) }
    }
}

/// The key of the start of a prompt.
fn prompt_key(instructions: Option<&[u8]>, prompt: &[u8]) -> Option<u64> {
    let first = instructions.filter(|text| text[0] == b'"').unwrap_or_default();
    let first = &first[..first.len().min(PROMPT_KEY_CHARS)];
    let second = prompt.get(..PROMPT_KEY_CHARS - first.len())?;
    Some(of_words([first, second]))
}

/// A hash of these parts one after the other, eight bytes at a time.
fn of_words<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    parts.into_iter().fold(0, |hash, part| {
        let (words, rest) = part.as_chunks();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        let words = words.iter().chain([&last]).map(|word| u64::from_le_bytes(*word));
        // As FNV-1a, with a turn, since the product has nothing of the upper bits in the lower ones.
        let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(FNV_PRIME).rotate_left(29);
        // The length distinguishes zeros at the end from none.
        split_mix(words.fold(hash, mix) ^ part.len() as u64)
    })
}

const FNV_PRIME: u64 = 0x0100_0000_01b3;
/// Characters of the prompt that make the key, as written: escapes, quotes and roles count. The
/// service looks at about 256 tokens (Azure page "Prompt caching").
const PROMPT_KEY_CHARS: usize = 1_024;
static KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"prompt_cache_key\""));

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::json;

    use super::*;

    fn key(body: &serde_json::Value) -> Option<u64> {
        CacheAffinity::Key.key(body.to_string().as_bytes())
    }

    fn prompt(body: &serde_json::Value) -> Option<u64> {
        CacheAffinity::KeyOrPrompt.key(body.to_string().as_bytes())
    }

    #[test]
    fn a_key_is_the_same_for_one_name_and_another_for_another() {
        let named = |name: &str| json!({"prompt_cache_key": name, "messages": [{"content": name}]});
        assert_eq!(key(&named("a")), prompt(&json!({"input": "hi", "prompt_cache_key": "a"})));
        assert_ne!(key(&named("a")), key(&named("b")));
        // Processes agree only while this stays the same.
        assert_eq!(fnv1a([&b"foobar"[..]]), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn only_a_name_at_the_top_is_a_key() {
        for body in [
            json!({"messages": [{"content": "\"prompt_cache_key\": \"a\""}]}),
            json!({"metadata": {"prompt_cache_key": "a"}}),
            json!({"prompt_cache_key": ""}),
            json!({"prompt_cache_key": null}),
            json!({"prompt_cache_key": 5}),
            json!(["prompt_cache_key", "a"]),
        ] {
            assert_eq!(key(&body), None, "{body}");
            assert_eq!(prompt(&body), None, "{body}");
        }
    }

    #[test]
    fn a_conversation_keeps_the_key_of_its_beginning() {
        let begins = |with: &str| json!({"role": "system", "content": with.repeat(300)});
        let turn = json!({"role": "user", "content": "and now?"});
        let first = json!({"messages": [begins("long")]});
        let second = json!({"messages": [begins("long"), turn]});
        assert!(prompt(&first).is_some());
        assert_eq!(prompt(&first), prompt(&second));
        assert_ne!(prompt(&first), prompt(&json!({"messages": [begins("else")]})));
        assert_eq!(key(&first), None, "only a name was switched on");
    }

    #[test]
    fn instructions_come_before_the_input() {
        let ask = |instructions: &str, input: &str| {
            prompt(&json!({"instructions": instructions.repeat(100), "input": input.repeat(500)}))
        };
        assert!(ask("be brief", "hello").is_some());
        assert_ne!(ask("be brief", "hello"), ask("be kind!", "hello"));
        assert_ne!(ask("be brief", "hello"), ask("be brief", "howdy"));
        assert_eq!(prompt(&json!({"input": "a short one"})), None);
    }

    #[test]
    fn a_stored_prompt_does_not_take_the_place_of_the_input() {
        let input = json!([{"role": "developer", "content": "be brief ".repeat(300)}]);
        let stored = json!({"id": "pmpt_1", "variables": {"x": "y".repeat(2_000)}});
        for beside in [json!(null), stored] {
            // In the order of their names, and reversed.
            let after = json!({"input": input, "prompt": beside});
            let before = json!({"messages": beside, "prompt": input});
            assert_eq!(prompt(&after), prompt(&json!({"input": input})));
            assert_eq!(prompt(&before), prompt(&json!({"input": input})));
        }
    }

    #[test]
    fn a_body_that_is_not_json_has_no_key() {
        for body in
            [&b""[..], b"{", b"\"prompt_cache_key\"", b"{\"instructions\":", b"{\"input\":}"]
        {
            assert_eq!(CacheAffinity::KeyOrPrompt.key(body), None);
        }
    }

    #[test]
    fn texts_that_differ_in_one_byte_or_in_their_length_have_other_hashes() {
        let text = [b'a'; 40];
        let mut hashes: HashSet<_> =
            (0..text.len()).map(|length| of_words([&text[..length]])).collect();
        for at in 0..text.len() {
            let mut other = text;
            other[at] = 0;
            hashes.insert(of_words([&other[..]]));
        }
        hashes.insert(of_words([&[0; 8][..]]));
        hashes.insert(of_words([&[0; 7][..]]));
        assert_eq!(hashes.len(), 82);
        // Processes agree only while this stays the same.
        assert_eq!(of_words([&b"foobar"[..], b"foo"]), 0xc6e2_5ec2_47d4_2203);
    }
}
