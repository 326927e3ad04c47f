//! The state of one request over two tiers, and where it goes next.

mod account;
mod admission;
mod after_failure;
mod after_refusal;
mod returned_refusal;
mod spill;
mod waiting;
mod why;

use std::{pin::Pin, sync::Arc, time::Instant};

use http::{Request, Response};
use tokio::time::Sleep;

use self::waiting::ColdState;
pub(super) use self::waiting::Race;
use super::{layer::FallbackConfig, spill_budget::ChargeRequest};
use crate::{
    AttemptBudget, Served, TryCloneBody,
    backend::OnConnect,
    classify::{Hint, NativeSpillover, Outcome, Reason, Refusal},
    clock::{self, TICK},
    cooldown::{Load, NextOpen, Traffic, Weight as LoadWeight},
    events::{Event, Source},
    gate::{Admission, Permit, Place, Waiter, WeighedCost},
    overrides::Arrival,
    policy::ClassifyError,
    request_copy::Resends,
    served::Why,
    sticky::TierScope,
    wait::RequestLimits,
};

/// The two tiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tier {
    Primary,
    Fallback,
}

/// What happens to a request next.
pub(super) enum NextStep {
    Send(Tier),
    /// Try again at the time given by the reference rule.
    Sleep(Pin<Box<Sleep>>),
    /// Wait for its turn at the gate.
    Queue(Box<Waiter>),
    /// Wait for the tier that reopens first.
    Race(Box<Race>),
    /// Ask the fleet's store to charge the spill.
    Ask(Box<ChargeRequest>),
    /// Return the refusal to the caller.
    Return,
}

/// One request over two tiers.
pub(super) struct Session {
    config: Arc<FallbackConfig>,
    /// The tiers that it may use, if it is pinned to a resource.
    confined: TierScope,
    /// When the request reached this tier.
    entered: Instant,
    /// Read when first needed.
    limits: Option<RequestLimits>,
    /// Weighed when first needed.
    weight: Option<WeighedCost>,
    /// Read when first needed.
    traffic: Option<Traffic>,
    permit: Option<Permit>,
    refusals: u32,
    /// When the current attempt was chosen, or the current wait began.
    since: Instant,
    /// Until when the primary refuses, as far as this request knows.
    reopens: Instant,
    /// Whether the primary itself stated that time to this request.
    is_measured: bool,
    /// Whether a refusal of the current attempt goes to the caller.
    is_last: bool,
    /// Whether the current attempt follows a wait, and was sent so late that a refusal may not be back
    /// in time to spill.
    is_late: bool,
    is_sent: bool,
    /// Whether the caller has its result.
    is_over: bool,
    /// Whether the fallback is called first, because the primary fails.
    is_reversed: bool,
    /// Whether it is pinned to a resource of the primary.
    is_bound: bool,
    /// Whether the primary forbade retrying this request.
    is_forbidden: bool,
    /// Why it is sent to the fallback or, if it may not be, why a refusal is returned to the caller.
    why: Option<Why>,
    /// Why it waits now.
    why_waits: Option<Why>,
    cold: Option<Box<ColdState>>,
    /// The attempts and waits so far, if there were any.
    served: Option<Box<Served>>,
}

impl Session {
    pub(super) const fn new(
        config: Arc<FallbackConfig>,
        confined: TierScope,
        now: Instant,
    ) -> Self {
        Self {
            config,
            is_bound: confined.to_primary,
            confined,
            entered: now,
            limits: None,
            weight: None,
            traffic: None,
            permit: None,
            refusals: 0,
            since: now,
            reopens: now,
            is_measured: false,
            is_last: false,
            is_late: false,
            is_sent: false,
            is_over: false,
            is_reversed: false,
            is_forbidden: false,
            why: None,
            why_waits: None,
            cold: None,
            served: None,
        }
    }

    /// The first step of a request that arrives now, or returns from a wait.
    pub(super) fn start<B: TryCloneBody>(
        &mut self,
        now: Instant,
        request: &Request<B>,
    ) -> NextStep {
        if self.confined.to_fallback {
            self.why = Some(Why::Sticky);
            return NextStep::Send(Tier::Fallback);
        }
        if self.confined.is_apart {
            // The tier knows whether this resource is closed, the gate does not.
            return NextStep::Send(Tier::Primary);
        }
        // Most requests find the gate open, and are not even weighed.
        if !self.config.gate.remembers(now) {
            return NextStep::Send(Tier::Primary);
        }
        let next = self.start_at_gate(now, request);
        self.or_last_attempt(next)
    }

    /// The first step of a request after the fleet's store was asked what it refers to.
    pub(super) fn after_recall<B: TryCloneBody>(
        &mut self,
        now: Instant,
        request: &mut Request<B>,
    ) -> NextStep {
        let split = self.config.split.as_ref();
        self.confined = split.map(|split| split.confine(request, now)).unwrap_or_default();
        (self.is_bound, self.since) = (self.confined.to_primary, now);
        self.start(now, request)
    }

    /// The first step of a request while the primary is known to refuse something, or failed lately.
    fn start_at_gate<B: TryCloneBody>(&mut self, now: Instant, request: &Request<B>) -> NextStep {
        if let Some(next) = self.fallback_first(now, request) {
            return next;
        }
        let traffic = self.traffic(request);
        if traffic == Traffic::Free {
            // It costs the primary nothing, and may free its capacity.
            self.confined.is_apart = true;
            return NextStep::Send(Tier::Primary);
        }
        if self.is_quota_spent(now) {
            (self.since, self.why) = (now, Some(Why::Quota));
            return self.spill(now, request);
        }
        if let Some(NextOpen { left, said, from, .. }) = self.closed_for(now, request) {
            let limits = *self.limits(request);
            self.why = Some(self.why_closed(left, from, now, &limits));
            return self.decide(Hint::After(left), said, now, request);
        }
        if traffic != Traffic::Tokens || !self.config.gate.is_adaptive() {
            self.permit = self.config.gate.pass();
            return NextStep::Send(Tier::Primary);
        }
        let limits = self.limits(request);
        let (rank, deadline) = (limits.rank, limits.deadline());
        let admission = match self.config.gate.rejects_any(now, rank, deadline) {
            Some(cause) => Admission::Spill(cause),
            None => {
                let cost = self.weigh(request);
                self.config.gate.admit(now, cost, rank, deadline)
            }
        };
        self.note_alone(self.config.gate.decided_alone(&admission));
        self.obey(admission, now, request)
    }

    /// When the primary next accepts the request, and why it refuses it, whatever the level of its
    /// bucket. The request is weighed only if its weight matters.
    fn closed_for<B: TryCloneBody>(
        &mut self,
        now: Instant,
        request: &Request<B>,
    ) -> Option<NextOpen> {
        // It counts as the heaviest until it is weighed.
        let closed = self.config.gate.closed_for(now, &self.load())?;
        if closed.from.is_none() || self.weight.is_some() {
            return Some(closed);
        }
        self.weigh(request);
        self.config.gate.closed_for(now, &self.load())
    }

    /// The step after a sleep.
    pub(super) fn after_sleep<B: TryCloneBody>(
        &mut self,
        now: Instant,
        request: &Request<B>,
    ) -> NextStep {
        self.note_wait(now);
        // Another request may have been refused meanwhile.
        let next = self.start(now, request);
        self.note_late(next, now, request)
    }

    /// It waited at the gate of a fleet, which decided without the fleet's store if it `is_alone`.
    pub(super) fn note_alone(&mut self, is_alone: bool) {
        if is_alone {
            self.served.get_or_insert_with(|| Box::new(Served::new())).set_gate_alone();
        }
    }

    /// The step after `admission` removed it from `place` in the gate's queue.
    pub(super) fn after_queue<B: TryCloneBody>(
        &mut self,
        now: Instant,
        admission: Admission,
        place: Option<Place>,
        request: &Request<B>,
    ) -> NextStep {
        self.note_wait(now);
        if let Admission::Spill(_) = admission {
            self.cold().place = place;
        }
        let next = self.obey(admission, now, request);
        let next = self.note_late(next, now, request);
        self.or_last_attempt(next)
    }

    fn note_wait(&mut self, now: Instant) {
        let waited = now.saturating_duration_since(self.since);
        let why = self.why_waits.take();
        self.served.get_or_insert_with(|| Box::new(Served::new())).add_wait(waited, why);
        self.since = now;
    }

    /// The step instead of an attempt at `tier`, which is ready, if another request has found the
    /// primary closed meanwhile.
    pub(super) fn closed_meanwhile<B: TryCloneBody>(
        &mut self,
        tier: Tier,
        request: &Request<B>,
    ) -> Option<NextStep> {
        // The gate has already admitted it, and a last attempt is always made.
        if tier == Tier::Fallback || self.is_last || self.config.gate.is_adaptive() {
            return None;
        }
        match self.start(clock::now(), request) {
            NextStep::Send(Tier::Primary) => None,
            next => Some(next),
        }
    }

    /// Writes the extensions of `request` that the layers inside `tier` read.
    pub(super) fn prepare<B>(&mut self, tier: Tier, request: &mut Request<B>) {
        let extensions = request.extensions_mut();
        if let Some(limits) = &self.limits
            && self.since > limits.arrival
        {
            // An inner tier must not restart the wait.
            extensions.get_or_insert(Arrival(limits.arrival));
        }
        if let (Tier::Primary, Some(permit)) = (tier, &mut self.permit) {
            if let Some(observe) = self.weight.as_ref().and_then(|weight| permit.observe(weight)) {
                extensions.insert(observe);
            }
            if let Some(act) = permit.on_connect() {
                OnConnect::insert(extensions, act);
            }
        }
        AttemptBudget::count(extensions, self.is_sent);
        self.is_sent = true;
        if tier == Tier::Fallback {
            self.config.events.emit(Source::SmartFallback, Event::Spills(self.why));
            self.on_sent_to_fallback(extensions);
        }
        if tier == Tier::Fallback
            && let Some(mut spills) = self.cold.as_ref().and_then(|cold| cold.spills.clone())
        {
            if let Some(known) = extensions.get() {
                spills = spills.and(known);
            }
            extensions.insert(spills);
        }
    }

    pub(super) fn resends(&self) -> &Resends {
        &self.config.resends
    }

    /// The request is about to be sent, perhaps again.
    pub(super) fn note_resend(&self) {
        if self.is_sent {
            self.config.resends.note(true);
        }
    }

    /// Classifies the answer of a tier that is not a pool by the tier's own rules.
    #[inline]
    pub(super) fn read<R, E>(&self, result: &mut Result<Response<R>, E>) {
        if let Ok(response) = result {
            self.config.rules.apply(response, Served::is_on, clock::wall);
        }
    }

    /// The outcome of an attempt's result.
    #[inline]
    pub(super) fn classify<R, E>(
        &self,
        result: &Result<Response<R>, E>,
        errors: &impl ClassifyError<E>,
    ) -> Outcome {
        match self.config.move_on.classify(result, errors, clock::wall) {
            // Only the inner layer knows whose credential it was.
            Outcome::Misconfigured if !is_known_misconfigured(result) => Outcome::Answered,
            outcome => outcome,
        }
    }

    /// Completes the answer of `tier` for the caller. If the request is not `is_kept`, it could not
    /// have been sent again.
    pub(super) fn answered<R, E>(
        &mut self,
        tier: Tier,
        result: &mut Result<Response<R>, E>,
        is_kept: bool,
    ) {
        if let Some(permit) = self.permit.take() {
            self.settle(tier, permit, result);
        }
        if self.cold.is_some() {
            self.end_attempt(tier, result.as_ref().ok().map(Response::status));
        }
        if result.as_ref().is_ok_and(|response| response.status().is_success()) {
            self.config.move_on.deposit();
        }
        if self.served.is_none() {
            self.config.resends.note(false);
        }
        // Fast path: the inner layer's `Served` already describes this one attempt.
        if self.served.as_ref().is_none_or(|served| served.is_plain())
            && let Ok(response) = result
            && let Some(served) = response.extensions_mut().get_mut::<Served>()
        {
            match tier {
                Tier::Fallback => served.set_spilled(0, self.why),
                Tier::Primary if !is_kept => served.set_unreplayable(),
                Tier::Primary => {}
            }
            self.is_over = true;
            if self.config.events.is_on() {
                self.finished(response.extensions().get(), Some(response.status()));
            }
            return;
        }
        let mut served = match (self.served.take(), &*result) {
            // No inner layer has left an account, which was looked up above.
            (None, Ok(response)) => self.first_account(tier, response.status()),
            (served, _) => {
                let mut served = served.map_or_else(Served::new, |served| *served);
                self.record(&mut served, tier, result, Outcome::Answered);
                served
            }
        };
        if tier == Tier::Primary && result.as_ref().is_ok_and(NativeSpillover::has_served) {
            served.set_spilled_by_azure();
        }
        self.finished(Some(&served), result.as_ref().ok().map(Response::status));
        served.sign(result, is_kept || tier == Tier::Fallback);
    }

    /// The future was dropped: reports that, unless the caller already has its result.
    #[inline]
    pub(super) fn dropped(&self) {
        if !self.is_over && self.config.events.is_on() {
            let served = self.served.as_deref();
            self.config.events.emit_cancelled(Source::SmartFallback, served);
        }
    }

    /// Releases the permit now: the caller may keep the completed future alive.
    pub(super) fn give_up(&mut self) {
        (self.permit, self.cold) = (None, None);
        let served = self.served.take();
        self.finished(served.as_deref(), None);
    }

    /// If there is no refusal to return yet, makes one last attempt and returns its answer.
    fn or_last_attempt(&mut self, next: NextStep) -> NextStep {
        match next {
            NextStep::Return => {
                self.is_last = true;
                NextStep::Send(Tier::Primary)
            }
            next => next,
        }
    }

    /// Whether the primary's quota is known to be used up.
    fn is_quota_spent(&self, now: Instant) -> bool {
        self.config.quota.remaining(0, now).is_some()
    }

    fn limits<B>(&mut self, request: &Request<B>) -> &RequestLimits {
        let FallbackConfig { max_wait, classes, .. } = &*self.config;
        let extensions = request.extensions();
        let find = || RequestLimits::new(*max_wait, classes, extensions, self.entered);
        self.limits.get_or_insert_with(find)
    }

    fn traffic<B: TryCloneBody>(&mut self, request: &Request<B>) -> Traffic {
        *self.traffic.get_or_insert_with(|| request.traffic())
    }

    /// Reads the kind of an unanswered request, even if it cannot be sent again.
    pub(super) fn note_traffic<R, E>(
        &mut self,
        result: &Result<Response<R>, E>,
        request: &impl Load,
    ) {
        let known = || result.as_ref().ok().and_then(Served::traffic_of);
        self.traffic.get_or_insert_with(|| known().unwrap_or_else(|| request.traffic()));
    }

    /// The load of the request. It counts as the heaviest until it is weighed.
    fn load(&self) -> (Traffic, LoadWeight) {
        let weight = self.weight.as_ref().map(|weight| LoadWeight::of(weight.cost));
        (self.traffic.unwrap_or(Traffic::Tokens), weight.unwrap_or(LoadWeight::HEAVIEST))
    }

    fn weigh<B: TryCloneBody>(&mut self, request: &Request<B>) -> f64 {
        self.weight(request).cost
    }

    fn weight<B: TryCloneBody>(&mut self, request: &Request<B>) -> &WeighedCost {
        let weigh = || self.config.gate.weigh(request);
        self.weight.get_or_insert_with(weigh)
    }
}

/// Whether an inner layer found the backend itself to be at fault.
fn is_known_misconfigured<R, E>(result: &Result<Response<R>, E>) -> bool {
    let refusal = result.as_ref().ok().and_then(Refusal::of);
    refusal.is_some_and(|refusal| refusal.reason() == Reason::Misconfigured)
}
