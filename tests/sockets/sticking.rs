//! Conversations whose state lives in one resource, over sockets, with an emulator that knows it.

use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceBuilder;
use tower_spillover::{
    RegionRotateLayer, SmartFallbackLayer, StickTo, Sticky, sticky::StickyMatch,
};

use crate::{
    azure::{Azure, refused_for},
    clock::soon,
    protocol::{BOTH, Protocol},
    stack::{Answer, Ask, Stack, ask, attempts, read, rotation, send, served},
};

const PTU: [&str; 2] = ["east/gpt-4o-ptu", "sweden/gpt-4o-ptu"];
const STANDARD: [&str; 3] = ["east/gpt-4o", "sweden/gpt-4o", "japan/gpt-4o"];
const NAMES: [&str; 3] = ["east", "sweden", "japan"];

fn respond(body: &Value) -> Ask {
    ask("/openai/v1/responses", body.to_string())
}

fn sticky_rotation(protocol: Protocol, azure: &Azure) -> Stack {
    let rotate = RegionRotateLayer::new(azure.pool(STANDARD)).sticky(Sticky::new());
    Stack::new(ServiceBuilder::new().layer(rotate).service(protocol.client()))
}

fn sticky_tiers(protocol: Protocol, azure: &Azure) -> Stack {
    let tiers = SmartFallbackLayer::new(
        RegionRotateLayer::new(azure.pool(PTU)),
        RegionRotateLayer::new(azure.pool(STANDARD)),
    )
    .max_wait(Duration::from_millis(500))
    .sticky(Sticky::new());
    Stack::new(ServiceBuilder::new().layer(tiers).service(protocol.client()))
}

/// The resource that served.
fn maker(answer: &Answer) -> String {
    let backend = served(answer).backend().expect("a backend served");
    backend.split('/').next().unwrap_or_default().to_owned()
}

async fn value(answer: Answer) -> Value {
    serde_json::from_slice(&read(answer).await).expect("JSON")
}

#[tokio::test]
async fn a_conversation_of_many_turns_never_loses_its_resource() {
    for protocol in BOTH {
        let azure = Azure::open(&NAMES).await;
        let stack = sticky_rotation(protocol, &azure);
        for _ in 0..5 {
            let first = send(&stack, respond(&json!({"model": "m", "input": "hi"}))).await;
            let home = maker(&first);
            let mut id = value(first).await["id"].clone();
            for stream in [false, true, false] {
                let turn = json!({"model": "m", "input": "go on", "previous_response_id": id,
                    "stream": stream});
                let answer = send(&stack, respond(&turn)).await;
                assert_eq!((answer.status().as_u16(), maker(&answer)), (200, home.clone()));
                assert_eq!(served(&answer).held(), Some(StickyMatch::ById));
                let body = read(answer).await;
                let body = String::from_utf8(body.to_vec()).unwrap();
                id = body.split('"').find(|part| part.starts_with("resp_")).unwrap().into();
            }
        }
    }
}

#[tokio::test]
async fn without_the_handle_the_same_conversation_is_not_found() {
    let azure = Azure::open(&NAMES).await;
    let stack = rotation(Protocol::Http1, azure.pool(STANDARD));
    let mut lost = 0;
    for _ in 0..20 {
        let first = send(&stack, respond(&json!({"model": "m", "input": "hi"}))).await;
        let id = value(first).await["id"].clone();
        let turn = json!({"model": "m", "input": "go on", "previous_response_id": id});
        let answer = send(&stack, respond(&turn)).await;
        if answer.status() == 400 {
            assert_eq!(value(answer).await["error"]["code"], "previous_response_not_found");
            lost += 1;
        }
    }
    assert!(lost > 5, "two of three go elsewhere: {lost}");
}

#[tokio::test]
async fn encrypted_reasoning_is_read_by_who_wrote_it_without_an_id() {
    for protocol in BOTH {
        let azure = Azure::open(&NAMES).await;
        let stack = sticky_rotation(protocol, &azure);
        for _ in 0..10 {
            let include = json!(["reasoning.encrypted_content"]);
            let ask = json!({"model": "m", "input": "hi", "store": false, "include": include});
            let answer = value(send(&stack, respond(&ask)).await).await;
            let sealed = answer["output"][1]["encrypted_content"].clone();
            assert!(sealed.is_string(), "{answer}");
            let item = json!({"type": "reasoning", "summary": [], "encrypted_content": sealed});
            let next = send(&stack, respond(&json!({"model": "m", "input": [item]}))).await;
            assert_eq!(next.status(), 200, "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn a_response_of_standard_is_continued_there_although_the_ptus_have_room() {
    for protocol in BOTH {
        let azure = Azure::open(&NAMES).await;
        let stack = sticky_tiers(protocol, &azure);
        // To the one region that has no PTU.
        let mut first = respond(&json!({"model": "m", "input": "hi"}));
        first.extensions_mut().insert(StickTo::from("japan/gpt-4o"));
        let answer = send(&stack, first).await;
        assert_eq!(maker(&answer), "japan");
        let id = value(answer).await["id"].clone();
        for _ in 0..5 {
            let turn = json!({"model": "m", "input": "go on", "previous_response_id": id});
            let answer = send(&stack, respond(&turn)).await;
            assert_eq!(attempts(&answer), [("japan/gpt-4o", 200)], "{protocol:?}");
            drop(answer);
        }
        assert_eq!(azure.counts(PTU[0]).attempts + azure.counts(PTU[1]).attempts, 0);
    }
}

#[tokio::test]
async fn a_response_of_a_ptu_spills_to_the_deployment_beside_it() {
    for protocol in BOTH {
        let azure = Azure::open(&NAMES).await;
        let stack = sticky_tiers(protocol, &azure);
        let first = send(&stack, respond(&json!({"model": "m", "input": "hi"}))).await;
        let home = maker(&first);
        let id = value(first).await["id"].clone();
        azure.script(&format!("{home}/gpt-4o-ptu"), [refused_for(9_000)]);
        let turn = json!({"model": "m", "input": "go on", "previous_response_id": id});
        let answer = send(&stack, respond(&turn)).await;
        let (ptu, standard) = (format!("{home}/gpt-4o-ptu"), format!("{home}/gpt-4o"));
        assert_eq!(attempts(&answer), [(&*ptu, 429), (&*standard, 200)], "{protocol:?}");
    }
}

#[tokio::test]
async fn a_stream_is_learned_from_at_its_first_event() {
    let azure = Azure::open(&NAMES).await;
    let stack = sticky_rotation(Protocol::Http2, &azure);
    for _ in 0..10 {
        let ask = json!({"model": "m", "input": "hi", "stream": true});
        let mut answer = send(&stack, respond(&ask)).await;
        let home = maker(&answer);
        let frame = soon(answer.body_mut().frame()).await.unwrap().unwrap().into_data().unwrap();
        let frame = String::from_utf8(frame.to_vec()).unwrap();
        let id = frame.split('"').find(|part| part.starts_with("resp_")).unwrap();
        let turn = json!({"model": "m", "input": "go on", "previous_response_id": id});
        assert_eq!(maker(&send(&stack, respond(&turn)).await), home);
    }
}
