//! A loom model of the gate's edge: a request that can go is woken in every interleaving.
//!
//! ```sh
//! .ci/run loom
//! ```
//!
//! This runs the gate itself, with loom's locks and atomics, through every interleaving of three
//! threads (with up to three preemptions; `LOOM_MAX_PREEMPTIONS` allows more). The
//! [timer](crate::sync) never fires, so a waiter that is not woken sleeps forever, which loom reports
//! as a deadlock. (The cfg has a private name because `--cfg loom` removes `tokio::net`.)

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{FutureExt, task::noop_waker_ref};
use loom::{
    future::block_on,
    model::Builder,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use super::{
    Admission, Contention, Gate, Knowledge, Permit, RefusedAttempt, Waiter, WeighedCost,
    cost::Usage,
};
use crate::{
    fleet::{Fleet, Store},
    sync::clock,
};

#[test]
fn one_probe_that_is_lost_hands_over_to_the_next_of_two_waiters() {
    two_waiters(1, |_, probe| drop(probe));
}

#[test]
fn an_accepted_probe_hands_over_to_the_next_of_two_waiters() {
    two_waiters(1, |_, probe| probe.on_accepted(None));
}

#[test]
fn a_refused_probe_goes_first_again_and_then_hands_over() {
    two_waiters(1, |gate, probe| {
        let refused = gate.on_refused(Some(probe), &refusal(clock::now(), DEADLINE));
        block_on(refused.expect("there is time left").0)
    });
}

#[test]
fn a_refused_probe_whose_caller_gives_up_hands_over() {
    two_waiters(1, |gate, probe| gate.on_refused(Some(probe), &refusal(clock::now(), DEADLINE)));
}

#[test]
fn a_head_that_is_cancelled_hands_its_turn_over() {
    explore(|| {
        let (gate, probe) = probing(new_gate);
        let (fickle, patient) = (waits(&gate, DEADLINE), waits(&gate, DEADLINE));
        let fickle = thread::spawn(move || drop(polled_once(fickle)));
        let patient = thread::spawn(move || drop(goes(block_on(patient))));
        drop(probe);
        fickle.join().unwrap();
        patient.join().unwrap();
        nothing_is_left(&gate);
    });
}

#[test]
fn a_head_whose_time_is_up_hands_its_turn_over() {
    explore(|| {
        let (gate, probe) = probing(new_gate);
        let (hasty, patient) = (waits(&gate, TICK), waits(&gate, DEADLINE));
        clock::set(2 * TICK);
        let hasty = thread::spawn(move || assert!(matches!(block_on(hasty), Admission::Spill(_))));
        let patient = thread::spawn(move || drop(goes(block_on(patient))));
        drop(probe);
        hasty.join().unwrap();
        patient.join().unwrap();
        nothing_is_left(&gate);
    });
}

#[test]
fn a_newcomer_sees_an_open_gate_or_is_woken_when_it_opens() {
    explore(|| {
        let (gate, probe) = probing(new_gate);
        let newcomers = [(); 2].map(|()| {
            let gate = gate.clone();
            thread::spawn(move || drop(arrives(&gate)))
        });
        drop(probe);
        newcomers.into_iter().for_each(|newcomer| newcomer.join().unwrap());
        nothing_is_left(&gate);
    });
}

#[test]
fn an_answer_that_cost_less_than_estimated_brings_the_turn_nearer() {
    explore(|| {
        let gate = pacing();
        let big = WeighedCost { cost: 1_000.0, ..weight(&gate) };
        let mut sent = goes(admit(&gate, big.cost, DEADLINE));
        let answer = sent.observe(&big).expect("it is tracked");
        sent.on_accepted(None);
        let waiter = waits(&gate, DEADLINE);
        let waiter = thread::spawn(move || goes(block_on(waiter)).on_accepted(None));
        answer.0.expect("it was weighed by its tokens").ended(Some(Usage::new(0, 0, 0)));
        waiter.join().unwrap();
        assert_eq!(gate.waiting(), 0);
    });
}

#[test]
fn requests_that_became_too_late_are_woken_and_spill() {
    explore(|| {
        let gate = pacing();
        let sent = goes(admit(&gate, 20.0, TICK));
        let late = [(); 2].map(|()| {
            let waiter = waits(&gate, Duration::from_millis(1_500));
            thread::spawn(move || assert!(matches!(block_on(waiter), Admission::Spill(_))))
        });
        let closed = Duration::from_secs(2);
        let refusal = RefusedAttempt { closed, ..refusal(clock::now(), TICK) };
        assert!(gate.on_refused(Some(sent), &refusal).is_err());
        late.into_iter().for_each(|waiter| waiter.join().unwrap());
        assert_eq!(gate.waiting(), 0);
    });
}

#[test]
fn no_request_waits_at_an_idle_gate() {
    explore(|| {
        let (gate, probe) = probing(new_gate);
        drop(probe);
        // Long enough for the gate to find that it is idle.
        let now = clock::set(DEADLINE);
        let refused = {
            let gate = gate.clone();
            thread::spawn(move || {
                let waiter = gate.on_refused(None, &refusal(now, DEADLINE));
                busy_while_a_request_waits(&gate);
                drop(goes(block_on(waiter.expect("there is time left").0)));
            })
        };
        let newcomer = {
            let gate = gate.clone();
            thread::spawn(move || drop(arrives(&gate)))
        };
        busy_while_a_request_waits(&gate);
        refused.join().unwrap();
        newcomer.join().unwrap();
        nothing_is_left(&gate);
        assert!(gate.is_busy(), "the refusal was the last that was learned");
    });
}

#[test]
fn news_of_a_fleet_that_its_ptu_is_busy_are_not_lost_while_a_request_finds_the_gate_idle() {
    explore(|| {
        let now = clock::set(Duration::ZERO);
        let gate = of_fleet();
        // The news before have lapsed, and the next request notices.
        gate.shared.on_fleet_closed(now, Duration::ZERO);
        let now = clock::set(DEADLINE);
        let newcomer = {
            let gate = gate.clone();
            thread::spawn(move || drop(arrives(&gate)))
        };
        gate.shared.on_fleet_closed(now, DEADLINE);
        newcomer.join().unwrap();
        assert!(gate.is_busy(), "requests ask the store from now on");
        nothing_is_left(&gate);
    });
}

#[test]
fn requests_that_the_store_of_a_fleet_does_not_answer_hand_over_to_one_another() {
    explore(|| {
        let (gate, probe) = probing(of_fleet);
        let waiters = [(); 2].map(|()| {
            // Each asks the store, and is in the queue of this process then.
            let waiter = waits(&gate, DEADLINE);
            thread::spawn(move || drop(goes(block_on(waiter))))
        });
        drop(probe);
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        nothing_is_left(&gate);
    });
}

#[test]
fn a_request_that_leaves_while_the_store_does_not_answer_hands_over() {
    explore(|| {
        let (gate, probe) = probing(of_fleet);
        let (fickle, patient) = (waits(&gate, DEADLINE), waits(&gate, DEADLINE));
        let fickle = thread::spawn(move || drop(polled_once(fickle)));
        let patient = thread::spawn(move || drop(goes(block_on(patient))));
        drop(probe);
        fickle.join().unwrap();
        patient.join().unwrap();
        nothing_is_left(&gate);
    });
}

/// A store that is thought to be up and answers nothing.
#[derive(Debug)]
struct Fails;

impl Store for Fails {}

/// A gate of a fleet whose store fails.
fn of_fleet() -> Gate {
    let fleet = Fleet::new("loom", Fails).expect("a name");
    new_gate().fleet(&fleet, "ptu")
}

/// Runs `model` in every interleaving of three threads with up to three preemptions, or as many as
/// `LOOM_MAX_PREEMPTIONS` says.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound.get_or_insert(3);
    builder.check(model);
}

/// Two requests wait for the outcome of a probe, which is `ended` concurrently. If that returns an
/// attempt, it is held for a while.
fn two_waiters<T>(window: usize, ended: impl Fn(&Gate, Permit) -> T + Copy + Send + Sync + 'static)
where
    T: 'static,
{
    explore(move || {
        let (gate, probe) = probing(new_gate);
        let under_way = Arc::new(AtomicUsize::new(0));
        let waiters = [(); 2].map(|()| {
            let (waiter, gate) = (waits(&gate, DEADLINE), gate.clone());
            let under_way = Arc::clone(&under_way);
            thread::spawn(move || {
                let permit = goes(block_on(waiter));
                assert!(under_way.fetch_add(1, Ordering::Relaxed) < window);
                busy_while_a_request_waits(&gate);
                under_way.fetch_sub(1, Ordering::Relaxed);
                drop(permit);
            })
        });
        drop(ended(&gate, probe));
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        nothing_is_left(&gate);
    });
}

/// A gate at time zero without a rate, whose PTU refused and is being probed by the refused request.
fn probing(gate: fn() -> Gate) -> (Gate, Permit) {
    let now = clock::set(Duration::ZERO);
    let gate = gate();
    let refused = gate.on_refused(None, &refusal(now, DEADLINE));
    let (waiter, _) = refused.expect("there is time left");
    let probe = goes(block_on(waiter));
    (gate, probe)
}

/// A gate that has measured a rate of 100, and whose PTU is at its limit.
fn pacing() -> Gate {
    let mut now = clock::set(Duration::ZERO);
    let gate = new_gate();
    drop(gate.on_refused(None, &RefusedAttempt { cost: 100.0, ..refusal(now, DEADLINE) }));
    for second in 0_u32.. {
        clock::set(Duration::from_secs(second.into()) + TICK);
        goes(admit(&gate, 100.0, DEADLINE)).on_accepted(None);
        now = clock::set(Duration::from_secs((second + 1).into()));
        let probe = goes(admit(&gate, 0.0, DEADLINE));
        drop(gate.on_refused(Some(probe), &refusal(now, DEADLINE)));
        if gate.state().is_some_and(|state| state.knowledge() == Knowledge::Measured) {
            break;
        }
    }
    gate
}

/// A gate that competes: yielding draws lots, which only the timer would end.
fn new_gate() -> Gate {
    Gate::new().contention(Contention::Compete)
}

/// A refusal at `now` with a hint of zero.
fn refusal(now: Instant, deadline: Duration) -> RefusedAttempt {
    RefusedAttempt {
        cost: 1.0,
        rank: 0,
        sent_at: now,
        now,
        closed: Duration::ZERO,
        is_measured: true,
        utilization: None,
        deadline: now + deadline,
        is_patient: false,
    }
}

fn weight(gate: &Gate) -> WeighedCost {
    WeighedCost { cost: 1.0, estimator: Arc::clone(&gate.shared.settings.estimator) }
}

fn admit(gate: &Gate, cost: f64, max_wait: Duration) -> Admission {
    let now = clock::now();
    gate.admit(now, cost, 0, now + max_wait)
}

fn waits(gate: &Gate, max_wait: Duration) -> Waiter {
    match admit(gate, 30.0, max_wait) {
        Admission::Wait(waiter, _) => waiter,
        other => panic!("the gate is closed, not {other:?}"),
    }
}

fn goes(admission: Admission) -> Permit {
    match admission {
        Admission::Go(permit) => permit,
        other => panic!("there is time left to go, not {other:?}"),
    }
}

fn arrives(gate: &Gate) -> Permit {
    match admit(gate, 1.0, DEADLINE) {
        Admission::Wait(waiter, _) => goes(block_on(waiter)),
        admission => goes(admission),
    }
}

/// The caller drops the waiter after its first poll, whatever that returns.
fn polled_once(mut waiter: Waiter) -> Option<Admission> {
    match waiter.poll_unpin(&mut Context::from_waker(noop_waker_ref())) {
        Poll::Ready(admission) => Some(admission),
        Poll::Pending => None,
    }
}

fn busy_while_a_request_waits(gate: &Gate) {
    let core = gate.lock();
    assert!(core.waiting() == 0 || gate.is_busy());
}

/// Every queue position and attempt was given back; otherwise this blocks forever.
fn nothing_is_left(gate: &Gate) {
    assert_eq!(gate.waiting(), 0);
    drop(arrives(gate));
}

const DEADLINE: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(1);
