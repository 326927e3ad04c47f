//! Authentication, and what is never forwarded.

use std::convert::Infallible;

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};

use super::*;
use crate::config::{Client as Customer, Clients, Identities, Permissions};

fn customer(name: &str, key: &str) -> Customer {
    Customer {
        name: name.to_owned(),
        group: None,
        keys: vec![Sha256::digest(key).into()],
        identities: Identities::default(),
        models: Some(vec!["gpt-4o".to_owned()]),
        class: None,
        requests_per_second: None,

        concurrency: None,
        may: Permissions::default(),
    }
}

async fn keyed() -> Scene {
    Scene::with(|config| {
        let slow = Customer { requests_per_second: Some(1.0), ..customer("slow", "k2") };
        config.clients = Clients::Keyed(vec![customer("team", "k1"), slow]);
    })
    .await
}

async fn ask(scene: &Scene, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let mut request = scene.post(path);
    for (name, value) in headers {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().unwrap().insert(name, value.parse().unwrap());
    }
    let answer = scene.send(request.body(Full::from(body.to_owned())).unwrap()).await;
    (answer.status().as_u16(), text(answer).await)
}

#[tokio::test]
async fn only_known_keys_get_in_and_only_to_their_models() {
    let scene = keyed().await;
    let path = chat("gpt-4o");
    assert_eq!(ask(&scene, &path, &[("api-key", "k1")], HELLO).await.0, 200);
    assert_eq!(ask(&scene, &path, &[("authorization", "Bearer k1")], HELLO).await.0, 200);
    let (status, error) = ask(&scene, &path, &[("api-key", "azure-key")], HELLO).await;
    assert_eq!((status, code(&error).as_str()), (401, "401"));
    assert_eq!(ask(&scene, &path, &[], HELLO).await.0, 401);
    assert_eq!(ask(&scene, &chat("slow"), &[("api-key", "k1")], HELLO).await.0, 403);
    let hidden = "\u{feff}{\"model\":\"slow\",\"input\":\"x\"}";
    let headers = [("api-key", "k1"), ("content-type", "text/plain")];
    assert_eq!(ask(&scene, "/openai/v1/responses", &headers, hidden).await.0, 400);
    let by_body = r#"{"model":"slow","input":"x"}"#;
    assert_eq!(ask(&scene, "/openai/v1/responses", &[("api-key", "k1")], by_body).await.0, 403);
}

#[tokio::test]
async fn a_client_without_leave_may_not_change_its_limits() {
    let scene = keyed().await;
    for header in ["x-spillover-max-wait", "x-spillover-trace", "x-spillover-no-spill"] {
        let headers = [("api-key", "k1"), (header, "true")];
        assert_eq!(ask(&scene, &chat("gpt-4o"), &headers, HELLO).await.0, 403, "{header}");
    }
}

#[tokio::test]
async fn a_client_above_its_rate_is_told_when_to_come_back() {
    let scene = keyed().await;
    let send = || scene.post(&chat("gpt-4o")).header("api-key", "k2").body(Full::from(HELLO));
    assert_eq!(scene.send(send().unwrap()).await.status(), StatusCode::OK);
    let answer = scene.send(send().unwrap()).await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = said(answer.headers(), "retry-after-ms").unwrap().parse().unwrap();
    assert!((1..=1_000).contains(&wait), "{wait}");
    assert_eq!(said(answer.headers(), "retry-after"), Some("1"));
}

/// A server that records requests, and answers with headers that must not be forwarded.
async fn witness(status: u16) -> (String, Arc<Mutex<Vec<Request<()>>>>) {
    let seen = Arc::<Mutex<Vec<Request<()>>>>::default();
    let listener = listener().await;
    let url = format!("http://{}", listener.local_addr().unwrap());
    let keep = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let keep = Arc::clone(&keep);
            let answer = service_fn(move |request: Request<Incoming>| {
                keep.lock().unwrap().push(request.map(|_| ()));
                let answer = Response::builder()
                    .status(status)
                    .header("set-cookie", "affinity=1")
                    .header("keep-alive", "timeout=5")
                    .header("location", "https://elsewhere.example/")
                    .header("x-ms-region", "East US")
                    .body(Full::<Bytes>::from("{}"));
                async { Ok::<_, Infallible>(answer.unwrap()) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    (url, seen)
}

#[tokio::test]
async fn nothing_that_is_the_caller_s_or_the_connection_s_passes_either_way() {
    let (url, seen) = witness(200).await;
    let scene = Scene::with(|config| *config = super::config(&url)).await;
    let request = scene
        .post("/openai/deployments/gpt-4o/chat/completions?subscription-key=mine&api-key=mine&a=1")
        .header("api-key", "mine")
        .header("authorization", "Bearer mine")
        .header("ocp-apim-subscription-key", "mine")
        .header("cookie", "mine=1")
        .header("proxy-authorization", "mine")
        .header("connection", "x-mine")
        .header("x-mine", "mine")
        .header("x-spillover-trace", "false")
        .header("te", "trailers")
        .header("user-agent", "me")
        .body(Full::from(HELLO))
        .unwrap();
    let answer = scene.send(request).await;
    assert_eq!(said(answer.headers(), "x-ms-region"), Some("East US"));
    for name in ["set-cookie", "keep-alive"] {
        assert_eq!(said(answer.headers(), name), None, "{name}");
    }
    let seen = seen.lock().unwrap();
    let shown = format!("{} {:?}", seen[0].uri(), seen[0].headers());
    assert!(!shown.contains("mine") && !shown.contains("spillover-"), "{shown}");
    assert!(!shown.contains("trailers"), "{shown}");
    assert_eq!(seen[0].headers()["api-key"], "azure-key");
    assert_eq!(seen[0].headers()["user-agent"], "me");
    assert_eq!(seen[0].uri(), "/openai/deployments/ptu/chat/completions?a=1");
}

#[tokio::test]
async fn a_redirect_is_neither_followed_nor_passed_on() {
    let (url, seen) = witness(307).await;
    let scene = Scene::with(|config| *config = super::config(&url)).await;
    let answer = scene.chat("gpt-4o").await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(said(answer.headers(), "location"), None);
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_client_is_told_of_the_models_that_it_may_use_and_of_no_others() {
    let scene = keyed().await;
    let get = async |path: &str, key: &str| {
        let request = Request::get(format!("{}{path}", scene.server.url)).header("api-key", key);
        let answer = scene.send(request.body(Full::default()).unwrap()).await;
        (answer.status().as_u16(), text(answer).await)
    };
    let (status, list) = get("/openai/v1/models", "k1").await;
    assert!(status == 200 && list.contains("\"gpt-4o\"") && !list.contains("slow"), "{list}");
    assert_eq!(get("/openai/v1/models/slow", "k1").await.0, 403);
    assert_eq!(get("/openai/v1/models", "k9").await.0, 401);
}
