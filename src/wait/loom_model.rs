//! A loom model of the queue's edge: the next request in line is woken in every interleaving.
//!
//! Run like the gate's model, and built the same way: the timer never fires, so that a waiter that is
//! not woken sleeps forever, which loom reports as a deadlock.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, task::noop_waker_ref};
use http::Extensions;
use loom::{future::block_on, model::Builder, thread};

use super::{RefusedTurn, RequestLimits, Turn, TurnPermit, TurnWaiter, WaitQueue};
use crate::sync::clock;

#[test]
fn an_attempt_that_is_served_lets_two_more_go() {
    two_waiters(|_, trying| trying.served());
}

#[test]
fn an_attempt_that_is_lost_passes_its_turn_on() {
    two_waiters(|_, trying| drop(trying));
}

#[test]
fn a_refused_attempt_goes_first_again_and_passes_its_turn_on() {
    two_waiters(|queue, trying| drop(block_on(refused(queue, Some(trying)))));
}

#[test]
fn a_refused_attempt_that_is_given_up_passes_its_turn_on() {
    two_waiters(|queue, trying| drop(refused(queue, Some(trying))));
}

#[test]
fn a_waiter_that_is_given_up_passes_its_turn_on() {
    explore(|| {
        let (queue, trying) = opening();
        let (fickle, patient) = (waits(&queue), waits(&queue));
        let fickle = thread::spawn(move || drop(polled_once(fickle)));
        let patient = thread::spawn(move || goes(block_on(patient)).served());
        drop(trying);
        fickle.join().unwrap();
        patient.join().unwrap();
        nothing_is_left(&queue);
    });
}

#[test]
fn a_newcomer_goes_or_is_woken() {
    explore(|| {
        let (queue, trying) = opening();
        let newcomers = [(); 2].map(|()| {
            let queue = queue.clone();
            thread::spawn(move || arrives(&queue).served())
        });
        trying.served();
        newcomers.into_iter().for_each(|newcomer| newcomer.join().unwrap());
        nothing_is_left(&queue);
    });
}

/// Runs `model` in every interleaving of three threads with up to three preemptions, or as many as
/// `LOOM_MAX_PREEMPTIONS` says.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound.get_or_insert(3);
    builder.check(model);
}

/// Two requests wait for the outcome of an attempt, which `ends` concurrently.
fn two_waiters(ends: impl Fn(&WaitQueue, TurnPermit) + Copy + Send + Sync + 'static) {
    explore(move || {
        let (queue, trying) = opening();
        let waiters = [(); 2].map(|()| {
            let waiter = waits(&queue);
            thread::spawn(move || goes(block_on(waiter)).served())
        });
        ends(&queue, trying);
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        nothing_is_left(&queue);
    });
}

/// A queue in front of a service that refused and has reopened, with one attempt in flight.
fn opening() -> (WaitQueue, TurnPermit) {
    clock::set(Duration::ZERO);
    let queue = WaitQueue::new();
    let trying = goes(block_on(refused(&queue, None)));
    (queue, trying)
}

fn refused(queue: &WaitQueue, permit: Option<TurnPermit>) -> TurnWaiter {
    let now = clock::now();
    let waiter =
        queue.refused(permit, RefusedTurn { now, opens: now, remembers: false }, &limits());
    waiter.expect("there is time left")
}

fn waits(queue: &WaitQueue) -> TurnWaiter {
    match queue.arrive(clock::now(), &limits()) {
        Turn::Wait(waiter) => waiter,
        Turn::Go(_) => panic!("another is being tried"),
    }
}

fn arrives(queue: &WaitQueue) -> TurnPermit {
    match queue.arrive(clock::now(), &limits()) {
        Turn::Wait(waiter) => goes(block_on(waiter)),
        Turn::Go(permit) => permit,
    }
}

fn goes(permit: Option<TurnPermit>) -> TurnPermit {
    permit.expect("there is time left to go")
}

fn limits() -> RequestLimits {
    RequestLimits::new(Duration::from_secs(30), &[], &Extensions::new(), clock::now())
}

/// The caller drops the waiter after its first poll, whatever that returns.
fn polled_once(mut waiter: TurnWaiter) -> Option<TurnPermit> {
    match waiter.poll_unpin(&mut Context::from_waker(noop_waker_ref())) {
        Poll::Ready(permit) => permit,
        Poll::Pending => None,
    }
}

/// Every position and every turn was given back; otherwise this blocks forever.
fn nothing_is_left(queue: &WaitQueue) {
    assert_eq!(queue.waiting(), 0);
    arrives(queue).served();
}
