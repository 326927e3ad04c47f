//! Checks the gate's core against a naive reference over random sequences of events.

mod cases;
mod draw;
mod history;
mod probing;
mod reference;
mod woken;

use std::{sync::Arc, task::Waker, time::Duration};

use proptest::{prelude::*, test_runner::TestCaseResult};

use self::{
    draw::{Draw, Scale},
    history::Attempt,
    reference::{Expected, Newly, Reference, Word},
    woken::Woken,
};
use super::{
    Applicant, Contention, Core, Decision, Knowledge, Nanos, QueueKey, RefusedRequest,
    TrackedAttempt,
    queue::{ASK_WINDOW_NS, MAX_ASKS_PER_WINDOW},
    time::SECOND,
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 12_000, ..ProptestConfig::default() })]

    #[test]
    fn a_gate_that_knows_little_does_what_the_reference_does(
        events in prop::collection::vec(any::<u64>(), 1..28),
    ) {
        Pair::new(Contention::Yield).run(&events, Draw::usual)?;
    }

    #[test]
    fn a_gate_that_measured_does_what_the_reference_does(
        events in prop::collection::vec(any::<u64>(), 1..20),
    ) {
        let mut pair = Pair::new(Contention::Yield);
        pair.learn(0)?;
        pair.run(&events, Draw::usual)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6_000, ..ProptestConfig::default() })]

    #[test]
    fn a_gate_far_from_its_ptu_does_what_the_reference_does(
        (round_trip, events) in (0_i64..4, prop::collection::vec(any::<u64>(), 1..20)),
    ) {
        let mut pair = Pair::new(Contention::Yield);
        pair.learn([SECOND / 1_000, SECOND / 50, SECOND / 5, SECOND / 2][round_trip as usize])?;
        pair.run(&events, Draw::usual)?;
    }

    #[test]
    fn a_gate_beside_others_does_what_the_reference_does(
        (yields, events) in (any::<bool>(), prop::collection::vec(any::<u64>(), 1..20)),
    ) {
        let contention = if yields { Contention::Yield } else { Contention::Compete };
        let mut pair = Pair::new(contention);
        pair.learn(SECOND / 50)?;
        pair.lose()?;
        pair.run(&events, Draw::usual)?;
    }

    #[test]
    fn requests_that_are_refused_again_and_again_do_what_the_reference_does(
        (knows, events) in (any::<bool>(), prop::collection::vec(any::<u64>(), 20..60)),
    ) {
        let mut pair = Pair::new(Contention::Yield);
        if knows {
            pair.learn(0)?;
        }
        pair.run(&events, Draw::refusing)?;
    }

    #[test]
    fn no_number_is_too_large_for_a_gate(
        (knows, events) in (any::<bool>(), prop::collection::vec(any::<u64>(), 1..24)),
    ) {
        let mut pair = Pair::new(Contention::Yield);
        if knows {
            pair.learn(SECOND / 50)?;
        }
        pair.scale = Scale::Absurd;
        pair.run(&events, Draw::usual)?;
    }
}

/// A core and its reference, fed the same events, and what the gate's edge would hold.
struct Pair {
    core: Core,
    reference: Reference,
    scale: Scale,
    now: Nanos,
    waiting: Vec<Waiting>,
    under_way: Vec<UnderWay>,
    /// Admitted attempts that have not ended.
    answered: Vec<(TrackedAttempt, Attempt)>,
    /// Requests that left the queue, and may return to their position.
    gone: Vec<Request>,
}

#[derive(Clone, Copy)]
struct Request {
    place: QueueKey,
    cost: f64,
    deadline: Nanos,
}

struct Waiting {
    request: Request,
    /// When it polls unless it is woken before.
    looks_at: Nanos,
    woken: Arc<Woken>,
}

struct UnderWay {
    /// `None` if it was sent past an idle gate.
    tracked: Option<(TrackedAttempt, Attempt)>,
    at: Nanos,
    cost: f64,
    rank: u8,
    deadline: Nanos,
}

/// One of the things that may happen.
#[derive(Clone, Copy)]
enum Kind {
    Arrive,
    /// A request arrives that has nowhere else to go.
    ArrivePatient,
    /// A request bypasses the gate although it is busy, because its last attempt failed.
    PassBy,
    /// Time passes.
    Pass,
    /// Time passes until the next waiter polls.
    LookNext,
    LookAround,
    /// A waiter polls too early.
    Look,
    Refuse,
    RefuseLast,
    Accept,
    Lose,
    End,
    Leave,
}

impl Pair {
    fn new(contention: Contention) -> Self {
        let interval = Some(Duration::from_secs(5));
        Self {
            core: Core::new(interval, contention),
            reference: Reference::new(interval, contention),
            scale: Scale::Usual,
            now: SECOND,
            waiting: Vec::new(),
            under_way: Vec::new(),
            answered: Vec::new(),
            gone: Vec::new(),
        }
    }

    fn run(&mut self, events: &[u64], kind: impl Fn(&mut Draw) -> Kind) -> TestCaseResult {
        for &word in events {
            let mut draw = Draw(word);
            let kind = kind(&mut draw);
            self.happen(kind, &mut draw)?;
            self.check()?;
        }
        self.leave_all()
    }

    /// A PTU that drains 100 a second refuses every second, until the rate is measured.
    fn learn(&mut self, round_trip: Nanos) -> TestCaseResult {
        let first = UnderWay { tracked: None, at: self.now, cost: 0.0, rank: 0, deadline: 0 };
        self.now += round_trip;
        self.refuse(first, &measured(Duration::ZERO))?;
        for _ in 0..20 {
            let refused_at = self.now;
            self.now += SECOND / 1_000;
            let sent = self.goes(100.0)?;
            self.accept(sent);
            self.now = refused_at - round_trip + SECOND;
            let sent = self.goes(0.0)?;
            self.now += round_trip;
            self.refuse(sent, &measured(Duration::ZERO))?;
            if self.core.evidence(self.now).0.knowledge() == Knowledge::Measured {
                return self.check();
            }
        }
        panic!("it was measured often enough");
    }

    /// Others take the next openings.
    fn lose(&mut self) -> TestCaseResult {
        for index in 0..8 {
            self.now = self.now.max(self.core.bucket.next_attempt_at());
            let sent = self.goes(0.0)?;
            self.now += SECOND / 50;
            self.refuse(sent, &measured(Duration::from_millis(60 + 5 * index)))?;
        }
        prop_assert_eq!(self.core.evidence(self.now).0.knowledge(), Knowledge::Shared);
        self.check()
    }

    fn goes(&mut self, cost: f64) -> Result<UnderWay, TestCaseError> {
        // If it is refused, it does not wait again.
        self.arrive(cost, u8::MAX, 0)?;
        let sent = self.under_way.pop();
        sent.ok_or_else(|| TestCaseError::fail("it is open"))
    }

    fn happen(&mut self, kind: Kind, draw: &mut Draw) -> TestCaseResult {
        let (now, scale) = (self.now, self.scale);
        match kind {
            Kind::Arrive => {
                let deadline = now.saturating_add(draw.max_wait(scale));
                self.arrive(draw.cost(scale), draw.rank(), deadline)?;
            }
            Kind::ArrivePatient => self.arrive_patient(draw)?,
            Kind::PassBy => {
                let (cost, rank) = (draw.cost(scale), draw.rank());
                let deadline = now.saturating_add(draw.max_wait(scale));
                self.under_way.push(UnderWay { tracked: None, at: now, cost, rank, deadline });
            }
            Kind::Pass => self.now += draw.passing(scale),
            Kind::LookNext => {
                let next = self.waiting.iter().map(|waiting| waiting.looks_at).min();
                let next = next.filter(|at| *at < now.saturating_add(MAX_PASSING_NS));
                self.now = self.now.max(next.unwrap_or(now));
                self.look_around()?;
            }
            Kind::LookAround => self.look_around()?,
            Kind::Look => {
                if let Some(index) = draw.index(&self.waiting) {
                    self.look(index)?;
                }
            }
            Kind::Refuse => {
                if let Some(index) = draw.index(&self.under_way) {
                    let refused = self.under_way.swap_remove(index);
                    self.refuse(refused, &draw.refusal(scale))?;
                }
            }
            Kind::RefuseLast => {
                if let Some(refused) = self.under_way.pop() {
                    self.refuse(refused, &draw.refusal(scale))?;
                }
            }
            Kind::Accept => {
                if let Some(index) = draw.index(&self.under_way) {
                    let accepted = self.under_way.swap_remove(index);
                    self.accept(accepted);
                }
            }
            Kind::Lose => {
                if let Some(index) = draw.index(&self.under_way) {
                    let lost = self.under_way.swap_remove(index);
                    self.lose_attempt(lost);
                }
            }
            Kind::End => {
                if let Some(index) = draw.index(&self.answered) {
                    let actual = (draw.below(4) > 0).then(|| draw.cost(scale));
                    self.end(index, actual);
                }
            }
            Kind::Leave => {
                if let Some(index) = draw.index(&self.waiting) {
                    self.leave(index);
                }
            }
        }
        Ok(())
    }

    fn arrive(&mut self, cost: f64, rank: u8, deadline: Nanos) -> TestCaseResult {
        if self.passes_unasked(cost, rank, deadline)? {
            return Ok(());
        }
        let decision = self.core.on_arrival(self.now, &Applicant { cost, rank, deadline });
        let newly = Newly { cost, rank, deadline };
        let (place, expected) = self.reference.arrive(self.now, &newly);
        self.decided(&decision, expected, Request { place, cost, deadline })
    }

    fn arrive_patient(&mut self, draw: &mut Draw) -> TestCaseResult {
        let old = draw.index(&self.gone).filter(|_| draw.below(3) > 0);
        let request = old.map(|index| self.gone.swap_remove(index));
        let (cost, rank) = match request {
            Some(Request { cost, place, .. }) => (cost, place.rank),
            None => (draw.cost(self.scale), draw.rank()),
        };
        let deadline = self.now.saturating_add(draw.max_wait(self.scale));
        if self.passes_unasked(cost, rank, deadline)? {
            return Ok(());
        }
        let (newly, old) = (Newly { cost, rank, deadline }, request.map(|request| request.place));
        let applicant = Applicant { cost, rank, deadline };
        let decision = self.core.on_patient_arrival(self.now, &applicant, old);
        let (place, expected) = self.reference.arrive_patient(self.now, &newly, old);
        self.decided(&decision, expected, Request { place, cost, deadline })
    }

    fn passes_unasked(
        &mut self,
        cost: f64,
        rank: u8,
        deadline: Nanos,
    ) -> Result<bool, TestCaseError> {
        let is_idle = self.core.is_idle(self.now);
        prop_assert_eq!(is_idle, self.reference.is_idle(self.now));
        if is_idle {
            let at = self.now;
            self.under_way.push(UnderWay { tracked: None, at, cost, rank, deadline });
        }
        Ok(is_idle)
    }

    /// Checks the decision on the request that has just arrived.
    fn decided(
        &mut self,
        decision: &Decision,
        expected: Expected,
        request: Request,
    ) -> TestCaseResult {
        let was = match decision {
            Decision::Go(sent) => {
                self.go(sent.clone(), request)?;
                self.wake();
                Expected::Go
            }
            Decision::Wait { place, until } => {
                prop_assert_eq!((*place, *until), (request.place, self.now));
                self.wait(request);
                Expected::Wait
            }
            Decision::Spill(_) => {
                self.gone.push(request);
                Expected::Spill
            }
        };
        prop_assert_eq!(was, expected);
        Ok(())
    }

    /// Does what a waiter does when it is polled.
    fn look(&mut self, index: usize) -> TestCaseResult {
        let now = self.now;
        let request @ Request { place, deadline, .. } = self.waiting[index].request;
        let leaves_at = self.reference.leaves_at(now, place, deadline);
        let decision = self.core.on_turn(now, place, deadline);
        let (expected, until) = self.reference.turn(now, place, deadline);
        let was = match decision {
            Decision::Wait { until: looks_at, .. } => {
                prop_assert_eq!(looks_at, until);
                prop_assert!(looks_at > now, "it would look for ever");
                let waiting = &mut self.waiting[index];
                waiting.woken.forget();
                waiting.looks_at = looks_at;
                self.core.wake_with(place, &Waker::from(Arc::clone(&waiting.woken)));
                Expected::Wait
            }
            Decision::Go(sent) => {
                prop_assert!(now <= leaves_at, "none goes too late");
                self.waiting.swap_remove(index);
                self.go(sent, request)?;
                self.wake();
                Expected::Go
            }
            Decision::Spill(_) => {
                self.waiting.swap_remove(index);
                self.gone.push(request);
                self.wake();
                Expected::Spill
            }
        };
        prop_assert_eq!(was, expected);
        Ok(())
    }

    /// Polls every waiter that was woken or is due, which may wake others.
    fn look_around(&mut self) -> TestCaseResult {
        while let Some(index) = self.waiting.iter().position(|waiting| self.is_up(waiting)) {
            self.look(index)?;
        }
        Ok(())
    }

    /// An attempt is sent: the first request in line that may make one.
    fn go(&mut self, sent: TrackedAttempt, request: Request) -> TestCaseResult {
        let (now, Request { place, cost, deadline }) = (self.now, request);
        for other in &self.reference.waiting {
            let may_ask = self.reference.history.may_ask_at(other.place) <= now;
            prop_assert!(other.place >= place || !may_ask, "{:?} was first", other.place);
        }
        let attempt = self.reference.send(now, place, cost);
        let asks = self.reference.history.asks(place);
        let lately = asks.iter().filter(|at| **at > now - ASK_WINDOW_NS);
        prop_assert!(lately.count() <= MAX_ASKS_PER_WINDOW, "{asks:?}");
        let tracked = Some((sent, attempt));
        self.under_way.push(UnderWay { tracked, at: now, cost, rank: place.rank, deadline });
        Ok(())
    }

    fn refuse(&mut self, refused: UnderWay, word: &Word) -> TestCaseResult {
        let UnderWay { tracked, at, cost, rank, deadline } = refused;
        let (sent, attempt) = tracked.unwrap_or_else(|| {
            (
                self.core.on_untracked_refusal(at, cost, rank),
                self.reference.untracked(at, cost, rank),
            )
        });
        let Word { hint, draw, is_patient, .. } = *word;
        let word = Word { deadline, ..*word };
        let refused = RefusedRequest { hint, deadline, draw, is_patient };
        let place = self.core.on_refused(self.now, &sent, &refused).ok();
        let expected = self.reference.refused(self.now, attempt, &word);
        prop_assert_eq!(place, expected);
        let request = Request { place: sent.place, cost, deadline };
        match place {
            Some(_) => self.wait(request),
            None => self.gone.push(request),
        }
        self.wake();
        Ok(())
    }

    fn accept(&mut self, accepted: UnderWay) {
        if let Some((sent, attempt)) = accepted.tracked {
            self.core.bucket.on_accepted(self.now, &sent);
            self.reference.accepted(self.now, attempt);
            self.answered.push((sent, attempt));
            self.wake();
        }
    }

    fn lose_attempt(&mut self, lost: UnderWay) {
        if let Some((sent, attempt)) = lost.tracked {
            self.core.bucket.on_cancelled(&sent);
            self.reference.lost(attempt);
            self.wake();
        }
    }

    /// An answer ended, and may report its cost.
    fn end(&mut self, index: usize, actual: Option<f64>) {
        let (sent, attempt) = self.answered.swap_remove(index);
        self.core.bucket.on_ended(self.now, &sent, actual);
        self.reference.ended(self.now, attempt, actual);
        self.wake();
    }

    fn wait(&mut self, request: Request) {
        // A new waiter is polled at once.
        self.waiting.push(Waiting { request, looks_at: self.now, woken: Arc::default() });
    }

    fn leave(&mut self, index: usize) {
        let request = self.waiting.swap_remove(index).request;
        self.core.on_left(request.place);
        self.reference.leave(request.place);
        self.gone.push(request);
        self.wake();
    }

    fn wake(&mut self) {
        self.core.take_wakers(self.now).wake();
    }

    fn is_up(&self, waiting: &Waiting) -> bool {
        waiting.looks_at <= self.now || waiting.woken.get()
    }

    fn check(&self) -> TestCaseResult {
        let Self { core, reference, now, .. } = self;
        let bucket = &core.bucket;
        prop_assert_eq!(core.waiting(), reference.waiting.len());
        prop_assert_eq!(core.waiting(), self.waiting.len());
        let below_at = reference.history.below_limit_at();
        prop_assert_eq!(bucket.closed_for(*now), below_at.map(|at| at.saturating_sub(*now)));
        prop_assert_eq!(bucket.rate(), reference.rate());
        prop_assert!(bucket.rate().is_none_or(f64::is_finite));
        prop_assert_eq!(bucket.in_flight(), reference.history.in_flight());
        let attempt_at = bucket.next_attempt_at();
        prop_assert_eq!(attempt_at, reference.next_attempt_at());
        prop_assert!(bucket.wait_behind(*now, 1e12) >= 0.0, "it is a number");
        if !reference.rivals.are_yielded_to() && below_at.is_some() {
            prop_assert!(attempt_at <= reference.is_asked_by(), "the PTU may be open");
        }
        let next = reference.next_to_ask(*now);
        for waiting in self.waiting.iter().filter(|waiting| !self.is_up(waiting)) {
            let place = waiting.request.place;
            let leaves_at = reference.waiting(place).latest;
            prop_assert!(waiting.looks_at <= leaves_at.max(*now), "none sleeps past its time");
            if let Some((_, may_ask_at)) = next.filter(|(next, _)| *next == place) {
                let due = attempt_at.max(may_ask_at).max(*now);
                prop_assert!(waiting.looks_at <= due, "it sleeps on");
            }
        }
        Ok(())
    }

    /// Whatever happened, nothing remains once every request has left.
    fn leave_all(&mut self) -> TestCaseResult {
        while !self.waiting.is_empty() {
            self.leave(0);
            self.check()?;
        }
        while let Some(lost) = self.under_way.pop() {
            self.lose_attempt(lost);
        }
        while !self.answered.is_empty() {
            self.end(0, None);
        }
        self.check()?;
        prop_assert_eq!(self.core.bucket.in_flight(), 0.0);
        let bucket = &self.core.bucket;
        let (Some(closed), Some(refuses_until)) =
            (bucket.closed_for(self.now), bucket.refuses_until())
        else {
            return Ok(());
        };
        if closed.max(refuses_until.saturating_sub(self.now)) > MAX_PASSING_NS {
            return Ok(());
        }
        // A request that will not wait makes no attempt before a hint that was expected is over.
        self.now = self.now.max(bucket.next_attempt_at()).max(refuses_until);
        // Two attempts, since silence alone lets one go.
        for _ in 0..2 {
            let applicant = Applicant { cost: 1.0, rank: u8::MAX, deadline: self.now };
            let decision = self.core.on_arrival(self.now, &applicant);
            prop_assert!(matches!(decision, Decision::Go(_)), "an attempt is still counted");
            let Decision::Go(sent) = decision else { unreachable!() };
            self.core.bucket.on_cancelled(&sent);
        }
        prop_assert!(self.core.is_idle(self.now + 100 * MAX_PASSING_NS));
        Ok(())
    }
}

/// A refusal with a hint, for good.
const fn measured(hint: Duration) -> Word {
    Word { hint: Some(hint), draw: 0.5, deadline: 0, is_patient: false }
}

/// The most time that passes in one step; no wait goes further.
const MAX_PASSING_NS: Nanos = 100_000 * SECOND;
