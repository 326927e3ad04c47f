//! Refusals on the wire: odd, malformed, endless, and around the whole stack.

use std::time::Duration;

use http::StatusCode;
use spillover_emulator::Fault;
use tower::{Layer, ServiceBuilder, ServiceExt, retry::RetryLayer};
use tower_spillover::{BackendPool, RegionRotateLayer, RetryAfterPolicy, SmartFallbackLayer};

use crate::{
    azure::{Azure, backend_at, key_of, refused_for},
    clock::{Stopwatch, soon},
    protocol::{BOTH, Protocol},
    raw::Raw,
    stack::{CLASSIC, Stack, ask, attempts, chat, read, rotation, send, served, stack},
};

const EAST_PTU: &str = "east/gpt-4o-ptu";
const EAST: &str = "east/gpt-4o";
const ODD: &str = "odd/gpt-4o-ptu";

const SERVED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

#[tokio::test]
async fn no_hint_however_malformed_keeps_a_request_from_being_served() {
    let azure = Azure::open(&["east"]).await;
    for hint in [
        &b""[..],
        b"retry-after: \r\n",
        b"retry-after-ms: \xff\xfe\r\n",
        b"retry-after-ms: -1\r\nretry-after: -1\r\n",
        b"retry-after-ms: NaN\r\nretry-after: 1e400\r\n",
        b"retry-after-ms: 99999999999999999999999999999999999999\r\n",
        b"retry-after: 18446744073709551616\r\n",
        b"retry-after: Fri, 31 Dec 9999 23:59:59 GMT\r\n",
        b"retry-after: Thu, 01 Jan 1970 00:00:00 GMT\r\n",
        b"retry-after: soon\r\nretry-after: 86400\r\nretry-after: 0\r\n",
        b"x-ratelimit-reset-tokens: 6m0s\r\nx-ratelimit-remaining-tokens: -27689\r\n",
        b"content-type: application/grpc\r\ngrpc-status: 8\r\ngrpc-retry-pushback-ms: -1\r\n",
    ] {
        for status in ["429 Too Many Requests", "503 Service Unavailable"] {
            let mut refusal = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n").into_bytes();
            refusal.extend_from_slice(hint);
            refusal.extend_from_slice(b"\r\n");
            let odd = Raw::saying([refusal]).await;
            let pool =
                BackendPool::new([backend_at(ODD, odd.addr), azure.backend(EAST).priority(2)]);
            let answer = send(&rotation(Protocol::Http1, pool.unwrap()), chat()).await;
            let fair = match answer.status() {
                StatusCode::OK => served(&answer).backend() == Some(EAST),
                // Without a legible hint it is a failure, which is returned to the caller.
                StatusCode::SERVICE_UNAVAILABLE => served(&answer).attempts().len() == 1,
                _ => false,
            };
            assert!(fair, "{status}, {:?}: {answer:?}", String::from_utf8_lossy(hint));
        }
    }
}

#[tokio::test]
async fn a_refusal_whose_body_never_ends_is_not_waited_for() {
    let endless = "HTTP/1.1 429 Too Many Requests\r\nretry-after-ms: 30\r\n\
                   content-length: 1000\r\n\r\n{\"error\":";
    let odd = Raw::saying([endless, SERVED]).await;
    let azure = Azure::open(&["east"]).await;
    let ptu = BackendPool::new([backend_at(ODD, odd.addr)]).unwrap();
    let stack = stack(Protocol::Http1, ptu, azure.pool([EAST]));
    let watch = Stopwatch::start();
    let answer = send(&stack, chat()).await;
    assert_eq!(attempts(&answer), [(ODD, 429), (ODD, 200)]);
    assert!(watch.elapsed() < Duration::from_millis(500));
    assert_eq!(read(answer).await, "{}");
}

#[tokio::test]
async fn early_hints_before_a_refusal_change_nothing() {
    let hinted = "HTTP/1.1 103 Early Hints\r\nretry-after: 9\r\n\r\n\
                  HTTP/1.1 429 Too Many Requests\r\nretry-after-ms: 30\r\n\
                  content-length: 0\r\nconnection: close\r\n\r\n";
    let odd = Raw::saying([hinted, SERVED]).await;
    let azure = Azure::open(&["east"]).await;
    let ptu = BackendPool::new([backend_at(ODD, odd.addr)]).unwrap();
    let stack = stack(Protocol::Http1, ptu, azure.pool([EAST]));
    let answer = send(&stack, chat()).await;
    assert_eq!(attempts(&answer), [(ODD, 429), (ODD, 200)]);
    assert!(served(&answer).waited() < Duration::from_millis(400));
}

#[tokio::test]
async fn a_refusal_that_comes_before_the_prompt_is_read_moves_it_on_over_http_1_too() {
    // More than the buffers of the sockets hold.
    let prompt = "a".repeat(8 << 20);
    let hasty = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 9\r\ncontent-length: 0\r\n\r\n";
    let odd = Raw::saying([hasty]).await;
    let azure = Azure::open(&["east"]).await;
    let ptu = BackendPool::new([backend_at(ODD, odd.addr)]).unwrap();
    let stack = stack(Protocol::Http1, ptu, azure.pool([EAST]));
    let body = format!(r#"{{"messages": [{{"content": "{prompt}"}}]}}"#);
    let answer = send(&stack, ask(CLASSIC, body.clone())).await;
    assert_eq!(attempts(&answer), [(ODD, 429), (EAST, 200)]);
    assert_eq!(azure.emulator.received()[0].body, body);
}

#[tokio::test]
async fn a_retry_around_the_stack_waits_for_the_soonest_backend_of_all() {
    for protocol in BOTH {
        let azure = Azure::open(&["east", "sweden"]).await;
        azure.script(EAST_PTU, [refused_for(30_000)]);
        azure.script(EAST, [Fault::status(429).header("retry-after", "86400")]);
        azure.script("sweden/gpt-4o", [refused_for(150)]);
        let tiers = SmartFallbackLayer::new(
            RegionRotateLayer::new(azure.pool([EAST_PTU])),
            RegionRotateLayer::new(azure.pool([EAST, "sweden/gpt-4o"])),
        )
        .max_wait(Duration::ZERO);
        let service = ServiceBuilder::new()
            .layer(RetryLayer::new(RetryAfterPolicy::new()))
            .layer(tiers)
            .service(protocol.client());
        let watch = Stopwatch::start();
        let answer = send(&Stack::new(service), chat()).await;
        assert_eq!(attempts(&answer), [("sweden/gpt-4o", 200)], "{protocol:?}");
        assert!(watch.elapsed() >= Duration::from_millis(140), "{protocol:?}");
        assert_eq!(azure.attempts(), 4, "{protocol:?}");
    }
}

#[tokio::test]
async fn two_deployments_of_the_resource_that_the_caller_addressed_need_no_pool() {
    for protocol in BOTH {
        let azure = Azure::open(&["east"]).await;
        azure.script("east/gpt-4o-ptu", [refused_for(20), refused_for(30_000)]);
        let tiers = SmartFallbackLayer::deployments("gpt-4o-ptu", "gpt-4o").unwrap();
        let service = tiers.layer(protocol.client());
        for expected in [&["gpt-4o-ptu", "gpt-4o-ptu", "gpt-4o"][..], &["gpt-4o"]] {
            let mut request = chat();
            let uri = format!("{}{}", azure.endpoint("east"), request.uri());
            *request.uri_mut() = uri.parse().unwrap();
            request.headers_mut().insert("api-key", key_of("east").parse().unwrap());
            let answer = soon(service.clone().oneshot(request)).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{protocol:?}");
            let asked: Vec<_> = attempts(&answer).iter().map(|(name, _)| *name).collect();
            assert_eq!(asked, expected, "{protocol:?}");
        }
    }
}
