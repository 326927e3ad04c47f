//! Streams, drain, HTTP/2 and TLS.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use futures::{StreamExt, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper_util::rt::TokioIo;
use tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::*;
use crate::{
    config::{Http2, Tls},
    serve::{clock, workers},
};

const STREAM: &str = r#"{"stream":true,"max_tokens":20,"metadata":{"emulator_completion_tokens":20},
    "stream_options":{"include_usage":true},"messages":[{"role":"user","content":"Hello"}]}"#;

async fn streaming(scene: &Scene) -> Response<Incoming> {
    scene.send(scene.post(&chat("slow")).body(Full::from(STREAM)).unwrap()).await
}

#[tokio::test]
async fn events_pass_as_they_come() {
    let scene = Scene::new().await;
    let mut answer = streaming(&scene).await;
    assert_eq!(said(answer.headers(), "content-type"), Some("text/event-stream; charset=utf-8"));
    answer.body_mut().frame().await.expect("a frame").expect("an event");
    assert_eq!(scene.emulator.stats().of("east", "slow").completion_tokens, 0, "it goes on");
    assert!(text(answer).await.ends_with("data: [DONE]\n\n"));
    let told = scene.accounts.wait_for(1).await;
    assert!(told[0].streaming && told[0].complete && told[0].prompt.is_some(), "{told:?}");
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_request_upstream_and_in_the_books() {
    let scene = Scene::new().await;
    let mut answer = streaming(&scene).await;
    answer.body_mut().frame().await.expect("a frame").expect("an event");
    drop(answer);
    let told = scene.accounts.wait_for(1).await;
    assert!(!told[0].complete && told[0].status == StatusCode::OK, "{told:?}");
}

#[tokio::test]
async fn a_drain_finishes_streams_and_takes_no_more() {
    let scene = Scene::new().await;
    let mut answer = streaming(&scene).await;
    answer.body_mut().frame().await.expect("a frame").expect("an event");
    let address = scene.server.url.strip_prefix("http://").unwrap().to_owned();
    let stopped = tokio::spawn(scene.server.stop());
    clock::sleep(Duration::from_millis(50)).await;
    assert!(tokio::net::TcpStream::connect(&address).await.is_err(), "it no longer listens");
    assert!(text(answer).await.ends_with("data: [DONE]\n\n"));
    clock::timeout(Duration::from_secs(2), stopped).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn a_drain_ends_when_its_time_is_up() {
    let scene = Scene::with(|config| config.listen.drain = Duration::from_millis(100)).await;
    let _answer = streaming(&scene).await;
    let began = clock::now();
    scene.server.stop().await;
    assert!((100..400).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn http_2_without_tls_is_spoken_on_the_same_port() {
    let scene = Scene::new().await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let request = scene.post(&chat("gpt-4o")).body(Full::<Bytes>::from(HELLO)).unwrap();
    let answer = client.request(request).await.expect("an answer");
    assert_eq!((answer.version(), answer.status()), (http::Version::HTTP_2, StatusCode::OK));
    let long = scene.post("/openai/v1/responses").header("x-long", "a".repeat(70_000));
    let long = long.body(Full::<Bytes>::from(HELLO)).unwrap();
    if let Ok(answer) = client.request(long).await {
        assert_eq!(answer.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    assert_eq!(scene.chat("gpt-4o").await.version(), http::Version::HTTP_11);
}

/// A backend that accepts a hundred streams per connection and starts endless answers. Returns its
/// address, and the number of connections.
async fn endless() -> (String, Arc<AtomicUsize>) {
    let listener = listener().await;
    let url = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Relaxed);
            let service = hyper::service::service_fn(async |_| {
                let begun = Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"data: {}\n\n")));
                let frames = stream::iter([begun]).chain(stream::pending());
                Ok::<_, Infallible>(Response::new(StreamBody::new(frames)))
            });
            let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            server.max_concurrent_streams(100);
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    (url, connections)
}

#[tokio::test]
async fn more_streams_than_a_connection_takes_open_another_one() {
    let (url, connections) = endless().await;
    let scene = Scene::with(|config| {
        config.upstream.http2 = Http2::Always;
        let model = config.models.get_mut("slow").unwrap();
        model.standard = vec![backend("endless", &url, "endless")];
    })
    .await;
    // Spread over the threads, each gets more than a hundred.
    let count = workers::count() * 110;
    let all = futures::future::join_all((0..count).map(|_| scene.chat("slow")));
    let answers = clock::timeout(Duration::from_secs(10), all).await.expect("none has to wait");
    assert!(answers.iter().all(|answer| answer.status() == StatusCode::OK));
    assert_eq!(connections.load(Relaxed), workers::count() * 2);
}

const CERTIFICATE: &[u8] = include_bytes!("tls/cert.pem");

/// A client that trusts the test's certificate, and offers these versions.
fn tls_client(
    protocols: &[&[u8]],
) -> Client<hyper_rustls::HttpsConnector<HttpConnector>, Full<Bytes>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(CERTIFICATE).unwrap()).unwrap();
    let config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config).https_only();
    let connector = if protocols.contains(&&b"h2"[..]) {
        builder.enable_all_versions().build()
    } else {
        builder.enable_http1().build()
    };
    Client::builder(TokioExecutor::new()).build(connector)
}

#[tokio::test]
async fn tls_offers_both_versions_and_backends_behind_tls_are_reached() {
    let front = |config: &mut Config| {
        let key = String::from_utf8(include_bytes!("tls/key.pem").to_vec()).unwrap();
        config.listen.tls =
            Some(Tls { certificates: CERTIFICATE.into(), key: Secret::new(key), client: None });
    };
    let inner = Scene::with(front).await;
    for (protocols, version) in [
        (&[&b"h2"[..], b"http/1.1"][..], http::Version::HTTP_2),
        (&[&b"http/1.1"[..]][..], http::Version::HTTP_11),
    ] {
        let request = inner.post(&chat("gpt-4o")).body(Full::from(HELLO)).unwrap();
        let answer = tls_client(protocols).request(request).await.expect("an answer");
        assert_eq!((answer.version(), answer.status()), (version, StatusCode::OK));
    }
    // A second gateway in front of it: HTTP/1.1 in, HTTP/2 over TLS to the first.
    let outer = Scene::with(|config| {
        config.upstream.trust = CERTIFICATE.into();
        let model = config.models.get_mut("slow").unwrap();
        model.standard = vec![backend("inner", &inner.server.url, "gpt-4o")];
    })
    .await;
    let answer = outer.chat("slow").await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(said(answer.headers(), "x-spillover-backend"), Some("inner"));
    assert_eq!(said(answer.headers(), "x-spillover-decision"), Some("standard"));
    let untrusting = Scene::with(|config| {
        let model = config.models.get_mut("slow").unwrap();
        model.standard = vec![backend("inner", &inner.server.url, "gpt-4o")];
    })
    .await;
    assert_eq!(untrusting.chat("slow").await.status(), StatusCode::BAD_GATEWAY);
}
