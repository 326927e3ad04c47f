//! What observers of requests through a pool receive, with the emulator behind it.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::poll_immediate;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use spillover_emulator::{Deployment, Emulator, EmulatorService, Fault, Pace, Ptu, Resource};
use tower::ServiceExt;

use crate::{
    Backend, BackendPool, RegionRotateLayer,
    body::{OnUsage, usage_tests::RecordingSink},
    gate::cost::{EstimateCost, TokenWeights, Usage},
    region_rotate::RegionRotate,
};

const CHAT: &str = "/openai/deployments/ptu/chat/completions?api-version=2024-10-21";

fn emulator() -> Emulator {
    let resource = |name| {
        let ptu = Deployment::ptu("ptu", Ptu::new(1e5)).pace(Pace::default());
        Resource::new(name).key("key").deployment(ptu)
    };
    Emulator::new([resource("east"), resource("sweden")]).seed(7)
}

fn pool(emulator: &Emulator) -> RegionRotate<EmulatorService> {
    let backend = |name: &str| {
        Backend::new(name, format!("https://{name}.openai.azure.com")).unwrap().api_key("key")
    };
    let pool = BackendPool::new([backend("east"), backend("sweden").priority(2)]).unwrap();
    tower_layer::Layer::layer(&RegionRotateLayer::new(pool), emulator.service())
}

fn one() -> BackendPool {
    let backend = Backend::new("east", "https://east.openai.azure.com").unwrap().api_key("key");
    BackendPool::new([backend]).unwrap()
}

fn request(path: &str, told: &Arc<RecordingSink>, body: &Value) -> Request<Full<Bytes>> {
    let request = Request::post(path).extension(told.observe());
    request.body(body.to_string().into()).unwrap()
}

fn ask(told: &Arc<RecordingSink>) -> Request<Full<Bytes>> {
    request(CHAT, told, &json!({"messages": [{"role": "user", "content": "Count"}]}))
}

#[tokio::test(start_paused = true)]
async fn it_is_told_exactly_what_the_service_counted() {
    let usage = Some(Usage::new(2_048, 1_000, 28));
    let stream = json!({"stream": true, "stream_options": {"include_usage": true}});
    for (path, extra, expected) in [
        (CHAT, json!({}), usage),
        (CHAT, stream, usage),
        (CHAT, json!({"stream": true}), None),
        ("/openai/deployments/ptu/completions?api-version=2024-10-21", json!({}), usage),
        ("/openai/v1/responses", json!({}), usage),
        ("/openai/v1/responses", json!({"stream": true}), usage),
        ("/openai/v1/embeddings", json!({}), Some(Usage::new(2_048, 0, 0))),
    ] {
        let (emulator, told) = (emulator(), Arc::<RecordingSink>::default());
        let mut body = json!({"model": "ptu", "messages": [{"content": "x"}], "prompt": "x",
            "input": "x", "max_tokens": 100, "metadata": {"emulator_prompt_tokens": "2048",
            "emulator_completion_tokens": "28", "emulator_cached_tokens": "1000"}});
        body.as_object_mut().unwrap().append(&mut extra.as_object().unwrap().clone());
        let response = pool(&emulator).oneshot(request(path, &told, &body)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert!(told.all().is_empty(), "the answer is not read yet");
        let _ = response.into_body().collect().await.unwrap();
        assert_eq!(told.all(), [expected], "{path} {extra}");
        if let (Some(usage), false) = (expected, path.ends_with("embeddings")) {
            assert_eq!(emulator.level("east", "ptu"), TokenWeights::new().actual(&usage));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_drawn_completion_is_told_as_the_answer_says_it() {
    let (emulator, told) = (emulator(), Arc::<RecordingSink>::default());
    for _ in 0..20 {
        let response = pool(&emulator).oneshot(ask(&told)).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let usage = &serde_json::from_slice::<Value>(&body).unwrap()["usage"];
        let tokens = |name| usage[name].as_u64().unwrap();
        let said = Usage::new(tokens("prompt_tokens"), 0, tokens("completion_tokens"));
        assert_eq!(told.all().last(), Some(&Some(said)));
    }
    assert_eq!(told.all().len(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_sent_again_is_told_once() {
    let (emulator, told) = (emulator(), Arc::<RecordingSink>::default());
    emulator.script("east", "ptu", [Fault::status(429).header("retry-after-ms", "60000")]);
    let response = pool(&emulator).oneshot(ask(&told)).await.unwrap();
    let _ = response.into_body().collect().await.unwrap();
    assert_eq!(emulator.stats().of("sweden", "ptu").ok, 1);
    assert!(matches!(told.all()[..], [Some(_)]));
}

#[tokio::test(start_paused = true)]
async fn a_refused_or_failed_request_has_no_usage() {
    let (emulator, told) = (emulator(), Arc::<RecordingSink>::default());
    emulator.script("east", "ptu", [Fault::reset(), Fault::status(400), Fault::status(504)]);
    let service = pool(&emulator);
    assert!(service.clone().oneshot(ask(&told)).await.is_err());
    assert_eq!(told.all(), [None]);
    for (status, times) in [(400, 2), (504, 3)] {
        let response = service.clone().oneshot(ask(&told)).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(told.all(), vec![None; times], "its body is not waited for");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_a_gate_let_go_is_asked_of_the_backend_that_reopens_first() {
    let (emulator, told) = (emulator(), Arc::<RecordingSink>::default());
    for resource in ["east", "sweden"] {
        let refusal = Fault::status(429).header("retry-after-ms", "60000");
        emulator.script(resource, "ptu", [refusal]);
    }
    let service = pool(&emulator);
    assert_eq!(service.clone().oneshot(ask(&told)).await.unwrap().status(), 429);
    assert_eq!(told.all(), [None]);
    assert_eq!(service.clone().oneshot(ask(&told)).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_served_what_a_gate_let_go_is_open_for_all() {
    let (emulator, told) = (emulator(), Arc::<RecordingSink>::default());
    emulator.script("east", "ptu", [Fault::status(429).header("retry-after-ms", "60000")]);
    let pool = one();
    let layer = RegionRotateLayer::new(pool.clone());
    let service = tower_layer::Layer::layer(&layer, emulator.service());
    let plain = || {
        let mut request = ask(&told);
        request.extensions_mut().clear();
        request
    };
    let status = async |request| service.clone().oneshot(request).await.unwrap().status().as_u16();
    assert_eq!(status(ask(&told)).await, 429);
    assert_eq!(status(plain()).await, 429, "it is known to be closed");
    assert_eq!(status(ask(&told)).await, 200);
    assert_eq!(status(plain()).await, 200);
    assert!(pool.cooldowns().all(|(_, left)| left.is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_request_of_a_subscriber_is_not_taken_for_one_that_a_gate_let_go() {
    let (emulator, told) = (emulator(), Arc::<RecordingSink>::default());
    for resource in ["east", "sweden"] {
        let refusal = Fault::status(429).header("retry-after-ms", "60000");
        emulator.script(resource, "ptu", [refusal]);
    }
    let service = pool(&emulator);
    let subscribed = || {
        let mut request = ask(&told);
        request.extensions_mut().clear();
        OnUsage::subscribe(request.extensions_mut(), Arc::clone(&told));
        request
    };
    assert_eq!(service.clone().oneshot(subscribed()).await.unwrap().status(), 429);
    assert_eq!(told.all(), [None], "two backends were asked, by one pool");
    assert_eq!(service.clone().oneshot(subscribed()).await.unwrap().status(), 429);
    assert_eq!(told.all(), [None], "none was asked");
}

#[tokio::test(start_paused = true)]
async fn a_gate_and_all_that_subscribed_are_told_the_same() {
    let [gate, first, second] = [(); 3].map(|()| Arc::<RecordingSink>::default());
    let subscribed = || {
        let mut request = ask(&gate);
        OnUsage::subscribe(request.extensions_mut(), Arc::clone(&first));
        OnUsage::subscribe(request.extensions_mut(), Arc::clone(&second));
        request
    };
    let response = pool(&emulator()).oneshot(subscribed()).await.unwrap();
    response.into_body().collect().await.unwrap();
    assert!(matches!(gate.all()[..], [Some(_)]));
    assert_eq!([first.all(), second.all()], [gate.all(), gate.all()]);
}

#[tokio::test(start_paused = true)]
async fn what_azure_spilled_is_told_to_subscribers_alone() {
    let [gate, subscriber] = [(); 2].map(|()| Arc::<RecordingSink>::default());
    let spilled = tower::service_fn(|_: Request<Full<Bytes>>| async {
        http::Response::builder()
            .header("content-type", "application/json")
            .header("x-ms-is-spilled-over", "true")
            .body(Full::<Bytes>::from(r#"{"usage":{"prompt_tokens":5}}"#))
    });
    let service = tower_layer::Layer::layer(&RegionRotateLayer::new(one()), spilled);
    for is_subscribed in [false, true] {
        let mut request = ask(&gate);
        if is_subscribed {
            OnUsage::subscribe(request.extensions_mut(), Arc::clone(&subscriber));
        }
        let response = service.clone().oneshot(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    assert_eq!(gate.all(), [None, None]);
    assert_eq!(subscriber.all(), [Some(Usage::new(5, 0, 0))]);
}

#[tokio::test(start_paused = true)]
async fn a_request_or_an_answer_that_is_given_up_has_no_usage() {
    let (emulator, told) = (emulator(), Arc::<RecordingSink>::default());
    emulator.script("east", "ptu", [Fault::delay(std::time::Duration::from_secs(9))]);
    assert!(poll_immediate(pool(&emulator).oneshot(ask(&told))).await.is_none());
    assert_eq!(told.all(), [None]);

    let body = json!({"messages": [{"role": "user", "content": "Count"}], "stream": true,
        "stream_options": {"include_usage": true}});
    let response = pool(&emulator).oneshot(request(CHAT, &told, &body)).await.unwrap();
    let mut body = response.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    assert_eq!(told.all().len(), 1);
    drop(body);
    assert_eq!(told.all(), [None; 2]);
}

#[tokio::test(start_paused = true)]
async fn the_service_does_not_see_who_observes() {
    let told = Arc::<RecordingSink>::default();
    let witness = tower::service_fn(|request: Request<Full<Bytes>>| async move {
        assert!(request.extensions().is_empty());
        Ok::<_, std::convert::Infallible>(http::Response::new(Full::<Bytes>::default()))
    });
    let layer = RegionRotateLayer::new(one());
    tower_layer::Layer::layer(&layer, witness).oneshot(ask(&told)).await.unwrap();
    assert_eq!(told.all(), [None]);
}
