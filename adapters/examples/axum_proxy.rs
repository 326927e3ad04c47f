//! A reverse proxy in front of Azure OpenAI: any body, any path, event streams as they come.
//!
//! `cargo run -p tower-spillover-adapters --features axum --example axum_proxy`

use std::{error::Error, time::Duration};

use axum::Router;
use bytes::Bytes;
use http::{HeaderName, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use spillover_emulator::{Deployment, Emulator, Fault, Pace, Ptu, Resource, Serving, Standard};
use tokio::net::TcpListener;
use tower::Layer;
use tower_spillover::{Backend, BackendPool, RegionRotateLayer, SmartFallbackLayer};
use tower_spillover_adapters::axum::proxy;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (emulator, azure) = emulate_azure().await?;
    let ptu = BackendPool::new([Backend::new("ptu", azure.endpoint())?
        .deployment("gpt-4o-ptu")
        .api_key("key-of-the-resource")])?;
    let standard = BackendPool::new([Backend::new("standard", azure.endpoint())?
        .deployment("gpt-4o")
        .api_key("key-of-the-resource")])?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let proxy = format!("http://{}", listener.local_addr()?);
    let app = proxy_to(ptu, standard);
    tokio::spawn(async move { axum::serve(listener, app).await });

    // A refusal of a few milliseconds is waited out; the client sees an answer and no refusal.
    let busy = Fault::status(429).header("retry-after-ms", "40");
    emulator.script("contoso", "gpt-4o-ptu", [busy]);
    let answer = ask(&proxy, r#"{"messages": [{"content": "hello"}]}"#).await?;
    println!("JSON  {} from {:?}", answer.status(), answer.headers()["x-served-by"]);
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["x-served-by"], "ptu");
    let answer: serde_json::Value = serde_json::from_slice(&collect(answer).await?)?;
    assert_eq!(answer["object"], "chat.completion");

    // A long one is not: the answer comes from Standard, event by event while it is generated.
    let closed = Fault::status(429).header("retry-after", "30");
    emulator.script("contoso", "gpt-4o-ptu", [closed]);
    let question = r#"{"messages": [{"content": "hello"}], "stream": true, "max_tokens": 12,
        "metadata": {"emulator_completion_tokens": 12}}"#;
    let mut answer = ask(&proxy, question).await?;
    println!("SSE   {} from {:?}", answer.status(), answer.headers()["x-served-by"]);
    assert_eq!(answer.headers()["x-served-by"], "standard");
    let first = answer.body_mut().frame().await.expect("a first event")?.into_data();
    let generated = || emulator.stats().of("contoso", "gpt-4o").completion_tokens;
    println!("      {} bytes before the end", first.as_ref().map_or(0, Bytes::len));
    assert_eq!(generated(), 0, "it is still being generated");
    assert!(collect(answer).await?.ends_with(b"data: [DONE]\n\n"));
    assert_eq!(generated(), 12);
    Ok(())
}

fn proxy_to(ptu: BackendPool, standard: BackendPool) -> Router {
    let by_name = HeaderName::from_static("x-served-by");
    let ptu = RegionRotateLayer::new(ptu).name_header(by_name.clone());
    let standard = RegionRotateLayer::new(standard).name_header(by_name);
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).build(tcp);
    Router::new().fallback_service(proxy(SmartFallbackLayer::new(ptu, standard).layer(client)))
}

/// A client of the proxy: any OpenAI client with the proxy as its endpoint.
async fn ask(proxy: &str, body: &'static str) -> Result<Response<Incoming>, Box<dyn Error>> {
    let path = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";
    let request = Request::post(format!("{proxy}{path}"))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::<Bytes>::from(body))?;
    Ok(Client::builder(TokioExecutor::new()).build_http().request(request).await?)
}

async fn collect(answer: Response<Incoming>) -> Result<Bytes, Box<dyn Error>> {
    Ok(answer.into_body().collect().await?.to_bytes())
}

/// Stands in for an Azure OpenAI resource.
async fn emulate_azure() -> Result<(Emulator, Serving), Box<dyn Error>> {
    let pace = Pace { first_token: Duration::ZERO, per_token: Duration::from_millis(50) };
    let emulator = Emulator::new([Resource::new("contoso")
        .key("key-of-the-resource")
        .deployment(Deployment::ptu("gpt-4o-ptu", Ptu::new(1_000.0)))
        .deployment(Deployment::standard("gpt-4o", Standard::unlimited()).pace(pace))]);
    let azure = emulator.serve("contoso", TcpListener::bind("127.0.0.1:0").await?);
    Ok((emulator, azure))
}
