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
    /// Independent requests, at a constant mean rate.
    Poisson {
        /// Requests per second.
        rate: f64,
    },
    /// Bursts: 2.2 times the rate for a mean of 15 s, then 0.6 times the rate for a mean of 45 s;
    /// both durations are exponential (a Markov-modulated Poisson process).
    Bursty {
        /// Mean requests per second.
        rate: f64,
    },
    /// Four times the rate for a mean of 15 s, then no requests for a mean of 45 s; both durations
    /// are exponential.
    OnOff {
        /// Mean requests per second.
        rate: f64,
    },
    /// A sinusoidal rate, from a tenth of the mean to 1.9 times the mean.
    Day {
        /// Mean requests per second.
        rate: f64,
        /// The period of the sine.
        period: Duration,
    },
    /// A constant rate, except for one period in which it is `times` as high.
    FlashCrowd {
        /// Requests per second before and after the crowd.
        rate: f64,
        /// The factor on the rate during the crowd.
        times: f64,
        /// When the crowd begins, counted from the beginning of the warm-up.
        at: Duration,
        /// How long the crowd lasts.
        lasts: Duration,
    },
    /// A rate that wanders, as that of a service with many users does: its logarithm is a
    /// first-order autoregression with a memory of a minute.
    Wandering {
        /// Mean requests per second.
        rate: f64,
        /// The standard deviation of the rate's logarithm; 0 makes a Poisson load.
        sigma: f64,
        /// Arrivals are recorded at the next multiple of this time, as some traces do; zero records
        /// them when they happen.
        tick: Duration,
    },
    /// Groups of requests that arrive at once, at a fixed interval.
    Volleys {
        /// Requests per volley.
        requests: u32,
        /// The interval between volleys.
        every: Duration,
    },
}

/// One request of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// When it arrives, in whole milliseconds, the resolution of tokio's timers.
    pub(crate) at: Duration,
    pub(crate) prompt: u64,
    /// The part of the prompt that is in the PTU's cache.
    pub(crate) cached: u64,
    pub(crate) output: u64,
    /// The limit that the service uses for its estimate.
    pub(crate) max_tokens: u64,
    /// Whether the request contains `max_tokens`.
    pub(crate) is_stated: bool,
}

impl Ask {
    /// The actual cost in weighted tokens.
    pub(crate) fn cost(&self) -> f64 {
        self.input() + OUTPUT_WEIGHT * self.output as f64
    }

    /// What a PTU charges until the request has finished.
    pub(crate) fn estimate(&self) -> f64 {
        self.input() + OUTPUT_WEIGHT * self.max_tokens as f64
    }

    fn input(&self) -> f64 {
        (self.prompt - self.cached) as f64
    }
}

/// A drawn load.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    /// By arrival.
    pub(crate) asks: Vec<Ask>,
    /// Arrivals in this span are measured.
    pub(crate) from: Duration,
    pub(crate) to: Duration,
    /// Mean weighted tokens per second.
    pub(crate) mean_load: f64,
    /// When bursts began and ended, for loads that have bursts.
    pub(crate) bursts: Vec<Range<Duration>>,
}

impl Traffic {
    /// Mean weighted tokens per second of the drawn requests that are measured.
    pub(crate) fn drawn_load(&self) -> f64 {
        let measured = self.asks.iter().filter(|ask| ask.at >= self.from);
        measured.map(Ask::cost).sum::<f64>() / (self.to - self.from).as_secs_f64()
    }
}

impl Load {
    /// Draws the requests of `warm_up` and of the `length` that follows it, or all of a trace. They
    /// are the same for every policy.
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
/// The emulator's limit; ten times the largest context window.
const MAX_TOKENS_PER_REQUEST: u64 = 10_000_000;
