//! A custom policy: an interactive user waits for the PTU once, never twice.
//!
//! `cargo run --example custom_policy`

use std::{error::Error, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use spillover_emulator::{Deployment, Emulator, Fault, Ptu, Resource, Standard};
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, RegionRotateLayer, Served, SmartFallbackLayer,
    policy::{FallbackFacts, FallbackPolicy, Next, WaitThenSpill},
};

/// For interactive traffic: one refusal may be bad luck; two mean that the PTU has a queue.
#[derive(Clone, Debug)]
struct WaitOnce;

impl FallbackPolicy for WaitOnce {
    fn next(&self, facts: &FallbackFacts) -> Next {
        if facts.refusals < 2 { WaitThenSpill.next(facts) } else { Next::Spill }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let patient = served_by(WaitThenSpill).await?;
    println!("WaitThenSpill: {patient}");
    assert_eq!((patient.backend(), patient.attempts().len()), (Some("ptu"), 4));
    assert!(patient.waited() >= Duration::from_millis(300), "three waits of 100 ms");

    let interactive = served_by(WaitOnce).await?;
    println!("WaitOnce:      {interactive}");
    assert_eq!((interactive.backend(), interactive.attempts().len()), (Some("standard"), 3));
    assert!(interactive.waited() < patient.waited());
    Ok(())
}

/// The result of a request under `policy` when the PTU refuses it three times, 100 ms each.
async fn served_by<P>(policy: P) -> Result<Served, Box<dyn Error>>
where
    P: FallbackPolicy,
{
    let emulator = Emulator::new([Resource::new("contoso")
        .key("key")
        .deployment(Deployment::ptu("gpt-4o-ptu", Ptu::new(1_000.0)))
        .deployment(Deployment::standard("gpt-4o", Standard::unlimited()))]);
    let busy = Fault::status(429).header("retry-after-ms", "100");
    emulator.script("contoso", "gpt-4o-ptu", [busy.clone(), busy.clone(), busy]);
    let azure = emulator.serve("contoso", TcpListener::bind("127.0.0.1:0").await?);

    let tier = |name: &str, deployment: &str| {
        let backend = Backend::new(name, azure.endpoint())?.deployment(deployment).api_key("key");
        BackendPool::new([backend]).map(RegionRotateLayer::new)
    };
    let service = SmartFallbackLayer::new(tier("ptu", "gpt-4o-ptu")?, tier("standard", "gpt-4o")?)
        .policy(policy)
        .layer(Client::builder(TokioExecutor::new()).build_http());

    let path = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";
    let request =
        Request::post(path).body(Full::<Bytes>::from(r#"{"messages": [{"content": "hello"}]}"#))?;
    let response = service.oneshot(request).await?;
    Ok(response.extensions().get().cloned().expect("the layer leaves it"))
}
