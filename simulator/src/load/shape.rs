//! The properties of requests: sizes, `max_tokens`, and the cached share of the prompt.

use std::time::Duration;

use super::{Ask, MAX_TOKENS_PER_REQUEST};
use crate::draws;

/// The `max_tokens` of requests.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum MaxTokens {
    /// One to this many times the answer, uniformly.
    UpTo(f64),
    /// This many times the answer (at least 1).
    Times(f64),
    /// The same for every request. Answers are cut at this length.
    Constant(u64),
    /// Not in the request; the service assumes this value.
    Unstated(u64),
    /// Exactly the answer, except for a share of requests (0 to 1), drawn independently, that state
    /// a multiple of it: clients of two kinds.
    Mixed {
        /// The share of requests that state more than the answer.
        share: f64,
        /// How many times the answer those state (at least 1).
        times: f64,
    },
}

/// The sizes of a synthetic load's requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizes {
    /// Defaults to a median of 800 tokens with a sigma of 0.8, which is a mean of 1,102.
    pub prompt: Size,
    /// Defaults to a median of 200 tokens with a sigma of 0.7, which is a mean of 256.
    pub output: Size,
    /// A share of the answers, 0 to 1, and the factor on their length, to model long reasoning.
    /// Defaults to none.
    pub tail: Option<(f64, f64)>,
}

/// A lognormal size in tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    /// Its median.
    pub median: f64,
    /// The standard deviation of its logarithm; 0 makes all sizes equal.
    pub sigma: f64,
}

/// The properties of a run's requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) sizes: Sizes,
    pub(crate) max_tokens: MaxTokens,
    /// The cached share of each prompt, for loads that do not specify it per request.
    pub(crate) cached: f64,
    /// The share of requests to which that applies; the others have nothing in the cache.
    pub(crate) hits: f64,
}

impl Size {
    pub(super) fn mean(&self) -> f64 {
        self.median * (self.sigma * self.sigma / 2.0).exp()
    }
}

impl Sizes {
    /// The mean output, long answers included.
    pub(super) fn mean_output(&self) -> f64 {
        let (share, times) = self.tail.unwrap_or((0.0, 1.0));
        self.output.mean() * (1.0 + share * (times - 1.0))
    }
}

impl Shape {
    /// Request number `index`, which arrives at `at`.
    pub(crate) fn ask(
        &self,
        seed: u64,
        index: usize,
        at: Duration,
        (prompt, output, cached): (u64, u64, Option<u64>),
    ) -> Ask {
        let times =
            |factor: f64| ((output as f64 * factor).round() as u64).min(MAX_TOKENS_PER_REQUEST);
        let (max_tokens, is_stated) = match self.max_tokens {
            MaxTokens::UpTo(most) => {
                let share = draws::share(seed, &[MAX_TOKENS, index as u64]);
                (times(1.0 + (most - 1.0) * share), true)
            }
            MaxTokens::Times(factor) => (times(factor.max(1.0)), true),
            MaxTokens::Constant(tokens) => (tokens, true),
            MaxTokens::Unstated(assumed) => (assumed, false),
            MaxTokens::Mixed { share, times: factor } => {
                let is_more = draws::share(seed, &[MAX_TOKENS, index as u64]) < share;
                (times(if is_more { factor.max(1.0) } else { 1.0 }), true)
            }
        };
        let output = if is_stated { output.min(max_tokens) } else { output };
        let is_hit = draws::share(seed, &[IS_CACHED, index as u64]) < self.hits;
        let drawn = if is_hit { (prompt as f64 * self.cached) as u64 } else { 0 };
        let cached = cached.unwrap_or(drawn).min(prompt);
        Ask { at, prompt, cached, output, max_tokens, is_stated }
    }
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            prompt: Size { median: 800.0, sigma: 0.8 },
            output: Size { median: 200.0, sigma: 0.7 },
            tail: None,
        }
    }
}

impl Default for Shape {
    fn default() -> Self {
        Self { sizes: Sizes::default(), max_tokens: MaxTokens::UpTo(2.0), cached: 0.0, hits: 1.0 }
    }
}

const MAX_TOKENS: u64 = 3;
const IS_CACHED: u64 = 5;
