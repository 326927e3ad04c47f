//! No type that holds a key or a token prints it.

use std::fmt::Debug;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use spillover_emulator::{Emulator, Resource};
use tower::{Layer, Service, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, Credential, RegionRotateLayer, ReplayLayer, SmartFallbackLayer,
    backend::{AccessToken, DeploymentLayer, TokenError, TokenFuture, TokenSource},
    replay::ReplayBody,
};

use crate::leaf::{Answer, Leaf, readied, request, text};

const CANARY: &str = "c4n4ry";

/// `value` in both forms, unless one of them has the canary.
#[track_caller]
fn quiet(value: &impl Debug) {
    for printed in [format!("{value:?}"), format!("{value:#?}")] {
        assert!(!printed.is_empty());
        assert!(!printed.to_lowercase().contains(CANARY), "{printed}");
    }
}

#[derive(Clone, Debug)]
struct Source(AccessToken);

impl TokenSource for Source {
    fn token(&self) -> TokenFuture {
        TokenFuture::ready(self.0.clone())
    }
}

fn source() -> Source {
    Source(AccessToken::new(CANARY).unwrap())
}

fn backends() -> [Backend; 2] {
    let backend = |name: &str| Backend::new(name, format!("https://{name}.example")).unwrap();
    [backend("a").api_key(CANARY).region("East US"), backend("b").bearer(source())]
}

fn pool() -> BackendPool {
    BackendPool::new(backends()).unwrap()
}

#[tokio::test]
async fn backends_pools_and_credentials_are_quiet() {
    backends().iter().for_each(quiet);
    quiet(&pool());
    quiet(&Credential::api_key(CANARY).unwrap());
    quiet(&Credential::bearer(source()));
    quiet(&source());
    quiet(&TokenFuture::ready(AccessToken::new(CANARY).unwrap()));
    quiet(&TokenFuture::fetching(async { AccessToken::new(CANARY) }));
}

#[tokio::test]
async fn errors_are_quiet() {
    let told = |error: &dyn std::error::Error| {
        quiet(&error);
        assert!(!format!("{error}").contains(CANARY), "{error}");
    };
    for key in [format!("{CANARY}\n"), format!("{CANARY}\u{1f512}"), format!("\0{CANARY}")] {
        told(&Credential::api_key(&key).unwrap_err());
        let backend = Backend::new("a", "https://a.example").unwrap().api_key(&key);
        quiet(&backend);
        told(&BackendPool::new([backend]).unwrap_err());
        let error: TokenError = AccessToken::new(&format!("{CANARY}\n")).unwrap_err();
        told(&error);
    }
    for endpoint in [
        format!("https://user:{CANARY}@a.example"),
        format!("https://a.example?api-key={CANARY}"),
        format!("https://a.example#{CANARY}"),
        format!("ftp://{CANARY}"),
        format!("https://{CANARY}:port"),
        format!("https://a.example/openai/v1/{CANARY}"),
    ] {
        told(&Backend::new("a", endpoint).unwrap_err());
    }
}

#[tokio::test]
async fn layers_services_and_futures_are_quiet() {
    let leaf = Leaf::playing([Answer::refused(10), Answer::ok()]);
    let (rotate, tiers) = (
        RegionRotateLayer::new(pool()),
        SmartFallbackLayer::new(RegionRotateLayer::new(pool()), RegionRotateLayer::new(pool())),
    );
    quiet(&rotate);
    quiet(&rotate.clone().move_on(crate::leaf::every_error::<crate::leaf::Broken>()));
    quiet(&tiers);
    let mut service = rotate.layer(leaf.clone());
    quiet(&service);
    quiet(&readied(&mut service).await.call(request()));
    let mut service = tiers.layer(leaf.clone());
    quiet(&service);
    quiet(&readied(&mut service).await.call(request()));
    let mut service = ReplayLayer::new(1_000).layer(tiers.layer(leaf.clone()));
    quiet(&service);
    quiet(&readied(&mut service).await.call(request()));
    quiet(&DeploymentLayer::new("x").unwrap().layer(service.clone()));
    let response = service.oneshot(request()).await.unwrap();
    quiet(&response);
    assert!(!text(response).await.contains(CANARY));
}

#[tokio::test]
async fn the_head_that_a_client_is_given_is_quiet() {
    let leaf = Leaf::playing([Answer::refused(10), Answer::ok()]);
    RegionRotateLayer::new(pool()).layer(leaf.clone()).oneshot(request()).await.unwrap();
    assert_eq!(leaf.len(), 2);
    for seen in leaf.seen() {
        let sent = [seen.header("api-key"), seen.header("authorization")];
        assert!(sent.iter().flatten().any(|value| value.contains(CANARY)), "it is there");
        quiet(&seen.headers);
    }
}

#[tokio::test]
async fn the_answer_of_a_closed_pool_is_quiet() {
    let leaf = Leaf::playing([Answer::refused(10_000)]);
    let service = RegionRotateLayer::new(pool()).layer(leaf);
    for _ in 0..2 {
        let response = service.clone().oneshot(request()).await.unwrap();
        quiet(&response);
        assert!(!text(response).await.contains(CANARY));
    }
}

#[tokio::test]
async fn a_prompt_is_not_printed_with_its_body() {
    let client = tower::service_fn(async |request: Request<ReplayBody<Full<Bytes>>>| {
        Ok::<_, std::convert::Infallible>(request.into_body())
    });
    for limit in [0, 100] {
        let request = Request::new(Full::<Bytes>::from(CANARY));
        quiet(&ReplayLayer::new(limit).layer(client).oneshot(request).await.unwrap());
    }
}

#[tokio::test]
async fn the_emulator_is_quiet() {
    let resource = Resource::new("contoso").key(CANARY).token(CANARY);
    quiet(&resource);
    let emulator = Emulator::new([resource]).record();
    let mut asked = request();
    asked.headers_mut().insert("api-key", CANARY.parse().unwrap());
    asked.headers_mut().insert("host", "contoso.openai.azure.com".parse().unwrap());
    let response = emulator.service().oneshot(asked).await.unwrap();
    quiet(&response);
    assert_eq!(emulator.received().len(), 1);
    quiet(&emulator.received());
    quiet(&emulator);
    quiet(&emulator.service());
}
