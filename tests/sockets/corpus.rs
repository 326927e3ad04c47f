//! Replays the corpus over real connections, in every chunking.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use spillover_testing::corpus::Sample;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::{ServiceBuilder, ServiceExt};
use tower_spillover::{
    InspectLayer, ResponseBody,
    classify::{Hint, Provider, Reason, Refusal},
};

use crate::{
    clock::{pause, soon},
    protocol::Protocol,
};

/// How a response is written to its connection.
#[derive(Clone, Copy, Debug)]
enum Pieces {
    Whole,
    Bytes,
    /// The head, then event by event.
    Events,
}

#[tokio::test]
async fn every_shape_is_taken_for_what_it_is_however_it_arrives() {
    let samples = Sample::all();
    assert!(samples.len() > 60, "the corpus is there");
    for pieces in [Pieces::Whole, Pieces::Events, Pieces::Bytes] {
        for sample in &samples {
            check(sample, pieces).await;
        }
    }
}

#[tokio::test]
async fn every_provider_s_refusal_is_taken_for_what_its_own_rules_say() {
    let samples = Sample::of_providers();
    for provider in Provider::ALL.iter().filter(|it| **it != Provider::Azure) {
        let is_of = |sample: &Sample| sample.provider.as_deref() == Some(provider.name());
        assert!(samples.iter().any(is_of), "no sample of {provider}");
    }
    for pieces in [Pieces::Whole, Pieces::Bytes] {
        for sample in &samples {
            check(sample, pieces).await;
        }
    }
}

#[tokio::test]
async fn a_preamble_that_repeats_a_long_request_is_held_to_its_end() {
    let samples = Sample::all();
    for name in ["stream-error.http", "stream-served.http"] {
        let mut sample = samples.iter().find(|sample| sample.name == name).unwrap().clone();
        let text = String::from_utf8(sample.body).unwrap();
        // The length of the longest that was reported.
        let instructions = "event: error \\n data: {} ".repeat(61_000 / 25);
        let long = format!("\"instructions\":\"{instructions}\"");
        let text = text.replacen("\"instructions\":\"Say \\\"event: error\\\"\"", &long, 1);
        assert!(text.len() > 61_000);
        sample.body = text.into_bytes();
        check(&sample, Pieces::Whole).await;
        check(&sample, Pieces::Events).await;
    }
}

#[tokio::test]
async fn an_accepted_stream_begins_with_its_first_event_and_goes_on_as_it_comes() {
    let samples = Sample::all();
    let sample = samples.iter().find(|sample| sample.name == "stream-served.http").unwrap();
    let (begun, rest) = {
        let at = sample.body.windows(4).position(|four| four == b"item").unwrap();
        let line = sample.body[at..].iter().position(|&byte| byte == b'\n').unwrap();
        sample.body.split_at(at + line + 1)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let head = wire_head(sample);
    let written = [&head[..], begun].concat();
    let (go_on, mut may_go_on) = tokio::sync::mpsc::channel::<()>(1);
    let rest = rest.to_vec();
    tokio::spawn(async move {
        let mut stream = asked(&listener).await;
        stream.write_all(&written).await.unwrap();
        may_go_on.recv().await;
        stream.write_all(&rest).await.unwrap();
    });
    // The name of the first event is enough: its data was not written yet.
    let mut answer = soon(send(sample, addr)).await;
    let mut arrived = Vec::new();
    while arrived.len() < begun.len() {
        let frame = soon(answer.body_mut().frame()).await.unwrap().unwrap();
        arrived.extend_from_slice(&frame.into_data().unwrap());
    }
    assert_eq!(arrived, begun);
    go_on.send(()).await.unwrap();
    arrived.extend_from_slice(&soon(answer.into_body().collect()).await.unwrap().to_bytes());
    assert_eq!(arrived, sample.body);
}

async fn check(sample: &Sample, pieces: Pieces) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (head, body) = (wire_head(sample), sample.body.clone());
    let server = tokio::spawn(async move {
        let mut stream = asked(&listener).await;
        stream.set_nodelay(true).unwrap();
        // A caller that has its refusal closes the connection.
        let _ = say(&mut stream, &head, &body, pieces).await;
    });
    let answer = soon(send(sample, addr)).await;
    let told = verdict(&answer);
    assert_eq!(told, sample.verdict, "{} {pieces:?}", sample.name);
    let replaced = answer.status().as_u16() != sample.status() && sample.status() == 200;
    let kind = answer.headers().get("content-type").cloned();
    let length = answer.headers().get("content-length").cloned();
    let body = soon(answer.into_body().collect()).await.unwrap().to_bytes();
    if replaced {
        assert_eq!(kind.unwrap(), "application/json", "{}", sample.name);
        assert_eq!(length.unwrap(), body.len().to_string(), "{}", sample.name);
        let tree: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert!(!tree["error"].is_null(), "{}: {tree}", sample.name);
    } else {
        assert_eq!(body, sample.body, "{} {pieces:?}", sample.name);
    }
    server.abort();
}

async fn send(sample: &Sample, addr: std::net::SocketAddr) -> Response<ResponseBody<Incoming>> {
    let provider = sample.provider.as_ref().map(|name| name.parse::<Provider>().unwrap());
    let layer = provider.map_or_else(InspectLayer::new, |it| InspectLayer::new().classify(it));
    let client = ServiceBuilder::new().layer(layer).service(Protocol::Http1.client());
    let request = Request::builder()
        .method(sample.method.as_str())
        .uri(format!("http://{addr}{}", sample.path))
        .body(Full::<Bytes>::default())
        .unwrap();
    client.oneshot(request).await.unwrap()
}

/// In the corpus' words.
fn verdict<R>(answer: &Response<R>) -> String {
    let status = answer.status();
    let Some(refusal) = answer.extensions().get::<Refusal>() else {
        return format!("{} passes", status.as_str());
    };
    let reason = match refusal.reason() {
        Reason::Rate => "rate",
        Reason::Capacity => "capacity",
        Reason::Quota => "quota",
        Reason::ContextLength => "context-length",
        Reason::ServiceTier => "service-tier",
        Reason::Misconfigured => "misconfigured",
        Reason::Content => "content",
        other => panic!("{other:?}"),
    };
    if status == StatusCode::TOO_MANY_REQUESTS {
        let read = Hint::read(answer.headers(), || panic!("no file has a date"));
        assert_eq!(read, refusal.hint(), "the head tells what the refusal does");
    }
    let hint = match refusal.hint() {
        Hint::After(wait) => {
            assert_eq!(wait.subsec_nanos() % 1_000_000, 0);
            wait.as_millis().to_string()
        }
        Hint::None => "none".to_owned(),
        other => format!("{other:?}"),
    };
    format!("{} {reason} {hint}", status.as_str())
}

fn wire_head(sample: &Sample) -> Vec<u8> {
    let mut head = sample.head.join("\r\n");
    if sample.is_stream() {
        head += "\r\nconnection: close";
    } else if !head.contains("content-length") {
        head += &format!("\r\ncontent-length: {}", sample.body.len());
    }
    (head + "\r\n\r\n").into_bytes()
}

/// A connection whose request has arrived.
async fn asked(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream
}

async fn say(
    stream: &mut TcpStream,
    head: &[u8],
    body: &[u8],
    pieces: Pieces,
) -> std::io::Result<()> {
    match pieces {
        Pieces::Whole => stream.write_all(&[head, body].concat()).await?,
        Pieces::Bytes => {
            for byte in [head, body].concat() {
                stream.write_all(&[byte]).await?;
                tokio::task::yield_now().await;
            }
        }
        Pieces::Events => {
            stream.write_all(head).await?;
            for event in String::from_utf8_lossy(body).split_inclusive("\n\n") {
                pause(BETWEEN).await;
                stream.write_all(event.as_bytes()).await?;
            }
        }
    }
    stream.shutdown().await
}

/// Enough for a write to arrive by itself, in milliseconds.
const BETWEEN: u64 = Duration::from_millis(2).as_millis() as u64;
