//! What errors of hyper's client mean to the layers.

use std::net::SocketAddr;

use bytes::Bytes;
use futures::stream;
use http::Request;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper_util::client::legacy;
use spillover_emulator::Fault;
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt};
use tower_spillover::{
    BackendPool, PtuFirst, RegionRotateLayer, Served, SmartFallbackLayer, policy::ErrorKind,
};
use tower_spillover_adapters::hyper::{KindOf, error_kind, move_on};

use crate::{
    azure::{Azure, backend_at},
    clock::soon,
    protocol::{Client, Protocol},
};

const PTU: &str = "east/gpt-4o-ptu";
const EAST: &str = "east/gpt-4o";
const SWEDEN: &str = "sweden/gpt-4o";
const CHAT: &str = "/openai/deployments/m/chat/completions?api-version=2024-10-21";

/// An address that nothing listens at.
async fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn chat() -> Request<Full<Bytes>> {
    Request::post(CHAT).body(Full::from(r#"{"messages": [{"content": "hello"}]}"#)).unwrap()
}

fn stack(ptu: BackendPool, standard: BackendPool) -> PtuFirst<Client<Full<Bytes>>, KindOf> {
    let tier = |pool| RegionRotateLayer::new(pool).move_on(move_on());
    let tiers = SmartFallbackLayer::new(tier(ptu), tier(standard)).move_on(move_on());
    tiers.layer(Protocol::Http1.client())
}

#[tokio::test]
async fn a_ptu_and_a_region_that_cannot_be_reached_are_left_for_the_next() {
    let azure = Azure::open(&["sweden"]).await;
    let gone = nowhere().await;
    let ptu = BackendPool::new([backend_at(PTU, gone)]).unwrap();
    let standard = BackendPool::new([backend_at(EAST, gone), azure.backend(SWEDEN)]).unwrap();
    standard.force_start(EAST).unwrap();
    let answer = soon(stack(ptu, standard).oneshot(chat())).await.expect("an answer");
    let served = answer.extensions().get::<Served>().expect("an account");
    assert_eq!((served.backend(), served.spilled()), (Some(SWEDEN), true), "{served}");
    assert_eq!(served.attempts().len(), 3, "{served}");
}

async fn error_of(client: Client<Full<Bytes>>, uri: &str) -> legacy::Error {
    let mut request = chat();
    *request.uri_mut() = uri.parse().unwrap();
    soon(client.request(request)).await.map(drop).expect_err("no answer")
}

#[tokio::test]
async fn a_refused_connection_and_an_unknown_name_are_connect_errors() {
    let gone = nowhere().await;
    for uri in [format!("http://{gone}/"), "http://nowhere.invalid/".to_owned()] {
        let error = error_of(Protocol::Http1.client(), &uri).await;
        assert_eq!(error_kind(&error), ErrorKind::Connect, "{error:?}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_a_reset_which_is_the_callers_by_default() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let azure = Azure::open(&["east"]).await;
        azure.script(EAST, [Fault::reset()]);
        let rotate = RegionRotateLayer::new(azure.pool([EAST])).move_on(move_on());
        let client: Client<Full<Bytes>> = protocol.client();
        let error = soon(rotate.layer(client).oneshot(chat())).await.map(drop).unwrap_err();
        assert_eq!(error_kind(&error), ErrorKind::Reset, "{protocol:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_body_that_fails_is_the_callers_own_error() {
    let azure = Azure::open(&["east"]).await;
    let chunks = [Ok(http_body::Frame::data(Bytes::from("{"))), Err(std::io::Error::other("gone"))];
    let body = StreamBody::new(stream::iter(chunks)).boxed_unsync();
    let client: Client<UnsyncBoxBody<Bytes, std::io::Error>> = Protocol::Http1.client();
    let path = CHAT.replace("/m/", "/gpt-4o/");
    let request = Request::post(format!("{}{path}", azure.endpoint("east"))).body(body).unwrap();
    let error = soon(client.request(request)).await.map(drop).expect_err("no answer");
    assert_eq!(error_kind(&error), ErrorKind::Other, "{error:?}");
}

#[tokio::test]
async fn a_request_that_cannot_be_sent_is_the_callers_own_error() {
    let error = error_of(Protocol::Http1.client(), "/no/authority").await;
    assert_eq!(error_kind(&error), ErrorKind::Other, "{error:?}");
}
