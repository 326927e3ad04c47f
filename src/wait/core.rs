//! The pure core of an ordered wait: facts and the time come in, whose turn it is goes out.
//!
//! Nothing here reads a clock, locks or sleeps; the edge around it (`wait/queue.rs`) does.
//!
//! Requests wait in the order of their rank, then of their arrival, each until the instant that its
//! own refusal gave. Of those whose instant has come, the first goes. What an opening can take is not
//! known, so one attempt goes first, and each that is not refused lets two more go: TCP's slow start
//! (RFC 5681, 3.1). A refusal starts again with one, and the refused request returns to its place.
//!
//! A refusal comes back within a round trip while an answer may take minutes, so silence counts as
//! service: the rest do not wait for the first answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    task::Waker,
    time::{Duration, Instant},
};

/// A place in the queue, which a request keeps when it is refused again: urgent ranks first, then by
/// arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) rank: u8,
    pub(super) arrival: Instant,
    order: u64,
}

/// What a request is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Go. Nothing is to be learned from it.
    Pass,
    /// Go, and tell what comes of it.
    Go(Place),
    /// Ask [again](Core::on_turn) at `until`, or when woken.
    Wait { place: Place, until: Instant },
    /// What it waits for opens too late for it, or did not come in time.
    Late,
}

/// The requests that wait for one service to reopen.
#[derive(Debug, Default)]
pub(super) struct Core {
    waiting: BTreeMap<Place, Waiting>,
    /// Of those that wait: whose instant has come, and the others by their instant.
    due: BTreeSet<Place>,
    later: BTreeSet<(Instant, Place)>,
    /// Until when asking is of no use, where the service has no memory of its own. Kept until something
    /// was served again.
    closed_until: Option<Instant>,
    /// Attempts of which nothing is known yet, and from when silence says that they were not refused.
    trying: BTreeMap<Place, Option<Instant>>,
    /// How many more attempts than one may be of that kind at a time.
    widened: usize,
    next_order: u64,
}

#[derive(Debug)]
struct Waiting {
    opens: Instant,
    deadline: Instant,
    waker: Option<Waker>,
}

impl Core {
    /// Whether requests need not pass here at all.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.trying.is_empty() && self.closed_until.is_none()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn place(&mut self, rank: u8, arrival: Instant) -> Place {
        self.next_order += 1;
        Place { rank, arrival, order: self.next_order }
    }

    /// A request comes that has not been refused, to be sent by `deadline`.
    pub(super) fn on_arrival(&mut self, now: Instant, place: Place, deadline: Instant) -> Decision {
        self.advance(now);
        let is_first = self.due.first().is_none_or(|first| place < *first);
        let opens = self.closed_until.map_or(now, |until| until.max(now));
        if self.closed_until.is_none() && self.due.is_empty() {
            // Whoever waits does so for something that this request may not need.
            return Decision::Pass;
        }
        if opens == now && is_first && self.has_room() {
            self.trying.insert(place, None);
            return Decision::Go(place);
        }
        if opens > deadline || deadline <= now {
            return Decision::Pass;
        }
        self.insert(place, now, deadline);
        Decision::Wait { place, until: now }
    }

    /// The request of `place` was refused until `opens`; by a service that `remembers` it for others,
    /// or else for all of them. Whether it waits, with its `deadline`.
    pub(super) fn on_refused(
        &mut self,
        now: Instant,
        place: Place,
        opens: Instant,
        remembers: bool,
        deadline: Instant,
    ) -> bool {
        self.advance(now);
        // What is under way was sent before, and says nothing of the next opening.
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

    /// What the waiting request of `place` is to do now. It leaves the queue unless it waits on.
    pub(super) fn on_turn(&mut self, now: Instant, place: Place) -> Decision {
        self.advance(now);
        let Some(&Waiting { opens, deadline, .. }) = self.waiting.get(&place) else {
            return Decision::Late;
        };
        let opens = self.opens(opens);
        let (is_open, is_last) = (opens <= now, now >= deadline);
        let is_head = self.head() == Some(place);
        if is_open && (is_last || is_head && self.has_room()) {
            // One whose time is up goes whatever is known of those before it.
            self.leave(place);
            self.trying.insert(place, None);
            return Decision::Go(place);
        }
        if is_last || opens > deadline {
            self.leave(place);
            return Decision::Late;
        }
        let change = match is_open {
            true => self.trying.values().flatten().min().copied(),
            false => Some(opens),
        };
        let until = change.filter(|_| is_head).map_or(deadline, |change| change.min(deadline));
        Decision::Wait { place, until }
    }

    /// The attempt of `place` has left for the service.
    pub(super) fn on_sent(&mut self, now: Instant, place: Place) {
        if let Some(silent_at) = self.trying.get_mut(&place) {
            *silent_at = Some(now + MAX_ROUND_TRIP);
        }
    }

    /// The attempt of `place` was served.
    pub(super) fn on_served(&mut self, now: Instant, place: Place) {
        self.advance(now);
        let served = self.trying.remove(&place).map_or(0, |_| 1);
        self.widen(served);
    }

    /// The request of `place` was given up, waiting or under way.
    pub(super) fn on_left(&mut self, place: Place) {
        self.leave(place);
        self.trying.remove(&place);
        self.settle();
    }

    /// Has `waker` woken when it may be the turn of the request of `place`.
    pub(super) fn wake_with(&mut self, place: Place, waker: &Waker) {
        if let Some(waiting) = self.waiting.get_mut(&place) {
            match &mut waiting.waker {
                Some(old) => old.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        }
    }

    /// The request that goes next.
    pub(super) fn head(&self) -> Option<Place> {
        self.due.first().copied().or_else(|| Some(self.later.first()?.1))
    }

    /// The waker to call after any change: that of the request that goes next.
    pub(super) fn head_waker(&self) -> Option<Waker> {
        self.waiting.get(&self.head()?)?.waker.clone()
    }

    /// Those whose time ends before the service reopens, since it closed for longer.
    pub(super) fn wakers_in_vain(&self) -> Vec<Waker> {
        let Some(until) = self.closed_until else { return Vec::new() };
        let in_vain = self.waiting.values().filter(|waiting| waiting.deadline < until);
        in_vain.filter_map(|waiting| waiting.waker.clone()).collect()
    }

    fn opens(&self, own: Instant) -> Instant {
        self.closed_until.map_or(own, |until| until.max(own))
    }

    fn has_room(&self) -> bool {
        self.trying.len() <= self.widened
    }

    fn insert(&mut self, place: Place, opens: Instant, deadline: Instant) {
        self.later.insert((opens, place));
        self.waiting.insert(place, Waiting { opens, deadline, waker: None });
    }

    fn leave(&mut self, place: Place) {
        if let Some(Waiting { opens, .. }) = self.waiting.remove(&place)
            && !self.due.remove(&place)
        {
            self.later.remove(&(opens, place));
        }
    }

    /// Brings what is known up to `now`.
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

    /// So many attempts were not refused.
    fn widen(&mut self, attempts: usize) {
        if attempts > 0 {
            self.widened += attempts;
            self.closed_until = None;
            self.settle();
        }
    }

    /// The next opening starts with one attempt.
    fn settle(&mut self) {
        if self.waiting.is_empty() && self.trying.is_empty() {
            self.widened = 0;
        }
    }
}

/// A refusal is back by then: several times a network's round trip to another continent's nearest
/// region, and the gate's bound for the same (`MAX_ROUND_TRIP_NS`). A later one costs a few refused
/// attempts more at that opening.
const MAX_ROUND_TRIP: Duration = Duration::from_millis(100);
