//! The validated settings of a run.

use std::time::Duration;

use super::{
    Budget, Deal, Ending, Hints, Lives, Neighbour, RequestClass,
    draws::{mix, share},
    fleet::StorePlan,
    load::{MaxTokens, Shape, Traffic},
    outage::Window,
};
use spillover_emulator::{Deployment, Emulator, Fault, Pace, Ptu, Resource, Standard};
use tower_spillover::ConfigError;

/// The size of the PTU.
#[derive(Clone, Copy, Debug)]
pub(super) enum PtuSize {
    /// A share of the load's nominal mean.
    Fraction(f64),
    /// A share of the mean of the drawn requests.
    DrawnFraction(f64),
    /// Weighted tokens per second.
    Rate(f64),
}

/// The settings of a run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    /// Weighted tokens per second.
    pub(super) ptu_rate: f64,
    pub(super) bucket_seconds: f64,
    pub(super) max_wait: Duration,
    pub(super) processes: usize,
    pub(super) deal: Deal,
    pub(super) standard_rate: Option<f64>,
    /// The share of attempts that a deployment answers with 500.
    pub(super) failures: f64,
    pub(super) pace: Pace,
    pub(super) standing: Duration,
    /// How refusals state the time to wait.
    pub(super) hints: Hints,
    /// The part of the PTU whose refusals state it differently.
    pub(super) hints_of: Option<(usize, Hints)>,
    /// Whether answers contain usage.
    pub(super) usage: bool,
    pub(super) is_streamed: bool,
    pub(super) shape: Shape,
    /// The round trip to the PTU.
    pub(super) round_trip: Duration,
    /// The share of messages that take longer, and by how much.
    pub(super) stalls: Option<(f64, Duration)>,
    /// Additional time until a refusal of the PTU comes back.
    pub(super) refusal_time: Duration,
    pub(super) outages: Vec<Window>,
    pub(super) neighbour: Option<Neighbour>,
    pub(super) lives: Option<Lives>,
    /// Times from which on the PTU's rate is multiplied by a factor.
    pub(super) resizes: Vec<(Duration, f64)>,
    /// The PTU's parts, one per resource, as shares of its drain rate.
    pub(super) parts: Vec<f64>,
    pub(super) classes: Vec<RequestClass>,
    pub(super) budget: Option<Budget>,
    /// The store that the processes share, if they are a fleet.
    pub(super) store: Option<StorePlan>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            seed: 1,
            ptu_rate: 1.0,
            bucket_seconds: 10.0,
            max_wait: Duration::from_secs(4),
            processes: 1,
            deal: Deal::RoundRobin,
            standard_rate: None,
            failures: 0.0,
            pace: Pace {
                first_token: Duration::from_millis(200),
                per_token: Duration::from_millis(5),
            },
            standing: Duration::from_secs(20),
            hints: Hints::Exact,
            hints_of: None,
            usage: true,
            is_streamed: false,
            shape: Shape::default(),
            round_trip: Duration::from_millis(30),
            stalls: None,
            refusal_time: Duration::ZERO,
            outages: Vec::new(),
            neighbour: None,
            lives: None,
            resizes: Vec::new(),
            parts: vec![1.0],
            classes: Vec::new(),
            budget: None,
            store: None,
        }
    }
}

impl Plan {
    pub(super) fn complete(
        &self,
        seed: u64,
        size: PtuSize,
        traffic: &Traffic,
    ) -> Result<Self, ConfigError> {
        let of = |share, mean| {
            let rate = within("ptu_fraction", share, 1e-3, 1e3)? * mean;
            within("ptu_fraction times the mean load", rate, 1e-3, 1e8)
        };
        let ptu_rate = match size {
            PtuSize::Rate(rate) => within("ptu_rate", rate, 1e-3, 1e8)?,
            PtuSize::Fraction(share) => of(share, traffic.mean_load)?,
            PtuSize::DrawnFraction(share) => of(share, traffic.drawn_load())?,
        };
        within("bucket_seconds", self.bucket_seconds, 1e-3, 86_400.0)?;
        within("processes", self.processes as f64, 1.0, 4_096.0)?;
        within("max_wait in seconds", self.max_wait.as_secs_f64(), 0.0, 86_400.0)?;
        within("standing in seconds", self.standing.as_secs_f64(), 0.1, 86_400.0)?;
        within("cached", self.shape.cached, 0.0, 1.0)?;
        within("cache_hits", self.shape.hits, 0.0, 1.0)?;
        within("round_trip in seconds", self.round_trip.as_secs_f64(), 0.0, 60.0)?;
        within("refusal_time in seconds", self.refusal_time.as_secs_f64(), 0.0, 3_600.0)?;
        if let Some(neighbour) = self.neighbour {
            within("the neighbour's share", neighbour.share, 1e-3, 100.0)?;
        }
        for (_, factor) in &self.resizes {
            within("the factor of a resize", *factor, 1e-3, 1e3)?;
        }
        within("parts of the PTU", self.parts.len() as f64, 1.0, RESOURCES.len() as f64)?;
        within("the sum of the PTU's parts", self.parts.iter().sum(), 0.999, 1.001)?;
        if !self.classes.is_empty() {
            let shares = self.classes.iter().map(|class| class.share).sum();
            within("the sum of the classes' shares", shares, 0.999, 1.001)?;
        }
        within("failures", self.failures, 0.0, 1.0)?;
        if let Some((share, time)) = self.stalls {
            within("the share of messages that stall", share, 0.0, 1.0)?;
            within("the time of a stall in seconds", time.as_secs_f64(), 0.0, 3_600.0)?;
        }
        if let Some((part, _)) = self.hints_of {
            within(
                "the part with hints of its own",
                part as f64,
                0.0,
                (self.parts.len() - 1) as f64,
            )?;
        }
        if let Some(rate) = self.standard_rate {
            within("standard_rate", rate, 1.0, 1e8)?;
        }
        if let Some(store) = self.store {
            within("store_round_trip in seconds", store.round_trip.as_secs_f64(), 0.0, 60.0)?;
            within(
                "the share of processes that do not reach the store",
                store.cut_off.0,
                0.0,
                1.0,
            )?;
            if let Some(every) = store.forgets_every {
                within("store_forgets in seconds", every.as_secs_f64(), 0.1, 86_400.0)?;
            }
        }
        let outages = self.outages.iter().map(|window| window.later(traffic.from)).collect();
        let resizes = self.resizes.iter().map(|(at, factor)| (*at + traffic.from, *factor));
        let later = |(at, lasts)| (at + traffic.from, lasts);
        let store = self.store.map(|it| StorePlan {
            outage: it.outage.map(later),
            cut_off: (it.cut_off.0, traffic.from),
            ..it
        });
        Ok(Self { seed, ptu_rate, outages, resizes: resizes.collect(), store, ..self.clone() })
    }

    /// The number of queues in front of the PTU: one for each process, unless they are a fleet.
    pub(super) fn queues(&self) -> usize {
        if self.store.is_some() { 1 } else { self.processes }
    }

    /// The outage at `now`, which overrides the PTU's level.
    pub(super) fn outage_at(&self, now: Duration) -> Option<&Window> {
        self.outages.iter().find(|window| window.contains(now))
    }

    /// The process that handles request `index`.
    pub(super) fn process(&self, index: usize) -> usize {
        match self.deal {
            Deal::RoundRobin => index % self.processes,
            Deal::Random => {
                (mix(self.seed, &[DEAL, index as u64]) % self.processes as u64) as usize
            }
        }
    }

    /// Whether processes crash.
    pub(super) fn crashes(&self) -> bool {
        self.lives.is_some_and(|lives| lives.ending == Ending::Crashes)
    }

    /// The class of request `index`, if there are classes.
    pub(super) fn class(&self, index: usize) -> Option<&RequestClass> {
        if self.classes.is_empty() {
            return None;
        }
        let mut draw = share(self.seed, &[CLASS, index as u64]);
        let found = self.classes.iter().find(|class| {
            draw -= class.share;
            draw < 0.0
        });
        found.or_else(|| self.classes.last())
    }

    /// The `max_wait` of request `index`.
    pub(super) fn max_wait_of(&self, index: usize) -> Duration {
        self.class(index).map_or(self.max_wait, |class| class.max_wait)
    }

    /// The resource whose PTU a caller without a pool uses for request `index`, chosen in
    /// proportion to the parts.
    pub(super) fn home(&self, index: usize) -> usize {
        if self.parts.len() == 1 {
            return 0;
        }
        let mut draw = share(self.seed, &[HOME, index as u64]);
        let found = self.parts.iter().position(|part| {
            draw -= part;
            draw < 0.0
        });
        found.unwrap_or(0)
    }

    /// One part of the PTU, at `factor` times its drain rate.
    pub(super) fn ptu(&self, part: usize, factor: f64) -> Ptu {
        Ptu::new(self.ptu_rate * self.parts[part] * factor).bucket_seconds(self.bucket_seconds)
    }

    /// The drain rates and the times from which they apply, in weighted tokens per second.
    pub(super) fn rates(&self) -> Vec<(f64, f64)> {
        let rate = |(at, factor): &(Duration, f64)| (at.as_secs_f64(), factor * self.ptu_rate);
        self.resizes.iter().map(rate).collect()
    }

    /// The weighted tokens that the PTU can drain in this span.
    pub(super) fn capacity(&self, from: Duration, to: Duration) -> f64 {
        let (mut since, mut rate, mut tokens) = (from.as_secs_f64(), self.ptu_rate, 0.0);
        let end = (to.as_secs_f64(), 0.0);
        for (at, next) in self.rates().into_iter().chain([end]) {
            let at = at.clamp(from.as_secs_f64(), to.as_secs_f64());
            tokens += rate * (at - since);
            (since, rate) = (at, next);
        }
        tokens
    }

    /// The one-way delay to or from `server`: half its round trip, plus or minus a fifth, the same
    /// for every policy.
    pub(super) fn delay(&self, server: usize, request: usize, leg: u64) -> Duration {
        let jitter = 0.8 + 0.4 * share(self.seed, &[DELAY, request as u64, leg]);
        let usual = ((self.round_trip + FURTHER[region(server)]) / 2).mul_f64(jitter);
        match self.stalls {
            Some((most, time)) if share(self.seed, &[STALL, request as u64, leg]) < most => {
                usual + time
            }
            _ => usual,
        }
    }

    /// How the refusals of `server` state the time to wait.
    pub(super) fn hints(&self, server: usize) -> Hints {
        match self.hints_of {
            Some((part, hints)) if server == ptu_server(part) => hints,
            _ => self.hints,
        }
    }

    /// How long the PTU may stand open while a request waits.
    pub(super) fn open_limit(&self) -> Duration {
        // Allow one round trip for the news that it is open, and one for the attempt.
        if self.round_trip > SHORT_ROUND_TRIP { self.round_trip.mul_f64(2.5) } else { OPEN_LIMIT }
    }

    /// The emulated resources: the first has the PTU and a Standard deployment, two more are in
    /// other regions.
    pub(super) fn emulator(&self) -> Emulator {
        let standard = match self.standard_rate {
            None => Standard::unlimited(),
            Some(rate) => Standard::tokens_per_minute((rate * 60.0 / 3.0) as u64),
        };
        let slower = Pace {
            first_token: self.pace.first_token.mul_f64(1.3),
            per_token: self.pace.per_token.mul_f64(1.3),
        };
        let failing = |deployment: Deployment| match self.failures {
            0.0 => deployment,
            share => deployment.fails(share, Fault::status(500)),
        };
        let assuming = |deployment: Deployment| match self.shape.max_tokens {
            MaxTokens::Unstated(tokens) => deployment.default_max_tokens(tokens),
            _ => deployment,
        };
        let ptu = |part| {
            let ptu = Deployment::ptu(PTU, self.ptu(part, 1.0));
            failing(assuming(ptu).pace(self.pace))
        };
        let regions = RESOURCES.map(|name| {
            let standard = assuming(Deployment::standard(STANDARD, standard)).pace(slower);
            Resource::new(name).deployment(failing(standard))
        });
        let with_ptu = regions.into_iter().enumerate().map(|(index, region)| {
            if index < self.parts.len() { region.deployment(ptu(index)) } else { region }
        });
        Emulator::new(with_ptu).seed(self.seed)
    }
}

/// The server index of the PTU, or of its part, in a region.
pub(super) const fn ptu_server(region: usize) -> usize {
    if region == 0 { PTU_SERVER } else { RESOURCES.len() + region }
}

/// Whether a server is the PTU or a part of it.
pub(super) const fn is_ptu(server: usize) -> bool {
    server == PTU_SERVER || server >= SERVERS
}

/// The region of a server.
const fn region(server: usize) -> usize {
    match server {
        PTU_SERVER => 0,
        1..SERVERS => server - 1,
        _ => server - RESOURCES.len(),
    }
}

fn within(field: &str, value: f64, low: f64, high: f64) -> Result<f64, ConfigError> {
    if (low..=high).contains(&value) {
        return Ok(value);
    }
    Err(ConfigError::new(field, format!("is {value}: use a number from {low} to {high}")))
}

/// Deployment names; the Standard deployment has the same name in every resource.
pub(super) const PTU: &str = "gpt-4o-ptu";
pub(super) const STANDARD: &str = "gpt-4o";
/// The resources; the first one has the PTU too.
pub(super) const RESOURCES: [&str; 3] = ["contoso-east", "contoso-central", "contoso-west"];
/// Server indices: the PTU, then the regions in the order of their resources, then the parts of the
/// PTU in the second and third resource.
pub(super) const PTU_SERVER: usize = 0;
pub(super) const SERVERS: usize = 1 + RESOURCES.len();
/// The additional round trip to each region: the first, one in the same country, and one abroad.
const FURTHER: [Duration; RESOURCES.len()] =
    [Duration::ZERO, Duration::from_millis(30), Duration::from_millis(60)];
/// The limit on the time the PTU may stand open while a request waits, and the round trip up to
/// which it applies.
const OPEN_LIMIT: Duration = Duration::from_millis(500);
const SHORT_ROUND_TRIP: Duration = Duration::from_millis(200);
const CLASS: u64 = 12;
const HOME: u64 = 13;
const DEAL: u64 = 10;
const DELAY: u64 = 11;
const STALL: u64 = 14;
