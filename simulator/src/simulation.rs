//! One experiment: its settings, with their defaults.

use std::{ops::Range, time::Duration};

use super::{
    Budget, Hints, Lives, Load, MaxTokens, Neighbour, Outage, Policy, RequestClass, SimReport,
    Sizes, drive,
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

/// Which process a request arrives at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deal {
    /// One after the other.
    #[default]
    RoundRobin,
    /// Any, by the seed.
    Random,
}

impl Simulation {
    /// `load` on a PTU that drains exactly its mean, with a bucket of ten seconds and Standard
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

    /// Simulates this long before anything is measured, so that an empty bucket does not pass for
    /// capacity. Defaults to nothing for a trace, and to a minute for other loads.
    #[must_use]
    pub const fn warm_up(mut self, warm_up: Duration) -> Self {
        self.warm_up = warm_up;
        self
    }

    /// The PTU drains this share of the load's mean (above 0). Defaults to 1.
    #[must_use]
    pub const fn ptu_fraction(mut self, fraction: f64) -> Self {
        self.size = PtuSize::Fraction(fraction);
        self
    }

    /// The PTU drains this share (above 0) of the mean of what a seed has drawn, which in a short run
    /// of bursts is far from the load's own.
    #[must_use]
    pub const fn ptu_fraction_of_drawn(mut self, fraction: f64) -> Self {
        self.size = PtuSize::DrawnFraction(fraction);
        self
    }

    /// The PTU drains so many weighted tokens a second (above 0), whatever the load.
    #[must_use]
    pub const fn ptu_rate(mut self, tokens_per_second: f64) -> Self {
        self.size = PtuSize::Rate(tokens_per_second);
        self
    }

    /// The depth of the PTU's bucket in seconds of its drain. Defaults to 10, as in the
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

    /// How many processes share the PTU, each with layers of its own. Defaults to 1.
    #[must_use]
    pub const fn processes(mut self, processes: usize) -> Self {
        self.plan.processes = processes;
        self
    }

    /// Which process a request arrives at. Defaults to one after the other.
    #[must_use]
    pub const fn deal(mut self, deal: Deal) -> Self {
        self.plan.deal = deal;
        self
    }

    /// Limits Standard: three regions that grant so many tokens a second together, as tokens a
    /// minute each. What counts is the prompt and `max_tokens`, not weighted. By default they never
    /// refuse.
    #[must_use]
    pub const fn standard_rate(mut self, tokens_per_second: f64) -> Self {
        self.plan.standard_rate = Some(tokens_per_second);
        self
    }

    /// Every deployment answers this share of the attempts (0 to 1) with 500, each by a draw of its
    /// own. Defaults to 0. The oracles know no failures.
    #[must_use]
    pub const fn failures(mut self, share: f64) -> Self {
        self.plan.failures = share;
        self
    }

    /// How fast answers are generated, which is when a PTU's estimates are corrected. Defaults to
    /// 200 ms until the first token and 5 ms for each that follows; Standard takes 1.3 times as
    /// long.
    #[must_use]
    pub const fn pace(mut self, pace: Pace) -> Self {
        self.plan.pace = pace;
        self
    }

    /// How long a burst may last before its queue counts as standing, for the policies that
    /// control standing queues. Defaults to 20 s.
    #[must_use]
    pub const fn standing(mut self, interval: Duration) -> Self {
        self.plan.standing = interval;
        self
    }

    /// Takes every header that tells about a wait or a quota from 429s, as gateways do that make
    /// errors of their own.
    #[must_use]
    pub const fn without_hints(mut self) -> Self {
        self.plan.hints = Hints::Missing;
        self
    }

    /// Takes what tells about their cost from answers: `usage` in the body, and the header with a
    /// PTU's utilisation. Event streams whose callers do not ask for usage are like that.
    #[must_use]
    pub const fn without_usage(mut self) -> Self {
        self.plan.usage = false;
        self
    }

    /// What the PTU's refusals say about how long they last. Defaults to the truth.
    #[must_use]
    pub const fn hints(mut self, hints: Hints) -> Self {
        self.plan.hints = hints;
        self
    }

    /// What requests say about the most that their answers may take. Defaults to one to two times the
    /// answer, uniformly.
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

    /// The share of each prompt (0 to 1) that the PTU has in its cache, which costs nothing there.
    /// Defaults to 0.
    #[must_use]
    pub const fn cached(mut self, share: f64) -> Self {
        self.plan.shape.cached = share;
        self
    }

    /// Answers are event streams, which tell their usage unless [told not to](Self::without_usage).
    #[must_use]
    pub const fn streamed(mut self) -> Self {
        self.plan.is_streamed = true;
        self
    }

    /// The time to the PTU and its region and back; the other regions are 30 and 60 ms further away.
    /// Defaults to 30 ms. Each way takes half, give or take a fifth.
    #[must_use]
    pub const fn round_trip(mut self, time: Duration) -> Self {
        self.plan.round_trip = time;
        self
    }

    /// What a refusal of the PTU takes besides the way back, its hint being from the beginning of
    /// that time. Defaults to nothing.
    #[must_use]
    pub const fn refusal_time(mut self, time: Duration) -> Self {
        self.plan.refusal_time = time;
        self
    }

    /// The PTU serves nobody for so long, from `at` on, counted from the beginning of measuring. May
    /// be called for several such times.
    #[must_use]
    pub fn outage(mut self, at: Duration, lasts: Duration, outage: Outage) -> Self {
        self.plan.outages.push(Window { from: at, to: at + lasts, outage });
        self
    }

    /// Another application fills a part of the PTU. The oracles have the PTU to themselves.
    #[must_use]
    pub const fn neighbour(mut self, neighbour: Neighbour) -> Self {
        self.plan.neighbour = Some(neighbour);
        self
    }

    /// The PTU drains so many times its drain from `at` on, counted from the beginning of measuring,
    /// as if units were bought or returned. May be called for several times, in their order.
    #[must_use]
    pub fn resize(mut self, at: Duration, factor: f64) -> Self {
        self.plan.resizes.push((at, factor));
        self
    }

    /// Divides the PTU among up to three resources, by these shares of its drain. The layers have a
    /// pool of them, and each request of the scripts goes to one of them, as often as its share says.
    /// The oracles have one queue for one PTU.
    #[must_use]
    pub fn parts(mut self, shares: impl IntoIterator<Item = f64>) -> Self {
        self.plan.parts = shares.into_iter().collect();
        self
    }

    /// Processes begin and end while the run lasts. By default they live as long as it does.
    #[must_use]
    pub const fn lives(mut self, lives: Lives) -> Self {
        self.plan.lives = Some(lives);
        self
    }

    /// Adds a class of requests, which are dealt to the classes by their shares. By default there are
    /// none. The oracles know of classes how long each may wait.
    #[must_use]
    pub fn class(mut self, class: RequestClass) -> Self {
        self.plan.classes.push(class);
        self
    }

    /// Bounds what policies with a gate may spill. By default nothing does.
    #[must_use]
    pub const fn budget(mut self, budget: Budget) -> Self {
        self.plan.budget = Some(budget);
        self
    }

    /// Runs one policy.
    ///
    /// # Errors
    ///
    /// When a setting cannot work.
    ///
    /// # Panics
    ///
    /// Inside of a tokio runtime: a run has one of its own.
    pub fn run(&self, policy: Policy) -> Result<SimReport, ConfigError> {
        self.watch(policy, |_| ())
    }

    /// Runs one policy and tells how much of it is done, from 0 to 1, about a thousand times.
    ///
    /// # Errors
    ///
    /// When a setting cannot work.
    ///
    /// # Panics
    ///
    /// Inside of a tokio runtime: a run has one of its own.
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

    /// The load, drawn: how many requests, over how long, and their mean in weighted tokens a
    /// second, which [`ptu_fraction`](Self::ptu_fraction) is a share of.
    ///
    /// # Errors
    ///
    /// When a setting of the load cannot work.
    pub fn offered(&self) -> Result<(usize, Duration, f64), ConfigError> {
        let traffic = self.draw()?;
        let measured = traffic.asks.iter().filter(|ask| ask.at >= traffic.from).count();
        Ok((measured, traffic.to - traffic.from, traffic.mean_load))
    }

    /// When the bursts of a [`Load::Bursty`] begin and end, from the beginning of measuring; only
    /// those that end while it lasts.
    ///
    /// # Errors
    ///
    /// When a setting of the load cannot work.
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

    /// Whether others fill the same PTU: processes with layers, or a neighbour.
    pub(super) const fn is_contended(&self) -> bool {
        self.plan.processes > 1 || self.has_neighbour()
    }

    /// Whether one process has layers at a time.
    pub(super) const fn is_alone(&self) -> bool {
        self.plan.processes == 1 && self.plan.lives.is_none()
    }

    fn draw(&self) -> Result<Traffic, ConfigError> {
        self.load.draw(self.seed, self.warm_up, self.length, &self.plan.shape)
    }
}
