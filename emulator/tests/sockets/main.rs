//! The emulator over real sockets, with hyper's client over HTTP/1.1 and HTTP/2.

use std::{error::Error, io, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use spillover_emulator::{Deployment, Emulator, Fault, Pace, Ptu, Resource, Serving, Standard};
use tokio::net::TcpListener;

mod outages;
mod streams;

const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

/// The emulator, one of its resources behind a socket, and a client for `version`.
struct Scene {
    emulator: Emulator,
    serving: Serving,
    client: Client<HttpConnector, Full<Bytes>>,
    version: Version,
}

impl Scene {
    async fn new(version: Version) -> Self {
        Self::with(version, |east| east).await
    }

    /// `change` configures the resource behind the socket.
    async fn with(version: Version, change: impl FnOnce(Resource) -> Resource) -> Self {
        let pace =
            Pace { first_token: Duration::from_millis(5), per_token: Duration::from_millis(2) };
        let ptu = Ptu::new(1_000.0).bucket_seconds(3.0);
        let east = Resource::new("contoso-east")
            .key("key-east")
            .deployment(Deployment::ptu("ptu", ptu))
            .deployment(Deployment::standard("std", Standard::unlimited()).pace(pace));
        let emulator =
            Emulator::new([change(east), Resource::new("contoso-sweden").key("key-sweden")]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let serving = emulator.serve("contoso-east", listener);
        let client = Client::builder(TokioExecutor::new())
            .http2_only(version == Version::HTTP_2)
            .build_http();
        Self { emulator, serving, client, version }
    }

    fn request(&self, deployment: &str, key: &str, body: &Value) -> Request<Full<Bytes>> {
        let endpoint = self.serving.endpoint();
        let path = format!("/openai/deployments/{deployment}/chat/completions");
        Request::post(format!("{endpoint}{path}?api-version=2024-02-01"))
            .version(self.version)
            .header("api-key", key)
            .body(body.to_string().into())
            .unwrap()
    }

    async fn send(&self, deployment: &str, key: &str, body: &Value) -> Response<Incoming> {
        let request = self.request(deployment, key, body);
        let response = self.client.request(request).await.unwrap();
        assert_eq!(response.version(), self.version);
        response
    }
}

fn chat(prompt: u64, completion: u64, stream: bool) -> Value {
    json!({
        "messages": [{"role": "user", "content": "Count"}],
        "stream": stream,
        "metadata": {
            "emulator_prompt_tokens": prompt.to_string(),
            "emulator_completion_tokens": completion.to_string(),
        },
    })
}

async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn chat_answers_in_json() {
    for version in VERSIONS {
        let scene = Scene::new(version).await;
        let response = scene.send("std", "key-east", &chat(12, 3, false)).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["x-ms-region"], "East US");
        assert_eq!(response.headers()["x-ms-deployment-name"], "std");
        let body: Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(body["choices"][0]["message"]["content"], "the tide went");
        assert_eq!(body["usage"]["total_tokens"], 15);
    }
}

#[tokio::test]
async fn chat_streams_events() {
    for version in VERSIONS {
        let scene = Scene::new(version).await;
        let response = scene.send("std", "key-east", &chat(12, 3, true)).await;
        let kind = response.headers()["content-type"].to_str().unwrap();
        assert!(kind.starts_with("text/event-stream"), "{kind}");
        assert!(!response.headers().contains_key("content-length"));
        let events = text(response).await;
        assert_eq!(events.matches("data: ").count(), 6, "{events}");
        assert!(events.ends_with("data: [DONE]\n\n"), "{events}");
    }
}

#[tokio::test]
async fn a_key_of_another_resource_is_refused_and_counted() {
    for version in VERSIONS {
        let scene = Scene::new(version).await;
        let response = scene.send("std", "key-sweden", &chat(1, 1, false)).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(text(response).await.starts_with(r#"{"error":{"code":"401""#));
        let stats = scene.emulator.stats();
        assert_eq!((stats.unauthorized, stats.misplaced), (1, 1));
    }
}

#[tokio::test]
async fn an_unknown_deployment_is_not_found() {
    for version in VERSIONS {
        let scene = Scene::new(version).await;
        let response = scene.send("none", "key-east", &chat(1, 1, false)).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert!(text(response).await.contains("DeploymentNotFound"));
    }
}

#[tokio::test]
async fn the_listener_speaks_for_its_resource_whatever_the_host() {
    let scene = Scene::new(Version::HTTP_11).await;
    let mut request = scene.request("std", "key-east", &chat(1, 1, false));
    let host = "contoso-sweden.openai.azure.com".parse().unwrap();
    request.headers_mut().insert("host", host);
    let response = scene.client.request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_full_ptu_refuses_with_an_honest_hint() {
    for version in VERSIONS {
        let scene = Scene::new(version).await;
        let filling = scene.send("ptu", "key-east", &chat(3_150, 0, false)).await;
        assert_eq!(filling.status(), StatusCode::OK);
        let refused = scene.send("ptu", "key-east", &chat(1, 0, false)).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.headers()["retry-after"], "1");
        let hint = refused.headers()["retry-after-ms"].to_str().unwrap();
        let hint = hint.parse().unwrap();
        assert!((1..=151).contains(&hint), "150 tokens over at one a millisecond: {hint}");
        #[expect(clippy::disallowed_methods, reason = "a socket test waits in real time")]
        tokio::time::sleep(Duration::from_millis(hint)).await;
        let served = scene.send("ptu", "key-east", &chat(1, 0, false)).await;
        assert_eq!(served.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_reset_resets_the_connection() {
    for version in VERSIONS {
        let scene = Scene::new(version).await;
        scene.emulator.script("contoso-east", "std", [Fault::reset()]);
        let request = scene.request("std", "key-east", &chat(1, 1, false));
        let error = scene.client.request(request).await.unwrap_err();
        assert_eq!(io_kind(&error), Some(io::ErrorKind::ConnectionReset), "{error:?}");
        let next = scene.send("std", "key-east", &chat(1, 1, false)).await;
        assert_eq!(next.status(), StatusCode::OK, "on a new connection");
        assert_eq!(scene.emulator.stats().of("contoso-east", "std").failed, 1);
    }
}

#[tokio::test]
async fn a_cut_breaks_the_stream_after_its_events_have_arrived() {
    for version in VERSIONS {
        let scene = Scene::new(version).await;
        scene.emulator.script("contoso-east", "ptu", [Fault::cut_stream_after(3)]);
        let response = scene.send("ptu", "key-east", &chat(1, 9, true)).await;
        assert_eq!(response.status(), StatusCode::OK);
        let mut body = response.into_body();
        let mut events = String::new();
        let error = loop {
            match body.frame().await.expect("a cut is no end") {
                Ok(frame) => events += std::str::from_utf8(frame.data_ref().unwrap()).unwrap(),
                Err(error) => break error,
            }
        };
        assert_eq!(events.matches("data: ").count(), 3, "{events} {error:?}");
        assert_eq!(scene.emulator.stats().of("contoso-east", "ptu").abandoned, 1);
    }
}

#[tokio::test]
async fn a_cut_breaks_a_json_body_half_way() {
    for version in VERSIONS {
        let scene = Scene::new(version).await;
        scene.emulator.script("contoso-east", "ptu", [Fault::cut_stream_after(0)]);
        let response = scene.send("ptu", "key-east", &chat(1, 9, false)).await;
        let length: usize = response.headers()["content-length"].to_str().unwrap().parse().unwrap();
        let mut body = response.into_body();
        let mut arrived = 0;
        while let Some(Ok(frame)) = body.frame().await {
            arrived += frame.data_ref().unwrap().len();
        }
        assert_eq!(arrived, length / 2);
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_ends_its_request() {
    for version in VERSIONS {
        let scene = Scene::new(version).await;
        let response = scene.send("std", "key-east", &chat(1, 10_000, true)).await;
        let mut body = response.into_body();
        body.frame().await.unwrap().unwrap();
        drop(body);
        let abandoned = || scene.emulator.stats().of("contoso-east", "std").abandoned;
        for _ in 0..400 {
            if abandoned() == 1 {
                break;
            }
            #[expect(clippy::disallowed_methods, reason = "a socket test waits in real time")]
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(abandoned(), 1, "{version:?}");
    }
}

#[tokio::test]
async fn a_listener_closes_with_its_handle() {
    let scene = Scene::new(Version::HTTP_11).await;
    text(scene.send("std", "key-east", &chat(1, 1, false)).await).await;
    let request = scene.request("std", "key-east", &chat(1, 1, false));
    let addr = scene.serving.addr();
    scene.serving.shutdown().await;
    assert!(scene.client.request(request).await.is_err());
    TcpListener::bind(addr).await.expect("the port is free again");
}

/// The kind of the I/O error behind `error`, if there is one.
fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let mut error = Some(error);
    while let Some(cause) = error {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        error = cause.source();
    }
    None
}
