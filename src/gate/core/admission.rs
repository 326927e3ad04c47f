//! The mirrored bucket: when a PTU admits the next request, and whether waiting for it can win.

use std::{task::Waker, time::Duration};

use super::{
    bucket_depth::Depth,
    capacity_probe::Feeler,
    queue::{Place, Queue},
    rate_estimator::Meter,
    standing_queue::Standing,
    time::{Nanos, SECOND, nanos, seconds},
};

/// What a gate knows of its PTU, and who waits for it. Pure: every method is told the time.
///
/// A PTU is a leaky bucket: it refuses while its level is above the rim, and a refusal says
/// exactly how long that lasts. So its level is known at every refusal, and by the cost of what
/// was admitted since and the [learned](Meter) drain rate at any time after. While that reckoning
/// is trusted, the head of the queue goes at the instant at which the level passes the rim, and a
/// newcomer knows its wait. While it is not, because nothing was measured yet or other processes
/// fill the same PTU, hints alone are obeyed, one attempt at a time.
#[derive(Debug)]
pub(crate) struct Core {
    /// When the level passes the rim on its way down; `None` while nothing is known of it.
    clear: Option<Nanos>,
    meter: Meter,
    standing: Standing,
    queue: Queue,
    next_order: u64,
    /// The cost of all that was sent and not refused, corrected by what it cost in the end.
    admitted: f64,
    /// What requests cost in the end, as a share of their estimate.
    ratio: f64,
    /// The mean estimate.
    mean: f64,
    /// How long a refusal takes, there and back.
    round_trip: Nanos,
    feeler: Feeler,
    depth: Depth,
}

/// An attempt that the gate reckons with.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    place: Place,
    cost: f64,
    at: Nanos,
    /// What had been admitted before it.
    mark: f64,
}

/// What a request is to do.
#[derive(Debug)]
pub(crate) enum Verdict {
    Go(Sent),
    Wait(Place),
    Spill,
}

/// What a waiting request is to do.
#[derive(Debug)]
pub(crate) enum Turn {
    Go(Sent),
    /// Look again then, or when woken.
    Wait(Nanos),
    Spill,
}

impl Core {
    pub(crate) fn new(patience: Option<Duration>) -> Self {
        Self {
            clear: None,
            meter: Meter::new(),
            standing: Standing::new(patience),
            queue: Queue::default(),
            next_order: 0,
            admitted: 0.0,
            ratio: 1.0,
            mean: 0.0,
            round_trip: 0,
            feeler: Feeler::new(),
            depth: Depth::new(),
        }
    }

    /// A request of `cost` arrives, to be sent by `deadline` at the latest.
    pub(crate) fn arrive(&mut self, now: Nanos, cost: f64, rank: u8, deadline: Nanos) -> Verdict {
        self.settle(now);
        self.mean += if self.mean == 0.0 { cost } else { 0.05 * (cost - self.mean) };
        let place = Place { rank, order: self.next_order };
        self.next_order += 1;
        let wait = self.predicted_wait(now, rank);
        let latest = self.latest(deadline);
        let budget = seconds(latest.saturating_sub(now).max(0));
        let jobs = if self.mean > 0.0 { wait * self.meter.rate() / self.mean } else { 0.0 };
        self.standing.observe(seconds(now), wait, budget, jobs);
        let first = self.queue.head().is_none_or(|(head, _)| place < head);
        if first && self.is_open(now) {
            return Verdict::Go(self.send(now, place, cost));
        }
        // A hint alone is exact.
        let caution = if self.meter.is_trusted() { CAUTION } else { 1.0 };
        let allowed = self.standing.allowed(budget) / caution;
        if wait > allowed && self.wait_behind(now, rank) > allowed {
            return Verdict::Spill;
        }
        self.queue.insert(place, cost, latest);
        Verdict::Wait(place)
    }

    /// Whether it is the turn of the request at `place`, which leaves the queue unless it is to
    /// wait on.
    pub(crate) fn turn(&mut self, now: Nanos, place: Place, deadline: Nanos) -> Turn {
        self.settle(now);
        let is_head = self.queue.head().is_some_and(|(head, _)| head == place);
        let latest = self.latest(deadline);
        if is_head && self.is_open(now) && now <= latest {
            let waiting = self.queue.remove(place).expect("the head is in the queue");
            return Turn::Go(self.send(now, place, waiting.cost));
        }
        if now >= latest {
            self.queue.remove(place);
            return Turn::Spill;
        }
        let due = if is_head { self.due() } else { Nanos::MAX };
        Turn::Wait(due.max(now).min(latest))
    }

    /// Has `waker` woken when it may be the turn of the request at `place`.
    pub(crate) fn wake_with(&mut self, place: Place, waker: &Waker) {
        if let Some(waiting) = self.queue.get_mut(place) {
            match &mut waiting.waker {
                Some(old) => old.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        }
    }

    /// The one to wake after any change: whoever is at the head now.
    pub(crate) fn head_waker(&self) -> Option<Waker> {
        self.queue.head().and_then(|(_, waiting)| waiting.waker.clone())
    }

    /// The request at `place` waits no longer.
    pub(crate) fn leave(&mut self, place: Place) {
        self.queue.remove(place);
    }

    /// An attempt that was made while nothing was known of the PTU, and is refused.
    pub(crate) fn untracked(&mut self, at: Nanos, cost: f64, rank: u8) -> Sent {
        let place = Place { rank, order: self.next_order };
        self.next_order += 1;
        self.feeler.untracked();
        if self.clear.is_none() {
            self.meter.woke(seconds(at));
        }
        let mark = self.admitted;
        self.admitted += cost;
        Sent { place, cost, at, mark }
    }

    /// `sent` was refused: the PTU is closed for `closed` from when it said so, which is measured
    /// unless it is a guess. The request goes back to its place; `None` when it would come too
    /// late there.
    pub(crate) fn refused(
        &mut self,
        now: Nanos,
        sent: &Sent,
        closed: Duration,
        is_measured: bool,
        deadline: Nanos,
    ) -> Option<Place> {
        self.gone(sent);
        // A refusal that took longer was slow to be decided, not far to be fetched.
        let took = now.saturating_sub(sent.at).clamp(0, LONGEST_TRIP);
        // The shortest one tells the way there and back; others had to connect or to queue first.
        self.round_trip = match self.round_trip {
            0 => took,
            known => took.min(known + known / 16),
        };
        // It was decided half a round trip ago, which is when the hint begins to count.
        let decided = now - self.round_trip / 2;
        let reopens = decided.saturating_add(nanos(closed));
        let (seen, later) = self.seen_by(sent, reopens);
        if is_measured {
            self.meter.refused(seconds(decided), closed.as_secs_f64(), seen);
        }
        self.feeler.refused();
        self.clear = Some(reopens.saturating_add(later));
        if reopens > deadline {
            return None;
        }
        self.queue.insert(sent.place, sent.cost, self.latest(deadline));
        Some(sent.place)
    }

    /// `sent` was admitted.
    pub(crate) fn accepted(&mut self, now: Nanos) {
        self.feeler.ended();
        if !self.meter.is_trusted() && self.clear.is_some_and(|clear| clear <= now) {
            self.feeler.admitted();
        }
    }

    /// A refusal that lasts for `closed` told the level as a `share` of the limit.
    pub(crate) fn measured(&mut self, share: f64, closed: Duration) {
        self.depth.refused(share, closed.as_secs_f64());
    }

    /// The answer of `sent`, which was admitted, told the level as a `share` of the limit.
    ///
    /// It does not say whether that was the level when it was admitted, or when the answer began, so
    /// the higher reading is taken. It only ever lowers the reckoning: one that is too low is told
    /// of by a refusal, and one that is too high by nothing else.
    pub(crate) fn told(&mut self, now: Nanos, sent: &Sent, share: f64) {
        let (Some(clear), Some(depth)) = (self.clear, self.depth.seconds()) else { return };
        if !self.meter.is_trusted() {
            return;
        }
        let way = self.round_trip / 2;
        let over = ((share - 1.0) * depth * 1e9) as Nanos; // saturates
        let since = self.drain_time(self.admitted - sent.mark);
        let before = sent.at.saturating_add(way).saturating_add(over).saturating_add(since);
        let answering = now.saturating_sub(way).saturating_add(over);
        // The longer ago, the more the rate's own error is in it.
        let slack = way.saturating_add(now.saturating_sub(sent.at) / 16);
        self.clear = Some(clear.min(before.max(answering).saturating_add(slack)));
    }

    /// `sent` ended without an answer that says whether it was admitted.
    pub(crate) fn gone(&mut self, sent: &Sent) {
        self.feeler.ended();
        self.admitted -= sent.cost;
        self.shift(-sent.cost);
    }

    /// What was admitted as `sent` cost `actual` in the end.
    pub(crate) fn finished(&mut self, sent: &Sent, actual: f64) {
        let difference = actual - sent.cost;
        self.admitted += difference;
        if sent.cost > 0.0 {
            self.ratio += 0.02 * (actual / sent.cost - self.ratio);
        }
        self.shift(difference);
    }

    /// Whether the PTU has so much to spare that requests need not pass here.
    pub(crate) fn is_idle(&mut self, now: Nanos) -> bool {
        self.settle(now);
        self.clear.is_none()
    }

    /// How much longer the PTU refuses; negative when it has capacity to spare.
    pub(crate) fn closed_for(&self, now: Nanos) -> Option<Nanos> {
        self.clear.map(|clear| clear.saturating_sub(now))
    }

    pub(crate) fn rate(&self) -> Option<f64> {
        Some(self.meter.rate()).filter(|&rate| rate > 0.0)
    }

    pub(crate) fn is_trusted(&self) -> bool {
        self.meter.is_trusted()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// How long a newcomer of `rank` would wait, in seconds.
    fn predicted_wait(&self, now: Nanos, rank: u8) -> f64 {
        let Some(clear) = self.clear else { return 0.0 };
        let closed = seconds(clear.saturating_sub(self.round_trip / 2).saturating_sub(now));
        let ahead = if self.meter.is_trusted() {
            self.ratio * self.queue.ahead_of(rank) / self.meter.rate()
        } else {
            0.0
        };
        (closed + ahead).max(0.0)
    }

    /// How long a newcomer of `rank` would wait, in seconds, if those before it that will have given
    /// up by their turn are left out. In a long queue they make no difference.
    fn wait_behind(&self, now: Nanos, rank: u8) -> f64 {
        let Some(clear) = self.clear.filter(|_| self.meter.is_trusted()) else {
            return f64::INFINITY;
        };
        if self.queue.len() > LONG {
            return f64::INFINITY;
        }
        let first = clear.saturating_sub(self.round_trip / 2).max(now);
        let turn = self.queue.before(rank).fold(first, |turn, waiting| {
            let takes = if turn <= waiting.latest { self.ratio * waiting.cost } else { 0.0 };
            turn.saturating_add(self.drain_time(takes))
        });
        seconds(turn.saturating_sub(now))
    }

    /// Whether the head, or a newcomer when there is none, may go.
    fn is_open(&self, now: Nanos) -> bool {
        now >= self.due()
    }

    /// When a request with this `deadline` is to be sent at the latest: a refusal must be back in
    /// time for it to be sent elsewhere, and the round trip known is the shortest.
    fn latest(&self, deadline: Nanos) -> Nanos {
        deadline.saturating_sub(self.round_trip + self.round_trip / 2)
    }

    /// When the next attempt is to be made.
    fn due(&self) -> Nanos {
        let Some(clear) = self.clear else { return Nanos::MIN };
        // It arrives half a round trip later, and that is when the level has to be below the rim.
        let clear = clear.saturating_sub(self.round_trip / 2);
        self.feeler.due(clear, self.meter.trust(), self.round_trip)
    }

    fn send(&mut self, now: Nanos, place: Place, cost: f64) -> Sent {
        let mark = self.admitted;
        self.admitted += cost;
        let is_below = self.feeler.sent(now, self.meter.trust());
        if self.meter.is_trusted() {
            let arrives = now.saturating_add(self.round_trip / 2);
            let fill = self.drain_time(cost);
            // How deep the bucket is below the rim is not known; a refusal will tell.
            self.clear = self.clear.map(|clear| {
                let clear = if is_below { clear.min(arrives) } else { clear };
                clear.max(now - DEEPEST).saturating_add(fill)
            });
        }
        Sent { place, cost, at: now, mark }
    }

    /// The cost that the refusal of `sent` knew of, and how long it takes to drain what came
    /// later.
    fn seen_by(&self, sent: &Sent, reopens: Nanos) -> (f64, Nanos) {
        if !self.meter.is_trusted() {
            return (sent.mark, 0);
        }
        // What was sent after it came on top of what the hint knew of, unless it overtook it on the
        // way. That is only told apart when much was sent, and from a reckoning that is not in doubt.
        let later = self.drain_time((self.admitted - sent.mark).max(0.0));
        let expected = self.clear.map_or(reopens, |clear| clear.saturating_sub(later));
        let is_doubtful = self.feeler.is_checking() || later < TELLING;
        if !is_doubtful && reopens.saturating_sub(expected) > later / 2 {
            (self.admitted, 0)
        } else {
            (sent.mark, later)
        }
    }

    /// The level turns out to be higher by `cost` than was reckoned with.
    fn shift(&mut self, cost: f64) {
        if self.meter.is_trusted() {
            let time = self.drain_time(cost);
            self.clear = self.clear.map(|clear| clear.saturating_add(time));
        }
    }

    /// How long the PTU takes to drain `cost`; zero while its rate is not known.
    fn drain_time(&self, cost: f64) -> Nanos {
        let rate = self.meter.rate();
        if rate > 0.0 { (cost / rate * 1e9) as Nanos } else { 0 } // saturates
    }

    /// Brings what is known up to `now`.
    fn settle(&mut self, now: Nanos) {
        let Some(clear) = self.clear else { return };
        let spare = now.saturating_sub(clear);
        if spare > SPARE {
            self.standing.emptied();
        }
        if spare > IDLE && self.queue.is_empty() {
            self.clear = None;
            self.meter.forget_mark();
        } else {
            self.meter.creep(seconds(now), self.mean);
        }
    }
}

/// Below the rim for this long, the PTU goes idle: a bucket is hardly less than a second deep.
const IDLE: Nanos = SECOND;
/// Below the rim for this long, the queue has emptied.
const SPARE: Nanos = SECOND / 2;
/// How much has to have been sent, in time to drain it, to tell by a hint whether it knew of that.
const TELLING: Nanos = SECOND / 10;
/// Waits by a reckoning are taken for this much longer: who is let in and has to give up has waited for
/// nothing, and kept others out.
const CAUTION: f64 = 1.05;
/// Waiting requests that are looked at one by one.
const LONG: usize = 64;
const DEEPEST: Nanos = 60 * SECOND;
const LONGEST_TRIP: Nanos = SECOND / 10;
