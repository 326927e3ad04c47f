//! async-openai over the layers: typed requests and answers, and how each was served.
//!
//! `cargo run -p tower-spillover-adapters --example async_openai --features async-openai`

use std::{error::Error, time::Duration};

use async_openai::{Client, config::OpenAIConfig, types::responses::CreateResponseArgs};
use spillover_emulator::{Deployment, Emulator, Fault, Ptu, Resource, Serving, Standard};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_spillover::{
    Backend, BackendPool, InspectLayer, MaxWait, RegionRotateLayer, SmartFallbackLayer,
};
use tower_spillover_adapters::{
    Call,
    async_openai::FactoryService,
    reqwest::{HttpClient, move_on},
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
        .layer(InspectLayer::new())
        .service(HttpClient::new(reqwest::Client::builder())?);

    // The base and the key are replaced by a backend's; the path says which grammar it is.
    let config = OpenAIConfig::new().with_api_base("http://azure/openai/v1").with_api_key("none");
    let client = Client::with_config(config).with_http_service(FactoryService::new(stack));

    let ask = || CreateResponseArgs::default().model("gpt-4o").input("Count to ten").build();
    for (wait_ms, backend) in [("40", "ptu"), ("30000", "standard")] {
        let busy = Fault::status(429).header("retry-after-ms", wait_ms);
        emulator.script("contoso", "gpt-4o-ptu", [busy]);
        // `client.responses().create(ask()?).await` is enough where that does not matter.
        let call = Call::new().with(MaxWait(Duration::from_secs(2)));
        let (answer, served) = call.run(client.responses().create(ask()?)).await;
        println!("{}: {}", served[0], answer?.output_text().unwrap_or_default());
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
