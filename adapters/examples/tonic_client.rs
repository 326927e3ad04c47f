//! gRPC: a refused call is made again when `grpc-retry-pushback-ms` says so.
//!
//! `cargo run -p tower-spillover-adapters --features tonic --example tonic_client`

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::net::TcpListener;
use tonic::{
    Code, Status,
    metadata::MetadataMap,
    service::InterceptorLayer,
    transport::{Endpoint, Server, server::TcpIncoming},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tower::ServiceBuilder;
use tower_spillover::{ReplayLayer, WaitLayer};
use tower_spillover_adapters::tonic::GrpcChannel;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let calls = Arc::new(AtomicU32::new(0));
    let channel = Endpoint::from_shared(serve(Arc::clone(&calls)).await?)?.connect().await?;

    // Only a retry to the same place makes sense here: a channel puts its own authority into every
    // request, so `RegionRotateLayer` cannot move one. Two channels make a `SmartFallback`.
    let service = ServiceBuilder::new()
        // A tonic body can be sent once. This keeps it: for unary calls, whose body ends by itself.
        .layer(ReplayLayer::new(64 << 10))
        .layer(WaitLayer::new().max_wait(Duration::from_secs(2)))
        .service(GrpcChannel::new(channel));

    let mut health = HealthClient::new(service);
    let answer = health.check(HealthCheckRequest::default()).await?.into_inner();

    println!("{:?} after {} calls", answer.status(), calls.load(Relaxed));
    assert_eq!(answer.status(), ServingStatus::Serving);
    assert_eq!(calls.load(Relaxed), 3, "two refusals, then an answer");
    Ok(())
}

/// A gRPC server that refuses twice, each time for 100 ms.
async fn serve(calls: Arc<AtomicU32>) -> Result<String, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let refuse_twice = InterceptorLayer::new(move |request| {
        if calls.fetch_add(1, Relaxed) >= 2 {
            return Ok(request);
        }
        let mut pushback = MetadataMap::new();
        pushback.insert("grpc-retry-pushback-ms", 100.into());
        Err(Status::with_metadata(Code::ResourceExhausted, "busy", pushback))
    });
    let (_reporter, health) = tonic_health::server::health_reporter();
    let server = Server::builder().layer(refuse_twice).add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    Ok(endpoint)
}
