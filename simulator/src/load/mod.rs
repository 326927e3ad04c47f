//! The load: when requests arrive and what they cost.

mod synthetic;
mod trace;

use std::{ops::Range, time::Duration};

pub use self::trace::{Trace, TraceError};
use super::draws;
use tower_spillover::ConfigError;

/// When requests arrive and how large they are.
///
/// The synthetic loads have lognormal sizes: prompts of 800 tokens at the median (sigma 0.8) and
/// answers of 200 (sigma 0.7), so 1,102 and 256 at the mean.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Load {
    /// Recorded requests.
    Trace(Trace),
    /// Independent requests, so many a second.
    Poisson {
        /// Requests a second.
        rate: f64,
    },
    /// Bursts: 2.2 times the rate for 15 s at the mean, then 0.6 times it for 45 s at the mean;
    /// both durations are exponential (a Markov-modulated Poisson process).
    Bursty {
        /// Requests a second at the mean.
        rate: f64,
    },
}

/// One request of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// When it arrives, in whole milliseconds: finer time would not outlive the timers.
    pub(crate) at: Duration,
    pub(crate) prompt: u64,
    pub(crate) output: u64,
    pub(crate) max_tokens: u64,
}

impl Ask {
    /// What it really costs, in weighted tokens.
    pub(crate) fn cost(&self) -> f64 {
        self.prompt as f64 + OUTPUT_WEIGHT * self.output as f64
    }

    /// What a PTU reckons with until it is finished.
    pub(crate) fn estimate(&self) -> f64 {
        self.prompt as f64 + OUTPUT_WEIGHT * self.max_tokens as f64
    }
}

/// A load, drawn.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    /// By arrival.
    pub(crate) asks: Vec<Ask>,
    /// What arrives in this span is measured.
    pub(crate) from: Duration,
    pub(crate) to: Duration,
    /// Weighted tokens a second at the mean.
    pub(crate) mean_load: f64,
    /// When bursts began and ended, if the load tells.
    pub(crate) bursts: Vec<Range<Duration>>,
}

impl Load {
    /// The requests of `warm_up` and the time after it: `length`, or all of a trace. The same for
    /// every policy.
    pub(crate) fn draw(
        &self,
        seed: u64,
        warm_up: Duration,
        length: Option<Duration>,
    ) -> Result<Traffic, ConfigError> {
        match self {
            Self::Trace(trace) => trace.draw(seed, warm_up, length),
            Self::Poisson { rate } => synthetic::draw(*rate, false, seed, warm_up, length),
            Self::Bursty { rate } => synthetic::draw(*rate, true, seed, warm_up, length),
        }
    }
}

/// `max_tokens` of a request: callers ask for up to twice what they get, uniformly.
fn max_tokens(output: u64, seed: u64, index: usize) -> u64 {
    let factor = 1.0 + draws::share(seed, &[MAX_TOKENS, index as u64]);
    (output as f64 * factor).round() as u64
}

/// A PTU of gpt-4o serves 2,500 input or 833 output tokens a minute, so output weighs three times
/// as much (Azure page "Provisioned throughput").
pub(crate) const OUTPUT_WEIGHT: f64 = 3.0;
/// What the emulator accepts at most; ten times the largest context there is.
const MOST_TOKENS: u64 = 10_000_000;
const MAX_TOKENS: u64 = 3;
