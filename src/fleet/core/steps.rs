//! Steps: what processes ask and report, and how the core answers.

pub(crate) use super::bucket::Attempt;
use super::{
    bucket::Refused,
    constants::*,
    queue::{Queue, RANKS, Waiting},
    state::State,
};

/// A PTU and the requests of all processes that wait for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Core {
    /// `None` before the first call, and in a store that forgot.
    state: Option<State>,
    queue: Queue,
}

/// A waiting request: its rank, and the instant of its arrival as the store counts it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ticket {
    pub(crate) rank: u8,
    pub(crate) order: f64,
    pub(crate) cost: f64,
    /// Whether the request has nowhere else to go.
    pub(crate) is_patient: bool,
}

/// A request that arrives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Newcomer {
    pub(crate) rank: u8,
    pub(crate) cost: f64,
    pub(crate) is_patient: bool,
}

/// A refused attempt. Durations are in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Refusal {
    /// Its place in the queue; `order` is negative if it was sent while nothing was known.
    pub(crate) ticket: Ticket,
    pub(crate) attempt: Attempt,
    /// Since it was sent.
    pub(crate) ago: f64,
    /// How long the PTU stays closed, from when it decided.
    pub(crate) hint: Option<f64>,
    /// The level as a share of the limit, if it was reported.
    pub(crate) share: Option<f64>,
}

/// What a process asks or reports. `left` is the time until the request's deadline, `lead` half of a
/// round trip to the store.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// A request arrives.
    Enter { newcomer: Newcomer, left: f64, lead: f64 },
    /// A waiting request looks again.
    Turn { ticket: Ticket, left: f64, lead: f64 },
    /// An attempt was refused; its request waits again.
    Refused { refusal: Refusal, left: f64, lead: f64 },
    /// An answer began `since`; it may report the level as a share of the limit.
    Accepted { attempt: Attempt, since: f64, share: Option<f64> },
    /// The answer to an admitted attempt ended, `after` it was sent.
    Finished { cost: f64, after: f64, actual: Option<f64> },
    /// An attempt ended without an answer.
    Gone { at: f64, cost: f64 },
    /// A waiting request was dropped.
    Leave { ticket: Ticket },
}

/// The answer to an [`Enter`](Step::Enter), [`Turn`](Step::Turn) or [`Refused`](Step::Refused).
/// Durations are in microseconds, from when the answer arrives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Answer {
    /// Send it, `after` this time.
    Go {
        after: f64,
        grant: Grant,
    },
    /// Look again `after` this time.
    Wait {
        after: f64,
        order: f64,
        predicted: f64,
    },
    Spill {
        wait: f64,
        allowed: f64,
        cause: SpillKind,
    },
}

/// Permission for one attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Grant {
    pub(crate) order: f64,
    /// `None` if nothing is known of the PTU, so that there is nothing to account for.
    pub(crate) attempt: Option<Attempt>,
}

/// Why waiting would not help a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpillKind {
    /// Its time is up, or the PTU is known to reopen too late.
    Late,
    /// The predicted wait is too long.
    Queue,
    /// The same, after a standing queue cut the allowed wait short.
    StandingQueue,
}

/// What a caller knows that the store may have forgotten: for how long the PTU stays closed, in
/// microseconds, and its drain rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Seed {
    pub(crate) closed: f64,
    pub(crate) rate: f64,
}

/// The answers to the asking steps of one call, in order, and what is known of the PTU.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reply {
    pub(crate) answers: Vec<Answer>,
    /// For how long the PTU stays closed, in microseconds; `None` while its level is unknown.
    pub(crate) closed: Option<f64>,
    /// The drain rate in weighted tokens per second, rounded down to thousandths; zero if unknown.
    pub(crate) rate: f64,
    /// How many requests wait, when the fleet is notified that the PTU is busy.
    pub(crate) waiting: Option<usize>,
    /// For how long the whole fleet is to ask the store, if it is to be notified.
    pub(crate) busy: Option<f64>,
}

impl Core {
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Applies `steps` at `now`. A queue may stand for `interval`; zero never cuts it.
    pub(crate) fn call(&mut self, now: f64, interval: f64, seed: &Seed, steps: &[Step]) -> Reply {
        if self.state.is_none() {
            self.queue.clear();
        }
        let mut state = self.state.take().unwrap_or_else(|| {
            let mut state = State::new(now);
            if seed.rate > 0.0 {
                state.seed(now, seed.closed, seed.rate);
            }
            state
        });
        let mut call = Call { state: &mut state, queue: &mut self.queue, now, interval };
        call.advance();
        let answers = steps.iter().filter_map(|step| call.step(step)).collect();
        let is_known = state.below_at != NEVER;
        let mut busy = None;
        if is_known && (now - state.said_at).abs() > NEWS_INTERVAL {
            state.said_at = now;
            busy = Some(((state.below_at - now).max(0.0) + BUSY_MARGIN).floor());
        }
        let reply = Reply {
            answers,
            closed: is_known.then(|| (state.below_at - now).floor()),
            rate: (state.rate * 1e3).floor() / 1e3,
            waiting: busy.map(|_| self.queue.len()),
            busy,
        };
        self.state = Some(state);
        reply
    }
}

struct Call<'a> {
    state: &'a mut State,
    queue: &'a mut Queue,
    now: f64,
    interval: f64,
}

impl Call<'_> {
    fn advance(&mut self) {
        let now = self.now;
        self.purge();
        let state = &mut *self.state;
        let passed = (now - state.decayed_at).max(0.0);
        state.in_flight *= 1.0 - (passed / IN_FLIGHT_DECAY).min(1.0);
        state.decayed_at = now;
        if self.queue.len() == 0 && state.is_idle(now) {
            state.on_idle();
            if state.idle_since == NEVER {
                state.idle_since = now;
            }
        }
    }

    /// Removes requests at the head whose processes are late for their appointments.
    fn purge(&mut self) {
        if (self.now - self.state.purged_at).abs() < PURGE_INTERVAL {
            return;
        }
        self.state.purged_at = self.now;
        while let Some((rank, order, waiting)) = self.queue.head() {
            if waiting.look + MAX_LATENESS >= self.now {
                return;
            }
            self.take(rank, order, waiting.cost);
        }
        self.state.queued = [0.0; RANKS];
    }

    fn step(&mut self, step: &Step) -> Option<Answer> {
        match *step {
            Step::Enter { newcomer, left, lead } => Some(self.enter(&newcomer, left, lead)),
            Step::Turn { ticket, left, lead } => Some(self.turn(&ticket, left, lead)),
            Step::Refused { refusal, left, lead } => Some(self.refused(&refusal, left, lead)),
            Step::Accepted { attempt, since, share } => {
                self.state.on_accepted(self.now - since, &attempt, share);
                None
            }
            Step::Finished { cost, after, actual } => {
                self.state.on_ended(cost, after, actual);
                None
            }
            Step::Gone { at, cost } => {
                self.state.on_cancelled(at, cost);
                None
            }
            Step::Leave { ticket: Ticket { rank, order, cost, .. } } => {
                self.take(rank, order, cost);
                None
            }
        }
    }

    fn enter(&mut self, newcomer: &Newcomer, left: f64, lead: f64) -> Answer {
        let Newcomer { rank, cost, is_patient } = *newcomer;
        let now = self.now;
        if self.state.below_at == NEVER {
            return Answer::Go { after: 0.0, grant: Grant { order: 0.0, attempt: None } };
        }
        self.state.on_arrival(cost);
        self.state.on_rank_arrival(now, rank, cost);
        let order = now.floor().max(self.state.last_order + 1.0);
        self.state.last_order = order;
        let ticket = Ticket { rank, order, cost, is_patient };
        let latest = self.latest(left, lead, is_patient);
        let after = now + lead;
        let is_first = self.queue.head().is_none_or(|(first, at, _)| (rank, order) < (first, at));
        if !is_patient {
            let budget = (latest - after).max(0.0);
            let wait = self.state.predicted_wait(after, rank, self.cost_ahead_of(rank));
            self.state.on_predicted(self.interval, now, wait, budget);
            if !(is_first && self.may_go(after)) {
                let mut allowed = self.state.allowed_wait(self.interval, budget, cost, !is_first);
                if !is_first {
                    allowed /= WAIT_SAFETY_FACTOR;
                }
                if wait > allowed && self.wait_without_expired(after, rank) > allowed {
                    return self.spill(wait, allowed, budget);
                }
            }
        }
        if is_first && self.may_go(after) {
            return self.go(after, &ticket, lead);
        }
        self.decide(&ticket, latest, lead)
    }

    fn turn(&mut self, ticket: &Ticket, left: f64, lead: f64) -> Answer {
        if self.state.below_at == NEVER {
            self.take(ticket.rank, ticket.order, ticket.cost);
            return Answer::Go { after: 0.0, grant: Grant { order: ticket.order, attempt: None } };
        }
        if self.state.mean == 0.0 {
            // The store forgot what requests cost.
            self.state.on_arrival(ticket.cost);
        }
        let latest = self.latest(left, lead, ticket.is_patient);
        self.decide(ticket, latest, lead)
    }

    fn refused(&mut self, refusal: &Refusal, left: f64, lead: f64) -> Answer {
        let Refusal { mut ticket, mut attempt, ago, hint, share } = *refusal;
        let now = self.now;
        if let (Some(share), Some(hint)) = (share, hint) {
            self.state.on_depth(share, hint);
        }
        let is_untracked = ticket.order < 0.0;
        if is_untracked {
            attempt.at = now - lead - ago;
            attempt.admitted_before = self.state.admitted;
            attempt.sent_after = self.state.sent;
            self.state.on_untracked(attempt.at, ticket.cost);
            ticket.order = attempt.at.floor().max(1.0);
            while self.queue.contains(ticket.rank, ticket.order) {
                ticket.order += 1.0;
            }
        }
        let refused = Refused { now, lead, ago, cost: ticket.cost, hint, is_untracked };
        let reopens = self.state.on_refused(&attempt, &refused);
        let latest = self.latest(left, lead, ticket.is_patient);
        if ticket.is_patient {
            if reopens > latest {
                return Answer::Spill { wait: 0.0, allowed: 0.0, cause: SpillKind::Late };
            }
        } else {
            let (after, behind) = (now + lead, self.behind(&ticket));
            let budget = latest - after;
            let mut allowed = budget;
            if is_untracked {
                let is_behind = behind > 0.0;
                let budget = budget.max(0.0);
                allowed = self.state.allowed_wait(self.interval, budget, ticket.cost, is_behind);
            }
            let wait = self.state.predicted_wait(after, ticket.rank, behind * self.state.mean);
            if wait > allowed {
                return self.spill(wait, allowed, budget);
            }
        }
        self.decide(&ticket, latest, lead)
    }

    /// Decides what the request with `ticket` does now. It leaves the queue unless it keeps waiting.
    fn decide(&mut self, ticket: &Ticket, latest: f64, lead: f64) -> Answer {
        let Ticket { rank, order, cost, is_patient } = *ticket;
        let after = self.now + lead;
        let behind = self.behind(ticket);
        let due = self.state.due(behind);
        if due <= after + GRANT_AHEAD + 2.0 * lead && after <= latest {
            return match self.head_looks_at(ticket) {
                Some(look) if look + lead <= latest => {
                    self.wait(ticket, behind, look, latest, lead)
                }
                _ => self.go(after.max(due), ticket, lead),
            };
        }
        let is_closed = is_patient && self.state.refuses_until() > latest;
        if after >= latest || is_closed {
            self.take(rank, order, cost);
            return Answer::Spill { wait: 0.0, allowed: 0.0, cause: SpillKind::Late };
        }
        if !is_patient && self.state.news_at > order {
            let wait = self.state.wait_behind(after, behind * self.state.mean);
            if GIVE_UP_SHARE * wait > latest - after {
                self.take(rank, order, cost);
                return self.spill(wait, latest - after, latest - after);
            }
        }
        let look = after + APPOINTMENT_SHARE * (due - after);
        self.wait(ticket, behind, look, latest, lead)
    }

    /// When the head of the queue looks again, if the request with `ticket` is behind it and lets it go
    /// first.
    fn head_looks_at(&self, ticket: &Ticket) -> Option<f64> {
        let (rank, order, head) = self.queue.head()?;
        let is_behind = (rank, order) < (ticket.rank, ticket.order);
        let (from, to) = (self.now - MAX_YIELD_LATENESS, self.now + YIELD);
        (is_behind && head.look >= from && head.look <= to).then_some(head.look)
    }

    /// Makes an appointment at `look` with the request with `ticket`, `behind` others.
    fn wait(&mut self, ticket: &Ticket, behind: f64, look: f64, latest: f64, lead: f64) -> Answer {
        let Ticket { rank, order, cost, .. } = *ticket;
        let after = self.now + lead;
        let soonest = after + lead + MIN_APPOINTMENT;
        let look = look.max(soonest).min(latest.max(soonest)).floor();
        if self.queue.put(rank, order, Waiting { cost, look, latest }) {
            self.state.queued[usize::from(rank)] += cost;
        }
        let predicted = self.state.predicted_wait(after, rank, behind * self.state.mean);
        Answer::Wait { after: (look - after - lead).floor(), order, predicted: predicted.floor() }
    }

    fn go(&mut self, at: f64, ticket: &Ticket, lead: f64) -> Answer {
        self.take(ticket.rank, ticket.order, ticket.cost);
        let at = at.ceil();
        let attempt = self.state.on_sent(at, ticket.cost);
        let after = (at - self.now - lead).max(0.0).floor();
        Answer::Go { after, grant: Grant { order: ticket.order, attempt: Some(attempt) } }
    }

    fn spill(&self, wait: f64, allowed: f64, budget: f64) -> Answer {
        let is_cut = self.interval > 0.0 && self.state.share < 1.0;
        let cause =
            if wait <= budget && is_cut { SpillKind::StandingQueue } else { SpillKind::Queue };
        Answer::Spill { wait: wait.floor(), allowed: allowed.floor(), cause }
    }

    fn take(&mut self, rank: u8, order: f64, cost: f64) {
        if self.queue.remove(rank, order) {
            let queued = &mut self.state.queued[usize::from(rank)];
            *queued = (*queued - cost).max(0.0);
        }
    }

    /// The latest time at which a request is sent: a refusal must be back in time to spill, unless
    /// it has nowhere to spill to.
    fn latest(&self, left: f64, lead: f64, is_patient: bool) -> f64 {
        let deadline = (self.now - lead + left).floor();
        if is_patient { deadline } else { (deadline - self.state.reserve()).floor() }
    }

    /// Whether a request that arrives at the head is sent by `after`.
    fn may_go(&self, after: f64) -> bool {
        (self.state.due(0.0) <= after && !self.state.is_surely_closed(after))
            || self.state.is_due_anyway(after)
    }

    /// The number of requests ahead of the one with `ticket`, whether or not it waits already.
    fn behind(&self, ticket: &Ticket) -> f64 {
        self.queue.ahead(ticket.rank, ticket.order)
    }

    fn cost_ahead_of(&self, rank: u8) -> f64 {
        let mut sum = 0.0;
        for queued in &self.state.queued[..=usize::from(rank)] {
            sum += queued;
        }
        sum
    }

    /// How long a new request of `rank` would wait, without the requests ahead of it that will have
    /// given up before their turn.
    fn wait_without_expired(&self, after: f64, rank: u8) -> f64 {
        if !self.state.is_modelled() || self.queue.len() as f64 > MAX_QUEUE_WALKED {
            return FOREVER;
        }
        let mut queued = 0.0;
        for waiting in self.queue.ahead_of(rank) {
            if after + self.state.wait_behind(after, queued) <= waiting.latest {
                queued += waiting.cost;
            }
        }
        self.state.predicted_wait(after, rank, queued)
    }
}
