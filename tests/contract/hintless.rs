//! How often a request is sent again to a service that refuses without a hint.

use std::time::Duration;

use tower::{Layer, ServiceExt, retry::RetryLayer};
use tower_spillover::{
    Gate, RetryAfterPolicy, SmartFallbackLayer, WaitLayer, gate::Mode, policy::WaitThenSpill,
};

use crate::{
    clock::ms,
    leaf::{Answer, Leaf, Put, request},
};

fn refusing() -> Leaf {
    Leaf::new(|_| Answer::status(429))
}

/// Asserts that each wait is twice as long as the previous one, from 100 ms on plus up to half of
/// that, and that they end by `max_wait`.
#[track_caller]
fn assert_doubling(leaf: &Leaf, max_wait: Duration) {
    let times: Vec<Duration> = leaf.seen().iter().map(|seen| seen.at).collect();
    assert!((5..=6).contains(&times.len()), "{times:?}");
    for (index, pair) in times.windows(2).enumerate() {
        let (wait, least) = (pair[1] - pair[0], ms(100) * (1 << index));
        // A timer may be a millisecond late.
        assert!((least..=least.mul_f64(1.5) + ms(1)).contains(&wait), "{index}: {times:?}");
    }
    assert!(*times.last().unwrap() <= max_wait, "{times:?}");
}

const MAX_WAIT: Duration = Duration::from_secs(4);

#[tokio::test(start_paused = true)]
async fn a_service_is_asked_half_a_dozen_times_within_the_default_wait() {
    let leaf = refusing();
    let response = WaitLayer::new().layer(leaf.clone()).oneshot(request()).await.unwrap();
    assert_eq!(response.status(), 429);
    assert_doubling(&leaf, MAX_WAIT);
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_is_decided_about_by_hints_is_asked_as_seldom() {
    type Tiers = SmartFallbackLayer<Put<Leaf>, Put<Leaf>>;
    let gates: [fn(Put<Leaf>) -> Tiers; 3] = [
        |tier| SmartFallbackLayer::alone(tier).gate(Gate::new().mode(Mode::Shared)),
        |tier| SmartFallbackLayer::alone(tier).forgetful(),
        |tier| {
            SmartFallbackLayer::new(tier, Put(Leaf::playing([Answer::ok()]))).policy(WaitThenSpill)
        },
    ];
    for layer in gates {
        let leaf = refusing();
        layer(Put(leaf.clone())).layer(()).oneshot(request()).await.unwrap();
        assert_doubling(&leaf, MAX_WAIT);
    }
}

#[tokio::test(start_paused = true)]
async fn the_script_s_policy_does_not_spin_either() {
    let leaf = refusing();
    let retry = RetryLayer::new(RetryAfterPolicy::smart_retry().budget(None));
    retry.layer(leaf.clone()).oneshot(request()).await.unwrap();
    let (times, waits) = (leaf.times(), [100, 200, 400, 800, 1_600]);
    assert_eq!(times.len(), 6, "{times:?}");
    for (pair, mean) in times.windows(2).zip(waits) {
        // The schedule of API Management draws its steps from within a fifth.
        let (wait, least, most) = (pair[1] - pair[0], mean * 8 / 10, mean * 12 / 10 + 1);
        assert!((least..=most).contains(&wait), "{times:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_were_refused_together_do_not_come_back_together() {
    let mut starts: Vec<u128> = Vec::new();
    for _ in 0..32 {
        let leaf = Leaf::playing([Answer::status(429), Answer::ok()]);
        WaitLayer::new().layer(leaf.clone()).oneshot(request()).await.unwrap();
        starts.push(leaf.times()[1]);
    }
    starts.sort_unstable();
    starts.dedup();
    assert!(starts.len() > 8, "{starts:?}");
}
