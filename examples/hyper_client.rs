//! Azure OpenAI through hyper: the PTU first, a short wait if necessary, else the nearest Standard.
//!
//! `cargo run --example hyper_client`

use std::{error::Error, time::Duration};

use bytes::Bytes;
use http::{Request, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use spillover_emulator::{Deployment, Emulator, Fault, Ptu, Resource, Serving, Standard};
use tokio::net::TcpListener;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_spillover::{Backend, BackendPool, RegionRotateLayer, Served, SmartFallbackLayer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (emulator, east, sweden) = emulate_azure().await?;

    // A program's configuration: an endpoint, a key and a deployment for each backend.
    let ptu = BackendPool::new([Backend::new("ptu-east", east.endpoint())?
        .deployment("gpt-4o-ptu")
        .api_key("key-east")])?;
    let standard = BackendPool::new([
        Backend::new("eastus", east.endpoint())?.deployment("gpt-4o").api_key("key-east"),
        Backend::new("sweden", sweden.endpoint())?
            .deployment("gpt-4o")
            .api_key("key-sweden")
            .priority(2),
    ])?;

    // Small requests must not wait for each other's acknowledgements, so no Nagle. For Azure itself
    // give this connector to hyper-rustls, and the result to the client:
    // `HttpsConnectorBuilder::new().with_webpki_roots().https_only().enable_all_versions()
    // .wrap_connector(tcp)`, after `tcp.enforce_http(false)`.
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(Duration::from_secs(60)));
    let client = Client::builder(TokioExecutor::new()).build(tcp);

    let mut azure = ServiceBuilder::new()
        .layer(
            SmartFallbackLayer::new(RegionRotateLayer::new(ptu), RegionRotateLayer::new(standard))
                .max_wait(Duration::from_millis(1_500)),
        )
        .service(client);

    let first = ask(&mut azure).await?;
    assert_eq!((first.backend(), first.attempts().len()), (Some("ptu-east"), 1));

    // The first prompt left the PTU one second above its limit, as its hint states: worth the wait.
    let second = ask(&mut azure).await?;
    assert_eq!((second.backend(), second.spilled()), (Some("ptu-east"), false));
    assert!(second.waited() > Duration::from_millis(100));

    // After another one it would take two seconds, which is too long. Standard answers immediately.
    let third = ask(&mut azure).await?;
    assert_eq!((third.backend(), third.spilled()), (Some("eastus"), true));
    assert!(third.waited().is_zero());

    // If the nearest Standard refuses too, the next region answers.
    emulator.script("contoso-east", "gpt-4o", [Fault::status(429).header("retry-after", "20")]);
    let fourth = ask(&mut azure).await?;
    assert_eq!((fourth.backend(), fourth.spilled()), (Some("sweden"), true));
    Ok(())
}

/// Sends a prompt of 2,000 tokens, and returns its `Served`.
async fn ask<S, B>(azure: &mut S) -> Result<Served, Box<dyn Error>>
where
    S: Service<Request<Full<Bytes>>, Response = http::Response<B>, Error: Error + 'static>,
    B: http_body::Body<Error: Error + 'static>,
{
    let prompt = "fact ".repeat(1_600);
    let request =
        Request::post("/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(format!(
                r#"{{"messages": [{{"role": "user", "content": "{prompt}"}}]}}"#
            )))?;
    let response = azure.ready().await?.call(request).await?;
    assert!(response.status().is_success());
    let served = response.extensions().get::<Served>().cloned().expect("the layer leaves it");
    response.into_body().collect().await?;
    println!("{served}");
    Ok(served)
}

/// Emulates two Azure OpenAI resources.
async fn emulate_azure() -> Result<(Emulator, Serving, Serving), Box<dyn Error>> {
    let standard = || Deployment::standard("gpt-4o", Standard::tokens_per_minute(60_000));
    // A thousand tokens per second, and a bucket of one second.
    let ptu = Deployment::ptu("gpt-4o-ptu", Ptu::new(1_000.0).bucket_seconds(1.0));
    let emulator = Emulator::new([
        Resource::new("contoso-east").key("key-east").deployment(ptu).deployment(standard()),
        Resource::new("contoso-sweden").key("key-sweden").deployment(standard()),
    ]);
    let east = emulator.serve("contoso-east", TcpListener::bind("127.0.0.1:0").await?);
    let sweden = emulator.serve("contoso-sweden", TcpListener::bind("127.0.0.1:0").await?);
    Ok((emulator, east, sweden))
}
