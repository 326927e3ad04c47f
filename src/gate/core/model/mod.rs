//! The gate's core against a naive reference, over random sequences of events.

mod cases;
mod draw;
mod probing;
mod reference;
mod woken;

use std::{sync::Arc, task::Waker, time::Duration};

use proptest::{prelude::*, test_runner::TestCaseResult};

use self::{
    draw::Draw,
    reference::{Attempt, Expected, Reference},
    woken::Woken,
};
use super::{Core, Decision, Nanos, QueueKey, TrackedAttempt};

proptest! {
    #![proptest_config(ProptestConfig { cases: 40_000, ..ProptestConfig::default() })]

    #[test]
    fn a_gate_that_probes_does_what_the_reference_does(
        events in prop::collection::vec(any::<u64>(), 1..28),
    ) {
        let mut pair = Pair::new();
        pair.run(&events)?;
    }

    #[test]
    fn a_gate_that_paces_does_what_the_reference_does(
        events in prop::collection::vec(any::<u64>(), 1..20),
    ) {
        let mut pair = Pair::new();
        pair.learn(0)?;
        pair.run(&events)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn a_gate_that_checks_its_model_does_what_the_reference_does(
        events in prop::collection::vec(any::<u64>(), 1..20),
    ) {
        let mut pair = Pair::new();
        pair.learn(SECOND / 50)?;
        pair.pace(7)?;
        pair.run(&events)?;
    }
}

/// A core and its reference, to which the same happens, and what the gate's edge would hold.
struct Pair {
    core: Core,
    reference: Reference,
    now: Nanos,
    waiting: Vec<Waiting>,
    under_way: Vec<UnderWay>,
    /// What was admitted, and whose cost is not known yet.
    answered: Vec<(TrackedAttempt, Attempt)>,
}

struct Waiting {
    key: QueueKey,
    cost: f64,
    deadline: Nanos,
    /// When it will look unwoken.
    looks_at: Nanos,
    woken: Arc<Woken>,
}

struct UnderWay {
    /// `None` when it was sent past an idle gate.
    tracked: Option<(TrackedAttempt, Attempt)>,
    at: Nanos,
    cost: f64,
    rank: u8,
    deadline: Nanos,
}

impl Pair {
    fn new() -> Self {
        let interval = Some(Duration::from_secs(5));
        Self {
            core: Core::new(interval),
            reference: Reference::new(interval),
            now: 0,
            waiting: Vec::new(),
            under_way: Vec::new(),
            answered: Vec::new(),
        }
    }

    fn run(&mut self, events: &[u64]) -> TestCaseResult {
        for &word in events {
            self.happen(&mut Draw(word))?;
            self.check()?;
        }
        self.leave_all()
    }

    /// A PTU that drains 100 a second refuses every second, until that is trusted.
    fn learn(&mut self, round_trip: Nanos) -> TestCaseResult {
        for _ in 0..20 {
            self.now += SECOND;
            let at = self.now - round_trip;
            let probe = UnderWay { tracked: None, at, cost: 0.0, rank: 0, deadline: 0 };
            self.refuse(probe, Duration::ZERO, true)?;
            if self.core.bucket.is_trusted() {
                return Ok(());
            }
            let sent = self.core.on_untracked_refusal(self.now, 100.0, 0);
            let attempt = self.reference.untracked(self.now, 100.0, 0);
            self.accept(sent, attempt);
        }
        panic!("measurements that agree are trusted");
    }

    /// As many attempts, each admitted when it is its turn.
    fn pace(&mut self, attempts: usize) -> TestCaseResult {
        for _ in 0..attempts {
            self.now = self.now.max(self.reference.due());
            let decision = self.core.on_arrival(self.now, 10.0, 0, self.now);
            let (key, expected) = self.reference.arrive(self.now, 10.0, 0, self.now);
            prop_assert_eq!(expected, Expected::Go);
            let Decision::Go(sent) = decision else { panic!("it is open") };
            let attempt = self.reference.send(self.now, key, 10.0);
            self.accept(sent, attempt);
            self.check()?;
        }
        Ok(())
    }

    /// One of the things that may happen, by the numbers drawn.
    fn happen(&mut self, draw: &mut Draw) -> TestCaseResult {
        match draw.below(16) {
            0..4 => self.arrive(draw),
            4 => {
                self.now += draw.time([0, SECOND / 1_000, SECOND / 10, 3 * SECOND]);
                Ok(())
            }
            5..7 => {
                let next = self.waiting.iter().map(|waiting| waiting.looks_at).min();
                self.now = self.now.max(next.unwrap_or(self.now));
                self.look_around()
            }
            7 => self.look_around(),
            8 => match draw.index(&self.waiting) {
                Some(index) => self.look(index),
                None => Ok(()),
            },
            9..12 => match draw.index(&self.under_way) {
                Some(index) => {
                    let under_way = self.under_way.swap_remove(index);
                    let closed = draw.time([0, SECOND / 20, SECOND, 3 * SECOND]);
                    let closed = Duration::from_nanos(closed.unsigned_abs());
                    self.refuse(under_way, closed, draw.below(4) > 0)
                }
                None => Ok(()),
            },
            kind => {
                match kind {
                    12 | 13 => self.answer(draw),
                    14 => self.finish(draw),
                    _ => self.give_up(draw),
                }
                Ok(())
            }
        }
    }

    fn arrive(&mut self, draw: &mut Draw) -> TestCaseResult {
        let longest = [0, SECOND / 20, SECOND, 5 * SECOND];
        let (now, deadline) = (self.now, self.now + draw.time(longest));
        let (rank, cost) = (draw.rank(), draw.cost());
        let is_idle = self.core.is_idle(now);
        prop_assert_eq!(is_idle, self.reference.is_idle(now));
        if is_idle {
            self.under_way.push(UnderWay { tracked: None, at: now, cost, rank, deadline });
            return Ok(());
        }
        let may_probe = self.may_probe();
        let decision = self.core.on_arrival(now, cost, rank, deadline);
        let (key, expected) = self.reference.arrive(now, cost, rank, deadline);
        let was = match decision {
            Decision::Go(sent) => {
                prop_assert!(may_probe);
                self.go(sent, key, cost, deadline);
                Expected::Go
            }
            Decision::Wait { key: given, .. } => {
                prop_assert_eq!(given, key);
                self.wait(key, cost, deadline);
                Expected::Wait
            }
            Decision::Spill => Expected::Spill,
        };
        prop_assert_eq!(was, expected);
        Ok(())
    }

    /// What a waiter does when it is polled.
    fn look(&mut self, index: usize) -> TestCaseResult {
        let now = self.now;
        let Waiting { key, cost, deadline, .. } = self.waiting[index];
        let may_probe = self.may_probe();
        let decision = self.core.on_turn(now, key, deadline);
        let (expected, until) = self.reference.turn(now, key, deadline);
        let was = match decision {
            Decision::Wait { until: looks_at, .. } => {
                prop_assert_eq!(looks_at, until);
                prop_assert!(looks_at > now, "it would look for ever");
                let waiting = &mut self.waiting[index];
                waiting.woken.forget();
                waiting.looks_at = looks_at;
                self.core.wake_with(key, &Waker::from(Arc::clone(&waiting.woken)));
                Expected::Wait
            }
            Decision::Go(sent) => {
                prop_assert!(may_probe);
                prop_assert!(now <= self.reference.latest(deadline), "none goes too late");
                self.waiting.swap_remove(index);
                self.go(sent, key, cost, deadline);
                self.wake_head();
                Expected::Go
            }
            Decision::Spill => {
                self.waiting.swap_remove(index);
                self.wake_head();
                Expected::Spill
            }
        };
        prop_assert_eq!(was, expected);
        Ok(())
    }

    /// All look that were woken or whose time it is, which may wake others.
    fn look_around(&mut self) -> TestCaseResult {
        while let Some(index) = self.waiting.iter().position(|waiting| self.is_up(waiting)) {
            self.look(index)?;
        }
        Ok(())
    }

    fn go(&mut self, sent: TrackedAttempt, key: QueueKey, cost: f64, deadline: Nanos) {
        let attempt = self.reference.send(self.now, key, cost);
        let tracked = Some((sent, attempt));
        self.under_way.push(UnderWay { tracked, at: self.now, cost, rank: key.rank, deadline });
    }

    fn refuse(&mut self, refused: UnderWay, closed: Duration, measured: bool) -> TestCaseResult {
        let UnderWay { tracked, at, cost, rank, deadline } = refused;
        let (sent, attempt) = tracked.unwrap_or_else(|| {
            (
                self.core.on_untracked_refusal(at, cost, rank),
                self.reference.untracked(at, cost, rank),
            )
        });
        let key = self.core.on_refused(self.now, &sent, closed, measured, deadline);
        let expected = self.reference.refused(self.now, attempt, closed, measured, deadline);
        prop_assert_eq!(key, expected);
        if let Some(key) = key {
            self.wait(key, cost, deadline);
        }
        self.wake_head();
        Ok(())
    }

    /// An attempt is admitted, or lost.
    fn answer(&mut self, draw: &mut Draw) {
        let Some(index) = draw.index(&self.under_way) else { return };
        let is_lost = draw.below(3) == 0;
        match self.under_way.swap_remove(index).tracked {
            Some((sent, attempt)) if is_lost => self.lose(&sent, attempt),
            Some((sent, attempt)) => self.accept(sent, attempt),
            None => {}
        }
    }

    /// An answer has come to its end, and says what it cost.
    fn finish(&mut self, draw: &mut Draw) {
        let Some(index) = draw.index(&self.answered) else { return };
        let (sent, attempt) = self.answered.swap_remove(index);
        let actual = draw.cost();
        self.core.bucket.on_usage(&sent, actual);
        self.reference.finished(attempt, actual);
        self.wake_head();
    }

    fn give_up(&mut self, draw: &mut Draw) {
        if let Some(index) = draw.index(&self.waiting) {
            self.leave(index);
        }
    }

    fn accept(&mut self, sent: TrackedAttempt, attempt: Attempt) {
        self.core.bucket.on_accepted(self.now);
        self.reference.accepted(self.now);
        self.answered.push((sent, attempt));
        self.wake_head();
    }

    fn lose(&mut self, sent: &TrackedAttempt, attempt: Attempt) {
        self.core.bucket.on_cancelled(sent);
        self.reference.gone(attempt);
        self.wake_head();
    }

    fn wait(&mut self, key: QueueKey, cost: f64, deadline: Nanos) {
        // A new waiter is polled at once.
        let (looks_at, woken) = (self.now, Arc::default());
        self.waiting.push(Waiting { key, cost, deadline, looks_at, woken });
    }

    fn leave(&mut self, index: usize) {
        let key = self.waiting.swap_remove(index).key;
        self.core.on_left(key);
        self.reference.leave(key);
        self.wake_head();
    }

    fn wake_head(&self) {
        if let Some(waker) = self.core.head_waker() {
            waker.wake();
        }
    }

    fn is_up(&self, waiting: &Waiting) -> bool {
        waiting.looks_at <= self.now || waiting.woken.get()
    }

    /// Whether so few attempts are under way whose silence says nothing yet that one more may be
    /// made, as far as that matters.
    fn may_probe(&self) -> bool {
        if self.reference.trusted_rate().is_some() || self.reference.below_limit_at().is_none() {
            return true;
        }
        let silence = self.reference.long_silence();
        let tracked = self.under_way.iter().filter(|under_way| under_way.tracked.is_some());
        let unheard = tracked.filter(|under_way| under_way.at + silence > self.now);
        unheard.count() < self.reference.window()
    }

    fn check(&self) -> TestCaseResult {
        let Self { core, reference, now, .. } = self;
        prop_assert_eq!(core.waiting(), reference.waiting.len());
        prop_assert_eq!(core.waiting(), self.waiting.len());
        prop_assert_eq!(
            core.bucket.closed_for(*now),
            reference.below_limit_at().map(|at| at - now)
        );
        prop_assert_eq!(core.bucket.is_trusted(), reference.trusted_rate().is_some());
        prop_assert_eq!(core.bucket.rate().unwrap_or(0.0), reference.rate());
        let tracked = self.under_way.iter().filter(|under_way| under_way.tracked.is_some());
        prop_assert_eq!(tracked.count(), reference.under_way());
        let head = reference.head();
        for waiting in &self.waiting {
            if self.is_up(waiting) {
                continue;
            }
            prop_assert!(waiting.looks_at <= waiting.deadline, "none sleeps past its time");
            if head == Some(waiting.key) {
                prop_assert!(waiting.looks_at <= reference.due(), "the head sleeps on");
            }
        }
        Ok(())
    }

    /// Whatever happened, nothing is left of it when all have gone.
    fn leave_all(&mut self) -> TestCaseResult {
        while !self.waiting.is_empty() {
            self.leave(0);
            self.check()?;
        }
        for under_way in std::mem::take(&mut self.under_way) {
            if let Some((sent, attempt)) = under_way.tracked {
                self.lose(&sent, attempt);
            }
        }
        prop_assert_eq!(self.core.waiting(), 0);
        let Some(closed_for) = self.core.bucket.closed_for(self.now) else { return Ok(()) };
        self.now += closed_for.max(0);
        // Two, since silence alone lets one go.
        for _ in 0..2 {
            let decision = self.core.on_arrival(self.now, 1.0, u8::MAX, self.now);
            prop_assert!(matches!(decision, Decision::Go(_)), "an attempt is still counted");
            let Decision::Go(sent) = decision else { unreachable!() };
            self.core.bucket.on_cancelled(&sent);
        }
        prop_assert!(self.core.is_idle(self.now + 100 * SECOND));
        Ok(())
    }
}

const SECOND: Nanos = 1_000_000_000;
