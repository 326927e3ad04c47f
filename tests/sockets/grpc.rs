//! gRPC over tonic channels: pushback is obeyed, and a second channel can take a refused call.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::Request;
use tokio::net::TcpListener;
use tonic::{
    Code, Status,
    body::Body,
    metadata::MetadataMap,
    service::InterceptorLayer,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::{ServiceBuilder, retry::RetryLayer};
use tower_spillover::{
    ReplayLayer, RetryAfterPolicy, SmartFallback, replay::ReplayBody, retry_after::Backoff,
};

use crate::clock::{Stopwatch, soon};

/// A refusal: its code, and the value of `grpc-retry-pushback-ms`, if any.
type Refusal = (Code, Option<&'static str>);

/// A server that refuses its first calls by a script and records when each one arrived.
struct Grpc {
    channel: Channel,
    calls: Arc<Mutex<Vec<Stopwatch>>>,
}

impl Grpc {
    async fn refusing(refusals: &'static [Refusal]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let calls = Arc::<Mutex<Vec<_>>>::default();
        let noted = Arc::clone(&calls);
        let refuse = InterceptorLayer::new(move |request: tonic::Request<()>| {
            let mut noted = noted.lock().expect("no test panics in here");
            noted.push(Stopwatch::start());
            match refusals.get(noted.len() - 1) {
                Some(refusal) => Err(status(refusal)),
                None => Ok(request),
            }
        });
        let (_reporter, health) = tonic_health::server::health_reporter();
        let server = Server::builder().layer(refuse).add_service(health);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        let channel = Endpoint::from_shared(endpoint).unwrap().connect().await.unwrap();
        Self { channel, calls }
    }

    fn calls(&self) -> usize {
        self.calls.lock().expect("no test panics in here").len()
    }

    /// The pauses between the calls.
    fn pauses(&self) -> Vec<Duration> {
        let calls = self.calls.lock().expect("no test panics in here");
        calls.windows(2).map(|pair| pair[0].elapsed() - pair[1].elapsed()).collect()
    }
}

fn status((code, pushback): &Refusal) -> Status {
    let mut metadata = MetadataMap::new();
    if let Some(pushback) = pushback {
        metadata.insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
    }
    Status::with_metadata(*code, "refused", metadata)
}

async fn check(grpc: &Grpc) -> Result<(), Status> {
    let backoff = Backoff::new(Duration::from_millis(30), Duration::ZERO);
    let service = ServiceBuilder::new()
        .layer(ReplayLayer::new(1 << 10))
        .layer(RetryLayer::new(RetryAfterPolicy::new().backoff(backoff)))
        .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
        .service(grpc.channel.clone());
    let mut client = HealthClient::new(service);
    soon(client.check(HealthCheckRequest::default())).await.map(drop)
}

#[tokio::test]
async fn a_refused_call_is_made_again_no_earlier_than_pushback_says() {
    let grpc =
        Grpc::refusing(&[(Code::ResourceExhausted, Some("120")), (Code::Unavailable, Some("60"))])
            .await;
    check(&grpc).await.unwrap();
    let pauses = grpc.pauses();
    assert_eq!(pauses.len(), 2);
    assert!(pauses[0] >= Duration::from_millis(120), "{pauses:?}");
    assert!(pauses[1] >= Duration::from_millis(60), "{pauses:?}");
}

#[tokio::test]
async fn pushback_that_is_negative_forbids_another_call() {
    let grpc = Grpc::refusing(&[(Code::ResourceExhausted, Some("-1"))]).await;
    let status = check(&grpc).await.expect_err("the refusal is the caller's");
    assert_eq!((status.code(), grpc.calls()), (Code::ResourceExhausted, 1));
    assert_eq!(status.message(), "refused", "with all that it came with");
}

#[tokio::test]
async fn a_refusal_without_pushback_is_waited_out_by_the_users_backoff() {
    let grpc = Grpc::refusing(&[(Code::ResourceExhausted, None)]).await;
    check(&grpc).await.unwrap();
    assert!(grpc.pauses()[0] >= Duration::from_millis(30), "{:?}", grpc.pauses());
}

#[tokio::test]
async fn a_failure_without_pushback_and_any_other_status_are_the_callers() {
    let grpc = Grpc::refusing(&[(Code::Unavailable, None)]).await;
    assert_eq!(check(&grpc).await.unwrap_err().code(), Code::Unavailable);
    let grpc = Grpc::refusing(&[(Code::NotFound, Some("10"))]).await;
    assert_eq!(check(&grpc).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(grpc.calls(), 1, "it was answered, whatever the pushback");
}

#[tokio::test]
async fn a_call_that_one_channel_refuses_for_long_spills_to_another() {
    let primary = Grpc::refusing(&[(Code::ResourceExhausted, Some("60000"))]).await;
    let fallback = Grpc::refusing(&[]).await;
    let tier = |grpc: &Grpc| {
        ServiceBuilder::new()
            .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
            .service(grpc.channel.clone())
    };
    let service = ServiceBuilder::new()
        .layer(ReplayLayer::new(1 << 10))
        .service(SmartFallback::new(tier(&primary), tier(&fallback)));
    let mut client = HealthClient::new(service);
    for _ in 0..3 {
        soon(client.check(HealthCheckRequest::default())).await.unwrap();
    }
    assert_eq!((primary.calls(), fallback.calls()), (1, 3), "the primary is known to be closed");
}
