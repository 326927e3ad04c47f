//! HTTP/1.1 connections outlive refusals whose bodies are not read by the caller.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::{Layer, ServiceBuilder, ServiceExt, retry::RetryLayer};
use tower_spillover::{
    BackendPool, Gate, InspectLayer, RegionRotateLayer, RetryAfterPolicy, SmartFallbackLayer,
    gate::Contention,
};

use crate::{
    azure::{Azure, backend_at, refused_for},
    clock::{pause, soon},
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
    // Others seem to take each opening, so a gate that yields would skip some of them.
    let tiers = SmartFallbackLayer::new(
        RegionRotateLayer::new(pool(EAST_PTU)),
        RegionRotateLayer::new(pool(EAST)),
    );
    let service = tiers
        .gate(Gate::new().contention(Contention::Compete))
        .max_wait(Duration::ZERO)
        .layer(Protocol::Http1.client());
    let stack = Stack::new(service);
    for _ in 0..20 {
        azure.script(EAST_PTU, [refused_for(5)]);
        let answer = send(&stack, chat()).await;
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

#[tokio::test]
async fn refusals_that_hide_in_a_200_keep_their_connection() {
    let stream = "content-type: text/event-stream\r\n";
    let by_head = "content-type: text/event-stream\r\nretry-after: 4\r\n";
    let json = "content-type: application/json\r\n";
    for (head, begun, rest) in [
        (stream, ERROR, FAILED),
        (stream, ERROR, ""),
        (by_head, ERROR, FAILED),
        (json, r#"{"object":"response","status":"failed","#, r#""error":{"code":"429"}}"#),
    ] {
        for late in [0, 2] {
            let (addr, connections) = saying_in_chunks(head, begun, rest, late).await;
            let service = InspectLayer::new().layer(Protocol::Http1.client());
            for _ in 0..8 {
                let ask = Request::post(format!("http://{addr}/openai/v1/responses"));
                let ask = ask.body(Full::<Bytes>::default()).unwrap();
                let answer = soon(service.clone().oneshot(ask)).await.unwrap();
                assert_eq!(answer.status(), 429);
                // The pool gets its connection back in a task.
                pause(20).await;
            }
            // A machine that stalls for longer than the rest is waited for costs some of them.
            let connections = connections.load(Relaxed);
            assert!(connections <= 4, "{connections} for {head}{begun}{rest} after {late} ms");
        }
    }
}

/// A server that says `begun` at once and `rest` a few milliseconds later, to every request. Counts
/// its connections.
async fn saying_in_chunks(
    head: &'static str,
    begun: &'static str,
    rest: &'static str,
    late: u64,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let connections = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Relaxed);
            tokio::spawn(async move {
                while is_asked(&mut stream).await {
                    let head =
                        format!("HTTP/1.1 200 OK\r\n{head}transfer-encoding: chunked\r\n\r\n");
                    let _ = stream.write_all((head + &chunk(begun)).as_bytes()).await;
                    if late > 0 {
                        pause(late).await;
                    }
                    let _ = stream.write_all((chunk(rest) + "0\r\n\r\n").as_bytes()).await;
                }
            });
        }
    });
    (addr, connections)
}

/// Whether the head of another request has come.
async fn is_asked(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return false };
        head.push(byte);
    }
    true
}

fn chunk(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{:x}\r\n{text}\r\n", text.len()) }
}

const ERROR: &str =
    "event: error\ndata: {\"error\":{\"code\":\"no_capacity\",\"message\":\"busy\"}}\n\n";
const FAILED: &str =
    "event: response.failed\ndata: {\"response\":{\"status\":\"failed\",\"error\":null}}\n\n";
