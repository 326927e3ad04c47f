//! The stack inside axum: one memory for a pool, however often the layer is applied.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::Body,
    error_handling::HandleErrorLayer,
    extract::State,
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use futures::stream;
use http::{HeaderName, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_spillover::{RegionRotateLayer, ReplayLayer, SmartFallbackLayer};

use crate::{
    azure::{Azure, refused_for},
    clock::{pause, soon},
    protocol::{BOTH, Client, Error, Protocol},
};

const EAST_PTU: &str = "east/gpt-4o-ptu";
const EAST: &str = "east/gpt-4o";
const SWEDEN: &str = "sweden/gpt-4o";
const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    tokio::spawn(async move { axum::serve(listener, router).await });
    addr
}

/// Asks the server at `addr`; the status, who served it, and the body.
async fn ask(protocol: Protocol, addr: SocketAddr, path: &str) -> (u16, String, String) {
    let path = format!("{path}?api-version=2024-10-21");
    send(protocol, addr, &path, r#"{"messages": [{"content": "hello"}]}"#).await
}

async fn send(
    protocol: Protocol,
    addr: SocketAddr,
    path: &str,
    body: impl Into<Body>,
) -> (u16, String, String) {
    let request = Request::post(format!("http://{addr}{path}")).body(body.into()).unwrap();
    let answer = soon(protocol.client().request(request)).await.expect("a response");
    let by = answer.headers().get(SERVED_BY).map(|name| name.to_str().unwrap().to_owned());
    let status = answer.status().as_u16();
    let body = soon(answer.into_body().collect()).await.unwrap().to_bytes();
    (status, by.unwrap_or_default(), String::from_utf8(body.to_vec()).unwrap())
}

/// The innermost handler: sends on what the layers around it addressed.
async fn forward(State(client): State<Client<Body>>, request: Request<Body>) -> Response {
    match client.request(request).await {
        Ok(response) => response.into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

const CHAT_A: &str = "/openai/deployments/a/chat/completions";
const CHAT_B: &str = "/openai/deployments/b/chat/completions";

#[tokio::test]
async fn what_one_route_learns_of_a_region_serves_the_other_routes() {
    let azure = Azure::open(&["east", "sweden"]).await;
    let pool = azure.pool([EAST, SWEDEN]);
    pool.force_start(EAST).unwrap();
    azure.script(EAST, [refused_for(30_000)]);
    let layers = ServiceBuilder::new()
        .layer(ReplayLayer::new(1 << 20))
        .layer(RegionRotateLayer::new(pool).name_header(SERVED_BY))
        .map_request(|request: Request<_>| request.map(Body::new));
    // `Router::layer` applies the layers to every route anew.
    let router = Router::new()
        .route(CHAT_A, post(forward))
        .route(CHAT_B, post(forward))
        .layer(layers)
        .with_state(Protocol::Http1.client());
    let addr = serve(router).await;
    for path in [CHAT_A, CHAT_B, CHAT_A, CHAT_B] {
        let (status, by, _) = ask(Protocol::Http1, addr, path).await;
        assert_eq!((status, by.as_str()), (200, SWEDEN));
    }
    assert_eq!((azure.counts(EAST).attempts, azure.counts(SWEDEN).attempts), (1, 4));
}

#[tokio::test]
async fn what_one_route_learns_of_the_ptu_serves_the_other_routes() {
    let azure = Azure::open(&["east"]).await;
    azure.script(EAST_PTU, [refused_for(30_000)]);
    let layers = ServiceBuilder::new()
        .layer(ReplayLayer::new(1 << 20))
        .layer(SmartFallbackLayer::new(
            RegionRotateLayer::new(azure.pool([EAST_PTU])).name_header(SERVED_BY),
            RegionRotateLayer::new(azure.pool([EAST])).name_header(SERVED_BY),
        ))
        .map_request(|request: Request<_>| request.map(Body::new));
    let router = Router::new()
        .route(CHAT_A, post(forward))
        .route(CHAT_B, post(forward))
        .layer(layers)
        .with_state(Protocol::Http1.client());
    let addr = serve(router).await;
    for path in [CHAT_A, CHAT_B, CHAT_A] {
        assert_eq!(ask(Protocol::Http1, addr, path).await.1, EAST);
    }
    assert_eq!((azure.counts(EAST_PTU).attempts, azure.counts(EAST).attempts), (1, 3));
}

/// A proxy nested under `/azure`, with its errors as responses.
fn nested(azure: &Azure, upstream: Protocol) -> Router {
    let service = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(|error: Error| async move {
            assert!(error.is_connect(), "{error:?}");
            StatusCode::BAD_GATEWAY
        }))
        .layer(ReplayLayer::new(1 << 20))
        .layer(
            SmartFallbackLayer::new(
                RegionRotateLayer::new(azure.pool([EAST_PTU])).name_header(SERVED_BY),
                RegionRotateLayer::new(azure.pool([EAST])).name_header(SERVED_BY),
            )
            .max_wait(Duration::from_millis(500)),
        )
        .service(upstream.client());
    Router::new().nest_service("/azure", service)
}

#[tokio::test]
async fn a_nested_stack_serves_both_protocols_over_both_protocols() {
    for downstream in BOTH {
        for upstream in BOTH {
            let azure = Azure::open(&["east"]).await;
            azure.script(EAST_PTU, [refused_for(30), refused_for(9_000)]);
            let addr = serve(nested(&azure, upstream)).await;
            for _ in 0..2 {
                let (status, by, body) = ask(downstream, addr, &format!("/azure{CHAT_A}")).await;
                assert_eq!((status, by.as_str()), (200, EAST), "{downstream:?}, {upstream:?}");
                assert!(body.contains("chat.completion"), "{downstream:?}, {upstream:?}");
            }
            assert_eq!(azure.counts(EAST_PTU).attempts, 2, "{downstream:?}, {upstream:?}");
        }
    }
}

#[tokio::test]
async fn a_v1_body_is_addressed_anew_whether_it_came_with_a_length_or_in_chunks() {
    let text = r#"{"model": "m", "messages": [{"content": "hello"}]}"#;
    for downstream in BOTH {
        for upstream in BOTH {
            let azure = Azure::open(&["east"]).await;
            azure.script(EAST_PTU, [refused_for(20), refused_for(9_000)]);
            let addr = serve(nested(&azure, upstream)).await;
            let path = "/azure/openai/v1/chat/completions";
            let (status, ..) = send(downstream, addr, path, text).await;
            assert_eq!(status, 200, "{downstream:?}, {upstream:?}");
            let (first, second) = text.split_at(12);
            let chunks = stream::iter([first, second].map(Ok::<_, Infallible>));
            let (status, ..) = send(downstream, addr, path, Body::from_stream(chunks)).await;
            assert_eq!(status, 200, "{downstream:?}, {upstream:?}");
            let bodies: Vec<_> = azure.emulator.received().into_iter().map(|it| it.body).collect();
            let [ptu, standard] =
                ["gpt-4o-ptu", "gpt-4o"].map(|name| text.replace(r#""m""#, &format!("\"{name}\"")));
            assert_eq!(bodies, [&ptu, &ptu, &standard, &standard].map(String::as_str));
        }
    }
}

#[tokio::test]
async fn a_request_without_a_body_passes() {
    for protocol in BOTH {
        let azure = Azure::open(&["east"]).await;
        let addr = serve(nested(&azure, protocol)).await;
        let uri = format!("http://{addr}/azure/openai/v1/models");
        let client: Client<Empty<Bytes>> = protocol.client();
        let answer = soon(client.get(uri.parse().unwrap())).await.unwrap();
        assert_eq!(answer.status(), 200, "{protocol:?}");
        let received = &azure.emulator.received()[0];
        assert!(received.body.is_empty());
        assert!(!received.headers.contains_key("content-length"), "{protocol:?}");
        assert!(!received.headers.contains_key("transfer-encoding"), "{protocol:?}");
    }
}

#[tokio::test]
async fn the_refusal_of_all_tiers_reaches_the_client_with_its_hint_and_body() {
    let azure = Azure::open(&["east"]).await;
    azure.script(EAST_PTU, [refused_for(30_000)]);
    azure.script(EAST, [refused_for(20_000)]);
    let addr = serve(nested(&azure, Protocol::Http1)).await;
    for _ in 0..2 {
        let (status, _, body) = ask(Protocol::Http2, addr, &format!("/azure{CHAT_A}")).await;
        assert_eq!(status, 429);
        assert!(body.starts_with(r#"{"error""#), "{body}");
    }
    assert_eq!(azure.attempts(), 2);
}

#[tokio::test]
async fn an_upstream_that_is_gone_is_a_bad_gateway() {
    let azure = Azure::open(&["east"]).await;
    let router = nested(&azure, Protocol::Http1);
    drop(azure);
    pause(20).await;
    let (status, by, _) =
        ask(Protocol::Http1, serve(router).await, &format!("/azure{CHAT_A}")).await;
    assert_eq!((status, by.as_str()), (502, ""));
}
