//! The whole stack over both protocols: every branch that a request can take.

use std::time::{Duration, Instant};

use futures::future::join_all;
use http::StatusCode;
use spillover_emulator::{Deployment, Ptu, Standard};
use tower_spillover::{BackendPool, Deadline, MaxWait};

use crate::{
    azure::{Azure, PTU, STANDARD, refused_for},
    clock::{Stopwatch, pause},
    protocol::{BOTH, Protocol},
    stack::{Stack, attempts, chat, chat_v1, read, send, served, stack},
};

const EAST_PTU: &str = "east/gpt-4o-ptu";
const EAST: &str = "east/gpt-4o";
const SWEDEN: &str = "sweden/gpt-4o";

/// A PTU in one resource, Standard in the same and in another one that comes second.
async fn two_regions(protocol: Protocol) -> (Azure, Stack) {
    let azure = Azure::open(&["east", "sweden"]).await;
    let standard = BackendPool::new([azure.backend(EAST), azure.backend(SWEDEN).priority(2)])
        .expect("a valid pool");
    let stack = stack(protocol, azure.pool([EAST_PTU]), standard);
    (azure, stack)
}

#[tokio::test]
async fn an_open_ptu_serves_both_grammars() {
    for protocol in BOTH {
        let (azure, stack) = two_regions(protocol).await;
        for request in [chat(), chat_v1()] {
            let answer = send(&stack, request).await;
            assert_eq!(attempts(&answer), [(EAST_PTU, 200)], "{protocol:?}");
            let body: serde_json::Value = serde_json::from_slice(&read(answer).await).unwrap();
            assert_eq!(body["model"], PTU, "the deployment that answered names itself");
        }
        assert_eq!(azure.counts(EAST_PTU).ok, 2);
    }
}

#[tokio::test]
async fn a_short_refusal_is_waited_out_and_then_served_by_the_ptu() {
    for protocol in BOTH {
        let (azure, stack) = two_regions(protocol).await;
        azure.script(EAST_PTU, [refused_for(80), refused_for(40)]);
        let watch = Stopwatch::start();
        let answer = send(&stack, chat()).await;
        assert_eq!(attempts(&answer), [(EAST_PTU, 429), (EAST_PTU, 429), (EAST_PTU, 200)]);
        // The waits are shorter than the hints by the time that the way there and back takes.
        assert!(served(&answer).waited() >= Duration::from_millis(90), "{protocol:?}");
        assert!(watch.elapsed() >= Duration::from_millis(120), "{protocol:?}");
        assert!(!served(&answer).spilled());
    }
}

#[tokio::test]
async fn a_refusal_longer_than_max_wait_spills_at_once_and_spares_the_ptu_the_next_request() {
    for protocol in BOTH {
        let (azure, stack) = two_regions(protocol).await;
        azure.script(EAST_PTU, [refused_for(10_000)]);
        let answer = send(&stack, chat()).await;
        assert_eq!(attempts(&answer), [(EAST_PTU, 429), (EAST, 200)], "{protocol:?}");
        assert!(served(&answer).spilled() && served(&answer).waited().is_zero());
        read(answer).await;
        let answer = send(&stack, chat()).await;
        assert_eq!(attempts(&answer), [(EAST, 200)], "it is known to be closed");
        assert_eq!(azure.counts(EAST_PTU).attempts, 1);
    }
}

#[tokio::test]
async fn a_refused_region_is_left_for_the_next_one_without_a_wait() {
    for protocol in BOTH {
        let (azure, stack) = two_regions(protocol).await;
        azure.script(EAST_PTU, [refused_for(10_000)]);
        azure.script(EAST, [refused_for(10_000)]);
        let answer = send(&stack, chat_v1()).await;
        assert_eq!(
            attempts(&answer),
            [(EAST_PTU, 429), (EAST, 429), (SWEDEN, 200)],
            "{protocol:?}"
        );
        assert!(served(&answer).rotated() && served(&answer).waited().is_zero());
    }
}

#[tokio::test]
async fn when_all_refuse_the_caller_learns_the_soonest_reopening_and_nobody_is_asked_again() {
    for protocol in BOTH {
        for (ptu, east) in [(20_000, 30_000), (30_000, 20_000)] {
            let (azure, stack) = two_regions(protocol).await;
            azure.script(EAST_PTU, [refused_for(ptu)]);
            azure.script(EAST, [refused_for(east)]);
            azure.script(SWEDEN, [refused_for(40_000)]);
            for _ in 0..2 {
                let answer = send(&stack, chat()).await;
                assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
                assert_eq!(azure.attempts(), 3, "{protocol:?}");
                let wait = answer.headers()["retry-after-ms"].to_str().unwrap();
                assert!((19_000..=20_000).contains(&wait.parse().unwrap()), "{wait}");
                assert_eq!(answer.headers()["retry-after"], "20");
                let body: serde_json::Value = serde_json::from_slice(&read(answer).await).unwrap();
                assert_eq!(body["error"]["code"], "429", "{protocol:?}: {body}");
            }
        }
    }
}

#[tokio::test]
async fn extensions_change_the_wait_of_one_request() {
    let (azure, stack) = two_regions(Protocol::Http1).await;
    azure.script(EAST_PTU, [refused_for(50), refused_for(50), refused_for(600)]);
    let mut hurried = chat();
    hurried.extensions_mut().insert(MaxWait(Duration::from_millis(10)));
    assert_eq!(attempts(&send(&stack, hurried).await), [(EAST_PTU, 429), (EAST, 200)]);

    pause(60).await;
    let mut nobody_there = chat();
    nobody_there.extensions_mut().insert(Deadline(now() + Duration::from_millis(10)));
    assert_eq!(attempts(&send(&stack, nobody_there).await), [(EAST_PTU, 429), (EAST, 200)]);

    pause(60).await;
    let mut patient = chat();
    patient.extensions_mut().insert(MaxWait(Duration::from_secs(2)));
    assert_eq!(attempts(&send(&stack, patient).await), [(EAST_PTU, 429), (EAST_PTU, 200)]);
}

#[expect(clippy::disallowed_methods, reason = "a deadline is an instant")]
fn now() -> Instant {
    Instant::now()
}

#[tokio::test]
async fn a_burst_over_the_quota_of_a_real_ptu_is_served_to_the_last_request() {
    for protocol in BOTH {
        // 48 weighted tokens each, by the emulator's default of 16 for an answer, and one prompt
        // token: some 40 requests a second, and half a second of them in advance.
        let azure = Azure::with(&["east"], |resource| {
            resource
                .deployment(Deployment::ptu(PTU, Ptu::new(2_000.0).bucket_seconds(0.5)))
                .deployment(Deployment::standard(STANDARD, Standard::unlimited()))
        })
        .await;
        let stack = stack(protocol, azure.pool([EAST_PTU]), azure.pool([EAST]));
        let answers = join_all((0..80).map(|_| send(&stack, chat()))).await;
        assert!(answers.iter().all(|answer| answer.status() == StatusCode::OK), "{protocol:?}");
        let waited = answers.iter().filter(|answer| !served(answer).waited().is_zero()).count();
        assert!(waited > 0, "{protocol:?}: a burst of 80 is more than the bucket holds");
        let stats = azure.emulator.stats();
        assert_eq!((stats.total().ok, stats.misplaced, stats.unauthorized), (80, 0, 0));
    }
}
