//! A wait until a spent budget has something left.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Instant,
};

use super::SpillBudget;
use crate::{
    clock,
    sync::{Sleep, poll_sleep},
};

/// The requests that wait, in order.
#[derive(Debug, Default)]
pub(super) struct BudgetQueue {
    wakers: BTreeMap<u64, Waker>,
    next: u64,
}

/// A request that waits for the budget. Dropping it passes its turn on.
#[derive(Debug)]
pub(in crate::smart_fallback) struct BudgetWaiter {
    budget: SpillBudget,
    from: Instant,
    until: Instant,
    /// Its position in the queue, once it waits.
    place: Option<u64>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl BudgetQueue {
    pub(super) fn first(&self) -> Option<Waker> {
        self.wakers.first_key_value().map(|(_, waker)| waker.clone())
    }
}

impl BudgetWaiter {
    pub(super) const fn new(budget: SpillBudget, from: Instant, until: Instant) -> Self {
        Self { budget, from, until, place: None, sleep: None }
    }

    /// Leaves the queue, and wakes the next request if something is left for it.
    fn leave(&mut self) {
        if let Some(place) = self.place.take() {
            self.budget.lock().waiting.wakers.remove(&place);
            self.budget.update(|_| ());
        }
    }

    /// When to check again, if nothing is left.
    fn look(&mut self, now: Instant, waker: &Waker) -> Option<Instant> {
        let mut account = self.budget.lock();
        let left = self.budget.spent_for(&account, now)?;
        let ask_again_at = account.last_answers.ask_again_at().filter(|_| self.budget.asks_fleet());
        let until = ask_again_at.map_or(self.until, |at| at.min(self.until));
        let waiting = &mut account.waiting;
        let place = *self.place.get_or_insert_with(|| {
            waiting.next += 1;
            waiting.next
        });
        waiting.wakers.insert(place, waker.clone());
        Some(now.checked_add(left).map_or(until, |next| next.min(until)))
    }
}

impl Future for BudgetWaiter {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = clock::now();
            let until = if now >= self.until {
                None
            } else if now < self.from {
                Some(self.from.min(self.until))
            } else {
                self.look(now, cx.waker())
            };
            match until {
                Some(until) => ready!(poll_sleep(&mut self.sleep, until, cx)),
                None => {
                    self.leave();
                    return Poll::Ready(());
                }
            }
        }
    }
}

impl Drop for BudgetWaiter {
    fn drop(&mut self) {
        self.leave();
    }
}
