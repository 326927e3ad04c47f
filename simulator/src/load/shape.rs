//! What requests are like: their sizes, what they state of them, and what of them is cached.

use std::time::Duration;

use super::{Ask, MOST_TOKENS};
use crate::draws;

/// What a request says about the most that its answer may take.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum MaxTokens {
    /// One to so many times the answer, uniformly.
    UpTo(f64),
    /// So many times the answer, at least once.
    Times(f64),
    /// The same for every request. Answers end there.
    Constant(u64),
    /// Nothing, so that the service assumes this.
    Unstated(u64),
}

/// The sizes of a synthetic load's requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizes {
    /// Defaults to 800 tokens at the median with a sigma of 0.8, so 1,102 at the mean.
    pub prompt: Size,
    /// Defaults to 200 tokens at the median with a sigma of 0.7, so 256 at the mean.
    pub output: Size,
    /// A share of the answers, 0 to 1, and how many times as long these are: those that follow long
    /// reasoning. Defaults to none.
    pub tail: Option<(f64, f64)>,
}

/// A lognormal size in tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    /// Its median.
    pub median: f64,
    /// The standard deviation of its logarithm; 0 makes all alike.
    pub sigma: f64,
}

/// What the requests of a run are like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) sizes: Sizes,
    pub(crate) max_tokens: MaxTokens,
    /// The share of each prompt that is cached, where a trace does not tell.
    pub(crate) cached: f64,
}

impl Size {
    pub(super) fn mean(&self) -> f64 {
        self.median * (self.sigma * self.sigma / 2.0).exp()
    }
}

impl Sizes {
    /// The mean of the answers, those that are longer included.
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
        let times = |factor: f64| ((output as f64 * factor).round() as u64).min(MOST_TOKENS);
        let (max_tokens, is_stated) = match self.max_tokens {
            MaxTokens::UpTo(most) => {
                let share = draws::share(seed, &[MAX_TOKENS, index as u64]);
                (times(1.0 + (most - 1.0) * share), true)
            }
            MaxTokens::Times(factor) => (times(factor.max(1.0)), true),
            MaxTokens::Constant(tokens) => (tokens, true),
            MaxTokens::Unstated(assumed) => (assumed, false),
        };
        let output = if is_stated { output.min(max_tokens) } else { output };
        let cached = cached.unwrap_or((prompt as f64 * self.cached) as u64).min(prompt);
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
        Self { sizes: Sizes::default(), max_tokens: MaxTokens::UpTo(2.0), cached: 0.0 }
    }
}

const MAX_TOKENS: u64 = 3;
