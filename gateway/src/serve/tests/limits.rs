//! Requests that are too long, too many or too slow.

use spillover_emulator::Fault;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

async fn raw(scene: &Scene) -> TcpStream {
    let address = scene.server.url.strip_prefix("http://").unwrap();
    TcpStream::connect(address).await.unwrap()
}

async fn read_all(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    let reading = stream.read_to_end(&mut text);
    let _ = super::super::clock::timeout(Duration::from_secs(5), reading).await.expect("an end");
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_at_once_or_when_it_shows() {
    let scene = Scene::with(|config| {
        config.limits.body = 1_000;
        config.limits.replay = 100;
    })
    .await;
    let long = || Bytes::from(vec![b' '; 1_001]);
    let request = scene.post(&chat("gpt-4o")).body(Full::from(long())).unwrap();
    let answer = scene.send(request).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(code(&text(answer).await), "RequestTooLarge");
    assert!(scene.emulator.received().is_empty());

    let mut stream = raw(&scene).await;
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n",
        chat("gpt-4o")
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&long()).await.unwrap();
    stream.write_all(b"\r\n0\r\n\r\n").await.unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let scene = Scene::with(|config| {
        config.limits.headers = 10;
        config.limits.head = 8_192;
    })
    .await;
    let mut request = scene.post(&chat("gpt-4o"));
    for index in 0..10 {
        request = request.header(format!("x-{index}"), "1");
    }
    let answer = scene.send(request.body(Full::from(HELLO)).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let request = scene.post(&chat("gpt-4o")).header("x-long", "a".repeat(9_000));
    let answer = scene.send(request.body(Full::from(HELLO)).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

#[tokio::test]
async fn one_request_too_many_is_told_to_come_back() {
    let scene = Scene::with(|config| config.limits.concurrency = 1).await;
    scene.emulator.script("east", "ptu", [Fault::delay(Duration::from_millis(300))]);
    let (first, second) = tokio::join!(scene.chat("gpt-4o"), async {
        super::super::clock::sleep(Duration::from_millis(100)).await;
        scene.chat("gpt-4o").await
    });
    assert_eq!(first.status(), StatusCode::OK);
    assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(said(second.headers(), "retry-after"), Some("1"));
    text(first).await;
    assert_eq!(scene.chat("gpt-4o").await.status(), StatusCode::OK, "the place is free again");
}

#[tokio::test]
async fn a_backend_that_does_not_answer_in_time_is_a_504() {
    let scene =
        Scene::with(|config| config.upstream.head_timeout = Duration::from_millis(100).into())
            .await;
    scene.emulator.script("east", "ptu", [Fault::delay(Duration::from_secs(5))]);
    let answer = scene.chat("gpt-4o").await;
    assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(said(answer.headers(), "x-should-retry"), Some("false"), "it may still run");
    assert_eq!(code(&text(answer).await), "GatewayTimeout");
}

#[tokio::test]
async fn a_backend_that_is_gone_is_left_for_the_next_one() {
    let scene = Scene::with(|config| {
        let gone = backend("gone", "http://127.0.0.1:1", "std");
        let slow = config.models.get_mut("slow").unwrap();
        slow.standard[0].priority = 2;
        slow.standard.push(gone);
    })
    .await;
    let answer = scene.chat("slow").await;
    assert_eq!(said(answer.headers(), "x-spillover-backend"), Some("slow-east"));
    let only = Scene::with(|config| {
        config.models.get_mut("slow").unwrap().standard[0].endpoint = "http://127.0.0.1:1".into();
    })
    .await;
    let answer = only.chat("slow").await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(said(answer.headers(), "x-should-retry"), Some("true"));
}

#[tokio::test]
async fn a_client_that_says_nothing_or_half_a_head_is_cut_off() {
    let scene = Scene::with(|config| {
        config.limits.head_timeout = Duration::from_millis(200);
        config.limits.idle_timeout = Duration::from_secs(60);
    })
    .await;
    assert_eq!(read_all(raw(&scene).await).await, "");
    let mut begun = raw(&scene).await;
    begun.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(begun.read(&mut [0; 1_024]).await.unwrap() > 0);
    begun.write_all(b"GET /readyz HT").await.unwrap();
    assert_eq!(read_all(begun).await, "");
}

#[tokio::test]
async fn a_connection_may_be_idle_only_for_so_long() {
    let scene = Scene::with(|config| {
        config.limits.head_timeout = Duration::from_secs(60);
        config.limits.idle_timeout = Duration::from_millis(300);
    })
    .await;
    let mut stream = raw(&scene).await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let began = super::super::clock::now();
    assert!(read_all(stream).await.ends_with("ok\n"));
    assert!(began.elapsed() >= Duration::from_millis(250));
}
