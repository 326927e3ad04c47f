//! rig over the layers: a provider's model, and how its requests were served.
//!
//! `cargo run -p tower-spillover-adapters --example rig --features reqwest,rig`

use std::error::Error;

use rig_core::{
    completion::CompletionRequest,
    providers::openai::{OpenAIConfig, wire::AZURE},
};
use spillover_emulator::{Deployment, Emulator, Fault, Ptu, Resource, Serving, Standard};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_spillover::{Backend, BackendPool, RegionRotateLayer, SmartFallbackLayer};
use tower_spillover_adapters::{
    Call,
    reqwest::{HttpClient, move_on},
    rig::RigClient,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (emulator, azure) = emulate_azure().await?;
    let backend = |name: &'static str| Backend::new(name, azure.endpoint());
    let ptu = BackendPool::new([backend("ptu")?.deployment("gpt-4o-ptu").api_key("key")])?;
    let standard = BackendPool::new([backend("standard")?.deployment("gpt-4o").api_key("key")])?;

    let tier = |pool| RegionRotateLayer::new(pool).move_on(move_on());
    let stack = ServiceBuilder::new()
        .layer(SmartFallbackLayer::new(tier(ptu), tier(standard)).move_on(move_on()))
        .service(HttpClient::new(reqwest::Client::builder())?);

    // The base and the key are replaced by a backend's.
    let config = OpenAIConfig::with_key(&AZURE, "none").with_base_url("http://azure");
    let model = config.connect(RigClient::new(stack)).chat("gpt-4o");

    for (wait_ms, backend) in [("40", "ptu"), ("30000", "standard")] {
        let busy = Fault::status(429).header("retry-after-ms", wait_ms);
        emulator.script("contoso", "gpt-4o-ptu", [busy]);
        let ask = model.call(CompletionRequest::new("Count to ten"));
        let (answer, served) = Call::new().run(ask).await;
        println!("{}: {}", served[0], answer?.text());
        assert_eq!(served[0].backend(), Some(backend));
    }
    Ok(())
}

/// Stands in for an Azure OpenAI resource.
async fn emulate_azure() -> Result<(Emulator, Serving), Box<dyn Error>> {
    let emulator = Emulator::new([Resource::new("contoso")
        .key("key")
        .deployment(Deployment::ptu("gpt-4o-ptu", Ptu::new(1_000.0)))
        .deployment(Deployment::standard("gpt-4o", Standard::unlimited()))]);
    let azure = emulator.serve("contoso", TcpListener::bind("127.0.0.1:0").await?);
    Ok((emulator, azure))
}
