//! A rate that several processes share through a fleet's store.

use std::time::Duration;

use tower_spillover::fleet::{Fleet, Local, Rate};

use crate::clock::{ms, pass};

const PER_SECOND: f64 = 50.0;

fn rates(replicas: usize, store: &Local, per_second: f64) -> Vec<(Fleet, Rate)> {
    let of = |_| {
        let fleet = Fleet::new("prod", store.clone()).unwrap();
        let rate = Rate::new(&fleet, "team-a", per_second);
        (fleet, rate)
    };
    (0..replicas).map(of).collect()
}

/// The requests that pass in each of these seconds, of `each` per replica that arrive in each
/// millisecond.
async fn passed(rates: &[(Fleet, Rate)], seconds: u32, every: u64) -> Vec<u32> {
    let mut passed = Vec::new();
    for _ in 0..seconds {
        let mut count = 0;
        for _ in 0..1_000 / every {
            for (_, rate) in rates {
                count += u32::from(rate.take().await.is_ok());
            }
            pass(ms(every)).await;
        }
        passed.push(count);
    }
    passed
}

#[tokio::test(start_paused = true)]
async fn four_processes_keep_one_rate() {
    let store = Local::new();
    let rates = rates(4, &store, PER_SECOND);
    // Twice the rate: 25 a second from each.
    let passed = passed(&rates, 20, 40).await;
    assert!(passed[0] <= 100, "a second's burst: {passed:?}");
    let (first, rest) = passed.split_at(2);
    assert!(rest.iter().all(|count| (45..=50).contains(count)), "{first:?} {rest:?}");
}

#[tokio::test(start_paused = true)]
async fn most_requests_of_a_fast_client_do_not_call_the_store() {
    let store = Local::new();
    let rates = rates(2, &store, 2_000.0);
    // 500 a second from each.
    passed(&rates, 2, 2).await;
    let calls = |fleet: &Fleet| {
        fleet
            .stats()
            .operations
            .iter()
            .filter(|of| of.operation.name() == "lease")
            .map(|of| of.ok)
            .sum::<u64>()
    };
    let before = calls(&rates[0].0);
    let passed = passed(&rates, 10, 2).await;
    assert_eq!(passed, [1_000; 10]);
    let more = calls(&rates[0].0) - before;
    assert!(more <= 10, "{more} of 5,000 requests waited");
}

#[tokio::test(start_paused = true)]
async fn without_the_store_each_process_keeps_its_part_of_the_rate() {
    let store = Local::new();
    let rates = rates(4, &store, PER_SECOND);
    passed(&rates, 2, 40).await;
    store.set_up(false);
    let passed = passed(&rates, 10, 20).await;
    let (_, rest) = passed.split_at(2);
    // A fourth of the rate is 12.5 requests a second.
    assert!((396..=404).contains(&rest.iter().sum::<u32>()), "{passed:?}");
    for (_, rate) in &rates {
        while rate.take().await.is_ok() {}
        let wait = rate.take().await.unwrap_err();
        assert!(wait <= Duration::from_millis(80), "{wait:?}: 12.5 a second");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_the_time_of_the_next_request_of_the_fleet() {
    let store = Local::new();
    let rates = rates(2, &store, 2.0);
    assert!(rates[0].1.take().await.is_ok() && rates[0].1.take().await.is_ok());
    assert_eq!(rates[1].1.take().await, Err(ms(500)));
    pass(ms(499)).await;
    assert_eq!(rates[1].1.take().await, Err(ms(1)));
    pass(ms(1)).await;
    assert!(rates[1].1.take().await.is_ok());
}
