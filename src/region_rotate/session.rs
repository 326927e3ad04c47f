//! The state of one request over a pool: where it was sent, and where it goes next.

mod account;
mod after_failure;
mod after_refusal;
mod again;
mod as_default;
mod pause;
mod spills;
mod twin;
mod unnameable;
mod why;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use http::{Extensions, Request, Response, StatusCode};

use self::again::Again;
use super::{layer::RotateConfig, load_reading::LoadReading};
use crate::{
    AttemptBudget, BackendPool, ResponseBody, Served, TryCloneBody,
    backend::{
        OnConnect, PreparedBackend, RequestReading, TokenError, TokenFuture, TriedSet, Unnameable,
    },
    body::{Admitted, Observer, UsageSinks},
    classify::{Outcome, Refusal, RefusedSpill},
    clock,
    cooldown::{ClosedUntil, Cooldowns, Failure, Load, Traffic, Watch},
    events::Source,
    policy::{AfterClose, ClassifyError, SentAgain},
    request_copy::Resends,
    served::Account,
    sticky::Routing,
    twin::Twin,
};

/// One request over a pool.
pub(super) struct Session {
    config: Arc<RotateConfig>,
    draw: u64,
    arrival: Instant,
    /// Backends that were tried, and those that would answer the same.
    tried: TriedSet,
    /// The index of the backend that was chosen last.
    backend: usize,
    /// When it was chosen.
    since: Instant,
    /// Its bearer token, if it has one.
    token: Option<TokenFuture>,
    is_sent: bool,
    /// Whether the caller has its result.
    is_over: bool,
    /// What was read of the request to address it.
    reading: RequestReading,
    /// What was read of it to determine whether a refusal applies to it.
    load: LoadReading,
    /// Set when an outer gate admitted this request: its estimate overrides our cooldowns.
    is_admitted: bool,
    /// The attempts so far, without the current one.
    served: Account,
    /// Where the request belongs, if that matters.
    routing: Option<Box<Routing>>,
    /// Reports the usage of the answer to its subscribers.
    observer: Option<Box<Observer>>,
    cold: Option<Box<ColdState>>,
}

/// Rarely needed state, boxed to keep the future small.
#[derive(Default)]
struct ColdState {
    /// The attempt budget shared by all layers.
    budget: Option<AttemptBudget>,
    /// This sending, if the request may be sent twice.
    twin: Option<Twin>,
    /// Set if the backend of the current attempt failed lately.
    watch: Option<Watch<BackendPool>>,
    /// Whether the budget prevented a move after a failure.
    is_unaffordable: bool,
    /// Backends that failed this request.
    failed: TriedSet,
    /// Those of them that could not be connected to, since the last pause.
    unreached: Vec<usize>,
    /// How often the request paused to retry those.
    pauses: u32,
    /// Those of them whose failure counts once another backend answers.
    suspects: Vec<Suspect>,
    /// Set if the request is to be sent to the same backend again, if possible: with another token,
    /// or because it was not processed.
    again: Option<Again>,
    /// The backends to which it was sent again, by reason.
    sent_again: [TriedSet; 3],
    /// How many backends forbade a retry.
    forbidding: usize,
    /// When the first backend reopens that refused an operation without cost.
    reopens: Option<Instant>,
    /// The refusal known of the backend to which a gate admitted the request nevertheless.
    closed: Option<(usize, Traffic, ClosedUntil)>,
    /// Standard deployments that refused what Azure spilled to them.
    spills: Vec<RefusedSpill>,
}

/// A backend that failed a request, with the failure that counts if the request was not at fault.
type Suspect = (usize, Option<Watch<BackendPool>>, Failure);

impl ColdState {
    /// Writes the extensions that inner layers read. `is_sent`: the request was sent before.
    fn extend(&self, extensions: &mut Extensions, is_sent: bool) {
        if self.budget.is_some() {
            AttemptBudget::count(extensions, is_sent);
        }
        if let Some(Again::Unprocessed | Again::Closed) = self.again {
            extensions.insert(SentAgain);
        }
        if let Some(act) = self.watch.as_ref().and_then(Watch::on_connect) {
            OnConnect::insert(extensions, act);
        }
    }
}

impl Session {
    pub(super) fn new(
        config: Arc<RotateConfig>,
        routing: Option<Box<Routing>>,
        now: Instant,
        draw: u64,
    ) -> Self {
        Self {
            config,
            draw,
            arrival: now,
            tried: TriedSet::default(),
            backend: 0,
            since: now,
            token: None,
            is_sent: false,
            is_over: false,
            reading: RequestReading::default(),
            load: LoadReading::default(),
            is_admitted: false,
            served: Account::default(),
            routing,
            observer: None,
            cold: None,
        }
    }

    /// Reads what outer layers left in the request's extensions.
    pub(super) fn heed(&mut self, overrides: &Extensions) {
        if overrides.is_empty() {
            return;
        }
        self.is_admitted = overrides.get::<Admitted>().is_some();
        if let Some(budget) = overrides.get() {
            self.count_attempts(budget, overrides);
        }
        self.leave_out(overrides);
    }

    /// Finds where `request` belongs, if that was not known when it arrived.
    pub(super) fn route<B: TryCloneBody>(&mut self, now: Instant, request: &mut Request<B>) {
        self.routing = self.config.routing.route(&self.config.pool, request, now);
    }

    /// Chooses the next backend, and records it as tried; returns whether there is one.
    pub(super) fn choose(&mut self, now: Instant, request: &dyn Load) -> bool {
        let backend = loop {
            let may_go_on = self.may_go_on(self.served.attempts().len());
            let Some((backend, is_last)) = may_go_on.then(|| self.next(now, request)).flatten()
            else {
                match self.closed_to_ask(request) {
                    Some(backend) => {
                        let traffic = self.load.of(request).traffic();
                        let cooldowns: &Cooldowns = self.config.pool.as_ref();
                        let closed = cooldowns.closed(backend, traffic);
                        self.cold().closed = Some((backend, traffic, closed));
                        break backend;
                    }
                    None => return false,
                }
            };
            match Watch::begin(&self.config.pool, backend, now, is_last) {
                Ok(None) => self.drop_watch(),
                Ok(Some(watch)) => self.cold().watch = Some(watch),
                // Another request was faster; this one may no longer use it.
                Err(_) => continue,
            }
            break backend;
        };
        self.backend = backend;
        self.since = now;
        self.tried.insert(backend);
        self.token = self.config.pool.member(backend).token();
        true
    }

    /// Whether the token of the chosen backend is available, if it needs one.
    pub(super) fn has_token(&self) -> bool {
        self.token.as_ref().is_none_or(TokenFuture::is_ready)
    }

    /// Fetches the token of the chosen backend, if it needs one.
    pub(super) fn poll_token(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TokenError>> {
        if let Some(token) = self.token.as_mut().filter(|token| !token.is_ready()) {
            let fetched = ready!(Pin::new(token).poll(cx))?;
            self.token = Some(TokenFuture::ready(fetched));
        }
        Poll::Ready(Ok(()))
    }

    /// Records that the token of the chosen backend could not be obtained. Returns the status to
    /// answer with if no other backend is left.
    pub(super) fn without_token(&mut self, now: Instant) -> StatusCode {
        // A backend that refused is worth a retry, whatever happened to this one.
        let status = match self.served.is_throttled() {
            true => StatusCode::TOO_MANY_REQUESTS,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        self.note(None, Outcome::Failed, None);
        self.failed(now, Failure::Token);
        status
    }

    /// Whether another request has found the chosen backend closed since it was chosen, and when it
    /// was chosen. The request was not sent then.
    pub(super) fn closed_meanwhile(&mut self, request: &dyn Load) -> Option<Instant> {
        if self.is_admitted {
            return None;
        }
        let now = clock::now();
        if !self.config.pool.refuses(self.backend, now, &self.load.of(request)) {
            return None;
        }
        self.drop_watch();
        self.tried.remove(self.backend);
        Some(now)
    }

    /// Whether the request may be sent again after the coming attempt: to another backend, as one of
    /// the default service tier, or to this one with another token or if it `may_be_unprocessed`.
    pub(super) fn may_be_sent_again(&self, may_be_unprocessed: bool, request: &dyn Load) -> bool {
        let attempts = self.served.attempts().len() + 1;
        self.may_go_on(attempts)
            || ((may_be_unprocessed || self.token.is_some()) && self.may_attempt(attempts))
            || self.may_become_default(request)
    }

    /// Addresses `request` to the chosen backend, with its credential.
    pub(super) fn address<B: TryCloneBody>(
        &mut self,
        request: &mut Request<B>,
    ) -> Result<(), Unnameable> {
        let token = self.token.as_ref().and_then(TokenFuture::get_ready).cloned();
        self.config.pool.member(self.backend).address(request, token, &mut self.reading)?;
        if !request.extensions().is_empty()
            && let Some(sinks) = UsageSinks::take(request.extensions_mut())
        {
            // The request's copy has them too, so an earlier attempt may have created the observer.
            self.observer.get_or_insert_with(|| Box::new(Observer::new(Some(sinks))));
        }
        if let Some(cold) = &self.cold {
            cold.extend(request.extensions_mut(), self.is_sent);
            self.begin_beside_twin();
        }
        self.is_sent = true;
        Ok(())
    }

    pub(super) fn resends(&self) -> &Resends {
        &self.config.resends
    }

    /// The request is about to be sent, perhaps again.
    pub(super) fn note_resend(&self) {
        if self.served.attempts().len() == 1 {
            self.config.resends.note(true);
        }
    }

    /// Classifies the answer of the chosen backend by the rules of its provider.
    #[inline]
    pub(super) fn read<R, E>(&self, result: &mut Result<Response<R>, E>) {
        if let Ok(response) = result
            && response.status().as_u16() >= 400
        {
            self.member().rules().apply(response, Served::is_on, clock::wall);
        }
    }

    /// The outcome of an attempt's result.
    #[inline]
    pub(super) fn classify<R, E>(
        &self,
        result: &Result<Response<R>, E>,
        errors: &impl ClassifyError<E>,
    ) -> Outcome {
        match result {
            Err(error) if self.was_unprocessed(error, errors).is_some() => Outcome::Failed,
            Err(_) if self.is_after_close() => {
                self.config.move_on.classify(result, &AfterClose(errors), clock::wall)
            }
            result => match self.config.move_on.classify(result, errors, clock::wall) {
                Outcome::Misconfigured if self.member().is_callers() => Outcome::Answered,
                outcome => outcome,
            },
        }
    }

    /// The chosen backend's answer, for the caller. If the request is not `is_kept`, it could not
    /// have been sent again.
    pub(super) fn answered<R, E>(
        &mut self,
        result: Result<Response<R>, E>,
        is_kept: bool,
    ) -> Result<Response<ResponseBody<R>>, E> {
        let mut result = match result {
            Ok(response) if response.status().is_success() && self.is_plain(is_kept) => {
                return Ok(self.served_at_once(response));
            }
            result => result,
        };
        let mut outcome = Outcome::Answered;
        if self.served.attempts().len() == 0 {
            self.config.resends.note(false);
        }
        match &result {
            Ok(response) if !response.status().is_server_error() => {
                self.settle(response.status().is_success(), clock::now);
            }
            // It does not move the request, but does not prove the backend healthy either.
            _ => self.drop_watch(),
        }
        if let Ok(response) = &result {
            if response.status().is_success() {
                self.config.move_on.deposit();
                self.reopen();
            } else {
                // Only these may say that the request is too long.
                if matches!(
                    response.status(),
                    StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE
                ) {
                    outcome = Outcome::of_response(response, clock::wall);
                }
                self.note_spill(self.since, outcome, response);
            }
        }
        self.record(&mut result, outcome);
        if !result.as_ref().is_ok_and(|response| response.status().is_success()) {
            self.end_beside_twin();
            if let Ok(response) = &mut result {
                if self.member().is_callers() {
                    Refusal::absolve(response.extensions_mut());
                }
                self.hand_on_spills(response);
            }
        }
        self.sign(result, is_kept)
    }

    /// A backend that served a request admitted by a gate is open, whatever it said before.
    fn reopen(&mut self) {
        if let Some((backend, traffic, seen)) =
            self.cold.as_mut().and_then(|cold| cold.closed.take())
            && backend == self.backend
        {
            let cooldowns: &Cooldowns = self.config.pool.as_ref();
            cooldowns.reopen(backend, traffic, seen);
        }
    }

    /// The future was dropped: reports that, unless the caller already has its result.
    #[inline]
    pub(super) fn dropped(&self) {
        if !self.is_over && self.config.events.is_on() {
            self.config.events.emit_cancelled(Source::RegionRotate, Some(&self.served));
        }
    }

    /// Nothing more comes of the request: the service cannot be readied.
    pub(super) fn give_up(&mut self) {
        self.drop_watch();
        self.finished(None);
    }

    /// The chosen backend.
    fn member(&self) -> &PreparedBackend {
        self.config.pool.member(self.backend)
    }

    fn open(&self, now: Instant, request: &dyn Load) -> Option<usize> {
        let (pool, load) = (&self.config.pool, &self.load.of(request));
        match &self.routing {
            None => pool.choose(&self.tried, now, self.draw, load),
            Some(routing) => routing.choose(pool, &self.tried, now, self.draw, load),
        }
    }

    /// An open backend, or else a failing one as the last resort.
    fn next(&self, now: Instant, request: &dyn Load) -> Option<(usize, bool)> {
        if let Some(backend) = self.open(now, request) {
            return Some((backend, false));
        }
        let (pool, load) = (&self.config.pool, &self.load.of(request));
        let backend = match &self.routing {
            None => pool.last_resort(&self.tried, now, self.draw, load),
            Some(routing) => routing.last_resort(pool, &self.tried, now, self.draw, load),
        };
        backend.map(|backend| (backend, true))
    }

    /// If all refuse, the backend that reopens first.
    fn first_to_open(&self, request: &dyn Load) -> Option<usize> {
        let (pool, load) = (&self.config.pool, &self.load.of(request));
        match &self.routing {
            None => pool.first_to_open(&self.tried, load),
            Some(routing) => routing.first_to_open(pool, &self.tried, load),
        }
    }

    /// Whether the request may go to this backend, open or not.
    fn admits(&self, index: usize) -> bool {
        self.routing.as_ref().is_none_or(|routing| routing.admits(&self.config.pool, index))
    }

    /// The closed backend that the request may try: an outer gate admitted it to probe whether one is
    /// open, and none has refused it yet.
    fn closed_to_ask(&self, request: &dyn Load) -> Option<usize> {
        let attempts = self.served.attempts().len();
        let may_ask = self.is_admitted
            && !self.served.is_throttled()
            && (attempts == 0 || self.may_go_on(attempts));
        may_ask.then(|| self.first_to_open(request)).flatten()
    }

    /// Whether the request may go to another backend after this many `attempts`.
    fn may_go_on(&self, attempts: usize) -> bool {
        self.tried.len() < self.config.pool.len() && self.may_attempt(attempts)
    }

    /// Whether another attempt may be made after this many `attempts`.
    fn may_attempt(&self, attempts: usize) -> bool {
        attempts < self.config.max_attempts
            // A first attempt is always made; an outer layer may have counted it.
            && (!self.is_sent || self.budget().is_none_or(AttemptBudget::any_left))
    }

    fn budget(&self) -> Option<&AttemptBudget> {
        self.cold.as_ref()?.budget.as_ref()
    }

    fn cold(&mut self) -> &mut ColdState {
        self.cold.get_or_insert_default()
    }
}
