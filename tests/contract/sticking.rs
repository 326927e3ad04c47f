//! Which requests a pool pins to one resource, what it learns, and how it refuses them.

use std::{collections::HashSet, convert::Infallible};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt, service_fn};
use tower_spillover::{
    Backend, BackendPool, Credential, RegionRotateLayer, ReplayLayer, ResponseBody, StickTo,
    Sticky, replay::ReplayBody, sticky::StickyMatch,
};

use crate::{
    clock::{ms, pass},
    leaf::{Answer, CLASSIC, Leaf, account, asked, header, request, text},
};

pub(crate) const RESPONSES: &str = "/openai/v1/responses";

pub(crate) fn backend(name: &str) -> Backend {
    Backend::new(name, format!("https://{name}.example")).unwrap().api_key(format!("key-of-{name}"))
}

pub(crate) fn post(path: &str, body: &Value) -> Request<Full<Bytes>> {
    Request::post(path).body(Full::from(body.to_string())).unwrap()
}

#[expect(clippy::needless_pass_by_value, reason = "reads better at the call")]
pub(crate) fn respond(body: Value) -> Request<Full<Bytes>> {
    post(RESPONSES, &body)
}

/// Continues the response `id`.
pub(crate) fn continuing(id: &str) -> Request<Full<Bytes>> {
    respond(json!({"model": "m", "input": "go on", "previous_response_id": id}))
}

/// A client whose resources create objects with their own ids: `resp_east_5`.
pub(crate) fn resources() -> Leaf {
    Leaf::new(|seen| {
        let resource = seen.host().trim_end_matches(".example");
        let id = format!("{resource}_{}", seen.index);
        let created = json!({"type": "response.created", "response": {"id": format!("resp_{id}")}});
        if seen.body.windows(8).any(|window| window == b"\"stream\"") {
            return Answer::ok().telling(format!("event: response.created\ndata: {created}\n\n"));
        }
        Answer::ok().telling(
            json!({"id": format!("resp_{id}"), "object": "response", "output": [
                {"type": "reasoning", "id": format!("rs_{id}"), "summary": [],
                    "encrypted_content": format!("gAAAA{id}")},
                {"type": "message", "id": format!("msg_{id}"), "content": []}]})
            .to_string(),
        )
    })
}

pub(crate) struct Pool {
    pub(crate) layer: RegionRotateLayer,
    pub(crate) leaf: Leaf,
}

type Answered = Response<ResponseBody<Full<Bytes>>>;

impl Pool {
    pub(crate) fn new(sticky: &Sticky, leaf: Leaf) -> Self {
        let pool = BackendPool::new(["east", "west", "north"].map(backend)).unwrap();
        Self { layer: RegionRotateLayer::new(pool).sticky(sticky.clone()), leaf }
    }

    pub(crate) async fn ask(&self, request: Request<Full<Bytes>>) -> Answered {
        self.layer.layer(self.leaf.clone()).oneshot(request).await.unwrap()
    }

    /// The body of a response, and the backend that made it.
    pub(crate) async fn made(&self, request: Request<Full<Bytes>>) -> (Value, String) {
        let response = self.ask(request).await;
        let by = served_by(&response);
        (serde_json::from_str(&text(response).await).unwrap(), by)
    }
}

pub(crate) fn served_by<R>(response: &Response<R>) -> String {
    account(response).backend().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_response_is_continued_where_it_was_made_and_everything_else_rotates() {
    let pool = Pool::new(&Sticky::new(), resources());
    let mut makers = HashSet::new();
    for _ in 0..60 {
        let (answer, maker) = pool.made(respond(json!({"model": "m", "input": "hi"}))).await;
        let next = pool.ask(continuing(answer["id"].as_str().unwrap())).await;
        assert_eq!(served_by(&next), maker);
        assert_eq!(account(&next).held(), Some(StickyMatch::ById));
        assert!(account(&next).to_string().ends_with("; held"), "{}", account(&next));
        makers.insert(maker);
    }
    assert_eq!(makers.len(), 3);
    let chat = pool.ask(request()).await;
    assert_eq!(account(&chat).held(), None);
}

#[tokio::test(start_paused = true)]
async fn what_a_stream_says_first_is_enough_even_if_nobody_reads_on() {
    let pool = Pool::new(&Sticky::new(), resources());
    for _ in 0..20 {
        let mut response = pool.ask(respond(json!({"input": "hi", "stream": true}))).await;
        let maker = served_by(&response);
        let frame = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        let frame = String::from_utf8(frame.to_vec()).unwrap();
        let id = frame.split('"').find(|part| part.starts_with("resp_")).unwrap();
        drop(response);
        assert_eq!(served_by(&pool.ask(continuing(id)).await), maker);
    }
}

#[tokio::test(start_paused = true)]
async fn items_and_encrypted_reasoning_go_back_to_who_made_them() {
    let pool = Pool::new(&Sticky::new(), resources());
    let include = json!(["reasoning.encrypted_content"]);
    for _ in 0..20 {
        let begin = json!({"model": "m", "input": "hi", "store": false, "include": include});
        let (answer, maker) = pool.made(respond(begin)).await;
        let sealed = answer["output"][0]["encrypted_content"].clone();
        let reasoning = json!({"type": "reasoning", "summary": [], "encrypted_content": sealed});
        let next = pool.ask(respond(json!({"input": [reasoning]}))).await;
        assert_eq!((served_by(&next), account(&next).held()), (maker, Some(StickyMatch::ById)));

        let (answer, maker) = pool.made(respond(json!({"input": "hi"}))).await;
        for item in [
            json!({"type": "item_reference", "id": answer["output"][1]["id"]}),
            json!({"type": "message", "id": answer["output"][1]["id"], "content": "hello"}),
            json!({"type": "reasoning", "id": answer["output"][0]["id"], "summary": []}),
        ] {
            let next = pool.ask(respond(json!({"input": [item]}))).await;
            assert_eq!(
                (served_by(&next), account(&next).held()),
                (maker.clone(), Some(StickyMatch::ById))
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_in_the_path_leads_to_what_it_names() {
    let pool = Pool::new(&Sticky::new(), resources());
    for _ in 0..10 {
        let (file, maker) = pool.made(post("/openai/v1/files", &json!({}))).await;
        let id = file["id"].as_str().unwrap();
        for path in [
            format!("/openai/v1/files/{id}"),
            format!("/openai/files/{id}/content?api-version=2024-10-21"),
        ] {
            let get = Request::get(path).body(Full::default()).unwrap();
            assert_eq!(served_by(&pool.ask(get).await), maker);
        }
        let search = json!([{"type": "input_file", "file_id": id}]);
        let input = json!([{"role": "user", "content": search}]);
        assert_eq!(served_by(&pool.ask(respond(json!({"input": input}))).await), maker);
        let batch = json!({"input_file_id": id, "endpoint": "/chat/completions"});
        assert_eq!(served_by(&pool.ask(post("/openai/v1/batches", &batch)).await), maker);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_to_what_its_tools_prompt_images_and_sources_refer_to() {
    let pool = Pool::new(&Sticky::new(), resources());
    for maker in ["east", "west", "north"] {
        let mut make = post("/openai/v1/containers", &json!({"name": "x"}));
        make.extensions_mut().insert(StickTo::from(maker));
        let (made, _) = pool.made(make).await;
        let id = made["id"].as_str().unwrap();
        let shell = |environment: Value| {
            respond(json!({"model": "m", "tools": [{"type": "shell", "environment": environment}]}))
        };
        let source = json!({"type": "jsonl", "source": {"type": "file_id", "id": id}});
        for request in [
            shell(json!({"type": "container_reference", "container_id": id})),
            shell(json!({"type": "container_auto", "skills": [{"skill_id": id}]})),
            respond(json!({"prompt": {"id": id}})),
            respond(json!({"input": [{"content": [{"type": "input_file", "file_id": id}]}]})),
            post("/openai/v1/images/edits", &json!({"model": "m", "images": [{"file_id": id}]})),
            post("/openai/v1/evals/eval_x/runs", &json!({"data_source": source})),
            post("/openai/v1/videos/edits", &json!({"video": {"id": id}})),
            Request::get(format!("/openai/v1/skills/{id}")).body(Full::default()).unwrap(),
            Request::get(format!("/openai/v1/containers/{id}/files/x"))
                .body(Full::default())
                .unwrap(),
        ] {
            let asked = format!("{request:?}");
            let answer = pool.ask(request).await;
            assert_eq!(account(&answer).held(), Some(StickyMatch::ById), "{asked}");
            assert_eq!(served_by(&answer), maker, "{asked}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_things_of_two_resources_the_first_that_is_known_leads() {
    let pool = Pool::new(&Sticky::new(), resources());
    let mut ids = Vec::new();
    for maker in ["east", "west"] {
        let mut make = respond(json!({"input": "hi"}));
        make.extensions_mut().insert(StickTo::from(maker));
        ids.push(pool.made(make).await.0["id"].as_str().unwrap().to_owned());
    }
    let quoting = |first: &str, second: &str| {
        let body = format!(
            r#"{{"previous_response_id":"{first}","tools":[{{"container":"{second}"}}],"input":"x"}}"#
        );
        Request::post(RESPONSES).body(Full::from(body)).unwrap()
    };
    for (first, second, maker) in [
        (&*ids[0], &*ids[1], "east"),
        (&ids[1], &ids[0], "west"),
        ("resp_unknown", &ids[1], "west"),
    ] {
        assert_eq!(served_by(&pool.ask(quoting(first, second)).await), maker);
        let message = json!({"attachments": [{"file_id": second}]});
        let path = format!("/openai/v1/threads/{first}/messages");
        assert_eq!(served_by(&pool.ask(post(&path, &message)).await), maker);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_too_long_to_keep_goes_where_its_beginning_refers_to() {
    let pool = Pool::new(&Sticky::new(), resources());
    for _ in 0..10 {
        let (answer, maker) = pool.made(respond(json!({"input": "hi"}))).await;
        let id = answer["id"].as_str().unwrap();
        let long =
            format!(r#"{{"previous_response_id":"{id}","input":"{}"}}"#, "go on ".repeat(1_000));
        let request = Request::post(RESPONSES)
            .body(StreamBody::new(
                stream::iter(
                    long.as_bytes().chunks(100).map(Bytes::copy_from_slice).collect::<Vec<_>>(),
                )
                .map(|piece| Ok::<_, Infallible>(Frame::data(piece))),
            ))
            .unwrap();
        let service = ReplayLayer::new(1_000).layer(pool.layer.layer(pool.leaf.clone()));
        let next = service.oneshot(request).await.unwrap();
        assert_eq!((served_by(&next), account(&next).held()), (maker, Some(StickyMatch::ById)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_chat_is_read_only_if_it_names_what_a_resource_may_hold() {
    let layer = Pool::new(&Sticky::new(), resources()).layer;
    let filler = "word ".repeat(10_000);
    for (more, is_read) in [
        (json!({}), false),
        (json!({"stream": true}), false),
        (json!({"store": true}), true),
        (json!({"file_id": "file-1"}), true),
    ] {
        let mut body = json!({"messages": [{"role": "user", "content": filler}]});
        body.as_object_mut().unwrap().append(&mut more.as_object().unwrap().clone());
        let body = body.to_string();
        let pieces = body.as_bytes().chunks(10_000).map(Bytes::copy_from_slice);
        let frames = pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
        let request =
            Request::post(CLASSIC).body(StreamBody::new(stream::iter(frames.collect::<Vec<_>>())));
        let leaf = service_fn(async |request: Request<ReplayBody<_>>| {
            let mut frames = request.into_body().into_data_stream();
            let mut count = 0;
            while frames.next().await.is_some() {
                count += 1;
            }
            Response::builder().header("x-frames", count).body(Full::<Bytes>::default())
        });
        let service = ReplayLayer::new(1 << 20).note_names().layer(layer.layer(leaf));
        let response = service.oneshot(request.unwrap()).await.unwrap();
        assert_eq!(header(&response, "x-frames") == Some("1"), is_read, "{more}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_upload_became_is_where_its_parts_are() {
    let leaf = Leaf::new(|seen| {
        let resource = seen.host().trim_end_matches(".example");
        let file = json!({"id": format!("file-{resource}"), "object": "file"});
        let upload = json!({"id": format!("upload_{resource}"), "object": "upload", "file": file});
        Answer::ok().telling(upload.to_string())
    });
    let pool = Pool::new(&Sticky::new(), leaf);
    for maker in ["east", "west", "north"] {
        let mut begin = post("/openai/v1/uploads", &json!({"filename": "x", "bytes": 5}));
        begin.extensions_mut().insert(StickTo::from(maker));
        pool.made(begin).await;
        for (path, body) in [
            (format!("/openai/v1/uploads/upload_{maker}/parts"), json!("a part")),
            (
                format!("/openai/v1/uploads/upload_{maker}/complete"),
                json!({"part_ids": ["part_1"]}),
            ),
            ("/openai/v1/vector_stores".to_owned(), json!({"file_ids": [format!("file-{maker}")]})),
            (format!("/openai/v1/files/file-{maker}"), json!({})),
        ] {
            assert_eq!(served_by(&pool.ask(post(&path, &body)).await), maker, "{path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_id_goes_to_the_home_and_the_answer_says_that_it_is_a_guess() {
    for (sticky, default) in [
        (Sticky::new(), None),
        (Sticky::new().default_backend("north"), Some("north")),
        (Sticky::new().default_backend("gone"), None),
    ] {
        let pool = Pool::new(&sticky, resources());
        let list = Request::get("/openai/v1/files").body(Full::default()).unwrap();
        let home = served_by(&pool.ask(list).await);
        assert!(default.is_none_or(|default| home == default), "{home}");
        for _ in 0..10 {
            let response = pool.ask(continuing("resp_of_yesterday")).await;
            assert_eq!(served_by(&response), home);
            assert_eq!(account(&response).held(), Some(StickyMatch::Default));
        }
        let message = json!({"type": "message", "id": "msg_x", "content": "all of it"});
        let free = pool.ask(respond(json!({"input": [message]}))).await;
        assert_eq!(account(&free).held(), None, "any resource can read a whole message");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_is_named_by_extension_header_or_cookie_and_none_goes_upstream() {
    let leaf = resources();
    let backend = |name| backend(name).credential(Credential::passthrough());
    let pool = BackendPool::new(["east", "west", "north"].map(backend)).unwrap();
    let pool = Pool { layer: RegionRotateLayer::new(pool).sticky(Sticky::new()), leaf };
    for _ in 0..10 {
        let (answer, _) = pool.made(respond(json!({"input": "hi"}))).await;
        let known = || continuing(answer["id"].as_str().unwrap());
        let makers: [&dyn Fn() -> Request<Full<Bytes>>; 2] = [&request, &known];
        for make in makers {
            let mut by_extension = make();
            by_extension.extensions_mut().insert(StickTo::from("north"));
            let mut by_header = make();
            by_header.headers_mut().insert("x-spillover-backend", "north".parse().unwrap());
            let mut by_cookie = make();
            let cookie = "a=b; spillover-backend=north".parse().unwrap();
            by_cookie.headers_mut().insert("cookie", cookie);
            for request in [by_extension, by_header, by_cookie] {
                let response = pool.ask(request).await;
                assert_eq!(served_by(&response), "north");
                assert_eq!(account(&response).held(), Some(StickyMatch::ByName));
            }
        }
        let mut unknown = request();
        unknown.extensions_mut().insert(StickTo::from("south"));
        assert_eq!(account(&pool.ask(unknown).await).held(), Some(StickyMatch::Default));
    }
    for seen in pool.leaf.seen() {
        assert_eq!(seen.header("x-spillover-backend"), None);
        assert!(seen.header("cookie").is_none_or(|cookie| cookie == "a=b"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_held_request_is_refused_with_its_own_hint_rather_than_moved() {
    let leaf = Leaf::new(|seen| match seen.host() {
        "east.example" => Answer::refused(3_000),
        "west.example" => Answer::refused(50),
        _ => Answer::ok(),
    });
    let pool = Pool::new(&Sticky::new(), leaf);
    let named = |name: &'static str| {
        let mut request = request();
        request.extensions_mut().insert(StickTo::from(name));
        request
    };
    let west = pool.ask(named("west")).await;
    assert_eq!(
        (west.status(), header(&west, "retry-after-ms")),
        (StatusCode::TOO_MANY_REQUESTS, Some("50"))
    );
    let refused = pool.ask(named("east")).await;
    assert_eq!(asked(account(&refused)), [("east", 0)]);
    assert_eq!(header(&refused, "retry-after-ms"), Some("3000"), "west's 50 are not its own");
    assert_eq!(text(refused).await, "the answer", "its own words");

    pass(ms(1_000)).await;
    let closed = pool.ask(named("east")).await;
    assert_eq!(closed.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(account(&closed).attempts().len(), 0, "nobody is asked");
    assert_eq!(account(&closed).held(), Some(StickyMatch::ByName));
    assert_eq!(header(&closed, "retry-after-ms"), Some("2000"));
    let text = text(closed).await;
    assert!(text.contains("east is closed for 2000 ms") && !text.contains("west"), "{text}");
    assert_eq!(served_by(&pool.ask(request()).await), "north", "the others rotate as ever");
}

#[tokio::test(start_paused = true)]
async fn another_deployment_of_the_same_resource_may_serve() {
    let of = |name: &str, host: &str| {
        let endpoint = format!("https://{host}");
        Backend::new(name, endpoint).unwrap().deployment(name).api_key("key")
    };
    let pool = BackendPool::new([
        of("east-ptu", "contoso-east.openai.azure.com"),
        of("east", "contoso-east.services.ai.azure.com").priority(2),
        of("west", "contoso-west.openai.azure.com"),
    ]);
    let leaf = Leaf::new(|seen| match seen.body.windows(8).any(|window| window == b"east-ptu") {
        true => Answer::refused(5_000),
        false => Answer::ok().telling(r#"{"id":"resp_1"}"#),
    });
    let layer = RegionRotateLayer::new(pool.unwrap()).sticky(Sticky::new());
    let pool = Pool { layer, leaf };
    let mut first = respond(json!({"model": "m", "input": "hi"}));
    first.extensions_mut().insert(StickTo::from("east"));
    let response = pool.ask(first).await;
    assert_eq!(asked(account(&response)), [("east-ptu", 0), ("east", 0)]);
    text(response).await;
    assert_eq!(served_by(&pool.ask(continuing("resp_1")).await), "east");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_learned_of_what_is_not_kept() {
    let sticky = Sticky::new();
    let pool = Pool::new(&sticky, resources());
    for request in [
        request(),
        post("/openai/v1/embeddings", &json!({"input": "hi"})),
        Request::get("/openai/v1/files/file-1/content").body(Full::default()).unwrap(),
    ] {
        pool.made(request).await;
    }
    assert!(sticky.is_empty());
    pool.made(respond(json!({"input": "hi", "store": false}))).await;
    assert_eq!(sticky.len(), 1, "its encrypted reasoning alone");
    pool.made(post(CLASSIC, &json!({"messages": [], "store": true}))).await;
    assert!(sticky.len() > 1);

    let failing = Leaf::playing([Answer::status(404).telling(r#"{"id":"resp_1"}"#)]);
    let (sticky, before) = (Sticky::new(), failing.clone());
    text(Pool::new(&sticky, before).ask(respond(json!({"input": "hi"}))).await).await;
    assert!(sticky.is_empty() && failing.len() == 1);
}

#[tokio::test(start_paused = true)]
async fn clones_of_the_handle_share_what_they_learned_and_forget_the_oldest() {
    let sticky = Sticky::new().capacity(6).longest_age(ms(60_000));
    let (one, other) = (Pool::new(&sticky, resources()), Pool::new(&sticky.clone(), resources()));
    let (first, maker) = one.made(respond(json!({"input": "hi"}))).await;
    let first = first["id"].as_str().unwrap();
    assert_eq!(served_by(&other.ask(continuing(first)).await), maker);
    for _ in 0..2 {
        one.made(respond(json!({"input": "hi"}))).await;
    }
    assert_eq!(sticky.len(), 6);
    assert_eq!(account(&other.ask(continuing(first)).await).held(), Some(StickyMatch::Default));

    let (second, _) = one.made(respond(json!({"input": "hi"}))).await;
    pass(ms(60_000)).await;
    let late = other.ask(continuing(second["id"].as_str().unwrap())).await;
    assert_eq!(account(&late).held(), Some(StickyMatch::Default));
    let printed = format!("{sticky:?} {:?}", one.layer);
    assert!(!printed.contains("resp_"), "{printed}");
}
