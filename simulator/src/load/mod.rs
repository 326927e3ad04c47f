//! The load: when requests arrive and what they cost.

mod shape;
mod synthetic;
mod trace;

use std::{ops::Range, time::Duration};

pub(crate) use self::shape::Shape;
pub use self::{
    shape::{MaxTokens, Size, Sizes},
    trace::{Trace, TraceError},
};
use tower_spillover::ConfigError;

/// When requests arrive and how large they are.
///
/// The synthetic loads have [lognormal sizes](Sizes).
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
    /// Four times the rate for 15 s at the mean, then nothing for 45 s at the mean; both durations are
    /// exponential.
    OnOff {
        /// Requests a second at the mean.
        rate: f64,
    },
    /// A rate that rises and falls like a sine, from a tenth of the mean to 1.9 times it.
    Day {
        /// Requests a second at the mean.
        rate: f64,
        /// From one dawn to the next.
        period: Duration,
    },
    /// A constant rate, but for one time in which it is so many times as high.
    FlashCrowd {
        /// Requests a second before and after.
        rate: f64,
        /// How many times as many come meanwhile.
        times: f64,
        /// When they begin to come, warming up included.
        at: Duration,
        /// For how long they come.
        lasts: Duration,
    },
    /// So many requests at once, then a pause, over and over.
    Volleys {
        /// Requests that arrive together.
        requests: u32,
        /// From one volley to the next.
        every: Duration,
    },
}

/// One request of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// When it arrives, in whole milliseconds: finer time would not outlive the timers.
    pub(crate) at: Duration,
    pub(crate) prompt: u64,
    /// The part of the prompt that a PTU has in its cache.
    pub(crate) cached: u64,
    pub(crate) output: u64,
    /// What the service reckons with.
    pub(crate) max_tokens: u64,
    /// Whether the request says so.
    pub(crate) is_stated: bool,
}

impl Ask {
    /// What it really costs, in weighted tokens.
    pub(crate) fn cost(&self) -> f64 {
        self.input() + OUTPUT_WEIGHT * self.output as f64
    }

    /// What a PTU reckons with until it is finished.
    pub(crate) fn estimate(&self) -> f64 {
        self.input() + OUTPUT_WEIGHT * self.max_tokens as f64
    }

    fn input(&self) -> f64 {
        (self.prompt - self.cached) as f64
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

impl Traffic {
    /// Weighted tokens a second at the mean of what was drawn to be measured.
    pub(crate) fn drawn_load(&self) -> f64 {
        let measured = self.asks.iter().filter(|ask| ask.at >= self.from);
        measured.map(Ask::cost).sum::<f64>() / (self.to - self.from).as_secs_f64()
    }
}

impl Load {
    /// The requests of `warm_up` and the time after it: `length`, or all of a trace. The same for
    /// every policy.
    pub(crate) fn draw(
        &self,
        seed: u64,
        warm_up: Duration,
        length: Option<Duration>,
        shape: &Shape,
    ) -> Result<Traffic, ConfigError> {
        match self {
            Self::Trace(trace) => trace.draw(seed, warm_up, length, shape),
            _ => synthetic::draw(self, seed, warm_up, length, shape),
        }
    }
}

/// A PTU of gpt-4o serves 2,500 input or 833 output tokens a minute, so output weighs three times
/// as much (Azure page "Provisioned throughput").
pub(crate) const OUTPUT_WEIGHT: f64 = 3.0;
/// What the emulator accepts at most; ten times the largest context there is.
const MOST_TOKENS: u64 = 10_000_000;
