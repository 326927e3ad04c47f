//! Upstreams that are slow or broken below HTTP, through a proxy that corrupts their answers.

use std::time::Duration;

use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_spillover::BackendPool;

use crate::{
    azure::{Azure, backend_at, refused_for},
    clock::{Stopwatch, pause, soon},
    fault_proxy::{Proxy, Spoil},
    protocol::{BOTH, Protocol},
    stack::{CLASSIC, Stack, ask, attempts, chat, read, send, stack},
};

const EAST_PTU: &str = "east/gpt-4o-ptu";
const EAST: &str = "east/gpt-4o";

/// A PTU behind a proxy, Standard beside it.
async fn behind(protocol: Protocol, spoil: Spoil) -> (Azure, Proxy, Stack) {
    let azure = Azure::open(&["east"]).await;
    let proxy = Proxy::to(azure.addr("east"), spoil).await;
    let ptu = BackendPool::new([backend_at(EAST_PTU, proxy.addr)]).unwrap();
    let stack = stack(protocol, ptu, azure.pool([EAST]));
    (azure, proxy, stack)
}

/// A request for some 20 KB of JSON.
fn long_answer() -> crate::stack::Ask {
    let body = r#"{"messages": [{"content": "hello"}],
        "metadata": {"emulator_completion_tokens": 4000}}"#;
    ask(CLASSIC, body)
}

#[tokio::test]
async fn a_refusal_that_trickles_in_byte_by_byte_is_understood() {
    for protocol in BOTH {
        let (azure, _proxy, stack) = behind(protocol, Spoil::Trickle).await;
        azure.script(EAST_PTU, [refused_for(20)]);
        let answer = send(&stack, chat()).await;
        assert_eq!(attempts(&answer), [(EAST_PTU, 429), (EAST_PTU, 200)], "{protocol:?}");
        let body: serde_json::Value = serde_json::from_slice(&read(answer).await).unwrap();
        assert_eq!(body["object"], "chat.completion", "{protocol:?}");
    }
}

#[tokio::test]
async fn a_refusal_that_takes_long_leaves_less_time_to_wait() {
    // Held back for 300 ms, a wait of 300 ms does not fit into half a second any more.
    let late = Spoil::Delay(Duration::from_millis(300));
    let (azure, _proxy, stack) = behind(Protocol::Http1, late).await;
    azure.script(EAST_PTU, [refused_for(300)]);
    let watch = Stopwatch::start();
    let answer = send(&stack, chat()).await;
    assert_eq!(attempts(&answer), [(EAST_PTU, 429), (EAST, 200)]);
    assert!(watch.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_reset_within_the_head_is_the_callers_and_the_next_request_is_served() {
    let (azure, proxy, stack) = behind(Protocol::Http1, Spoil::ResetAfter(20)).await;
    soon(stack.clone().oneshot(chat())).await.expect_err("no answer begins like this");
    assert_eq!((azure.attempts(), proxy.connections()), (1, 1), "it is not sent again");
    assert_eq!(attempts(&send(&stack, chat()).await), [(EAST_PTU, 200)]);
}

#[tokio::test]
async fn a_body_that_ends_early_is_an_error_and_not_asked_for_again() {
    for protocol in BOTH {
        for spoil in [Spoil::ResetAfter(8_000), Spoil::HalfCloseAfter(8_000)] {
            let (azure, _proxy, stack) = behind(protocol, spoil).await;
            let answer = send(&stack, long_answer()).await;
            assert_eq!(attempts(&answer), [(EAST_PTU, 200)], "{protocol:?}, {spoil:?}");
            let whole = soon(answer.into_body().collect()).await;
            assert!(whole.is_err(), "{protocol:?}, {spoil:?}: half an answer");
            assert_eq!(azure.attempts(), 1, "{protocol:?}, {spoil:?}");
            assert_eq!(attempts(&send(&stack, chat()).await), [(EAST_PTU, 200)], "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn a_caller_that_gives_up_on_a_stalled_upstream_can_ask_again() {
    for protocol in BOTH {
        let (azure, proxy, stack) = behind(protocol, Spoil::StallAfter(0)).await;
        tokio::select! {
            answer = stack.clone().oneshot(chat()) => panic!("{protocol:?}: {answer:?}"),
            () = pause(100) => {}
        }
        assert!(azure.attempts() <= 1, "{protocol:?}");
        if protocol == Protocol::Http1 {
            assert_eq!(attempts(&send(&stack, chat()).await), [(EAST_PTU, 200)]);
            assert_eq!(proxy.connections(), 2);
        }
    }
}

#[tokio::test]
async fn a_resource_that_restarts_between_two_requests_costs_neither_of_them() {
    for protocol in BOTH {
        let mut azure = Azure::open(&["east"]).await;
        let stack = stack(protocol, azure.pool([EAST_PTU]), azure.pool([EAST]));
        read(send(&stack, chat()).await).await;
        azure.restart("east").await;
        pause(20).await;
        assert_eq!(attempts(&send(&stack, chat()).await), [(EAST_PTU, 200)], "{protocol:?}");
    }
}
