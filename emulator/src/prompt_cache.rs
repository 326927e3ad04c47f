//! The prompt cache of a resource, keyed by prompt prefixes.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;

/// Hashes of prompt prefixes, one per [`STEP`] tokens, with the time of their last use.
#[derive(Debug)]
pub(crate) struct PromptCache {
    keep: Duration,
    beginnings: Mutex<HashMap<u64, Duration>>,
}

impl PromptCache {
    pub(crate) fn new(keep: Duration) -> Self {
        Self { keep, beginnings: Mutex::default() }
    }

    /// The number of cached tokens of a prompt with these prefixes.
    pub(crate) fn tokens(&self, beginnings: &[u64], now: Duration) -> u64 {
        let known = self.lock();
        let is_known = |beginning: &&u64| {
            known.get(*beginning).is_some_and(|used| now.saturating_sub(*used) <= self.keep)
        };
        beginnings.iter().take_while(is_known).count() as u64 * STEP
    }

    /// Stores the prefixes of a processed prompt.
    pub(crate) fn fill(&self, beginnings: &[u64], now: Duration) {
        let mut known = self.lock();
        known.extend(beginnings.iter().map(|&beginning| (beginning, now)));
        if known.len() > MAX_PREFIXES {
            known.retain(|_, used| now.saturating_sub(*used) <= self.keep);
        }
        if known.len() > MAX_PREFIXES {
            known.clear();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Duration>> {
        self.beginnings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hashes each prefix of a prompt, in steps of [`STEP`] tokens. Prompts with the same
/// `prompt_cache_key` share a cache. If a request specifies its size without a text of that size,
/// all prompts of one key count as having the same prefix.
pub(crate) fn beginnings(model: &str, body: &Value, tokens: u64, is_named: bool) -> Vec<u64> {
    let key = body.get("prompt_cache_key").and_then(Value::as_str).unwrap_or_default();
    let mut hash = Hash { state: 0xcbf2_9ce4_8422_2325, count: 0, steps: Vec::new() };
    for byte in model.bytes().chain([0]).chain(key.bytes()).chain([0]) {
        hash.mix(byte);
    }
    let steps = usize::try_from(tokens / STEP).unwrap_or(usize::MAX).min(MAX_PREFIXES_PER_PROMPT);
    if is_named {
        return (0..steps as u64).map(|step| hash.state ^ scramble(step)).collect();
    }
    for part in ["instructions", "messages", "prompt", "input"] {
        hash.read(body.get(part).unwrap_or(&Value::Null));
    }
    hash.steps.truncate(steps);
    hash.steps
}

/// FNV-1a, sampled every [`STEP`] tokens of text.
struct Hash {
    state: u64,
    count: u64,
    steps: Vec<u64>,
}

impl Hash {
    fn read(&mut self, value: &Value) {
        match value {
            Value::String(text) => {
                for byte in text.bytes() {
                    self.mix(byte);
                    self.count += 1;
                    if self.count.is_multiple_of(STEP * BYTES_PER_TOKEN) {
                        self.steps.push(self.state);
                    }
                }
            }
            Value::Array(parts) => parts.iter().for_each(|part| self.read(part)),
            Value::Object(part) => {
                let texts = ["content", "text"].iter().filter_map(|field| part.get(*field));
                texts.for_each(|text| self.read(text));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn mix(&mut self, byte: u8) {
        self.state = (self.state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
}

/// The finaliser of splitmix64.
const fn scramble(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The shortest prompt that the service caches (Azure page "Prompt caching"). Longer ones are
/// cached in steps of 128, a detail that this emulator leaves out.
const STEP: u64 = 1_024;
const BYTES_PER_TOKEN: u64 = 4;
/// Limits the prefixes of one prompt; `MAX_PREFIXES` limits those of all prompts.
const MAX_PREFIXES_PER_PROMPT: usize = 1 << 10;
const MAX_PREFIXES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);
    const HOUR: Duration = Duration::from_secs(3_600);

    fn of(text: &str, key: &str) -> Vec<u64> {
        let body = json!({"messages": [{"content": text}], "prompt_cache_key": key});
        beginnings("m", &body, text.len() as u64 / 4, false)
    }

    #[test]
    fn a_conversation_that_grows_finds_what_it_began_with_in_whole_steps() {
        let cache = PromptCache::new(HOUR);
        let first = "a".repeat(4 * 2_500);
        assert_eq!(cache.tokens(&of(&first, "k"), NOW), 0);
        cache.fill(&of(&first, "k"), NOW);
        let longer = first.clone() + &"b".repeat(4 * 5_000);
        assert_eq!(cache.tokens(&of(&longer, "k"), NOW), 2_048);
        assert_eq!(cache.tokens(&of(&longer, "other"), NOW), 0, "another key, another cache");
        assert_eq!(cache.tokens(&of(&format!("x{first}"), "k"), NOW), 0);
        assert_eq!(cache.tokens(&of(&first[..4_000], "k"), NOW), 0, "too short to be cached");
        assert_eq!(cache.tokens(&of(&longer, "k"), NOW + HOUR), 2_048);
        assert_eq!(cache.tokens(&of(&longer, "k"), NOW + 2 * HOUR), 0);
    }

    #[test]
    fn a_size_that_is_named_stands_for_a_text() {
        let named =
            |key: &str, tokens| beginnings("m", &json!({"prompt_cache_key": key}), tokens, true);
        let cache = PromptCache::new(HOUR);
        cache.fill(&named("k", 3_000), NOW);
        assert_eq!(cache.tokens(&named("k", 10_000), NOW), 2_048);
        assert_eq!(cache.tokens(&named("k", 1_500), NOW), 1_024);
        assert_eq!(cache.tokens(&named("other", 3_000), NOW), 0);
        assert_eq!(named("k", u64::MAX).len(), MAX_PREFIXES_PER_PROMPT);
    }
}
