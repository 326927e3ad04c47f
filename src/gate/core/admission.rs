//! Admission: which request goes now, which one waits, and which one spills.

use std::{task::Waker, time::Duration};

use super::{
    bucket::{Bucket, TrackedAttempt},
    queue::{Queue, QueueKey},
    standing_queue::StandingQueue,
    time::{Nanos, SECOND, seconds},
};

/// What a gate knows of its PTU, and the requests that wait for it.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) bucket: Bucket,
    queue: Queue,
    standing_queue: StandingQueue,
    next_order: u64,
}

/// What a request is to do.
#[derive(Debug)]
pub(crate) enum Decision {
    Go(TrackedAttempt),
    /// It waits in the queue. Ask [again](Core::on_turn) at `until`, or when woken.
    Wait {
        key: QueueKey,
        until: Nanos,
    },
    Spill,
}

impl Core {
    pub(crate) fn new(standing_queue_interval: Option<Duration>) -> Self {
        Self {
            bucket: Bucket::new(),
            queue: Queue::default(),
            standing_queue: StandingQueue::new(standing_queue_interval),
            next_order: 0,
        }
    }

    /// A request of `cost` arrives, to be sent by `deadline` at the latest.
    pub(crate) fn on_arrival(
        &mut self,
        now: Nanos,
        cost: f64,
        rank: u8,
        deadline: Nanos,
    ) -> Decision {
        self.advance(now);
        self.bucket.on_arrival(cost);
        let key = self.next_key(rank);
        let latest = self.bucket.latest_dispatch(deadline);
        let budget = seconds(latest.saturating_sub(now).max(0));
        let wait = self.predicted_wait(now, rank);
        let requests = self.bucket.requests_drained_in(wait);
        self.standing_queue.on_arrival(seconds(now), wait, budget, requests);
        let is_first = self.queue.head().is_none_or(|(head, _)| key < head);
        if is_first && self.is_open(now) {
            return Decision::Go(self.bucket.on_sent(now, key, cost));
        }
        // A prediction has an error; a hint alone is exact.
        let safety = if self.bucket.is_trusted() { WAIT_SAFETY_FACTOR } else { 1.0 };
        let allowed = self.standing_queue.allowed_wait(budget) / safety;
        if wait > allowed && self.wait_without_expired(now, rank) > allowed {
            return Decision::Spill;
        }
        self.queue.insert(key, cost, latest);
        Decision::Wait { key, until: now }
    }

    /// A request of `cost` that has nowhere else to go wants to be sent by `deadline`, at the old place
    /// that it may have. It waits while the PTU reopens by then, whatever is predicted.
    pub(crate) fn on_patient_arrival(
        &mut self,
        now: Nanos,
        cost: f64,
        rank: u8,
        deadline: Nanos,
        place: Option<QueueKey>,
    ) -> Decision {
        self.advance(now);
        let key = place.unwrap_or_else(|| self.next_key(rank));
        if self.queue.head().is_none_or(|(head, _)| key < head) && self.is_open(now) {
            return Decision::Go(self.bucket.on_sent(now, key, cost));
        }
        if now >= deadline || self.reopens_after(deadline) {
            return Decision::Spill;
        }
        self.queue.insert(key, cost, deadline);
        self.on_no_alternative(key, deadline);
        Decision::Wait { key, until: now }
    }

    /// The waiting request `key` has nowhere else to go: it may stay until its `deadline`.
    pub(crate) fn on_no_alternative(&mut self, key: QueueKey, deadline: Nanos) {
        if let Some(request) = self.queue.get_mut(key) {
            (request.is_patient, request.latest) = (true, deadline);
        }
    }

    /// What the waiting request `key` is to do now. It leaves the queue unless it waits on.
    pub(crate) fn on_turn(&mut self, now: Nanos, key: QueueKey, deadline: Nanos) -> Decision {
        self.advance(now);
        let is_head = self.queue.head().is_some_and(|(head, _)| head == key);
        let is_patient = self.queue.get_mut(key).is_some_and(|request| request.is_patient);
        let latest = match is_patient {
            true if self.reopens_after(deadline) => now,
            true => deadline,
            false => self.bucket.latest_dispatch(deadline),
        };
        if is_head && self.is_open(now) && now <= latest {
            let request = self.queue.remove(key).expect("the head is in the queue");
            return Decision::Go(self.bucket.on_sent(now, key, request.cost));
        }
        if now >= latest {
            self.queue.remove(key);
            return Decision::Spill;
        }
        let due = if is_head { self.bucket.next_attempt_at() } else { Nanos::MAX };
        Decision::Wait { key, until: due.max(now).min(latest) }
    }

    /// The waiting request `key` was given up.
    pub(crate) fn on_left(&mut self, key: QueueKey) {
        self.queue.remove(key);
    }

    /// An attempt that was made at `sent_at`, while nothing was known of the PTU, is about to be
    /// [refused](Self::on_refused).
    pub(crate) fn on_untracked_refusal(
        &mut self,
        sent_at: Nanos,
        cost: f64,
        rank: u8,
    ) -> TrackedAttempt {
        let key = self.next_key(rank);
        self.bucket.on_untracked_refusal(sent_at, key, cost)
    }

    /// `attempt` was refused: the PTU is `closed` for so long from when it decided, which is
    /// measured unless it is a guess. The request goes back to its old place in the queue; `None`
    /// when the PTU reopens after its `deadline`.
    pub(crate) fn on_refused(
        &mut self,
        now: Nanos,
        attempt: &TrackedAttempt,
        closed: Duration,
        is_measured: bool,
        deadline: Nanos,
    ) -> Option<QueueKey> {
        let reopens = self.bucket.on_refused(now, attempt, closed, is_measured);
        if reopens > deadline {
            return None;
        }
        self.queue.insert(attempt.key, attempt.cost, self.bucket.latest_dispatch(deadline));
        Some(attempt.key)
    }

    /// Has `waker` woken when it may be the turn of the waiting request `key`.
    pub(crate) fn wake_with(&mut self, key: QueueKey, waker: &Waker) {
        if let Some(request) = self.queue.get_mut(key) {
            match &mut request.waker {
                Some(old) => old.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        }
    }

    /// The waker to call after any change: that of the request at the head of the queue.
    pub(crate) fn head_waker(&self) -> Option<Waker> {
        self.queue.head().and_then(|(_, request)| request.waker.clone())
    }

    /// Whether the PTU has so much capacity to spare that requests need not pass here.
    pub(crate) fn is_idle(&mut self, now: Nanos) -> bool {
        self.advance(now);
        self.bucket.closed_for(now).is_none()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// How long a new request of `rank` would wait, in seconds.
    pub(crate) fn predicted_wait(&self, now: Nanos, rank: u8) -> f64 {
        let Some(sendable_at) = self.bucket.sendable_at() else { return 0.0 };
        let closed = seconds(sendable_at.saturating_sub(now));
        let ahead = self.bucket.seconds_to_drain(|| self.queue.cost_ahead_of(rank));
        (closed + ahead).max(0.0)
    }

    /// How long a new request of `rank` would wait, in seconds, without those ahead of it that
    /// will have given up by their turn. In a long queue they make no difference.
    fn wait_without_expired(&self, now: Nanos, rank: u8) -> f64 {
        let Some(sendable_at) = self.bucket.sendable_at().filter(|_| self.bucket.is_trusted())
        else {
            return f64::INFINITY;
        };
        if self.queue.len() > MAX_QUEUE_WALKED {
            return f64::INFINITY;
        }
        let turn = self.queue.ahead_of(rank).fold(sendable_at.max(now), |turn, request| {
            let cost = if turn <= request.latest { request.cost } else { 0.0 };
            turn.saturating_add(self.bucket.expected_drain_time(cost))
        });
        seconds(turn.saturating_sub(now))
    }

    fn reopens_after(&self, deadline: Nanos) -> bool {
        self.bucket.sendable_at().is_some_and(|at| at > deadline)
    }

    /// Whether the head, or a new request when nothing waits, may go.
    fn is_open(&self, now: Nanos) -> bool {
        now >= self.bucket.next_attempt_at()
    }

    fn next_key(&mut self, rank: u8) -> QueueKey {
        let key = QueueKey { rank, order: self.next_order };
        self.next_order += 1;
        key
    }

    /// Brings what is known up to `now`.
    fn advance(&mut self, now: Nanos) {
        let Some(closed_for) = self.bucket.closed_for(now) else { return };
        if closed_for < -QUEUE_EMPTY_AFTER_NS {
            self.standing_queue.on_empty();
        }
        if closed_for < -IDLE_AFTER_NS && self.queue.is_empty() {
            self.bucket.on_idle();
        } else {
            self.bucket.advance(now);
        }
    }
}

// What halving and doubling these does is in the table of the module `core`.

/// After so long below the limit the gate is idle: few buckets are less than a second deep.
const IDLE_AFTER_NS: Nanos = SECOND;
/// After so long below the limit the queue counts as emptied.
const QUEUE_EMPTY_AFTER_NS: Nanos = SECOND / 2;
/// Safety factor on predicted waits: a request that queues and then times out has waited for
/// nothing and delayed those behind it.
const WAIT_SAFETY_FACTOR: f64 = 1.05;
/// The longest queue that is walked through, request by request, to predict a wait.
const MAX_QUEUE_WALKED: usize = 64;
