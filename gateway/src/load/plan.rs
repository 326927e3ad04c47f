//! What to send when: the arrivals of an open loop, and the content of each request.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};

use super::{
    args::{Api, Grammar, LoadArgs},
    trace::{self, Recorded},
};

/// When to send requests.
pub(super) enum Plan {
    /// Each thread waits for its answer, pauses, and sends the next request.
    Closed { threads: u32, items: u64, think: Duration },
    /// Recorded or drawn arrivals.
    Open(Arrivals),
}

/// Arrivals in order.
pub(super) enum Arrivals {
    Poisson { draw: SmallRng, rate: f64, at: f64, end: f64 },
    Uniform { rate: f64, sent: u32, end: f64 },
    Recorded(std::vec::IntoIter<Recorded>),
}

/// A planned request of an open loop.
pub(super) struct Arrival {
    pub(super) at: Duration,
    pub(super) tokens: Option<(u64, u64)>,
}

impl Plan {
    pub(super) fn new(args: &LoadArgs) -> Result<Self, String> {
        if let Some(file) = &args.trace {
            let mut recorded = trace::load(file)?;
            for request in &mut recorded {
                request.at = Duration::try_from_secs_f64(request.at.as_secs_f64() / args.speedup)
                    .unwrap_or(Duration::MAX);
            }
            let end = args.duration.unwrap_or(Duration::MAX);
            recorded.retain(|request| request.at < end);
            return Ok(Self::Open(Arrivals::Recorded(recorded.into_iter())));
        }
        let end = args.duration.unwrap_or(A_MINUTE).as_secs_f64();
        Ok(match args.rate {
            Some(rate) if args.uniform => Self::Open(Arrivals::Uniform { rate, sent: 0, end }),
            Some(rate) => {
                let draw = SmallRng::seed_from_u64(args.seed);
                Self::Open(Arrivals::Poisson { draw, rate, at: 0.0, end })
            }
            None => Self::Closed { threads: args.threads, items: args.items, think: args.think },
        })
    }
}

impl Plan {
    /// The number of requests if known, or else the length of the run.
    pub(super) fn length(&self) -> (Option<u64>, Duration) {
        let seconds = |end: f64| Duration::try_from_secs_f64(end).unwrap_or(Duration::MAX);
        match self {
            Self::Closed { items, .. } => (Some(*items), Duration::ZERO),
            Self::Open(Arrivals::Recorded(requests)) => {
                (Some(requests.len() as u64), Duration::ZERO)
            }
            Self::Open(Arrivals::Poisson { end, .. } | Arrivals::Uniform { end, .. }) => {
                (None, seconds(*end))
            }
        }
    }
}

impl Iterator for Arrivals {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        match self {
            Self::Recorded(requests) => requests.next().map(|request| Arrival {
                at: request.at,
                tokens: Some((request.prompt, request.output)),
            }),
            Self::Poisson { draw, rate, at, end } => {
                *at -= (1.0 - draw.random::<f64>()).ln() / *rate;
                drawn(*at, *end)
            }
            Self::Uniform { rate, sent, end } => {
                // Multiply instead of adding: a sum would drift, and one request too many might fit
                // in.
                let at = f64::from(*sent) / *rate;
                *sent = sent.checked_add(1)?;
                drawn(at, *end)
            }
        }
    }
}

fn drawn(at: f64, end: f64) -> Option<Arrival> {
    let arrival = Arrival { at: Duration::try_from_secs_f64(at).ok()?, tokens: None };
    (at < end).then_some(arrival)
}

/// The content of one request, determined only by the seed and its number.
pub(super) struct Question {
    pub(super) target: usize,
    pub(super) body: String,
    /// Exact token counts, sent in the emulator's headers.
    pub(super) exact: Option<(u64, u64)>,
}

impl Question {
    pub(super) fn new(
        args: &LoadArgs,
        targets: usize,
        id: u64,
        tokens: Option<(u64, u64)>,
    ) -> Self {
        let mut draw = SmallRng::seed_from_u64(args.seed.rotate_left(32) ^ id);
        let target = draw.random_range(0..targets);
        let number = draw.random_range(50..=100);
        let prompt_tokens = tokens.map(|(prompt, _)| prompt).or(args.prompt_tokens);
        let prompt = match prompt_tokens {
            // " the" is one token for current tokenizers, and for the emulator, which counts four
            // bytes.
            Some(tokens) => " the".repeat(usize::try_from(tokens.max(1)).unwrap_or(1)),
            None => format!("Count to {number}..."),
        };
        let max_tokens = tokens.map_or(args.max_tokens, |(_, output)| output.max(1));
        let body = body(args, &prompt, max_tokens);
        let exact = prompt_tokens.filter(|_| args.exact).map(|prompt| (prompt, max_tokens));
        Self { target, body: body.to_string(), exact }
    }
}

fn body(args: &LoadArgs, prompt: &str, max_tokens: u64) -> Value {
    let mut body = match args.api {
        Api::Chat => json!({
            "messages": [{ "role": "user", "content": prompt }],
            "temperature": 0,
            "max_tokens": max_tokens,
        }),
        Api::Responses => json!({
            "input": prompt,
            "temperature": 0,
            "max_output_tokens": max_tokens,
            // The service need not store what is never read.
            "store": false,
        }),
        Api::Embeddings => json!({ "input": prompt }),
    };
    if args.grammar == Grammar::V1 || args.api == Api::Responses {
        body["model"] = args.deployment.as_str().into();
    }
    if args.stream {
        body["stream"] = true.into();
        if args.api == Api::Chat {
            // Responses contain usage without asking.
            body["stream_options"] = json!({ "include_usage": true });
        }
    }
    body
}

const A_MINUTE: Duration = Duration::from_secs(60);
