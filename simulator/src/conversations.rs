//! Simulates growing conversations over PTUs in several resources, to measure cache affinity.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use rand::{RngExt, rngs::SmallRng};
use serde_json::{Value, json};
use tokio::{runtime::Builder, task::JoinHandle};
use tower::{Layer, ServiceExt};

use super::draws;
use crate::clock;
use spillover_emulator::{Deployment, Emulator, EmulatorBody, Pace, Ptu, Resource, Standard};
use tower_spillover::{
    Backend, BackendPool, ConfigError, RegionRotateLayer, ResponseBody, Served, SmartFallbackLayer,
    sticky::CacheAffinity,
};

/// Conversations in which every request repeats its history, over several resources with one PTU
/// and prompt cache each, and Standard behind them.
///
/// ```
/// use std::time::Duration;
/// use spillover_simulator::Conversations;
/// use tower_spillover::sticky::CacheAffinity;
///
/// # fn main() -> Result<(), tower_spillover::ConfigError> {
/// let busy = Conversations::new(100).ptu_fraction(0.5).length(Duration::from_secs(120));
/// let (anywhere, at_home) = (busy.run(None)?, busy.run(CacheAffinity::Key)?);
/// assert_eq!(anywhere.requests, at_home.requests);
/// assert!(at_home.cached > anywhere.cached);
/// assert!(at_home.spilled_tokens < anywhere.spilled_tokens);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Conversations {
    count: usize,
    resources: usize,
    ptu_fraction: f64,
    max_wait: Duration,
    warm_up: Duration,
    length: Duration,
    seed: u64,
}

/// How the conversations' requests were served. Shares are fractions of one.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConversationReport {
    /// Requests that were measured.
    pub requests: usize,
    /// The share of prompt tokens found in the cache of the serving resource.
    pub cached: f64,
    /// The share of requests that Standard served.
    pub spilled_requests: f64,
    /// The share of weighted tokens that Standard served, which are paid on top of the PTUs.
    pub spilled_tokens: f64,
}

impl Conversations {
    /// `count` concurrent conversations with a mean of 8 turns, 20 s apart on average; a new one
    /// follows each that ends. The first prompt has 1,000 to 2,000 tokens; each turn adds 50 to 350
    /// user tokens and an answer of 50 to 450.
    ///
    /// Defaults: four resources, whose PTUs together drain the mean load as it would be without
    /// caching; ten minutes after two of warm-up; `max_wait` of four seconds; seed 1.
    pub const fn new(count: usize) -> Self {
        Self {
            count,
            resources: 4,
            ptu_fraction: 1.0,
            max_wait: Duration::from_secs(4),
            warm_up: Duration::from_secs(120),
            length: Duration::from_secs(600),
            seed: 1,
        }
    }

    /// The number of resources, with one PTU each (1 to 64). Defaults to 4.
    #[must_use]
    pub const fn resources(mut self, resources: usize) -> Self {
        self.resources = resources;
        self
    }

    /// The drain rate of the PTUs together, as a share of the mean load without caching (above 0).
    /// Defaults to 1.
    #[must_use]
    pub const fn ptu_fraction(mut self, fraction: f64) -> Self {
        self.ptu_fraction = fraction;
        self
    }

    /// The longest that a request may wait for a PTU. Defaults to 4 s.
    #[must_use]
    pub const fn max_wait(mut self, max_wait: Duration) -> Self {
        self.max_wait = max_wait;
        self
    }

    /// Simulates this long before measuring. Defaults to 2 min.
    #[must_use]
    pub const fn warm_up(mut self, warm_up: Duration) -> Self {
        self.warm_up = warm_up;
        self
    }

    /// How long to measure. Defaults to 10 min.
    #[must_use]
    pub const fn length(mut self, length: Duration) -> Self {
        self.length = length;
        self
    }

    /// Seeds every random draw. Defaults to 1.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Runs the conversations. Each request goes first to the resource that `affinity` selects, or
    /// by weight alone. A seed gives the same requests at the same times in every run.
    ///
    /// # Errors
    ///
    /// If a setting is out of range.
    pub fn run(
        &self,
        affinity: impl Into<Option<CacheAffinity>>,
    ) -> Result<ConversationReport, ConfigError> {
        self.check()?;
        let turns = self.turns();
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without sockets needs nothing of the system");
        let _seeded = draws::seed_layers(self.seed);
        runtime.block_on(self.drive(&turns, affinity.into()))
    }

    fn check(&self) -> Result<(), ConfigError> {
        let seconds = self.length.saturating_add(self.warm_up).as_secs_f64();
        for (field, is_good, range) in [
            ("conversations", (1..=100_000).contains(&self.count), "1 to 100000"),
            ("resources", (1..=64).contains(&self.resources), "1 to 64"),
            ("ptu_fraction", (1e-3..=1e3).contains(&self.ptu_fraction), "0.001 to 1000"),
            ("length in seconds", (1.0..=86_400.0).contains(&seconds), "1 to 86400"),
        ] {
            if !is_good {
                return Err(ConfigError::new(field, format!("is out of range: use {range}")));
            }
        }
        Ok(())
    }

    /// All requests, by arrival.
    fn turns(&self) -> Vec<Turn> {
        let until = (self.warm_up + self.length).as_secs_f64();
        let mut turns = Vec::new();
        for slot in 0..self.count {
            let mut draw = draws::generator(self.seed, SLOTS + slot as u64);
            // Start in the middle of a conversation, as if it had begun before the run.
            let mut now = -draw.random_range(0.0..MEAN_TURNS * MEAN_PAUSE_S);
            for serial in 0_u64.. {
                let conversation = (slot as u64) << 32 | serial;
                now = converse(conversation, now, until, &mut draw, &mut turns);
                if now >= until {
                    break;
                }
            }
        }
        turns.sort_by_key(|turn| (turn.at, turn.conversation));
        turns
    }

    async fn drive(
        &self,
        turns: &[Turn],
        affinity: Option<CacheAffinity>,
    ) -> Result<ConversationReport, ConfigError> {
        let from = self.warm_up;
        let measured = || turns.iter().filter(|turn| turn.at >= from);
        let load = measured().map(Turn::cost).sum::<f64>() / self.length.as_secs_f64();
        let rate = load * self.ptu_fraction / self.resources as f64;
        let service = self.stack(affinity)?.layer(self.emulator(rate).service());
        let epoch = clock::now();
        let mut calls: Vec<JoinHandle<Tally>> = Vec::with_capacity(turns.len());
        for turn in turns {
            clock::sleep_until(epoch + turn.at).await;
            let (service, request, turn) = (service.clone(), turn.request(), *turn);
            calls.push(tokio::spawn(async move {
                let answer = service.oneshot(request).await.expect("no fault is scripted");
                Tally::of(&turn, answer).await
            }));
        }
        let mut sum = Tally::default();
        for (call, turn) in calls.into_iter().zip(turns) {
            let tally = call.await.expect("a call does not panic and is not aborted");
            if turn.at >= from {
                sum.add(&tally);
            }
        }
        Ok(sum.report())
    }

    fn emulator(&self, rate: f64) -> Emulator {
        let pace =
            Pace { first_token: Duration::from_millis(200), per_token: Duration::from_millis(5) };
        let resource = |index: usize| {
            Resource::new(name(index))
                .prompt_cache(CACHE_LIFETIME)
                .deployment(Deployment::ptu(PTU, Ptu::new(rate)).pace(pace))
                .deployment(Deployment::standard(STANDARD, Standard::unlimited()).pace(pace))
        };
        Emulator::new((0..self.resources).map(resource)).seed(self.seed)
    }

    fn stack(
        &self,
        affinity: Option<CacheAffinity>,
    ) -> Result<SmartFallbackLayer<RegionRotateLayer, RegionRotateLayer>, ConfigError> {
        let tier = |deployment: &str| {
            let backend = |index| {
                let name = name(index);
                let backend = Backend::new(&*name, format!("https://{name}.openai.azure.com"))?;
                Ok(backend.deployment(deployment).api_key("key"))
            };
            let backends: Result<Vec<_>, ConfigError> = (0..self.resources).map(backend).collect();
            let layer = RegionRotateLayer::new(BackendPool::new(backends?)?);
            Ok(match affinity {
                Some(affinity) => layer.cache_affinity(affinity),
                None => layer,
            })
        };
        Ok(SmartFallbackLayer::new(tier(PTU)?, tier(STANDARD)?).max_wait(self.max_wait))
    }
}

impl ConversationReport {
    /// The figures as a JSON object, with shares as fractions.
    pub fn to_json(&self) -> Value {
        json!({
            "requests": self.requests,
            "cached": self.cached,
            "spilled_requests": self.spilled_requests,
            "spilled_tokens": self.spilled_tokens,
        })
    }
}

/// One request of a conversation.
#[derive(Clone, Copy, Debug)]
struct Turn {
    at: Duration,
    conversation: u64,
    prompt: u64,
    output: u64,
}

impl Turn {
    fn cost(&self) -> f64 {
        self.prompt as f64 + super::load::OUTPUT_WEIGHT * self.output as f64
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let Self { conversation, prompt, output, .. } = self;
        let text = "x".repeat(4 * usize::try_from(*prompt).unwrap_or_default());
        let body = format!(
            r#"{{"messages":[{{"role":"user","content":"{text}"}}],"max_tokens":{},"prompt_cache_key":"{conversation:x}"}}"#,
            output + output / 2
        );
        let path = "/openai/deployments/any/chat/completions?api-version=2024-10-21";
        let mut request = Request::post(path).body(Full::from(body)).expect("its parts are plain");
        let headers = request.headers_mut();
        headers.insert("x-emulator-prompt-tokens", HeaderValue::from(*prompt));
        headers.insert("x-emulator-completion-tokens", HeaderValue::from(*output));
        request
    }
}

/// Generates one conversation from `now` on; returns the time at which it ends.
fn converse(
    conversation: u64,
    mut now: f64,
    until: f64,
    draw: &mut SmallRng,
    turns: &mut Vec<Turn>,
) -> f64 {
    let mut prompt = draw.random_range(1_000..=2_000_u64);
    loop {
        prompt += draw.random_range(50..=350_u64);
        let output = draw.random_range(50..=450_u64);
        if (0.0..until).contains(&now) {
            let at = Duration::from_millis((now * 1e3) as u64);
            turns.push(Turn { at, conversation, prompt, output });
        }
        prompt += output;
        now -= MEAN_PAUSE_S * (1.0 - draw.random::<f64>()).ln();
        if now >= until || draw.random::<f64>() < 1.0 / MEAN_TURNS {
            return now;
        }
    }
}

/// Counts over some of the requests.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    requests: usize,
    spilled: usize,
    prompt: f64,
    cached: f64,
    cost: f64,
    spilled_cost: f64,
}

impl Tally {
    async fn of(turn: &Turn, answer: Response<ResponseBody<EmulatorBody>>) -> Self {
        let spilled = answer.extensions().get().is_some_and(Served::spilled);
        let body = answer.into_body().collect().await.expect("no fault is scripted").to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let cached = body.pointer("/usage/prompt_tokens_details/cached_tokens");
        Self {
            requests: 1,
            spilled: usize::from(spilled),
            prompt: turn.prompt as f64,
            cached: cached.and_then(Value::as_f64).unwrap_or_default(),
            cost: turn.cost(),
            spilled_cost: if spilled { turn.cost() } else { 0.0 },
        }
    }

    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.spilled += other.spilled;
        self.prompt += other.prompt;
        self.cached += other.cached;
        self.cost += other.cost;
        self.spilled_cost += other.spilled_cost;
    }

    fn report(&self) -> ConversationReport {
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        ConversationReport {
            requests: self.requests,
            cached: share(self.cached, self.prompt),
            spilled_requests: share(self.spilled as f64, self.requests as f64),
            spilled_tokens: share(self.spilled_cost, self.cost),
        }
    }
}

fn name(index: usize) -> String {
    format!("contoso-{index}")
}

const PTU: &str = "gpt-4o-ptu";
const STANDARD: &str = "gpt-4o";
/// How long a cache keeps a prompt that is not used again (Azure page "Prompt caching": 5 to 10
/// minutes).
const CACHE_LIFETIME: Duration = Duration::from_secs(8 * 60);
/// The mean number of turns in a conversation; `THINKING` is the mean pause between two turns, in
/// seconds.
const MEAN_TURNS: f64 = 8.0;
const MEAN_PAUSE_S: f64 = 20.0;
const SLOTS: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_figures_and_settings_out_of_range_are_refused() {
        let short = Conversations::new(20)
            .warm_up(Duration::from_secs(5))
            .length(Duration::from_secs(30))
            .ptu_fraction(0.5);
        let run = |seed| short.clone().seed(seed).run(CacheAffinity::Key).expect("good settings");
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert!(short.clone().resources(0).run(None).is_err());
        assert!(short.clone().ptu_fraction(f64::NAN).run(None).is_err());
        assert!(Conversations::new(0).run(None).is_err());
    }
}
