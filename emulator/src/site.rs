//! A deployment in operation: its quota, its script, its counters.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::HeaderValue;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::{
    Counts, Deployment, Fault, Pace, Ptu, Refusal, Standard,
    ask::{Ask, TokenCost},
    clock::Clock,
    deployment::Capacity,
    ptu::Bucket,
    standard::{Reading, Windows},
    tier::{Tier, TierError, Tiers},
};

/// A deployment in operation.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) name_header: Option<HeaderValue>,
    pub(crate) model: String,
    /// The model's name as a JSON string, quotes included.
    pub(crate) model_json: Arc<str>,
    pub(crate) pace: Pace,
    pub(crate) default_max_tokens: u64,
    pub(crate) spillover: Option<String>,
    pub(crate) hides_throttles: bool,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) filters_prompts: bool,
    failures: Vec<(f64, Fault)>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    quota: Quota,
    tiers: Tiers,
    media: Windows,
    script: VecDeque<Fault>,
    counts: Counts,
    draw: SmallRng,
    /// Separate from `draw`, so that failures do not change answer lengths.
    failure_draw: SmallRng,
}

#[derive(Debug)]
enum Quota {
    Ptu(Bucket),
    Standard(Windows),
}

/// The values of an answer's quota headers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Gauge {
    Utilization(f64),
    Windows { tokens: Option<Reading>, requests: Option<Reading> },
}

impl Gauge {
    fn of(windows: &Windows, now: Duration) -> Self {
        Self::Windows { tokens: windows.tokens(now), requests: windows.requests(now) }
    }
}

/// The quota's decision on a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict {
    /// At this cost, by this tier.
    Admitted(TokenCost, Tier),
    /// The deployment does not have this tier.
    NoTier(Tier),
    /// For this long, and why.
    Refused(Duration, Refusal),
}

impl Site {
    pub(crate) fn new(deployment: Deployment) -> Self {
        let quota = match deployment.capacity {
            Capacity::Ptu(ptu) => Quota::Ptu(Bucket::new(ptu)),
            Capacity::Standard(standard) => Quota::Standard(Windows::new(standard)),
        };
        Self {
            name_header: HeaderValue::from_str(&deployment.name).ok(),
            name: deployment.name,
            model_json: serde_json::Value::from(deployment.model.as_str()).to_string().into(),
            model: deployment.model,
            pace: deployment.pace,
            default_max_tokens: deployment.default_max_tokens,
            spillover: deployment.spillover,
            hides_throttles: deployment.hides_throttles,
            keepalive: deployment.keepalive,
            filters_prompts: deployment.filters_prompts,
            failures: deployment.failures,
            state: Mutex::new(State {
                quota,
                media: Windows::new(match deployment.media_per_minute {
                    Some(requests) => Standard::unlimited().requests_per_minute(requests),
                    None => Standard::unlimited(),
                }),
                tiers: Tiers::new(deployment.flex, deployment.priority),
                script: VecDeque::new(),
                counts: Counts::default(),
                draw: SmallRng::seed_from_u64(0),
                failure_draw: SmallRng::seed_from_u64(0),
            }),
        }
    }

    /// Counts an attempt and takes its scripted fault, or draws one.
    pub(crate) fn arrive(&self) -> Option<Fault> {
        let mut state = self.lock();
        state.counts.attempts += 1;
        if self.failures.is_empty() {
            return state.script.pop_front();
        }
        // Draw for every attempt, so that a script does not shift later failures.
        let draw = state.failure_draw.random();
        state.script.pop_front().or_else(|| fault_at(&self.failures, draw))
    }

    /// Counts an attempt that already has a fault.
    pub(crate) fn arrive_spoiled(&self) {
        self.lock().counts.attempts += 1;
    }

    /// Applies the quota to a request.
    pub(crate) fn admit(&self, clock: Clock, ask: &Ask) -> (Verdict, Gauge) {
        let mut state = self.lock();
        // Read under the lock, so that requests agree on the order of time.
        let now = clock.now();
        let mut cost = TokenCost {
            prompt: ask.prompt,
            cached: ask.cached,
            max_completion: ask.max_completion,
            completion: 0,
        };
        if ask.media {
            let verdict = match state.media.admit(now, 0) {
                Ok(()) => {
                    state.counts.admitted += 1;
                    Verdict::Admitted(cost, Tier::Default)
                }
                Err((wait, refusal)) => Verdict::Refused(wait, refusal),
            };
            return (verdict, Gauge::of(&state.media, now));
        }
        let asked = ask.tier.unwrap_or(Tier::Default);
        let tokens = cost.prompt.saturating_add(cost.max_completion);
        let tier = match state.tiers.admit(now, asked, tokens) {
            Ok(tier) => tier,
            Err(error) => {
                let verdict = match error {
                    TierError::Missing(tier) => Verdict::NoTier(tier),
                    TierError::Refused(wait, refusal) => Verdict::Refused(wait, refusal),
                };
                return (verdict, state.quota.gauge(now));
            }
        };
        let outcome = match &mut state.quota {
            Quota::Ptu(bucket) => {
                let estimate = bucket.ptu().cost(&cost, cost.max_completion);
                bucket.admit(now, estimate).map_err(|wait| (wait, Refusal::Utilization))
            }
            Quota::Standard(windows) => windows.admit(now, tokens),
        };
        let gauge = state.quota.gauge(now);
        let verdict = match outcome {
            Ok(()) => {
                cost.completion = match ask.exact {
                    Some(exact) => exact,
                    None if ask.longest == 0 => 0,
                    None => state.draw.random_range(1..=ask.longest),
                };
                state.counts.admitted += 1;
                state.counts.prompt_tokens = state.counts.prompt_tokens.saturating_add(cost.prompt);
                Verdict::Admitted(cost, tier)
            }
            Err((wait, refusal)) => Verdict::Refused(wait, refusal),
        };
        (verdict, gauge)
    }

    /// Counts a request that failed before the quota was applied: it uses one request of a Standard
    /// deployment's quota, and none of a PTU's.
    pub(crate) fn count_unserved(&self, clock: Clock) -> Gauge {
        let mut state = self.lock();
        let now = clock.now();
        if let Quota::Standard(windows) = &mut state.quota {
            let _ = windows.admit(now, 0);
        }
        state.quota.gauge(now)
    }

    /// Corrects the estimate of an admitted request by its actual cost.
    pub(crate) fn settle(&self, now: Duration, cost: &TokenCost, generated: u64, complete: bool) {
        let mut state = self.lock();
        if let Quota::Ptu(bucket) = &mut state.quota {
            let ptu = *bucket.ptu();
            bucket.add(now, ptu.cost(cost, generated) - ptu.cost(cost, cost.max_completion));
        }
        let counts = &mut state.counts;
        counts.completion_tokens = counts.completion_tokens.saturating_add(generated);
        counts.abandoned += u64::from(!complete);
    }

    pub(crate) fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.lock().counts);
    }

    pub(crate) fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.lock().script.extend(faults);
    }

    /// The PTU level in tokens; `None` for Standard.
    pub(crate) fn level(&self, clock: Clock) -> Option<f64> {
        match &self.lock().quota {
            Quota::Ptu(bucket) => Some(bucket.level(clock.now())),
            Quota::Standard(_) => None,
        }
    }

    /// Changes a PTU's capacity; a Standard deployment keeps its quota.
    pub(crate) fn resize(&self, clock: Clock, ptu: Ptu) {
        if let Quota::Ptu(bucket) = &mut self.lock().quota {
            bucket.resize(clock.now(), ptu);
        }
    }

    /// How long a PTU will refuse, assuming no admissions or corrections; zero for Standard.
    pub(crate) fn closed_for(&self, clock: Clock) -> Duration {
        match &self.lock().quota {
            Quota::Ptu(bucket) => bucket.closed_for(clock.now()),
            Quota::Standard(_) => Duration::ZERO,
        }
    }

    /// How long a Standard deployment has had quota: since its window began, unless the quota is
    /// used up.
    pub(crate) fn open_for(&self, clock: Clock) -> Option<Duration> {
        let Gauge::Windows { tokens, requests } = self.lock().quota.gauge(clock.now()) else {
            return None;
        };
        let open = |reading: Reading| {
            (reading.remaining > 0).then(|| reading.period.saturating_sub(reading.reset))
        };
        [tokens, requests].into_iter().flatten().map(open).min().unwrap_or(Some(Duration::MAX))
    }

    pub(crate) fn is_ptu(&self) -> bool {
        matches!(self.lock().quota, Quota::Ptu(_))
    }

    /// The reason for a refusal if no other is given.
    pub(crate) fn usual_refusal(&self) -> Refusal {
        if self.is_ptu() { Refusal::Utilization } else { Refusal::Tokens }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.lock().counts
    }

    pub(crate) fn reseed(&self, seed: u64) {
        let mut state = self.lock();
        state.draw = SmallRng::seed_from_u64(seed);
        state.failure_draw = SmallRng::seed_from_u64(!seed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Selects the fault whose share of 0 to 1 contains the draw.
fn fault_at(failures: &[(f64, Fault)], mut draw: f64) -> Option<Fault> {
    for (share, fault) in failures {
        if draw < *share {
            return Some(fault.clone());
        }
        draw -= share;
    }
    None
}

impl Quota {
    fn gauge(&self, now: Duration) -> Gauge {
        match self {
            Self::Ptu(bucket) => Gauge::Utilization(bucket.utilization(now)),
            Self::Standard(windows) => Gauge::of(windows, now),
        }
    }
}
