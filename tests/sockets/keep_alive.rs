//! HTTP/1.1 connections outlive the refusals whose bodies nobody reads.

use std::time::Duration;

use tower::{ServiceBuilder, retry::RetryLayer};
use tower_spillover::{BackendPool, MaxWait, RegionRotateLayer, RetryAfterPolicy};

use crate::{
    azure::{Azure, backend_at, refused_for},
    clock::pause,
    fault_proxy::{Proxy, Spoil},
    protocol::Protocol,
    stack::{Stack, attempts, chat, read, send, stack, stream},
};

const EAST_PTU: &str = "east/gpt-4o-ptu";
const EAST: &str = "east/gpt-4o";

#[tokio::test]
async fn a_refusal_and_the_answer_after_the_wait_come_over_one_connection() {
    let azure = Azure::open(&["east"]).await;
    let proxy = Proxy::to(azure.addr("east"), Spoil::Nothing).await;
    let pool = |name| BackendPool::new([backend_at(name, proxy.addr)]).unwrap();
    let stack = stack(Protocol::Http1, pool(EAST_PTU), pool(EAST));
    for _ in 0..10 {
        azure.script(EAST_PTU, [refused_for(10), refused_for(10)]);
        let answer = send(&stack, chat()).await;
        assert_eq!(attempts(&answer), [(EAST_PTU, 429), (EAST_PTU, 429), (EAST_PTU, 200)]);
        read(answer).await;
    }
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn the_retry_policy_keeps_to_one_connection_too() {
    let azure = Azure::open(&["east"]).await;
    let proxy = Proxy::to(azure.addr("east"), Spoil::Nothing).await;
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryAfterPolicy::new()))
        .layer(RegionRotateLayer::new(BackendPool::new([backend_at(EAST, proxy.addr)]).unwrap()))
        .service(Protocol::Http1.client());
    let stack = Stack::new(service);
    for _ in 0..5 {
        azure.script(EAST, [refused_for(10), refused_for(10)]);
        let answer = send(&stack, chat()).await;
        assert_eq!(answer.status(), 200);
        read(answer).await;
    }
    assert_eq!((azure.attempts(), proxy.connections()), (15, 1));
}

#[tokio::test]
async fn spilling_at_once_within_a_resource_takes_a_second_connection_and_no_third() {
    let azure = Azure::open(&["east"]).await;
    let proxy = Proxy::to(azure.addr("east"), Spoil::Nothing).await;
    let pool = |name| BackendPool::new([backend_at(name, proxy.addr)]).unwrap();
    let stack = stack(Protocol::Http1, pool(EAST_PTU), pool(EAST));
    for _ in 0..20 {
        azure.script(EAST_PTU, [refused_for(5)]);
        let mut request = chat();
        request.extensions_mut().insert(MaxWait(Duration::ZERO));
        let answer = send(&stack, request).await;
        assert_eq!(attempts(&answer), [(EAST_PTU, 429), (EAST, 200)]);
        read(answer).await;
        pause(8).await;
    }
    assert!(proxy.connections() <= 2, "{} connections", proxy.connections());
}

#[tokio::test]
async fn an_answer_that_is_not_read_to_its_end_costs_its_own_connection_only() {
    let azure = Azure::open(&["east"]).await;
    let proxy = Proxy::to(azure.addr("east"), Spoil::Nothing).await;
    let pool = |name| BackendPool::new([backend_at(name, proxy.addr)]).unwrap();
    let stack = stack(Protocol::Http1, pool(EAST_PTU), pool(EAST));
    drop(send(&stack, stream(100_000)).await);
    for _ in 0..5 {
        read(send(&stack, chat()).await).await;
    }
    assert_eq!(proxy.connections(), 2);
}
