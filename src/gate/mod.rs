//! Admission control for a PTU: paces requests, queues them, or spills them.

mod core;
pub mod cost;
mod fleet;
mod state;
mod waiter;

#[cfg(all(test, spillover_loom))]
mod loom_model;

use std::{
    fmt, iter,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use http::Request;

pub(crate) use self::{
    core::SpillReason,
    waiter::{Admission, Permit, Place, Waiter},
};
use self::{
    core::{Applicant, Core, Decision, Nanos, RefusedRequest, nanos, seconds},
    cost::{EstimateCost, Head, TokenWeights, Usage},
    fleet::{FleetMember, FleetRefusal, FleetRequest},
    waiter::Tracked,
};
pub use self::{
    core::{Contention, Knowledge},
    state::GateState,
};
use crate::{
    TryCloneBody,
    azure::ScannedBody,
    cooldown::{Closed, CooldownReason, Cooldowns, Load, NextOpen, Traffic, Watch},
    fleet::Fleet,
    random,
    sync::{AtomicBool, Mutex, MutexGuard, clock},
};

/// A model of a PTU and the queue in front of it; clones share both.
///
/// A PTU refuses while its bucket is full, and says for how long. So every refusal is a measurement:
/// the cost admitted between two refusals, divided by the time in which it drained, is the drain rate
/// of the bucket. The gate sums both over the last seconds of drain and paces requests by their
/// quotient: first in, first out, each dispatched as soon as there is room for it.
///
/// - **Prediction.** The wait of an arriving request is predicted from the cost ahead of it and from
///   the more urgent requests that are expected. If it exceeds the request's `max_wait`, the request
///   spills immediately.
/// - **Hints are evidence.** A hint that fits the model is believed. A much longer one is probed
///   until it is confirmed or refuted. A hint that is always the same measures nothing.
/// - **Probes.** A request that is sent too late is not refused, so a model that is too high would
///   never show. A little after each hint the gate makes an attempt ahead of the model. While silence
///   shows that it was admitted, more follow, so that the PTU is not open for more than half a second
///   while requests wait.
/// - **Standing queues.** Waiting in a queue that does not drain saves nothing. It is cut short after
///   an [interval](Self::standing_queue_interval).
/// - **Outages.** If nothing has been admitted for long although attempts were made, requests spill
///   immediately, and one per second probes whether the outage is over.
/// - **Others on the same PTU** are detected by the openings that they take. [`Contention`] sets
///   whether the gate yields to them.
///
/// While the PTU does not refuse, a request passes the gate with one atomic load. From the first
/// refusal until the rate is known, an attempt is made whenever the previous one was not refused, and
/// the queue drains as fast as the PTU admits. [`Gate::state`] reports what the gate currently knows,
/// since when, and why.
///
/// ```
/// use std::time::Duration;
/// use tower_spillover::{Gate, SmartFallbackLayer};
///
/// let gate = Gate::new().standing_queue_interval(Duration::from_secs(10));
/// let layer = SmartFallbackLayer::deployments("gpt-4o-ptu", "gpt-4o")?.gate(gate.clone());
/// assert_eq!(gate.waiting(), 0); // the layer's services report here
/// # drop(layer);
/// # Ok::<(), tower_spillover::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Gate {
    shared: Arc<GateShared>,
}

struct GateShared {
    settings: Settings,
    /// Whether requests must be admitted by `core`, or the primary failed lately. Written only under
    /// the lock of `core`.
    busy: AtomicBool,
    core: Mutex<Core>,
    /// The processes that share the PTU, if the gate is one of a fleet.
    fleet: Option<FleetMember>,
    /// What the primary refuses whatever the level of its bucket: requests that are far too heavy,
    /// and traffic other than tokens of the default service tier; and its failures. In
    /// [`Mode::Shared`], every refusal.
    cooldown: Cooldowns,
    epoch: Instant,
}

#[derive(Clone, Debug)]
struct Settings {
    mode: Mode,
    standing_queue_interval: Option<Duration>,
    contention: Contention,
    estimator: Arc<dyn EstimateCost>,
    /// The fleet's store, and the name of the PTU there.
    fleet: Option<(Fleet, Arc<str>)>,
}

/// The estimated cost of a request, and the estimator that will correct it.
#[derive(Clone, Debug)]
pub(crate) struct WeighedCost {
    pub(crate) cost: f64,
    estimator: Arc<dyn EstimateCost>,
}

impl WeighedCost {
    /// The actual cost of the request, by the same estimator.
    pub(crate) fn actual(&self, usage: &Usage) -> f64 {
        sane(self.estimator.actual(usage))
    }
}

/// A refused attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RefusedAttempt {
    pub(crate) cost: f64,
    pub(crate) rank: u8,
    pub(crate) sent_at: Instant,
    /// When it was refused.
    pub(crate) now: Instant,
    /// How long the primary stays closed.
    pub(crate) closed: Duration,
    /// Whether `closed` is the primary's own hint, not a guess.
    pub(crate) is_measured: bool,
    /// The level reported by the refusal, as a share of the limit.
    pub(crate) utilization: Option<f64>,
    pub(crate) deadline: Instant,
    /// Whether the request has nowhere else to go.
    pub(crate) is_patient: bool,
}

/// The rule that admits requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// The mirrored bucket with its queue.
    #[default]
    Adaptive,
    /// The rule of the reference script, `elapsed + retry_after <= max_wait`, with one record of the
    /// last refusal for all requests.
    Shared,
    /// The rule of the reference script without that record, so that each request meets its own
    /// refusals. For comparison only: under load it costs tens of attempts per success.
    Plain,
}

impl Gate {
    /// An adaptive gate that has learned nothing yet.
    pub fn new() -> Self {
        Self::with(Settings {
            mode: Mode::Adaptive,
            standing_queue_interval: Some(DEFAULT_STANDING_QUEUE_INTERVAL),
            contention: Contention::default(),
            estimator: Arc::new(TokenWeights::new()),
            fleet: None,
        })
    }

    /// The rule that admits requests. Changing a setting resets what the gate has learned.
    #[must_use]
    pub fn mode(self, mode: Mode) -> Self {
        Self::with(Settings { mode, ..self.shared.settings.clone() })
    }

    /// How long a queue may stand before it is cut short: the longest burst to ride out. Defaults to
    /// a minute, or to fifteen times `max_wait` if that is longer. `None` never cuts it: least spill
    /// under bursts, but under sustained overload every request waits for nothing.
    ///
    /// A cut halves the time that a request may wait, again and again while the queue stands. Unless
    /// this is `None`, small requests behind a queue also wait for a smaller share of their time than
    /// large ones, because spilling them costs little.
    #[must_use]
    pub fn standing_queue_interval(self, interval: impl Into<Option<Duration>>) -> Self {
        let standing_queue_interval = interval.into();
        Self::with(Settings { standing_queue_interval, ..self.shared.settings.clone() })
    }

    /// How the gate behaves when others fill the same PTU. Defaults to [`Contention::Yield`].
    #[must_use]
    pub fn contention(self, contention: Contention) -> Self {
        Self::with(Settings { contention, ..self.shared.settings.clone() })
    }

    /// How requests are weighed. Defaults to [`TokenWeights`].
    #[must_use]
    pub fn cost(self, cost: impl EstimateCost) -> Self {
        Self::with(Settings { estimator: Arc::new(cost), ..self.shared.settings.clone() })
    }

    /// Shares the gate with all processes of the `fleet` whose gates have the same `name`: that of the
    /// PTU, for example its host and deployment. Only the [adaptive](Mode::Adaptive) mode shares.
    ///
    /// While the PTU does not refuse, nothing changes: no request calls the store. While it does,
    /// each request asks the store for its turn, so that all processes have one queue and one model,
    /// and the number of attempts does not depend on the number of processes. A request that the
    /// store does not answer within the fleet's [timeout](Fleet::timeout) is admitted by this process
    /// alone, by the store's last answer.
    #[must_use]
    pub fn fleet(self, fleet: &Fleet, name: &str) -> Self {
        let fleet = Some((fleet.clone(), name.into()));
        Self::with(Settings { fleet, ..self.shared.settings.clone() })
    }

    /// What the gate knows of the PTU, since when, and why. `None` in every [mode](Self::mode) but
    /// [`Mode::Adaptive`], the only one that learns.
    pub fn state(&self) -> Option<GateState> {
        if !self.is_adaptive() {
            return None;
        }
        let now = clock::now();
        if let Some(member) = self.deciding(now) {
            return Some(member.state(now));
        }
        let now = self.nanos(now);
        let (evidence, since) = self.lock().evidence(now);
        let lasted = u64::try_from(now.saturating_sub(since)).unwrap_or(0);
        Some(GateState::new(evidence, Duration::from_nanos(lasted)))
    }

    /// How far the PTU is above its limit, in weighted tokens; negative below the limit. `None` while
    /// the level is unknown, as it is when the PTU has spare capacity.
    pub fn level(&self) -> Option<f64> {
        let now = clock::now();
        if let Some(member) = self.deciding(now) {
            return member.level(now);
        }
        let now = self.nanos(now);
        let core = self.lock();
        Some(seconds(core.bucket.closed_for(now)?) * core.bucket.rate()?)
    }

    /// The modelled level as a share of the PTU's limit: 1.016 is 1.6 % above it.
    ///
    /// `None` until refusals that report their utilization (`azure-openai-deployment-utilization`) agree
    /// on the depth of the bucket, and while the [`level`](Self::level) is unknown.
    pub fn utilization(&self) -> Option<f64> {
        let now = self.nanos(clock::now());
        self.lock().bucket.utilization(now)
    }

    /// The learned drain rate of the PTU in weighted tokens per second, if known.
    pub fn rate(&self) -> Option<f64> {
        match self.deciding(clock::now()) {
            Some(member) => member.rate(),
            None => self.lock().bucket.rate(),
        }
    }

    /// Whether a measured drain rate paces requests.
    pub fn is_pacing(&self) -> bool {
        self.is_busy() && self.rate().is_some()
    }

    /// The number of requests of this process that wait for the PTU.
    pub fn waiting(&self) -> usize {
        let member = self.shared.fleet.as_ref();
        self.lock().waiting() + member.map_or(0, FleetMember::waiting)
    }

    /// The rule that admits requests.
    pub fn get_mode(&self) -> Mode {
        self.shared.settings.mode
    }

    /// How the gate behaves when others fill the same PTU.
    pub fn get_contention(&self) -> Contention {
        self.shared.settings.contention
    }

    pub(crate) fn is_adaptive(&self) -> bool {
        self.shared.settings.mode == Mode::Adaptive
    }

    /// Whether requests must be weighed and [admitted](Self::admit), or the primary failed lately.
    pub(crate) fn is_busy(&self) -> bool {
        self.shared.busy.load(Ordering::Relaxed)
    }

    /// Weighs a request.
    pub(crate) fn weigh<B: TryCloneBody>(&self, request: &Request<B>) -> WeighedCost {
        let content = request.body().content();
        let fields = content.as_deref();
        let fields = fields.and_then(|body| ScannedBody::fields(request.extensions(), body));
        let head = Head::new(request.uri(), request.headers()).scanned(fields);
        let shared = &self.shared.settings.estimator;
        let (cost, own) = shared.weigh(&head, content.as_deref());
        WeighedCost { cost: sane(cost), estimator: own.unwrap_or_else(|| Arc::clone(shared)) }
    }

    /// Why a request that must be sent somewhere by `deadline` spills whatever its cost, so that it
    /// need not be weighed; `None` if its cost matters, or a fleet's store decides.
    pub(crate) fn rejects_any(
        &self,
        now: Instant,
        rank: u8,
        deadline: Instant,
    ) -> Option<SpillReason> {
        if self.deciding(now).is_some() {
            return None;
        }
        let (now, deadline) = (self.nanos(now), self.nanos(deadline));
        self.lock().rejects_any(now, rank, deadline)
    }

    /// Admits a request of `cost` that must be sent somewhere by `deadline`.
    pub(crate) fn admit(&self, now: Instant, cost: f64, rank: u8, deadline: Instant) -> Admission {
        if self.deciding(now).is_some() {
            return self.ask(FleetRequest::new(self, (cost, rank), deadline));
        }
        self.admit_alone(now, cost, rank, deadline)
    }

    fn admit_alone(&self, now: Instant, cost: f64, rank: u8, deadline: Instant) -> Admission {
        self.arrive(now, deadline, |core, now, deadline| {
            core.on_arrival(now, &Applicant { cost, rank, deadline })
        })
    }

    /// Admits a request that has nowhere else to go. It waits as long as the PTU reopens by its
    /// `deadline`, at its old `place` if it has one.
    pub(crate) fn admit_patient(
        &self,
        now: Instant,
        cost: f64,
        rank: u8,
        deadline: Instant,
        place: Option<Place>,
    ) -> Admission {
        if self.deciding(now).is_some() {
            let request = FleetRequest::new(self, (cost, rank), deadline);
            return self.ask(request.patient(place.and_then(Place::ticket)));
        }
        let place = place.and_then(Place::key);
        self.arrive(now, deadline, |core, now, deadline| {
            core.on_patient_arrival(now, &Applicant { cost, rank, deadline }, place)
        })
    }

    /// Admits a request that the fleet's store did not answer.
    fn admit_unanswered(&self, now: Instant, request: &FleetRequest) -> Admission {
        if let Some((reopens, rate)) = self.member().seed_alone() {
            let (now, reopens) = (self.nanos(now), self.nanos(reopens));
            self.lock().seed(now, reopens, rate);
        }
        match request.applicant() {
            (cost, rank, deadline, false) => self.admit_alone(now, cost, rank, deadline),
            (cost, rank, deadline, true) => self.arrive(now, deadline, |core, now, deadline| {
                core.on_patient_arrival(now, &Applicant { cost, rank, deadline }, None)
            }),
        }
    }

    fn ask(&self, request: FleetRequest) -> Admission {
        // Its wait is predicted by the answer.
        Admission::Wait(Waiter::of_fleet(self.clone(), request), 0.0)
    }

    /// Whether it belongs to a fleet, whose store did not make this decision.
    pub(crate) fn decided_alone(&self, admission: &Admission) -> bool {
        match admission {
            Admission::Go(permit) => permit.is_alone(),
            Admission::Wait(waiter, _) => waiter.is_alone(),
            // A store takes a while.
            Admission::Spill(_) => self.has_fleet(),
        }
    }

    fn has_fleet(&self) -> bool {
        self.shared.fleet.is_some()
    }

    /// The fleet whose store decides at `now`: while the PTU is busy, whether the store said so or this
    /// process found out while the store was away.
    fn deciding(&self, now: Instant) -> Option<&FleetMember> {
        let member = self.shared.fleet.as_ref().filter(|member| member.is_up())?;
        (member.is_busy(now) || !self.lock().is_idle(self.nanos(now))).then_some(member)
    }

    /// The fleet of a gate whose requests ask a store.
    fn member(&self) -> &FleetMember {
        self.shared.fleet.as_ref().expect("only a gate with a fleet asks its store")
    }

    fn arrive(
        &self,
        at: Instant,
        deadline: Instant,
        decide: impl FnOnce(&mut Core, Nanos, Nanos) -> Decision,
    ) -> Admission {
        let (now, deadline) = (self.nanos(at), self.nanos(deadline));
        let mut core = self.lock();
        if core.is_idle(now) {
            let is_known = self.shared.cooldown.is_noted(0, at);
            let member = self.shared.fleet.as_ref();
            let is_busy = member.is_some_and(|member| member.is_busy(at));
            self.shared.busy.store(is_known || is_busy, Ordering::Relaxed);
            return Admission::Go(Permit::untracked(self));
        }
        match decide(&mut core, now, deadline) {
            Decision::Go(attempt) => {
                // An early attempt moves the next one forward.
                let wakers = core.take_wakers(now);
                drop(core);
                wakers.wake();
                Admission::Go(Permit::tracked(self, Tracked::Alone(self.clone(), attempt)))
            }
            Decision::Wait { place, .. } => {
                let predicted = core.wait_at(now, place);
                Admission::Wait(Waiter::new(self.clone(), place, deadline), predicted)
            }
            Decision::Spill(cause) => Admission::Spill(cause),
        }
    }

    /// An attempt was refused. The request waits again; also returns its predicted wait in seconds.
    ///
    /// # Errors
    ///
    /// If waiting would not help it.
    pub(crate) fn on_refused(
        &self,
        permit: Option<Permit>,
        refusal: &RefusedAttempt,
    ) -> Result<(Waiter, f64), SpillReason> {
        let RefusedAttempt { cost, rank, closed, is_measured, is_patient, .. } = *refusal;
        let (sent_at, now) = (self.nanos(refusal.sent_at), self.nanos(refusal.now));
        let deadline = self.nanos(refusal.deadline);
        let hint = is_measured.then_some(closed);
        let refused = RefusedRequest { hint, deadline, draw: random::share(), is_patient };
        let tracked = permit.and_then(Permit::take);
        if self.shares(tracked.as_ref()) {
            self.shared.on_fleet_closed(refusal.now, closed);
            // The store learns the latency for itself.
            self.lock().bucket.on_refusal_latency(now.saturating_sub(sent_at));
            let attempt = tracked.and_then(Tracked::of_fleet);
            let request = FleetRequest::refused(self, &FleetRefusal::new(refusal, attempt));
            return Ok((Waiter::of_fleet(self.clone(), request), 0.0));
        }
        let attempt = tracked.and_then(Tracked::alone);
        let place = self.update(|core| {
            self.shared.busy.store(true, Ordering::Relaxed);
            let attempt = attempt.unwrap_or_else(|| core.on_untracked_refusal(sent_at, cost, rank));
            if let (Some(share), Some(hint)) = (refusal.utilization, hint) {
                core.bucket.on_refusal_utilization(share, hint);
            }
            let place = core.on_refused(now, &attempt, &refused)?;
            Ok((place, core.wait_at(now, place)))
        });
        place.map(|(place, wait)| (Waiter::new(self.clone(), place, deadline), wait))
    }

    /// Whether the level of the PTU is modelled at `now`, so that requests queue for it.
    pub(crate) fn is_modelling(&self, now: Instant) -> bool {
        let is_shared = self.deciding(now).is_some();
        self.is_adaptive() && (is_shared || !self.lock().is_idle(self.nanos(now)))
    }

    /// How long before the end of its time a request that may spill makes its last attempt at the PTU,
    /// so that a refusal is back in time to spill. Zero before the first refusal.
    pub(crate) fn spill_reserve(&self) -> Duration {
        let reserve = self.lock().bucket.spill_reserve();
        Duration::from_nanos(u64::try_from(reserve).unwrap_or(0))
    }

    /// Whether the fleet's store hears of the refusal of an attempt: unless this process admitted it
    /// alone, and accounts for it.
    fn shares(&self, tracked: Option<&Tracked>) -> bool {
        let is_up = self.shared.fleet.as_ref().is_some_and(FleetMember::is_up);
        is_up && self.is_adaptive() && !matches!(tracked, Some(Tracked::Alone(..)))
    }

    /// A refusal that the fleet's store did not hear of: this process goes by it.
    fn on_refused_alone(&self, sent_at: Instant, cost: f64, rank: u8, hint: Option<Duration>) {
        let (sent_at, now) = (self.nanos(sent_at), self.nanos(clock::now()));
        let refused = RefusedRequest { hint, deadline: now, draw: 0.0, is_patient: true };
        self.update(|core| {
            self.shared.busy.store(true, Ordering::Relaxed);
            let attempt = core.on_untracked_refusal(sent_at, cost, rank);
            // The request returns in its own way.
            if let Ok(place) = core.on_refused(now, &attempt, &refused) {
                core.on_left(place);
            }
        });
    }

    /// Whether the primary fails, so that others are called before it.
    pub(crate) fn is_failing(&self, now: Instant) -> bool {
        self.shared.cooldown.deferred(0, now).is_some()
    }

    /// The permit of a request that is not [admitted](Self::admit), if the primary failed lately.
    pub(crate) fn pass(&self) -> Option<Permit> {
        self.watch().map(Permit::watching)
    }

    /// An attempt at the primary whose outcome shows whether it still fails, if it failed lately.
    fn watch(&self) -> Option<Box<Watch<Self>>> {
        Watch::begin(self, 0, clock::now(), true).ok().flatten().map(Box::new)
    }

    /// Whether any refusal or recent failure of the primary is known.
    pub(crate) fn remembers(&self, now: Instant) -> bool {
        match self.shared.settings.mode {
            Mode::Adaptive => self.is_busy(),
            Mode::Shared | Mode::Plain => self.shared.cooldown.is_noted(0, now),
        }
    }

    /// How much longer the primary is known to refuse `load`.
    pub(crate) fn remembered(&self, now: Instant, load: &dyn Load) -> Option<Duration> {
        if let Some(closed) = self.closed_for(now, load) {
            return Some(closed.said);
        }
        if !self.is_adaptive() || !self.is_busy() || load.traffic() != Traffic::Tokens {
            return None;
        }
        // Guesses are not reported to callers.
        let core = self.lock();
        let now = self.nanos(now);
        let until = core.bucket.refuses_until().filter(|until| *until > now)?;
        u64::try_from(until - now).ok().map(Duration::from_nanos)
    }

    /// The predicted wait of a request of `rank` that arrives now.
    pub(crate) fn predicted_wait(&self, now: Instant, rank: u8) -> Duration {
        if let Some(member) = self.deciding(now) {
            return member.predicted_wait(now, rank);
        }
        let seconds = self.lock().wait_of_newcomer(self.nanos(now), rank);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// When the primary next accepts `load` and why it refuses it, whatever the level of its bucket.
    pub(crate) fn closed_for(&self, now: Instant, load: &dyn Load) -> Option<NextOpen> {
        let next = self.shared.cooldown.next_open(iter::once(0), now, load);
        (!next.left.is_zero()).then_some(next)
    }

    /// Records what the primary refuses, whatever the level of its bucket: for the first of `times`,
    /// and by its own hint for the second.
    pub(crate) fn close(&self, now: Instant, closed: Closed, times: (Duration, Duration)) {
        if self.shared.settings.mode == Mode::Plain {
            return;
        }
        self.shared.cooldown.close(0, closed, now, times, CooldownReason::Refused);
        if self.is_adaptive() {
            let _core = self.lock();
            self.shared.busy.store(true, Ordering::Relaxed);
        }
    }

    fn with(settings: Settings) -> Self {
        let epoch = clock::now();
        let interval = settings.standing_queue_interval;
        let core = Core::new(interval, settings.contention);
        let fleet = settings.fleet.as_ref().filter(|_| settings.mode == Mode::Adaptive);
        let fleet = fleet.map(|(of, name)| FleetMember::new(of.caller(), name, interval, epoch));
        let shared = Arc::new(GateShared {
            settings,
            busy: AtomicBool::new(false),
            core: Mutex::new(core),
            fleet,
            cooldown: Cooldowns::new(1, epoch),
            epoch,
        });
        if let Some(member) = &shared.fleet {
            member.listen(&shared);
        }
        Self { shared }
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        // The state is valid between any two statements, so a panic elsewhere does no harm.
        self.shared.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the core, then wakes the waiters that the change may concern.
    fn update<T>(&self, change: impl FnOnce(&mut Core) -> T) -> T {
        let now = self.nanos(clock::now());
        let (result, wakers) = {
            let mut core = self.lock();
            let result = change(&mut core);
            (result, core.take_wakers(now))
        };
        wakers.wake();
        result
    }

    fn nanos(&self, instant: Instant) -> Nanos {
        nanos(instant.saturating_duration_since(self.shared.epoch))
    }
}

impl AsRef<Cooldowns> for Gate {
    fn as_ref(&self) -> &Cooldowns {
        &self.shared.cooldown
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("settings", &self.shared.settings)
            .field("state", &self.state())
            .field("rate", &self.rate())
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

/// Clamps the result of a custom estimator, which may be anything.
fn sane(cost: f64) -> f64 {
    if cost.is_finite() { cost.clamp(0.0, MAX_COST) } else { 0.0 }
}

/// The table of constants in `core/mod.rs` shows the effect of halving and doubling it.
const DEFAULT_STANDING_QUEUE_INTERVAL: Duration = Duration::from_secs(60);

/// The largest cost of one request, in weighted tokens: sums of it stay exact to a
/// fraction of a token.
const MAX_COST: f64 = 1e12;
