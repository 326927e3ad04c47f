//! Charges from the spill to the end of the answer, through their sinks.

use std::task::Context;

use bytes::Bytes;
use futures::{FutureExt, task::noop_waker_ref};
use http::Request;
use http_body_util::Full;
use proptest::prelude::*;

use super::*;
use crate::{
    Gate,
    azure::Usage,
    body::UsageSink,
    gate::cost::{EstimateCost, Head},
};

const WINDOW: Duration = Duration::from_secs(60);

/// The estimate is the length of the body.
#[derive(Debug)]
struct ByLength;

impl EstimateCost for ByLength {
    fn estimate(&self, _: &Head<'_>, content: Option<&[u8]>) -> f64 {
        content.map_or(0, <[u8]>::len) as f64
    }

    fn actual(&self, usage: &Usage) -> f64 {
        (usage.prompt - usage.cached + usage.completion) as f64
    }
}

fn weight(estimate: usize) -> WeighedCost {
    let body = Full::new(Bytes::from(vec![b'x'; estimate]));
    Gate::new().cost(ByLength).weigh(&Request::new(body))
}

fn charge(budget: &SpillBudget, now: Instant, estimate: usize) -> Charge {
    budget.charge(now, || weight(estimate)).expect("there is something left")
}

fn books(budget: &SpillBudget) -> (f64, f64) {
    (budget.left(), budget.under_way())
}

#[test]
fn a_spent_budget_reports_when_the_next_window_begins() {
    let (budget, now) = (SpillBudget::requests(2, WINDOW), clock::now());
    charge(&budget, now, 0).served();
    charge(&budget.clone(), now, 0).served();
    let later = now + Duration::from_secs(10);
    let spent = budget.charge(later, || weight(0)).map(drop);
    let left = Duration::from_secs(50);
    assert_eq!(spent, Err((WhenSpent::Refuse, left)), "clones share the budget");
    charge(&budget, now + WINDOW, 0).served();
    assert_eq!(budget.lock().spent.total(), 1.0);
}

#[test]
fn a_request_counts_while_it_is_under_way_and_when_it_was_served() {
    let (budget, now) = (SpillBudget::requests(3, WINDOW), clock::now());
    let charges = [(); 3].map(|()| charge(&budget, now, 0));
    assert_eq!(books(&budget), (0.0, 3.0));
    assert!(budget.charge(now, || unreachable!("requests are not weighed")).is_err());
    let [served, refused, dropped] = charges;
    served.served();
    assert_eq!(books(&budget), (0.0, 2.0));
    drop((refused, dropped));
    assert_eq!(books(&budget), (2.0, 0.0));
}

#[test]
fn tokens_count_by_their_estimate_until_the_answer_reports_its_usage() {
    let budget = SpillBudget::tokens(1_000, WINDOW).when_spent(WhenSpent::Wait);
    let now = clock::now();
    let (first, crossing) = (charge(&budget, now, 900), charge(&budget, now, 5_000));
    assert_eq!(books(&budget), (0.0, 5_900.0), "the one that crosses the limit still spills");
    assert_eq!(budget.charge(now, || weight(1)).map(drop), Err((WhenSpent::Wait, WINDOW)));
    let sink = first.sink().expect("tokens are counted");
    first.served();
    assert_eq!(books(&budget), (0.0, 5_900.0), "its answer is on its way");
    sink.ended(Some(Usage::new(100, 60, 50)));
    assert_eq!(budget.lock().spent.total(), 5_150.0, "cached tokens are billed, too");
    drop(crossing);
    assert_eq!(books(&budget), (850.0, 0.0));
}

#[test]
fn an_answer_may_use_more_than_was_estimated() {
    let (budget, now) = (SpillBudget::tokens(1_000, WINDOW), clock::now());
    let used = charge(&budget, now, 10);
    let sink = used.sink().expect("tokens are counted");
    used.served();
    sink.ended(Some(Usage::new(0, 0, 3_000)));
    assert_eq!(books(&budget), (0.0, 0.0));
    assert!(budget.charge(now, || weight(1)).is_err());
}

#[test]
fn an_answer_that_ends_without_usage_counts_as_the_part_that_others_used() {
    let (budget, now) = (SpillBudget::tokens(10_000, WINDOW), clock::now());
    let unknown = charge(&budget, now, 1_000);
    let sink = unknown.sink().expect("tokens are counted");
    unknown.served();
    sink.ended(None);
    assert_eq!(books(&budget), (9_000.0, 0.0), "nothing is known of others yet");
    let known = charge(&budget, now, 1_000);
    let sink = known.sink().expect("tokens are counted");
    known.served();
    sink.ended(Some(Usage::new(0, 0, 250)));
    // A fallback without a pool drops the sink.
    let unread = charge(&budget, now, 1_000);
    drop(unread.sink());
    unread.served();
    assert_eq!(books(&budget), (10_000.0 - 1_000.0 - 250.0 - 250.0, 0.0));
}

#[test]
fn an_attempt_without_a_usage_is_not_the_end_of_the_request() {
    let (budget, now) = (SpillBudget::tokens(1_000, WINDOW), clock::now());
    let charge = charge(&budget, now, 500);
    charge.sink().expect("tokens are counted").ended(None);
    assert_eq!(books(&budget), (500.0, 500.0), "it was refused, and is sent again");
    let sink = charge.sink().expect("tokens are counted");
    sink.ended(Some(Usage::new(30, 0, 0)));
    charge.served();
    assert_eq!(books(&budget), (970.0, 0.0), "a layer has read the answer before");
    sink.ended(Some(Usage::new(40, 0, 0)));
    assert_eq!(books(&budget), (930.0, 0.0), "both used something");
}

#[test]
fn what_ends_after_its_window_changes_nothing_in_the_next() {
    let (budget, now) = (SpillBudget::tokens(1_000, WINDOW), clock::now());
    let [late, dropped] = [(); 2].map(|()| charge(&budget, now, 400));
    let _next = charge(&budget, now + WINDOW, 100);
    let sink = late.sink().expect("tokens are counted");
    late.served();
    sink.ended(Some(Usage::new(900, 0, 0)));
    drop(dropped);
    let spent = &budget.lock().spent;
    assert_eq!((spent.total(), spent.under_way()), (100.0, 100.0));
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_goes_on_when_anything_is_left() {
    let (budget, now) = (SpillBudget::requests(1, WINDOW), clock::now());
    let under_way = charge(&budget, now, 0);
    let waiting = budget.wait(now, now + 2 * WINDOW);
    let waiting = tokio::spawn(async move {
        waiting.await;
        clock::now() - now
    });
    clock::sleep_until(now + Duration::from_millis(1_500)).await;
    drop(under_way);
    assert_eq!(waiting.await.unwrap(), Duration::from_millis(1_500), "it was given back");

    charge(&budget, clock::now(), 0).served();
    budget.wait(now, now + 2 * WINDOW).await;
    assert_eq!(clock::now() - now, WINDOW, "the next window begins");

    charge(&budget, clock::now(), 0).served();
    budget.wait(now, clock::now() + Duration::from_secs(1)).await;
    assert_eq!(clock::now() - now, WINDOW + Duration::from_secs(1), "its time is up");

    let later = clock::now() + WINDOW + Duration::from_secs(9);
    budget.wait(later, later + WINDOW).await;
    assert_eq!(clock::now(), later, "not before the time that is given");
}

#[tokio::test(start_paused = true)]
async fn those_that_wait_go_on_in_order_and_one_that_is_dropped_passes_its_turn_on() {
    let (budget, now) = (SpillBudget::requests(1, WINDOW), clock::now());
    let under_way = charge(&budget, now, 0);
    let mut cx = Context::from_waker(noop_waker_ref());
    let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(budget.wait(now, now + WINDOW))).collect();
    assert!(waiting.iter_mut().all(|waiter| waiter.poll_unpin(&mut cx).is_pending()));
    let woken = |budget: &SpillBudget| {
        let first = budget.lock().waiting.first();
        first.is_some()
    };
    drop(waiting.remove(0));
    assert!(woken(&budget));
    drop(under_way);
    assert!(waiting[0].poll_unpin(&mut cx).is_ready());
    let taken = charge(&budget, now, 0);
    assert!(waiting[1].poll_unpin(&mut cx).is_pending(), "nothing is left for it");
    drop((taken, waiting));
    assert!(!woken(&budget), "all places were left");
}

/// How a request ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Refused,
    Served(Option<u16>),
    /// The sink is dropped, possibly after it was called.
    Unread(bool),
}

proptest! {
    #[test]
    fn when_nothing_is_under_way_what_is_charged_was_used(
        requests in prop::collection::vec((0_usize..5_000, prop_oneof![
            Just(End::Refused),
            prop::option::of(any::<u16>()).prop_map(End::Served),
            any::<bool>().prop_map(End::Unread),
        ], any::<bool>()), 1..40),
    ) {
        let (budget, now) = (SpillBudget::tokens(u64::MAX >> 12, WINDOW), clock::now());
        let mut open = Vec::new();
        let (mut used, mut estimated) = (0.0, 0.0);
        for (estimate, end, is_last) in requests {
            let charge = charge(&budget, now, estimate);
            open.push((charge, estimate, end));
            estimated += estimate as f64;
            prop_assert_eq!(budget.under_way(), estimated);
            if !is_last {
                continue;
            }
            for (charge, estimate, end) in open.drain(..) {
                let sink = charge.sink().expect("tokens are counted");
                let before = budget.lock().spent.total();
                match end {
                    End::Refused => {
                        sink.ended(None);
                        drop((charge, sink));
                        prop_assert!((budget.lock().spent.total() - (before - estimate as f64)).abs() < 1e-3);
                    }
                    End::Served(usage) => {
                        charge.served();
                        let guess = budget.lock().spent.without_usage(estimate as f64);
                        sink.ended(usage.map(|tokens| Usage::new(0, 0, u64::from(tokens))));
                        used += usage.map_or(guess, f64::from);
                    }
                    End::Unread(is_first) => {
                        let guess = budget.lock().spent.without_usage(estimate as f64);
                        if is_first {
                            drop(sink);
                            charge.served();
                        } else {
                            charge.served();
                            drop(sink);
                        }
                        used += guess;
                    }
                }
                prop_assert!(budget.under_way() >= 0.0);
            }
            estimated = 0.0;
            prop_assert_eq!(budget.under_way(), 0.0);
            prop_assert!((budget.lock().spent.total() - used).abs() < 1e-3);
        }
    }
}
