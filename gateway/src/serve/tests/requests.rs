//! Which stack a request goes to, and how its answer's headers describe that.

use serde_json::{Value, json};
use spillover_emulator::Fault;

use super::*;

#[tokio::test]
async fn both_grammars_and_an_alias_reach_the_deployment_of_the_backend() {
    let scene = Scene::new().await;
    for (path, body) in [
        (chat("gpt-4o"), HELLO.to_owned()),
        (chat("gpt-4o-2024-11-20"), HELLO.to_owned()),
        ("/openai/v1/chat/completions".to_owned(), HELLO.replacen('{', r#"{"model":"gpt-4o","#, 1)),
        (
            "/openai/v1/responses".to_owned(),
            r#"{"input":"Hello","model":"gpt-4o-2024-11-20"}"#.to_owned(),
        ),
    ] {
        let request = scene.post(&path).body(Full::from(body)).unwrap();
        let answer = scene.send(request).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        assert_eq!(said(answer.headers(), "x-spillover-backend"), Some("ptu-east"));
        assert_eq!(said(answer.headers(), "x-spillover-decision"), Some("ptu"));
        let timing = said(answer.headers(), "server-timing").unwrap().to_owned();
        assert!(timing.starts_with("upstream;dur=") && timing.contains("total;dur="), "{timing}");
        assert!(said(answer.headers(), "x-request-id").is_some());
        assert_eq!(said(answer.headers(), "x-spillover-trace"), None, "nobody asked");
        text(answer).await;
    }
    assert_eq!(scene.emulator.stats().of("east", "ptu").ok, 4);
    let told = scene.accounts.wait_for(4).await;
    assert!(told.iter().all(|it| it.model.as_deref() == Some("gpt-4o") && it.complete), "{told:?}");
    assert_eq!(told[3].operation, "responses");
    assert!(told.iter().all(|it| it.prompt.is_some() && it.status == StatusCode::OK), "{told:?}");
}

#[tokio::test]
async fn an_upload_names_its_model_in_a_form_field() {
    let scene = Scene::new().await;
    let form = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ngpt-4o\r\n\
                --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n\
                RIFF\r\n--b--\r\n";
    let request = Request::post(format!("{}/openai/v1/audio/transcriptions", scene.server.url))
        .header("content-type", "multipart/form-data; boundary=b")
        .body(Full::from(form))
        .unwrap();
    text(scene.send(request).await).await;
    let received = scene.emulator.received();
    let body = String::from_utf8_lossy(&received[0].body).into_owned();
    assert!(body.contains("\r\n\r\nptu\r\n"), "{body}");
}

#[tokio::test]
async fn a_refusal_spills_and_the_answer_says_so() {
    let scene = Scene::new().await;
    let closed = || Fault::status(429).header("retry-after-ms", "30000");
    scene.emulator.script("east", "ptu", [closed()]);
    let request = scene
        .post(&chat("gpt-4o"))
        .header("x-spillover-trace", "true")
        .body(Full::from(HELLO))
        .unwrap();
    let answer = scene.send(request).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(said(answer.headers(), "x-spillover-backend"), Some("std-east"));
    let decision = said(answer.headers(), "x-spillover-decision").unwrap();
    assert!(decision.starts_with("spilled; why=hint (30s > "), "{decision}");
    assert!(decision.ends_with("ms); waited=0ms; attempts=2"), "{decision}");
    let trace = said(answer.headers(), "x-spillover-trace").unwrap();
    let trace: serde_json::Value = serde_json::from_str(trace).unwrap();
    assert_eq!(trace[0]["backend"], "ptu-east");
    assert_eq!((&trace[0]["status"], &trace[0]["hint_ms"]), (&429.into(), &30_000.into()));
    assert_eq!((&trace[1]["backend"], &trace[1]["status"]), (&"std-east".into(), &200.into()));
}

#[tokio::test]
async fn a_request_that_may_not_spill_gets_the_refusal_and_when_to_come_back() {
    let scene = Scene::new().await;
    let closed = || Fault::status(429).header("retry-after-ms", "2500");
    scene.emulator.script("east", "ptu", [closed(), closed(), closed()]);
    let request = scene
        .post(&chat("gpt-4o"))
        .header("x-spillover-no-spill", "true")
        .header("x-spillover-max-wait", "10ms")
        .body(Full::from(HELLO))
        .unwrap();
    let answer = scene.send(request).await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(said(answer.headers(), "x-should-retry"), Some("true"));
    assert!(said(answer.headers(), "x-spillover-decision").unwrap().starts_with("refused"));
    let wait: u64 = said(answer.headers(), "retry-after-ms").unwrap().parse().unwrap();
    assert!((2_000..=2_500).contains(&wait), "{wait}");
    assert_eq!(said(answer.headers(), "retry-after"), Some("3"));
    assert_eq!(scene.emulator.stats().of("east", "std").attempts, 0);
}

#[tokio::test]
async fn what_is_unknown_or_unnamed_is_refused_in_azure_s_words() {
    let scene = Scene::new().await;
    let answer = scene.chat("gpt-9").await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    let error = text(answer).await;
    assert_eq!(code(&error), "DeploymentNotFound");
    assert!(!error.contains("slow") && !error.contains("ptu"), "{error}");

    let post = |path: &str, body: &'static str| scene.post(path).body(Full::from(body)).unwrap();
    let answer = scene.send(post("/openai/v1/responses", r#"{"input":"Hello"}"#)).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert!(text(answer).await.contains("default_model"), "the remedy");

    let answer = scene.send(post("/chat/completions", HELLO)).await;
    assert_eq!((answer.status(), code(&text(answer).await)), (StatusCode::NOT_FOUND, "404".into()));
    for body in ["{", r#"{"model":"gpt-4o","model":"slow"}"#] {
        let answer = scene.send(post("/openai/v1/responses", body)).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{body}");
    }
    assert!(scene.emulator.received().is_empty());
}

#[tokio::test]
async fn the_default_model_serves_names_that_nobody_configured() {
    let scene = Scene::with(|config| config.default_model = Some("gpt-4o".to_owned())).await;
    let answer = scene.chat("gpt-9").await;
    assert_eq!(said(answer.headers(), "x-spillover-backend"), Some("ptu-east"));
    let files = Request::get(format!("{}/openai/v1/files", scene.server.url));
    let answer = scene.send(files.body(Full::default()).unwrap()).await;
    assert_eq!(said(answer.headers(), "x-spillover-backend"), Some("ptu-east"));
}

#[tokio::test]
async fn the_list_of_models_is_the_gateway_s_own() {
    let scene = Scene::new().await;
    let get = async |path: &str| {
        let request = Request::get(format!("{}{path}", scene.server.url));
        let answer = scene.send(request.body(Full::default()).unwrap()).await;
        let status = answer.status();
        (status, serde_json::from_str::<Value>(&text(answer).await).unwrap())
    };
    let model = |name| json!({"id": name, "object": "model", "created": 0, "owned_by": "azure"});
    let list = json!({"object": "list", "data": [model("gpt-4o"), model("slow")]});
    for path in ["/openai/v1/models", "/openai/models?api-version=2024-10-21"] {
        assert_eq!(get(path).await, (StatusCode::OK, list.clone()), "{path}");
    }
    for path in ["/openai/v1/models/gpt-4o", "/openai/models/gpt-4o-2024-11-20"] {
        assert_eq!(get(path).await, (StatusCode::OK, model("gpt-4o")), "{path}");
    }
    let (status, error) = get("/openai/v1/models/gpt-9").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(error["error"]["code"], "DeploymentNotFound");
    assert!(scene.emulator.received().is_empty());
}

#[tokio::test]
async fn a_websocket_for_something_else_is_refused_so_that_clients_do_without() {
    let scene = Scene::new().await;
    let request = Request::get(format!("{}/openai/v1/responses", scene.server.url))
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .body(Full::default())
        .unwrap();
    let answer = scene.send(request).await;
    assert_eq!(answer.status(), StatusCode::UPGRADE_REQUIRED);
    assert_eq!(code(&text(answer).await), "UpgradeRequired");
}

#[tokio::test]
async fn a_model_that_did_not_change_keeps_its_memory_through_a_reload() {
    let scene = Scene::new().await;
    let closed = Fault::status(429).header("retry-after-ms", "30000");
    scene.emulator.script("east", "ptu", [closed]);
    text(scene.chat("gpt-4o").await).await;
    reload(&scene.server.gateway, config(&scene._azure.endpoint())).expect("a good one");
    text(scene.chat("gpt-4o").await).await;
    assert_eq!(scene.emulator.stats().of("east", "ptu").attempts, 1, "known to be closed");

    let mut other = config(&scene._azure.endpoint());
    other.models.get_mut("gpt-4o").unwrap().ptu[0].weight = 2;
    reload(&scene.server.gateway, other).expect("a good one");
    text(scene.chat("gpt-4o").await).await;
    assert_eq!(scene.emulator.stats().of("east", "ptu").attempts, 2, "another backend");
}

#[tokio::test]
async fn a_configuration_that_cannot_work_leaves_what_is_remembered_alone() {
    let stick = |config: &mut Config| {
        let model = config.models.get_mut("gpt-4o").expect("it is there");
        model.steering.sticky = Stickiness::On { default_backend: None };
    };
    let scene = Scene::with(stick).await;
    let respond = || async {
        let body = r#"{"model":"gpt-4o","input":"Hello"}"#;
        let request = scene.post("/openai/v1/responses").body(Full::from(body));
        text(scene.send(request.expect("a request")).await).await;
        scene.server.gateway.snapshot().sticky.len()
    };
    let known = respond().await;
    let mut other = config(&scene._azure.endpoint());
    stick(&mut other);
    other.sticky.capacity = 1;
    other.models.get_mut("gpt-4o").expect("it is there").standard[0].endpoint = "nowhere".into();
    reload(&scene.server.gateway, other).expect_err("no endpoint");
    assert_eq!(respond().await, 2 * known);
}
