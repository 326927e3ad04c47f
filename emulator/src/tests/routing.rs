//! Hosts, keys, paths and bodies, with and without a route.

use super::*;

#[tokio::test(start_paused = true)]
async fn every_credential_must_be_right_and_strays_are_counted() {
    let emulator = emulator();
    let body = json!({"messages": [{"content": "x"}]}).to_string();
    let status = async |headers: &[(&str, &str)]| {
        let mut request = Request::post(format!("https://contoso-east{CHAT_STD}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.clone())).unwrap();
        let response = send(&emulator, request).await;
        let status = response.status().as_u16();
        let whole = format!("{:?}", response.headers()) + &text(response).await;
        assert!(!whole.contains("key-") && !whole.contains("jwt-"), "{whole}");
        (status, emulator.stats().misplaced)
    };
    assert_eq!(status(&[]).await, (401, 0));
    assert_eq!(status(&[("api-key", "key-east")]).await, (200, 0));
    assert_eq!(status(&[("authorization", "Bearer key-east")]).await, (200, 0));
    assert_eq!(status(&[("authorization", "bearer jwt-tenant")]).await, (200, 0));
    assert_eq!(status(&[("api-key", "jwt-tenant")]).await, (401, 0), "not as a key");
    assert_eq!(status(&[("api-key", "nobody's")]).await, (401, 0));
    assert_eq!(status(&[("api-key", "key-sweden")]).await, (401, 1));
    let stale = [("api-key", "key-east"), ("authorization", "Bearer key-sweden")];
    assert_eq!(status(&stale).await, (401, 2), "the stale header of another resource");
    let elsewhere = [("api-key", "key-east"), ("x-forwarded-key", "key-sweden")];
    assert_eq!(status(&elsewhere).await, (200, 3));
    assert_eq!(emulator.stats().unauthorized, 5);
    assert_eq!(emulator.stats().of("contoso-east", "std").attempts, 4);
}

#[tokio::test(start_paused = true)]
async fn a_resource_without_keys_lets_everybody_in_but_strays() {
    let open = Resource::new("open").deployment(Deployment::standard("std", Standard::unlimited()));
    let emulator = Emulator::new([open, Resource::new("shut").key("key-shut")]);
    let body = json!({"messages": [{"content": "x"}]});
    let ok = send(&emulator, post("open", CHAT_STD, "anything", &body)).await;
    assert_eq!(ok.status(), StatusCode::OK);
    let stray = send(&emulator, post("open", CHAT_STD, "key-shut", &body)).await;
    assert_eq!(stray.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test(start_paused = true)]
async fn the_host_chooses_the_resource() {
    let emulator = emulator();
    let region = async |host: &str| {
        let body = json!({"messages": [{"content": "x"}]});
        let request = post(host, CHAT_STD, "key-sweden", &body);
        let response = send(&emulator, request).await;
        let region = response.headers().get("x-ms-region").cloned();
        (response.status().as_u16(), region.map(|region| region.to_str().unwrap().to_owned()))
    };
    for host in [
        "contoso-sweden",
        "contoso-sweden:8080",
        "Contoso-Sweden.openai.azure.com",
        "contoso-sweden.openai.azure.com:443",
        "contoso-sweden.services.ai.azure.com",
    ] {
        assert_eq!(region(host).await, (200, Some("Sweden Central".to_owned())), "{host}");
    }
    assert_eq!(emulator.stats().misplaced, 0);
    assert_eq!(region("contoso-west.openai.azure.com").await, (404, None));
    assert_eq!(emulator.stats().misplaced, 1, "a key for a host that does not exist");

    let mut request = ask(CHAT_STD, 1, 1);
    *request.uri_mut() = CHAT_STD.parse().unwrap();
    request.headers_mut().insert("host", "contoso-east".parse().unwrap());
    assert_eq!(send(&emulator, request).await.headers()["x-ms-region"], "East US");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_exist_is_refused_by_name() {
    let emulator = emulator();
    let check = async |method: Method, path: &str, body: &str| {
        let mut request = post("contoso-east", path, "key-east", &json!({}));
        *request.method_mut() = method;
        *request.body_mut() = Full::from(body.to_owned());
        let response = send(&emulator, request).await;
        let status = response.status().as_u16();
        (status, text(response).await)
    };
    let (status, body) = check(Method::POST, &CHAT_PTU.replace("/ptu/", "/none/"), "{}").await;
    assert!(status == 404 && body.contains("DeploymentNotFound"), "{status} {body}");
    let (status, _) = check(Method::POST, "/openai/v1/moderations", "{}").await;
    assert_eq!(status, 404);
    let (status, _) = check(Method::GET, CHAT_PTU, "").await;
    assert_eq!(status, 405);
    let (status, body) = check(Method::POST, CHAT_PTU, "{\"messages\": [}").await;
    assert!(status == 400 && body.contains("line 1 column 15"), "{status} {body}");
    let (status, body) = check(Method::POST, "/openai/v1/responses", "{}").await;
    assert!(status == 400 && body.contains("'model'"), "{status} {body}");
    let stats = emulator.stats();
    assert_eq!((stats.unrouted, stats.of("contoso-east", "ptu").failed), (4, 1));
}

#[tokio::test(start_paused = true)]
async fn only_the_resource_that_made_a_response_can_continue_it() {
    let emulator = emulator();
    let first = value(send(&emulator, ask("/openai/v1/responses", 1, 1)).await).await;
    let next = json!({"model": "std", "input": "more", "previous_response_id": first["id"]});
    let path = "/openai/v1/responses";
    let here = send(&emulator, post("contoso-east", path, "key-east", &next)).await;
    assert_eq!(here.status(), StatusCode::OK);
    let there = send(&emulator, post("contoso-sweden", path, "key-sweden", &next)).await;
    assert_eq!(there.status(), StatusCode::BAD_REQUEST);
    let body = value(there).await;
    assert_eq!(body["error"]["code"], "previous_response_not_found");
}

#[tokio::test(start_paused = true)]
async fn only_the_resource_that_encrypted_reasoning_can_read_it() {
    let emulator = emulator();
    let path = "/openai/v1/responses";
    let body = json!({"model": "std", "input": "x", "include": ["reasoning.encrypted_content"]});
    let first = send(&emulator, post("contoso-east", path, "key-east", &body)).await;
    let reasoning = &value(first).await["output"][1];
    let next = json!({"model": "std", "input": [reasoning]});
    let here = send(&emulator, post("contoso-east", path, "key-east", &next)).await;
    assert_eq!(here.status(), StatusCode::OK);
    let there = send(&emulator, post("contoso-sweden", path, "key-sweden", &next)).await;
    assert_eq!(there.status(), StatusCode::BAD_REQUEST);
    assert_eq!(value(there).await["error"]["code"], "invalid_encrypted_content");
}

#[tokio::test(start_paused = true)]
async fn recording_keeps_what_arrived() {
    let emulator = emulator();
    send(&emulator, ask(CHAT_STD, 1, 1)).await;
    let emulator = emulator.record();
    let mut request = ask(CHAT_STD, 2, 1);
    let id = "caller-42".parse().unwrap();
    request.headers_mut().insert("x-ms-client-request-id", id);
    let response = send(&emulator, request).await;
    assert_eq!(response.headers()["x-ms-client-request-id"], "caller-42");
    let received = emulator.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].resource.as_deref(), Some("contoso-east"));
    assert_eq!(received[0].path_and_query, CHAT_STD);
    assert_eq!(received[0].headers["api-key"], "key-east");
    assert!(received[0].body.starts_with(b"{"));
    let printed = format!("{emulator:?} {received:?} {:?}", emulator.service());
    assert!(!printed.contains("key-east") && !printed.contains("jwt-tenant"), "{printed}");
}

#[tokio::test(start_paused = true)]
async fn a_body_in_pieces_is_put_together_and_one_over_100_mib_refused() {
    let emulator = emulator();
    let send = async |pieces: Vec<Bytes>| {
        let frames = pieces.into_iter().map(|piece| Ok::<_, EmulatorError>(Frame::data(piece)));
        let request = Request::post(format!("https://contoso-east{CHAT_STD}"))
            .header("api-key", "key-east")
            .body(StreamBody::new(futures::stream::iter(frames)))
            .unwrap();
        emulator.service().call(request).await.unwrap().status().as_u16()
    };
    let pieces = ["{\"messages\":", "", " [{\"content\"", ": \"x\"}]}"];
    assert_eq!(send(pieces.map(Bytes::from).to_vec()).await, 200);
    let spaces = Bytes::from(vec![b' '; 10 << 20]);
    assert_eq!(send(vec![spaces.clone(); 10]).await, 400, "exactly 100 MiB of nothing");
    assert_eq!(send(vec![spaces; 11]).await, 413);
}
