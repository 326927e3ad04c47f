//! Files and what is made of them, over sockets, with an emulator that keeps them by resource.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tower::ServiceBuilder;
use tower_spillover::{
    RegionRotateLayer, Sticky,
    sticky::{Home, StickyMatch},
};

use crate::{
    azure::Azure,
    protocol::{BOTH, Protocol},
    stack::{Answer, Ask, Stack, ask, read, rotation, send, served},
};

const STANDARD: [&str; 3] = ["east/gpt-4o", "sweden/gpt-4o", "japan/gpt-4o"];
const NAMES: [&str; 3] = ["east", "sweden", "japan"];

fn sticky(protocol: Protocol, azure: &Azure) -> Stack {
    let rotate = RegionRotateLayer::new(azure.pool(STANDARD)).sticky(Sticky::new());
    Stack::new(ServiceBuilder::new().layer(rotate).service(protocol.client()))
}

fn by(client: &str, method: Method, path: &str, body: &Value) -> Ask {
    let mut request = ask(&format!("/openai/v1/{path}"), body.to_string());
    *request.method_mut() = method;
    request.extensions_mut().insert(Home::of(client));
    request
}

fn post(path: &str, body: &Value) -> Ask {
    by("a", Method::POST, path, body)
}

fn get(path: &str) -> Ask {
    by("a", Method::GET, path, &json!({}))
}

async fn made(stack: &Stack, request: Ask) -> String {
    let answer = send(stack, request).await;
    assert_eq!(answer.status(), StatusCode::OK);
    value(answer).await["id"].as_str().unwrap().to_owned()
}

async fn value(answer: Answer) -> Value {
    serde_json::from_slice(&read(answer).await).expect("JSON")
}

#[tokio::test]
async fn whatever_is_kept_is_found_again_by_every_way_of_referring_to_it() {
    for protocol in BOTH {
        let azure = Azure::open(&NAMES).await;
        let stack = sticky(protocol, &azure);
        let nothing = json!({});
        let file = made(&stack, post("files", &nothing)).await;
        let store = made(&stack, post("vector_stores", &json!({"file_ids": [file]}))).await;
        let container = made(&stack, post("containers", &json!({"file_ids": [file]}))).await;
        let skill = made(&stack, post("skills", &nothing)).await;
        let prompt = made(&stack, post("prompts", &nothing)).await;
        let eval = made(&stack, post("evals", &nothing)).await;
        let upload = made(&stack, post("uploads", &nothing)).await;
        let respond = |tools: Value| {
            post("responses", &json!({"model": "gpt-4o", "input": "hi", "tools": [tools]}))
        };
        let shell = |environment: Value| respond(json!({"environment": environment}));
        let source = json!({"source": {"type": "file_id", "id": file}});
        let input_file =
            json!([{"role": "user", "content": [{"type": "input_file", "file_id": file}]}]);
        for request in [
            respond(json!({"vector_store_ids": [store]})),
            respond(json!({"container": container})),
            shell(json!({"container_id": container})),
            shell(json!({"file_ids": [file], "skills": [{"skill_id": skill}]})),
            post("responses", &json!({"model": "gpt-4o", "input": "hi", "prompt": {"id": prompt}})),
            post("responses", &json!({"model": "gpt-4o", "input": input_file})),
            post("batches", &json!({"input_file_id": file})),
            post(&format!("evals/{eval}/runs"), &json!({"data_source": source})),
            post(&format!("uploads/{upload}/parts"), &nothing),
            post(&format!("uploads/{upload}/complete"), &nothing),
            post(&format!("containers/{container}/files"), &json!({"file_id": file})),
            get(&format!("skills/{skill}")),
            by("b", Method::GET, &format!("files/{file}"), &nothing),
        ] {
            let asked = format!("{protocol:?} {} {}", request.method(), request.uri());
            let answer = send(&stack, request).await;
            assert_eq!(served(&answer).held(), Some(StickyMatch::ById), "{asked}");
            let status = answer.status();
            let body = read(answer).await;
            assert_eq!(status, StatusCode::OK, "{asked} {}", String::from_utf8_lossy(&body));
        }
        for (list, id) in [("files", &file), ("vector_stores", &store), ("containers", &container)]
        {
            let listed = value(send(&stack, get(list)).await).await.to_string();
            assert!(listed.contains(id), "{list}: {listed}");
        }
    }
}

#[tokio::test]
async fn without_the_handle_the_store_does_not_know_the_file() {
    let azure = Azure::open(&NAMES).await;
    let stack = rotation(Protocol::Http1, azure.pool(STANDARD));
    let mut lost = 0;
    for _ in 0..20 {
        let file = made(&stack, post("files", &json!({}))).await;
        let store = send(&stack, post("vector_stores", &json!({"file_ids": [file]}))).await;
        lost += u32::from(store.status() == StatusCode::NOT_FOUND);
    }
    assert!(lost > 5, "two of three go elsewhere: {lost}");
}

#[tokio::test]
async fn a_home_that_takes_no_more_refuses_with_its_hint_and_is_read_all_the_same() {
    for protocol in BOTH {
        let azure = Azure::with(&NAMES, |resource| resource.creations_per_minute(6)).await;
        let stack = sticky(protocol, &azure);
        let file = made(&stack, post("files", &json!({}))).await;
        for attempts in [1, 0] {
            let refused = send(&stack, post("files", &json!({}))).await;
            assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "{protocol:?}");
            assert_eq!(served(&refused).attempts().len(), attempts, "{protocol:?}");
            assert_eq!(served(&refused).held(), Some(StickyMatch::Home));
            assert!(refused.headers().contains_key("retry-after-ms"));
        }
        let listed = value(send(&stack, get("files")).await).await.to_string();
        assert!(listed.contains(&file), "{protocol:?}: {listed}");
        let mut taken = 0;
        for client in 0..20 {
            let client = format!("b{client}");
            let theirs = send(&stack, by(&client, Method::POST, "files", &json!({}))).await;
            taken += u32::from(theirs.status() == StatusCode::OK);
        }
        assert_eq!(taken, 2, "the other homes are open: {protocol:?}");
    }
}
