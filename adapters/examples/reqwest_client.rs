//! Azure OpenAI through reqwest: the PTU first, a wait when that is short, else Standard.
//!
//! `cargo run -p tower-spillover-adapters --example reqwest_client --features reqwest`

use std::{error::Error, time::Duration};

use spillover_emulator::{Deployment, Emulator, Fault, Ptu, Resource, Serving, Standard};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_spillover::{Backend, BackendPool, RegionRotateLayer, Served, SmartFallbackLayer};
use tower_spillover_adapters::reqwest::{HttpClient, RequestService, move_on};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (emulator, azure) = emulate_azure().await?;
    let backend = |name: &'static str| Backend::new(name, azure.endpoint());
    let ptu = BackendPool::new([backend("ptu")?.deployment("gpt-4o-ptu").api_key("key")])?;
    let standard = BackendPool::new([backend("standard")?.deployment("gpt-4o").api_key("key")])?;

    // TLS is that of your own reqwest: its features are shared.
    let client = HttpClient::new(
        reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(2))
            .read_timeout(Duration::from_secs(60)),
    )?;
    let tier = |pool| RegionRotateLayer::new(pool).move_on(move_on());
    let azure = RequestService::new(
        ServiceBuilder::new()
            .layer(SmartFallbackLayer::new(tier(ptu), tier(standard)).move_on(move_on()))
            .service(client.clone()),
    );

    // The address is a backend's, whatever its host is here.
    let url = "http://azure/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";
    let chat = || {
        let request = client.get_ref().post(url).header("content-type", "application/json");
        request.body(r#"{"messages": [{"role": "user", "content": "Hello"}]}"#).build()
    };
    for (wait_ms, backend) in [("40", "ptu"), ("30000", "standard")] {
        let busy = Fault::status(429).header("retry-after-ms", wait_ms);
        emulator.script("contoso", "gpt-4o-ptu", [busy]);
        let response = azure.execute(chat()?).await?;
        let served: &Served = response.extensions().get().expect("the layers leave it");
        println!("{served}");
        assert_eq!(served.backend(), Some(backend));
        assert!(response.text().await?.contains("chat.completion"));
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
