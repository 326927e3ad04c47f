//! One experiment: its settings, with their defaults.

use std::{ops::Range, time::Duration};

use super::{
    Budget, Hints, Lives, Load, MaxTokens, Neighbour, Outage, Policy, RequestClass, SimReport,
    Sizes, drive,
    fleet::StorePlan,
    load::Traffic,
    oracle,
    outage::Window,
    plan::{Plan, PtuSize},
    summary::summarise,
};
use spillover_emulator::Pace;
use tower_spillover::ConfigError;

/// One experiment: a load, a PTU, and the settings that policies share.
#[derive(Clone, Debug)]
pub struct Simulation {
    load: Load,
    seed: u64,
    warm_up: Duration,
    length: Option<Duration>,
    size: PtuSize,
    plan: Plan,
}

/// How requests are assigned to processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deal {
    /// One after the other.
    #[default]
    RoundRobin,
    /// Any, by the seed.
    Random,
}

impl Simulation {
    /// Runs `load` on a PTU that drains exactly its mean, with a bucket of ten seconds and Standard
    /// deployments that never refuse; one process, `max_wait` of four seconds, seed 1.
    pub fn new(load: Load) -> Self {
        let warm_up = if matches!(load, Load::Trace(_)) { 0 } else { 60 };
        Self {
            load,
            seed: 1,
            warm_up: Duration::from_secs(warm_up),
            length: None,
            size: PtuSize::Fraction(1.0),
            plan: Plan::default(),
        }
    }

    /// Seeds everything: arrivals, sizes, delays and the layers' own draws.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Simulates this long, from the first arrival of a trace on. Defaults to all of a trace, and
    /// to 20 minutes of other loads.
    #[must_use]
    pub const fn length(mut self, length: Duration) -> Self {
        self.length = Some(length);
        self
    }

    /// Simulates this long before measuring, so that the empty bucket is not mistaken for capacity.
    /// Defaults to zero for a trace, and to a minute for other loads.
    #[must_use]
    pub const fn warm_up(mut self, warm_up: Duration) -> Self {
        self.warm_up = warm_up;
        self
    }

    /// The PTU's drain rate as a share of the load's mean (above 0). Defaults to 1.
    #[must_use]
    pub const fn ptu_fraction(mut self, fraction: f64) -> Self {
        self.size = PtuSize::Fraction(fraction);
        self
    }

    /// The PTU's drain rate as a share (above 0) of the mean of the drawn requests, which in a
    /// short bursty run differs widely from the load's nominal mean.
    #[must_use]
    pub const fn ptu_fraction_of_drawn(mut self, fraction: f64) -> Self {
        self.size = PtuSize::DrawnFraction(fraction);
        self
    }

    /// The PTU's drain rate in weighted tokens per second (above 0), independent of the load.
    #[must_use]
    pub const fn ptu_rate(mut self, tokens_per_second: f64) -> Self {
        self.size = PtuSize::Rate(tokens_per_second);
        self
    }

    /// The depth of the PTU's bucket in seconds of its drain rate. Defaults to 10, as in the
    /// [emulator](spillover_emulator::Ptu::bucket_seconds).
    #[must_use]
    pub const fn bucket_seconds(mut self, seconds: f64) -> Self {
        self.plan.bucket_seconds = seconds;
        self
    }

    /// The longest that a request may wait for the PTU. Defaults to 4 s, as in the reference
    /// script.
    #[must_use]
    pub const fn max_wait(mut self, max_wait: Duration) -> Self {
        self.plan.max_wait = max_wait;
        self
    }

    /// The number of processes that share the PTU, each with its own layers. Defaults to 1.
    #[must_use]
    pub const fn processes(mut self, processes: usize) -> Self {
        self.plan.processes = processes;
        self
    }

    /// How requests are assigned to processes. Defaults to round robin.
    #[must_use]
    pub const fn deal(mut self, deal: Deal) -> Self {
        self.plan.deal = deal;
        self
    }

    /// Limits Standard: the token rate of three regions together, granted as a limit per minute in
    /// each. Prompt and `max_tokens` count, unweighted. Unlimited by default.
    #[must_use]
    pub const fn standard_rate(mut self, tokens_per_second: f64) -> Self {
        self.plan.standard_rate = Some(tokens_per_second);
        self
    }

    /// Every deployment answers this share of the attempts (0 to 1) with 500, drawn independently.
    /// Defaults to 0. The oracles ignore it.
    #[must_use]
    pub const fn failures(mut self, share: f64) -> Self {
        self.plan.failures = share;
        self
    }

    /// How fast answers are generated, which determines when a PTU's estimates are corrected.
    /// Defaults to 200 ms until the first token and 5 ms per further token; Standard takes 1.3
    /// times as long.
    #[must_use]
    pub const fn pace(mut self, pace: Pace) -> Self {
        self.plan.pace = pace;
        self
    }

    /// How long a burst may last before its queue counts as standing, for the policies that control
    /// standing queues. Defaults to 20 s.
    #[must_use]
    pub const fn standing(mut self, interval: Duration) -> Self {
        self.plan.standing = interval;
        self
    }

    /// Strips every header about a wait or a quota from 429s, like gateways that rewrite errors.
    #[must_use]
    pub const fn without_hints(mut self) -> Self {
        self.plan.hints = Hints::Missing;
        self
    }

    /// Strips usage from answers: `usage` in the body, and the header with a PTU's utilisation.
    /// Event streams without `include_usage` look like this.
    #[must_use]
    pub const fn without_usage(mut self) -> Self {
        self.plan.usage = false;
        self
    }

    /// How the PTU's refusals state the time to wait. Defaults to the exact time.
    #[must_use]
    pub const fn hints(mut self, hints: Hints) -> Self {
        self.plan.hints = hints;
        self
    }

    /// How one [part](Self::parts) of the PTU, by its index, states the time to wait, if not like the
    /// others.
    #[must_use]
    pub const fn hints_of(mut self, part: usize, hints: Hints) -> Self {
        self.plan.hints_of = Some((part, hints));
        self
    }

    /// The `max_tokens` of requests. Defaults to one to two times the answer, uniformly.
    #[must_use]
    pub const fn max_tokens(mut self, max_tokens: MaxTokens) -> Self {
        self.plan.shape.max_tokens = max_tokens;
        self
    }

    /// The sizes of a synthetic load's requests.
    #[must_use]
    pub const fn sizes(mut self, sizes: Sizes) -> Self {
        self.plan.shape.sizes = sizes;
        self
    }

    /// The share of each prompt (0 to 1) that is in the PTU's cache, where it costs nothing.
    /// Defaults to 0.
    #[must_use]
    pub const fn cached(mut self, share: f64) -> Self {
        self.plan.shape.cached = share;
        self
    }

    /// The share of requests (0 to 1) whose prompt is [cached](Self::cached); the others have nothing
    /// in the cache. Defaults to 1.
    #[must_use]
    pub const fn cache_hits(mut self, share: f64) -> Self {
        self.plan.shape.hits = share;
        self
    }

    /// Sends answers as event streams, with usage unless [stripped](Self::without_usage).
    #[must_use]
    pub const fn streamed(mut self) -> Self {
        self.plan.is_streamed = true;
        self
    }

    /// The round trip to the PTU and its region; the other regions take 30 and 60 ms longer.
    /// Defaults to 30 ms. Each way takes half of it, plus or minus a fifth.
    #[must_use]
    pub const fn round_trip(mut self, time: Duration) -> Self {
        self.plan.round_trip = time;
        self
    }

    /// A share (0 to 1) of the messages, either way and to any server, takes this much longer, drawn
    /// independently. None do by default.
    #[must_use]
    pub const fn stalls(mut self, share: f64, time: Duration) -> Self {
        self.plan.stalls = Some((share, time));
        self
    }

    /// Additional time until a refusal of the PTU comes back; its hint counts from the beginning of
    /// that time. Defaults to zero.
    #[must_use]
    pub const fn refusal_time(mut self, time: Duration) -> Self {
        self.plan.refusal_time = time;
        self
    }

    /// An outage of the PTU that begins `at`, counted from the beginning of the measurement. May be
    /// called several times.
    #[must_use]
    pub fn outage(mut self, at: Duration, lasts: Duration, outage: Outage) -> Self {
        self.plan.outages.push(Window { from: at, to: at + lasts, outage });
        self
    }

    /// Another application uses a part of the PTU. The oracles have the PTU to themselves.
    #[must_use]
    pub const fn neighbour(mut self, neighbour: Neighbour) -> Self {
        self.plan.neighbour = Some(neighbour);
        self
    }

    /// Multiplies the PTU's drain rate by `factor` from `at` on, counted from the beginning of the
    /// measurement, as if units were bought or returned. May be called several times, in order.
    #[must_use]
    pub fn resize(mut self, at: Duration, factor: f64) -> Self {
        self.plan.resizes.push((at, factor));
        self
    }

    /// Divides the PTU between up to three resources, by these shares of its drain rate. The layers
    /// pool them; the scripts send each request to one of them, in proportion to the shares. The
    /// oracles have one queue for one PTU.
    #[must_use]
    pub fn parts(mut self, shares: impl IntoIterator<Item = f64>) -> Self {
        self.plan.parts = shares.into_iter().collect();
        self
    }

    /// Processes start and end during the run. By default they live as long as the run.
    #[must_use]
    pub const fn lives(mut self, lives: Lives) -> Self {
        self.plan.lives = Some(lives);
        self
    }

    /// Adds a class of requests; requests are assigned to classes by their shares. There are none
    /// by default. The oracles only apply each class's wait limit.
    #[must_use]
    pub fn class(mut self, class: RequestClass) -> Self {
        self.plan.classes.push(class);
        self
    }

    /// Limits spilling, for policies with a gate. Unlimited by default.
    #[must_use]
    pub const fn budget(mut self, budget: Budget) -> Self {
        self.plan.budget = Some(budget);
        self
    }

    /// The processes are a fleet: those policies that learn share the gate in a store that is this
    /// far away. Without it, each process learns alone.
    #[must_use]
    pub const fn fleet(mut self, store_round_trip: Duration) -> Self {
        self.plan.store = Some(StorePlan::new(store_round_trip));
        self
    }

    /// The store of the fleet does not answer from `at` on, counted from the beginning of the
    /// measurement. Does nothing without a [fleet](Self::fleet).
    #[must_use]
    pub const fn store_outage(mut self, at: Duration, lasts: Duration) -> Self {
        if let Some(store) = &mut self.plan.store {
            store.outage = Some((at, lasts));
        }
        self
    }

    /// How often the store of the fleet loses its data, as if it restarted without it: never by
    /// default. Does nothing without a [fleet](Self::fleet).
    #[must_use]
    pub const fn store_forgets(mut self, every: Duration) -> Self {
        if let Some(store) = &mut self.plan.store {
            store.forgets_every = Some(every);
        }
        self
    }

    /// This share of the processes, from 0 to 1, loses the store of the fleet when the measurement
    /// begins. Does nothing without a [fleet](Self::fleet).
    #[must_use]
    pub const fn store_cut_off(mut self, share: f64) -> Self {
        if let Some(store) = &mut self.plan.store {
            store.cut_off = (share, Duration::ZERO);
        }
        self
    }

    /// Runs one policy.
    ///
    /// # Errors
    /// If a setting is invalid.
    /// When a setting cannot work.
    ///
    /// # Panics
    /// Inside a tokio runtime: a run creates its own.
    /// Inside of a tokio runtime: a run has one of its own.
    pub fn run(&self, policy: Policy) -> Result<SimReport, ConfigError> {
        self.watch(policy, |_| ())
    }

    /// Runs one policy and reports its progress, from 0 to 1, about a thousand times.
    ///
    /// # Errors
    ///
    /// If a setting is invalid.
    ///
    /// # Panics
    ///
    /// Inside a tokio runtime: a run creates its own.
    pub fn watch(
        &self,
        policy: Policy,
        progress: impl FnMut(f64),
    ) -> Result<SimReport, ConfigError> {
        let traffic = self.draw()?;
        let plan = self.plan.complete(self.seed, self.size, &traffic)?;
        let history = match policy {
            Policy::Oracle => oracle::run(&plan, &traffic, false),
            Policy::OracleStanding => oracle::run(&plan, &traffic, true),
            _ => drive::run(&plan, &traffic, policy, progress)?,
        };
        Ok(summarise(policy, &plan, &traffic, &history))
    }

    /// The drawn load: the number of requests, their duration, and their mean in weighted tokens
    /// per second, on which [`ptu_fraction`](Self::ptu_fraction) is based.
    ///
    /// # Errors
    ///
    /// If a setting of the load is invalid.
    pub fn offered(&self) -> Result<(usize, Duration, f64), ConfigError> {
        let traffic = self.draw()?;
        let measured = traffic.asks.iter().filter(|ask| ask.at >= traffic.from).count();
        Ok((measured, traffic.to - traffic.from, traffic.mean_load))
    }

    /// When the bursts of a [`Load::Bursty`] begin and end, counted from the beginning of the
    /// measurement; bursts that outlast it are left out.
    ///
    /// # Errors
    ///
    /// If a setting of the load is invalid.
    pub fn bursts(&self) -> Result<Vec<Range<Duration>>, ConfigError> {
        let traffic = self.draw()?;
        let measured = |burst: &&Range<Duration>| (traffic.from..traffic.to).contains(&burst.end);
        let relative = |burst: &Range<Duration>| {
            burst.start.saturating_sub(traffic.from)..burst.end - traffic.from
        };
        Ok(traffic.bursts.iter().filter(measured).map(relative).collect())
    }

    pub(super) const fn has_neighbour(&self) -> bool {
        self.plan.neighbour.is_some()
    }

    /// Whether others use the same PTU: further processes, or a neighbour.
    pub(super) const fn is_contended(&self) -> bool {
        self.plan.processes > 1 || self.has_neighbour()
    }

    /// Whether at most one process runs at a time.
    pub(super) const fn is_alone(&self) -> bool {
        self.plan.processes == 1 && self.plan.lives.is_none()
    }

    fn draw(&self) -> Result<Traffic, ConfigError> {
        self.load.draw(self.seed, self.warm_up, self.length, &self.plan.shape)
    }
}
