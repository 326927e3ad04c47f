//! Backends that authenticate with Microsoft Entra ID: one token for all of them, fetched once.
//!
//! `cargo run -p tower-spillover-adapters --example entra`
//!
//! With `AZURE_OPENAI_ENDPOINT` and `AZURE_OPENAI_DEPLOYMENT` set it asks that resource, with the
//! identity that `az login` or `azd auth login` signed in.

use std::{env, error::Error, sync::Arc};

use async_trait::async_trait;
use azure_core::{
    credentials::{AccessToken, TokenCredential, TokenRequestOptions},
    time::{Duration, OffsetDateTime},
};
use azure_identity::DeveloperToolsCredential;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use spillover_emulator::{Deployment, Emulator, Resource, Standard};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, ServiceExt};
use tower_spillover::{Backend, BackendPool, RegionRotateLayer, Served, entra::EntraTokens};
use tower_spillover_adapters::reqwest::HttpClient;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let emulator = Emulator::new([Resource::new("contoso")
        .token("token-of-entra")
        .deployment(Deployment::standard("gpt-4o", Standard::unlimited()))]);
    let azure = emulator.serve("contoso", TcpListener::bind("127.0.0.1:0").await?);
    let (endpoint, deployment, tokens) = match env::var("AZURE_OPENAI_ENDPOINT") {
        Ok(endpoint) => {
            // A function that makes the credential: when a resource rejects a token, the SDK's
            // credential would give it out again, and another one does not.
            let tokens = EntraTokens::opened_by(|| {
                DeveloperToolsCredential::new(None).map(|it| it as Arc<dyn TokenCredential>)
            })?;
            (endpoint, env::var("AZURE_OPENAI_DEPLOYMENT")?, tokens)
        }
        Err(_) => (azure.endpoint(), "gpt-4o".to_owned(), EntraTokens::from(Arc::new(Emulated))),
    };

    // One source for all backends; `.entra(credential)` where there is only one.
    let backend = |name: &'static str| Backend::new(name, &endpoint);
    let pool = BackendPool::new([
        backend("east")?.deployment(&deployment).entra(tokens.clone()),
        backend("sweden")?.deployment(&deployment).entra(tokens),
    ])?;
    let azure = ServiceBuilder::new()
        .layer(RegionRotateLayer::new(pool))
        .service(HttpClient::new(reqwest::Client::builder())?);

    for _ in 0..3 {
        let chat = "/openai/deployments/any/chat/completions?api-version=2024-10-21";
        let request = Request::post(chat)
            .header("content-type", "application/json")
            .body(Full::<Bytes>::from(r#"{"messages": [{"role": "user", "content": "Hello"}]}"#))?;
        let response = azure.clone().oneshot(request).await?;
        println!("{}", response.extensions().get::<Served>().expect("the layer leaves it"));
        assert_eq!(response.status(), 200);
        response.into_body().collect().await?;
    }
    Ok(())
}

/// What signs in where there is no Azure.
#[derive(Debug)]
struct Emulated;

#[async_trait]
impl TokenCredential for Emulated {
    async fn get_token(
        &self,
        scopes: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        println!("a token for {scopes:?}");
        Ok(AccessToken::new("token-of-entra", OffsetDateTime::now_utc() + Duration::hours(1)))
    }
}
