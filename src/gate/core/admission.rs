//! Admission: which request goes now, which one waits, and which one spills.

use std::{task::Waker, time::Duration};

use super::{
    arrivals::Arrivals,
    bucket::{Bucket, TrackedAttempt},
    contention::Contention,
    knowledge::{Evidence, Knowledge, Noted},
    queue::{Asks, MAX_QUEUE_WALKED, Queue, QueueKey},
    standing_queue::{Newcomer, StandingQueue},
    time::{Nanos, SECOND, from_seconds, seconds},
};

/// A gate's model of its PTU, and the requests that wait for it.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) bucket: Bucket,
    queue: Queue,
    arrivals: Arrivals,
    standing_queue: StandingQueue,
    noted: Noted,
    next_order: u32,
    /// Wakers of requests that give up although it is not their turn: their turn would come too late.
    giving_up: Vec<Waker>,
}

/// What a request does next.
#[derive(Debug)]
pub(crate) enum Decision {
    Go(TrackedAttempt),
    /// It waits in the queue. Call [`on_turn`](Core::on_turn) again at `until`, or when woken.
    Wait {
        place: QueueKey,
        until: Nanos,
    },
    Spill(SpillReason),
}

/// Why waiting would not help a request, or did not. Times are in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum SpillReason {
    /// The predicted wait is longer than is worth starting.
    Queue { wait: f64, allowed: f64 },
    /// The same, after a standing queue cut the allowed wait short.
    StandingQueue { wait: f64, allowed: f64 },
    /// Its time is up, or the PTU is known to reopen too late.
    Late,
    /// It has used up its attempts.
    Asked,
}

/// A request to be admitted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Applicant {
    pub(crate) cost: f64,
    pub(crate) rank: u8,
    /// The latest time at which it must be sent somewhere.
    pub(crate) deadline: Nanos,
}

/// A refused attempt, and what its request may still do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RefusedRequest {
    /// How long the PTU stays closed according to its hint, from when it decided.
    pub(crate) hint: Option<Duration>,
    pub(crate) deadline: Nanos,
    /// A random number from 0 to 1.
    pub(crate) draw: f64,
    /// Whether the request has nowhere else to go.
    pub(crate) is_patient: bool,
}

impl Core {
    pub(crate) fn new(standing_queue_interval: Option<Duration>, contention: Contention) -> Self {
        Self {
            bucket: Bucket::new(contention),
            queue: Queue::default(),
            arrivals: Arrivals::default(),
            standing_queue: StandingQueue::new(standing_queue_interval),
            noted: Noted::default(),
            next_order: 0,
            giving_up: Vec::new(),
        }
    }

    pub(crate) fn on_arrival(&mut self, now: Nanos, applicant: &Applicant) -> Decision {
        let Applicant { cost, rank, deadline } = *applicant;
        self.advance(now);
        self.bucket.on_arrival(cost);
        self.arrivals.on_arrival(now, rank, cost);
        let place = self.new_place(rank, now);
        let latest = self.bucket.latest_dispatch(deadline);
        let budget = seconds(latest.saturating_sub(now).max(0));
        let wait = self.predicted_wait(now, rank, self.queue.cost_ahead_of(rank));
        self.standing_queue.on_arrival(seconds(now), wait, budget);
        if self.may_go(now, place) {
            return Decision::Go(self.bucket.on_sent(now, place, Asks::NONE, cost));
        }
        let mut allowed = self.allowed_wait(place, cost, budget);
        if !self.is_first(place) {
            allowed /= WAIT_SAFETY_FACTOR;
        }
        if wait > allowed && self.wait_without_expired(now, rank) > allowed {
            return Decision::Spill(self.cause(wait, allowed, budget));
        }
        self.queue.insert(place, cost, Asks::NONE, latest);
        Decision::Wait { place, until: now }
    }

    /// A request of any cost arrives. If it would spill whatever its cost, it counts as an average one,
    /// and the reason is returned; otherwise nothing changes.
    pub(crate) fn rejects_any(
        &mut self,
        now: Nanos,
        rank: u8,
        deadline: Nanos,
    ) -> Option<SpillReason> {
        self.advance(now);
        let budget = seconds(self.bucket.latest_dispatch(deadline).saturating_sub(now).max(0));
        let wait = self.predicted_wait(now, rank, self.queue.cost_ahead_of(rank));
        // No cost makes a longer wait worth starting, nor a place behind others.
        let is_late = wait > budget && self.wait_without_expired(now, rank) > budget;
        let place = QueueKey { rank, since: now, order: self.next_order.wrapping_add(1) };
        if !is_late || self.may_go(now, place) {
            return None;
        }
        self.arrivals.on_arrival(now, rank, self.bucket.mean_cost());
        self.standing_queue.on_arrival(seconds(now), wait, budget);
        Some(self.cause(wait, budget, budget))
    }

    /// A request that has nowhere else to go arrives, or returns to its old `place`. It waits as long
    /// as the PTU reopens in time, whatever the prediction.
    pub(crate) fn on_patient_arrival(
        &mut self,
        now: Nanos,
        applicant: &Applicant,
        place: Option<QueueKey>,
    ) -> Decision {
        let Applicant { cost, rank, deadline } = *applicant;
        self.advance(now);
        let place = place.unwrap_or_else(|| self.new_place(rank, now));
        if self.may_go(now, place) {
            return Decision::Go(self.bucket.on_sent(now, place, Asks::NONE, cost));
        }
        if now >= deadline || self.reopens_after(deadline) {
            return Decision::Spill(SpillReason::Late);
        }
        self.queue.insert_patient(place, cost, Asks::NONE, deadline);
        Decision::Wait { place, until: now }
    }

    /// Decides what the request waiting at `place` does now. It leaves the queue unless it keeps
    /// waiting.
    pub(crate) fn on_turn(&mut self, now: Nanos, place: QueueKey, deadline: Nanos) -> Decision {
        self.advance(now);
        let reserved = self.bucket.latest_dispatch(deadline);
        let reopens_late = self.reopens_after(deadline);
        let Some(request) = self.queue.get_mut(place) else {
            return Decision::Spill(SpillReason::Late);
        };
        let (is_patient, may_ask_at) = (request.is_patient, request.asks.next_at());
        let latest = match is_patient {
            true if reopens_late => now,
            true => deadline,
            // The reserve may have grown since, and the wait may have become too long.
            false => reserved.min(request.latest),
        };
        let asks = self.queue.next_to_ask(now).filter(|(next, _)| *next == place);
        let due = asks.map(|(_, at)| self.bucket.next_attempt_at().max(at));
        if due.is_some_and(|due| due <= now) && now <= latest {
            let request = self.queue.remove(place).expect("it is in the queue");
            return Decision::Go(self.bucket.on_sent(now, place, request.asks, request.cost));
        }
        // The PTU must not stay open for a request that has used up its attempts.
        let is_spent = asks.is_some_and(|(_, at)| at > now.saturating_add(MAX_WAIT_TO_ASK_NS));
        if now >= latest || (is_spent && !is_patient && self.is_open(now)) {
            let (wait, left) = (self.wait_at(now, place), seconds(reserved.saturating_sub(now)));
            self.queue.remove(place);
            return Decision::Spill(match left {
                _ if is_patient || left <= 0.0 => SpillReason::Late,
                _ if now < latest => SpillReason::Asked,
                // A refusal made it give up before its time.
                _ if wait > left => SpillReason::Queue { wait, allowed: left },
                _ => SpillReason::Late,
            });
        }
        let turn = if due.is_some() { self.bucket.next_attempt_at() } else { Nanos::MAX };
        let until = match may_ask_at > now {
            true if is_spent && !is_patient => may_ask_at.min(turn),
            // Then it may go before requests that may make an attempt now, and no waker is called for
            // that.
            true => may_ask_at,
            false => turn,
        };
        Decision::Wait { place, until: until.max(now).min(latest) }
    }

    /// The request waiting at `place` was dropped.
    pub(crate) fn on_left(&mut self, place: QueueKey) {
        self.queue.remove(place);
    }

    /// An attempt that was sent at `sent_at`, while nothing was known of the PTU, is about to be
    /// [refused](Self::on_refused).
    pub(crate) fn on_untracked_refusal(
        &mut self,
        sent_at: Nanos,
        cost: f64,
        rank: u8,
    ) -> TrackedAttempt {
        let place = self.new_place(rank, sent_at);
        self.bucket.on_untracked_refusal(sent_at, place, cost)
    }

    /// `attempt` was refused. Its request returns to its old place in the queue.
    ///
    /// # Errors
    ///
    /// If waiting there would not help it.
    pub(crate) fn on_refused(
        &mut self,
        now: Nanos,
        attempt: &TrackedAttempt,
        refused: &RefusedRequest,
    ) -> Result<QueueKey, SpillReason> {
        let RefusedRequest { deadline, is_patient, .. } = *refused;
        let reopening = self.bucket.on_refused(now, attempt, refused.hint, refused.draw);
        if reopening.is_news {
            self.give_up_late_requests(now);
        }
        // Answers in flight may reopen it sooner; the prediction for requests that can spill includes
        // that.
        if is_patient && reopening.at > deadline {
            return Err(SpillReason::Late);
        }
        let TrackedAttempt { place, cost, .. } = *attempt;
        // A refusal that was expected is not held against the request.
        let asks = match reopening.was_expected {
            true => attempt.asks.clone(),
            false => attempt.asks.and_at(attempt.sent_at),
        };
        if is_patient {
            self.queue.insert_patient(place, cost, asks, deadline);
            return Ok(place);
        }
        let latest = self.bucket.latest_dispatch(deadline);
        let budget = seconds(latest.saturating_sub(now));
        // A request that was sent before anything was known is new to the queue.
        let allowed = match attempt.is_untracked {
            true => self.allowed_wait(place, cost, budget),
            false => budget,
        };
        let wait = self.wait_at(now, place);
        if wait > allowed {
            return Err(self.cause(wait, allowed, budget));
        }
        self.queue.insert(place, cost, asks, latest);
        Ok(place)
    }

    /// Continues with what the store of a fleet knew: the PTU reopens at `reopens`, and this process's
    /// share of it drains at `rate`.
    pub(crate) fn seed(&mut self, now: Nanos, reopens: Nanos, rate: f64) {
        self.bucket.seed(now, reopens, rate);
    }

    /// Registers `waker` to be called when it may be the turn of the request waiting at `place`.
    pub(crate) fn wake_with(&mut self, place: QueueKey, waker: &Waker) {
        if let Some(request) = self.queue.get_mut(place) {
            match &mut request.waker {
                Some(old) => old.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        }
    }

    /// The wakers to call after any change: that of the request whose turn it may be now, and those
    /// of requests that give up.
    pub(crate) fn take_wakers(&mut self, now: Nanos) -> Wakers {
        self.noted.note(now, self.bucket.evidence(now).knowledge());
        let next = self.queue.next_to_ask(now).map(|(place, _)| place);
        let next = next.and_then(|place| self.queue.get_mut(place)?.waker.clone());
        Wakers { next, giving_up: std::mem::take(&mut self.giving_up) }
    }

    /// Whether the PTU has so much spare capacity that requests need not pass through here.
    pub(crate) fn is_idle(&mut self, now: Nanos) -> bool {
        self.advance(now);
        self.bucket.closed_for(now).is_none()
    }

    /// The evidence for what is known of the PTU, and since when it has been known.
    pub(crate) fn evidence(&mut self, now: Nanos) -> (Evidence, Nanos) {
        self.advance(now);
        let evidence = self.bucket.evidence(now);
        self.noted.note(now, evidence.knowledge());
        (evidence, self.noted.since())
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// How long a request of `rank` that arrives now would wait, in seconds.
    pub(crate) fn wait_of_newcomer(&self, now: Nanos, rank: u8) -> f64 {
        let wait = self.predicted_wait(now, rank, self.queue.cost_ahead_of(rank));
        wait.min(self.wait_without_expired(now, rank))
    }

    /// How long the request at `place` still waits, in seconds.
    pub(crate) fn wait_at(&self, now: Nanos, place: QueueKey) -> f64 {
        self.predicted_wait(now, place.rank, self.queue.cost_before(place))
    }

    /// How long a request of `rank` would wait behind a cost of `queued`, in seconds, including the
    /// more urgent requests expected meanwhile.
    fn predicted_wait(&self, now: Nanos, rank: u8, queued: f64) -> f64 {
        let urgent = self.bucket.share_of(self.arrivals.before(now, rank));
        self.bucket.wait_behind(now, queued) / (1.0 - urgent.min(MAX_URGENT_SHARE))
    }

    /// How long a new request of `rank` would wait, in seconds, without the requests ahead of it that
    /// will have given up before their turn. In a long queue those make no difference.
    fn wait_without_expired(&self, now: Nanos, rank: u8) -> f64 {
        if !self.bucket.is_modelled() || self.queue.len() > MAX_QUEUE_WALKED {
            return f64::INFINITY;
        }
        let queued = self.queue.ahead_of(rank).fold(0.0, |queued, request| {
            let turn = now.saturating_add(from_seconds(self.bucket.wait_behind(now, queued)));
            if turn <= request.latest { queued + request.cost } else { queued }
        });
        self.predicted_wait(now, rank, queued)
    }

    /// The longest wait worth starting, in seconds, for a request with this `budget`.
    fn allowed_wait(&self, place: QueueKey, cost: f64, budget: f64) -> f64 {
        let worth = self.bucket.worth(cost);
        let newcomer = Newcomer { budget, worth, is_behind: !self.is_first(place) };
        self.standing_queue.allowed_wait(&newcomer)
    }

    /// Why a request does not start a `wait` that is longer than `allowed`, given its `budget`.
    fn cause(&self, wait: f64, allowed: f64, budget: f64) -> SpillReason {
        match wait <= budget && self.standing_queue.is_cut() {
            true => SpillReason::StandingQueue { wait, allowed },
            false => SpillReason::Queue { wait, allowed },
        }
    }

    /// Makes requests give up whose turn comes far too late, given what has just become known.
    fn give_up_late_requests(&mut self, now: Nanos) {
        let mut queued = 0.0;
        for request in self.queue.iter_mut() {
            let wait = from_seconds(GIVE_UP_SHARE * self.bucket.wait_behind(now, queued));
            if request.is_patient || now.saturating_add(wait) <= request.latest {
                queued += request.cost;
            } else {
                request.latest = now;
                self.giving_up.extend(request.waker.take());
            }
        }
    }

    /// Whether the PTU is known to refuse until after the `deadline`. The model alone may be wrong,
    /// and is no reason to refuse a request that has nowhere else to go.
    fn reopens_after(&self, deadline: Nanos) -> bool {
        self.bucket.refuses_until().is_some_and(|at| at > deadline)
    }

    /// Whether a request that has just reached `place` is sent immediately.
    fn may_go(&self, now: Nanos, place: QueueKey) -> bool {
        let is_open = self.is_open(now) && !self.bucket.is_surely_closed(now);
        self.is_first(place) && (is_open || self.bucket.is_due_anyway(now))
    }

    /// Whether no request waits ahead of `place`.
    fn is_first(&self, place: QueueKey) -> bool {
        self.queue.head().is_none_or(|(head, _)| place < head)
    }

    fn is_open(&self, now: Nanos) -> bool {
        now >= self.bucket.next_attempt_at()
    }

    fn new_place(&mut self, rank: u8, since: Nanos) -> QueueKey {
        self.next_order = self.next_order.wrapping_add(1);
        QueueKey { rank, since, order: self.next_order }
    }

    /// Advances the state to `now`.
    fn advance(&mut self, now: Nanos) {
        if self.queue.is_empty() && self.bucket.is_idle(now) {
            self.bucket.on_idle();
            self.standing_queue.on_idle(seconds(now));
            self.noted.note(now, Knowledge::Open);
        }
    }
}

/// The wakers to call once the lock is released.
#[derive(Debug)]
pub(crate) struct Wakers {
    next: Option<Waker>,
    giving_up: Vec<Waker>,
}

impl Wakers {
    pub(crate) fn wake(self) {
        for waker in self.next.into_iter().chain(self.giving_up) {
            waker.wake();
        }
    }
}

// The table in `core/mod.rs` shows the effect of halving and doubling these.

/// Safety factor on predicted waits: a request that queues and then times out has waited for
/// nothing and delayed those behind it.
pub(super) const WAIT_SAFETY_FACTOR: f64 = 1.05;
/// How long the request at the head may have to wait for its next allowed attempt before it gives up.
pub(super) const MAX_WAIT_TO_ASK_NS: Nanos = SECOND / 2;
/// A request gives up when this share of its predicted wait exceeds what it has left. It is below 1
/// because a spill cannot be undone.
pub(super) const GIVE_UP_SHARE: f64 = 0.9;
/// The largest share of the PTU that more urgent requests take in a prediction.
pub(super) const MAX_URGENT_SHARE: f64 = 0.9;
