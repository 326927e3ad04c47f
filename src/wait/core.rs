//! The pure core of an ordered wait: facts and the time go in, whose turn it is comes out.
//!
//! Nothing here reads a clock, locks or sleeps; the edge around it (`wait/queue.rs`) does.
//!
//! Requests wait in order of rank, then of arrival, each until the instant given by its own refusal.
//! Of those whose instant has come, the first goes. How much an opening can take is unknown, so one
//! attempt goes first, and each that is not refused releases two more: TCP's slow start (RFC 5681,
//! 3.1). A refusal restarts with one, and the refused request returns to its position.
//!
//! A refusal comes back within a round trip while an answer may take minutes, so silence counts as
//! success: the others do not wait for the first answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    task::Waker,
    time::{Duration, Instant},
};

/// A position in the queue, which a request keeps when it is refused again: urgent ranks first, then
/// by arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueuePosition {
    pub(super) rank: u8,
    pub(super) arrival: Instant,
    order: u64,
}

/// What a request does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitDecision {
    /// Go. Its outcome is not tracked.
    Pass,
    /// Go, and report the outcome.
    Go(QueuePosition),
    /// Call [`on_turn`](Core::on_turn) again at `until`, or when woken.
    Wait { place: QueuePosition, until: Instant },
    /// The service reopens too late for it, or did not reopen in time.
    Late,
}

/// The requests that wait for one service to reopen.
#[derive(Debug, Default)]
pub(super) struct WaitCore {
    waiting: BTreeMap<QueuePosition, WaitingRequest>,
    /// Waiting requests whose instant has come, and the others by their instant.
    due: BTreeSet<QueuePosition>,
    later: BTreeSet<(Instant, QueuePosition)>,
    /// Until when attempts are useless, if the service keeps no state of its own. Kept until
    /// something was served again.
    closed_until: Option<Instant>,
    /// Attempts without an outcome yet, and when their silence shows that they were not refused.
    trying: BTreeMap<QueuePosition, Option<Instant>>,
    /// How many attempts beyond the first may be in that state at a time.
    widened: usize,
    next_order: u64,
}

#[derive(Debug)]
struct WaitingRequest {
    opens: Instant,
    deadline: Instant,
    waker: Option<Waker>,
}

impl WaitCore {
    /// Whether requests need not pass through here.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.trying.is_empty() && self.closed_until.is_none()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn place(&mut self, rank: u8, arrival: Instant) -> QueuePosition {
        self.next_order += 1;
        QueuePosition { rank, arrival, order: self.next_order }
    }

    /// A request arrives that has not been refused, to be sent by `deadline`.
    pub(super) fn on_arrival(
        &mut self,
        now: Instant,
        place: QueuePosition,
        deadline: Instant,
    ) -> WaitDecision {
        self.advance(now);
        let is_first = self.due.first().is_none_or(|first| place < *first);
        let opens = self.closed_until.map_or(now, |until| until.max(now));
        if self.closed_until.is_none() && self.due.is_empty() {
            // The waiting requests may need something that this one does not.
            return WaitDecision::Pass;
        }
        if opens == now && is_first && self.has_room() {
            self.trying.insert(place, None);
            return WaitDecision::Go(place);
        }
        if opens > deadline || deadline <= now {
            return WaitDecision::Pass;
        }
        self.insert(place, now, deadline);
        WaitDecision::Wait { place, until: now }
    }

    /// The request at `place` was refused until `opens`. `remembers`: the service keeps that state
    /// for others; otherwise it applies to all requests. Returns whether the request waits, with its
    /// `deadline`.
    pub(super) fn on_refused(
        &mut self,
        now: Instant,
        place: QueuePosition,
        opens: Instant,
        remembers: bool,
        deadline: Instant,
    ) -> bool {
        self.advance(now);
        // Attempts in flight were sent before this refusal, and predict nothing about the next
        // opening.
        self.trying.clear();
        self.widened = 0;
        if !remembers {
            self.closed_until = Some(opens);
        }
        let waits = opens <= deadline && now < deadline;
        if waits {
            self.insert(place, opens, deadline);
        }
        waits
    }

    /// Decides what the request waiting at `place` does now. It leaves the queue unless it keeps
    /// waiting.
    pub(super) fn on_turn(&mut self, now: Instant, place: QueuePosition) -> WaitDecision {
        self.advance(now);
        let Some(&WaitingRequest { opens, deadline, .. }) = self.waiting.get(&place) else {
            return WaitDecision::Late;
        };
        let opens = self.opens(opens);
        let (is_open, is_last) = (opens <= now, now >= deadline);
        let is_head = self.head() == Some(place);
        if is_open && (is_last || is_head && self.has_room()) {
            // A request whose time is up goes, whatever is known of those before it.
            self.leave(place);
            self.trying.insert(place, None);
            return WaitDecision::Go(place);
        }
        if is_last || opens > deadline {
            self.leave(place);
            return WaitDecision::Late;
        }
        let change = match is_open {
            true => self.trying.values().flatten().min().copied(),
            false => Some(opens),
        };
        let until = change.filter(|_| is_head).map_or(deadline, |change| change.min(deadline));
        WaitDecision::Wait { place, until }
    }

    /// The attempt of the request at `place` was sent to the service.
    pub(super) fn on_sent(&mut self, now: Instant, place: QueuePosition) {
        if let Some(silent_at) = self.trying.get_mut(&place) {
            *silent_at = Some(now + MAX_ROUND_TRIP);
        }
    }

    /// The attempt of the request at `place` was served.
    pub(super) fn on_served(&mut self, now: Instant, place: QueuePosition) {
        self.advance(now);
        let served = self.trying.remove(&place).map_or(0, |_| 1);
        self.widen(served);
    }

    /// The request at `place` was dropped, waiting or in flight.
    pub(super) fn on_left(&mut self, place: QueuePosition) {
        self.leave(place);
        self.trying.remove(&place);
        self.reset_if_idle();
    }

    /// Registers `waker` to be called when it may be the turn of the request at `place`.
    pub(super) fn wake_with(&mut self, place: QueuePosition, waker: &Waker) {
        if let Some(waiting) = self.waiting.get_mut(&place) {
            match &mut waiting.waker {
                Some(old) => old.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        }
    }

    /// The request that goes next.
    pub(super) fn head(&self) -> Option<QueuePosition> {
        self.due.first().copied().or_else(|| Some(self.later.first()?.1))
    }

    /// The waker to call after any change: that of the request that goes next.
    pub(super) fn head_waker(&self) -> Option<Waker> {
        self.waiting.get(&self.head()?)?.waker.clone()
    }

    /// The wakers of requests whose time ends before the service reopens, now that it has closed for
    /// longer.
    pub(super) fn wakers_too_late(&self) -> Vec<Waker> {
        let Some(until) = self.closed_until else { return Vec::new() };
        let too_late = self.waiting.values().filter(|waiting| waiting.deadline < until);
        too_late.filter_map(|waiting| waiting.waker.clone()).collect()
    }

    fn opens(&self, own: Instant) -> Instant {
        self.closed_until.map_or(own, |until| until.max(own))
    }

    fn has_room(&self) -> bool {
        self.trying.len() <= self.widened
    }

    fn insert(&mut self, place: QueuePosition, opens: Instant, deadline: Instant) {
        self.later.insert((opens, place));
        self.waiting.insert(place, WaitingRequest { opens, deadline, waker: None });
    }

    fn leave(&mut self, place: QueuePosition) {
        if let Some(WaitingRequest { opens, .. }) = self.waiting.remove(&place)
            && !self.due.remove(&place)
        {
            self.later.remove(&(opens, place));
        }
    }

    /// Advances the state to `now`.
    fn advance(&mut self, now: Instant) {
        while let Some(&(opens, place)) = self.later.first()
            && opens <= now
        {
            self.later.pop_first();
            self.due.insert(place);
        }
        let before = self.trying.len();
        self.trying.retain(|_, silent_at| silent_at.is_none_or(|at| at > now));
        self.widen(before - self.trying.len());
    }

    /// This many attempts were not refused.
    fn widen(&mut self, attempts: usize) {
        if attempts > 0 {
            self.widened += attempts;
            self.closed_until = None;
            self.reset_if_idle();
        }
    }

    /// The next opening starts with one attempt.
    fn reset_if_idle(&mut self) {
        if self.waiting.is_empty() && self.trying.is_empty() {
            self.widened = 0;
        }
    }
}

/// Time by which a refusal is back: several times the network round trip to another continent's
/// nearest region. A refusal that takes longer costs a few more refused attempts at that opening.
const MAX_ROUND_TRIP: Duration = Duration::from_millis(100);
