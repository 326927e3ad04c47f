//! Where objects without references are kept: one resource per client, whatever is refused.

use std::collections::HashMap;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use tower::{Layer, ServiceExt};
use tower_spillover::{
    BackendPool, RegionRotateLayer, ReplayLayer, SmartFallbackLayer, StickTo, Sticky,
    gate::Mode,
    sticky::{CommonResources, Home, StickyMatch, StickyTier},
};

use crate::{
    clock::{ms, pass, timed},
    leaf::{Answer, CLASSIC, Leaf, account, asked, every_error, header, request},
    sticking::{Pool, RESPONSES, backend, continuing, post, resources, respond, served_by},
    sticking_tiers::{self, MODES, closed_ptus, tiers},
};

type Ask = Request<Full<Bytes>>;

fn of(client: &str, mut request: Ask) -> Ask {
    request.extensions_mut().insert(Home::of(client));
    request
}

fn upload() -> Ask {
    post("/openai/v1/files", &json!("a file"))
}

fn list(path: &str) -> Ask {
    Request::get(path).body(Full::default()).unwrap()
}

/// Requests that list, or create something without an id.
fn homed() -> Vec<Ask> {
    let created = [
        "files",
        "uploads",
        "vector_stores",
        "batches",
        "containers",
        "skills",
        "evals",
        "conversations",
        "assistants",
        "threads",
        "fine_tuning/jobs",
    ];
    let listed = ["responses", "chat/completions", "videos"];
    let v1 = |operation: &&str| format!("/openai/v1/{operation}");
    let posts = created.iter().map(|operation| post(&v1(operation), &json!({"name": "x"})));
    let gets = created.iter().chain(&listed).map(|operation| list(&v1(operation)));
    let classic = list("/openai/files?api-version=2024-10-21");
    posts.chain(gets).chain([classic]).collect()
}

#[tokio::test(start_paused = true)]
async fn what_a_client_creates_and_lists_is_on_one_resource_and_clients_spread() {
    let pool = Pool::new(&Sticky::new(), resources());
    let mut homes = HashMap::<String, u32>::new();
    for number in 0..60 {
        let client = format!("client-{number}");
        let home = served_by(&pool.ask(of(&client, upload())).await);
        for request in homed() {
            let asked = format!("{request:?}");
            let answer = pool.ask(of(&client, request)).await;
            assert_eq!(served_by(&answer), home, "{asked}");
            assert_eq!(account(&answer).held(), Some(StickyMatch::Home), "{asked}");
            assert!(account(&answer).to_string().ends_with("; held at home"));
        }
        *homes.entry(home).or_default() += 1;
    }
    assert!(homes.len() == 3 && homes.values().all(|count| *count > 10), "{homes:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_model_makes_rotates_and_is_known_by_its_id() {
    let pool = Pool::new(&Sticky::new(), resources());
    let stored = json!({"model": "m", "messages": [], "store": true});
    for (path, body) in [
        (RESPONSES, json!({"model": "m", "input": "hi", "store": true})),
        (CLASSIC, stored),
        ("/openai/v1/videos", json!({"model": "m", "prompt": "x"})),
        ("/openai/v1/realtime/calls", json!("v=0")),
    ] {
        let mut makers = HashMap::<String, u32>::new();
        for _ in 0..40 {
            let answer = pool.ask(of("a", post(path, &body))).await;
            assert_eq!(account(&answer).held(), None, "{path}");
            *makers.entry(served_by(&answer)).or_default() += 1;
        }
        assert_eq!(makers.len(), 3, "{path}");
    }
    let (video, maker) = pool.made(post("/openai/v1/videos", &json!({"prompt": "x"}))).await;
    let poll = list(&format!("/openai/v1/videos/{}", video["id"].as_str().unwrap()));
    let answer = pool.ask(poll).await;
    assert_eq!((served_by(&answer), account(&answer).held()), (maker, Some(StickyMatch::ById)));
}

#[tokio::test(start_paused = true)]
async fn what_is_made_of_files_is_where_they_are_and_not_at_home() {
    let pool = Pool::new(&Sticky::new(), resources());
    let home = served_by(&pool.ask(of("a", upload())).await);
    let away = ["east", "west", "north"].into_iter().find(|name| *name != home).unwrap();
    let mut elsewhere = upload();
    elsewhere.extensions_mut().insert(StickTo::from(away));
    let (file, _) = pool.made(of("a", elsewhere)).await;
    for (path, body) in [
        ("/openai/v1/vector_stores", json!({"file_ids": [file["id"]]})),
        ("/openai/v1/batches", json!({"input_file_id": file["id"]})),
        ("/openai/v1/containers", json!({"name": "x", "file_ids": [file["id"]]})),
        ("/openai/v1/fine_tuning/jobs", json!({"training_file": file["id"]})),
    ] {
        let answer = pool.ask(of("a", post(path, &body))).await;
        assert_eq!(
            (served_by(&answer), account(&answer).held()),
            (away.into(), Some(StickyMatch::ById))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_home_that_refuses_answers_with_its_hint_and_nothing_is_created_elsewhere() {
    let plain = Pool::new(&Sticky::new(), resources());
    let home = served_by(&plain.ask(of("a", upload())).await);
    let other = (0..).map(|n| format!("b{n}"));
    let mut other_home = String::new();
    let mut neighbour = String::new();
    for client in other.take(20) {
        other_home = served_by(&plain.ask(of(&client, upload())).await);
        neighbour = client;
        if other_home != home {
            break;
        }
    }
    assert_ne!(other_home, home);

    let closed = home.clone();
    let leaf = Leaf::new(move |seen| match seen.host().starts_with(&closed) {
        true => Answer::refused(3_000),
        false => Answer::ok().telling(r#"{"id":"file-1"}"#),
    });
    let pool = Pool::new(&Sticky::new(), leaf);
    let refused = pool.ask(of("a", upload())).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(asked(account(&refused)), [(&*home, 0)]);
    assert_eq!(header(&refused, "retry-after-ms"), Some("3000"));
    assert_eq!(account(&refused).held(), Some(StickyMatch::Home));
    // Whatever is learned about it meanwhile, and however often it is requested.
    for client in ["a", &neighbour, "a"] {
        let answer = pool.ask(of(client, upload())).await;
        assert_eq!(answer.status().is_success(), client != "a");
        assert_eq!(account(&answer).held(), Some(StickyMatch::Home));
    }
    let elsewhere = pool.leaf.hosts().iter().filter(|host| !host.starts_with(&home)).count();
    assert_eq!(elsewhere, 1, "the neighbour's");
    pass(ms(3_000)).await;
    let again = pool.ask(of("a", list("/openai/v1/files"))).await;
    assert_eq!(asked(account(&again)), [(&*home, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_home_that_fails_stays_one() {
    let plain = Pool::new(&Sticky::new(), resources());
    let home = served_by(&plain.ask(of("a", upload())).await);
    let failing = home.clone();
    let leaf = Leaf::new(move |seen| match seen.host().starts_with(&failing) {
        true => Answer::status(500),
        false => Answer::ok(),
    });
    let pool = BackendPool::new(["east", "west", "north"].map(backend)).unwrap();
    let layer =
        RegionRotateLayer::new(pool).move_on(every_error().internal_error()).sticky(Sticky::new());
    for _ in 0..5 {
        let _ = layer.layer(leaf.clone()).oneshot(of("a", upload())).await;
    }
    assert!(leaf.hosts().iter().all(|host| host.starts_with(&home)), "{:?}", leaf.hosts());
}

#[tokio::test(start_paused = true)]
async fn the_default_backend_is_everybody_s_home() {
    let pool = Pool::new(&Sticky::new().default_backend("north"), resources());
    for number in 0..20 {
        let answer = pool.ask(of(&number.to_string(), upload())).await;
        let place = (served_by(&answer), account(&answer).held());
        assert_eq!(place, ("north".to_owned(), Some(StickyMatch::Home)));
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_name_clients_are_told_apart_by_their_keys() {
    let pool = Pool::new(&Sticky::new(), resources());
    let keyed = async |key: &str, method: Method| {
        let mut request = upload();
        *request.method_mut() = method;
        request.headers_mut().insert("api-key", key.parse().unwrap());
        served_by(&pool.ask(request).await)
    };
    let mut homes = HashMap::<String, u32>::new();
    for number in 0..30 {
        let key = format!("key-{number}");
        let home = keyed(&key, Method::POST).await;
        assert_eq!(keyed(&key, Method::GET).await, home);
        *homes.entry(home).or_default() += 1;
    }
    assert_eq!(homes.len(), 3);
    let shared = served_by(&pool.ask(upload()).await);
    for _ in 0..10 {
        assert_eq!(served_by(&pool.ask(list("/openai/v1/files")).await), shared);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_too_large_to_keep_has_a_home_too() {
    let pool = Pool::new(&Sticky::new(), resources());
    let home = served_by(&pool.ask(of("a", upload())).await);
    let streamed = ReplayLayer::new(10).layer(pool.layer.layer(pool.leaf.clone()));
    let large = post("/openai/v1/files", &json!("x".repeat(1_000)));
    let answer = streamed.oneshot(of("a", large)).await.unwrap();
    assert_eq!((served_by(&answer), account(&answer).held()), (home, Some(StickyMatch::Home)));
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_both_tiers_have_is_a_home_before_one_that_is_in_one_alone() {
    for mode in MODES {
        for number in 0..20 {
            let (tiers, leaf) = (tiers(&Sticky::new(), mode), Leaf::playing([Answer::ok()]));
            let request = of(&number.to_string(), upload());
            let answer = sticking_tiers::ask(&tiers, &leaf, request).await;
            assert_eq!(served_by(&answer), "both-ptu", "{mode:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_home_in_the_fallback_tier_is_not_kept_waiting_by_the_ptus() {
    for mode in MODES {
        let sticky = Sticky::new().default_backend("standard-only");
        let (tiers, leaf) = (tiers(&sticky, mode), closed_ptus(60_000));
        sticking_tiers::ask(&tiers, &leaf, request()).await;
        let asked_before = leaf.len();
        for request in [upload(), list("/openai/v1/files"), continuing("resp_unknown")] {
            let (answer, took) = timed(sticking_tiers::ask(&tiers, &leaf, request)).await;
            assert_eq!(asked(account(&answer)), [("standard-only", 0)], "{mode:?}");
            assert!(took.is_zero(), "{mode:?}");
        }
        assert_eq!(leaf.len(), asked_before + 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_home_with_a_ptu_alone_never_spills() {
    let sticky = Sticky::new().default_backend("ptu-only");
    let leaf = Leaf::new(|seen| match seen.host() {
        "ptu-only.example" => Answer::refused(60_000),
        _ => Answer::ok(),
    });
    let tiers = tiers(&sticky, Mode::Adaptive);
    for _ in 0..2 {
        let refused = sticking_tiers::ask(&tiers, &leaf, upload()).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(account(&refused).held(), Some(StickyMatch::Home));
    }
    assert_eq!(leaf.hosts(), ["ptu-only.example"]);
}

#[tokio::test(start_paused = true)]
async fn models_that_share_a_resource_share_the_home() {
    let stack = |names: &[&str]| {
        let pool = BackendPool::new(names.iter().map(|name| backend(name))).unwrap();
        RegionRotateLayer::new(pool).sticky(Sticky::new())
    };
    let (one, other) = (stack(&["east", "west"]), stack(&["west", "north"]));
    let apart = stack(&["south", "moon"]);
    let leaf = resources();
    for number in 0..20 {
        let all = [one.residents(), other.residents(), apart.residents()];
        let home = Home::of(&number.to_string()).among(&CommonResources::of(&all));
        assert!(home.is_in_all(&CommonResources::of(&all[..2])));
        assert!(!home.is_in_all(&CommonResources::of(&all)));
        for (layer, expected) in [(&one, Some("west")), (&other, Some("west")), (&apart, None)] {
            let mut places = Vec::new();
            for _ in 0..3 {
                let mut request = upload();
                request.extensions_mut().insert(home.clone());
                places.push(served_by(&layer.layer(leaf.clone()).oneshot(request).await.unwrap()));
            }
            assert!(places.iter().all(|place| *place == places[0]), "{places:?}");
            assert!(expected.is_none_or(|expected| places[0] == expected));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn tiers_inside_of_tiers_agree_on_the_home() {
    let pool = |name: &str| RegionRotateLayer::new(BackendPool::new([backend(name)]).unwrap());
    let layer = SmartFallbackLayer::new(
        pool("first"),
        SmartFallbackLayer::new(pool("second"), pool("third")),
    )
    .sticky(Sticky::new());
    let mut homes = HashMap::<String, u32>::new();
    for number in 0..60 {
        let leaf = resources();
        for _ in 0..2 {
            let request = of(&number.to_string(), upload());
            layer.layer(leaf.clone()).oneshot(request).await.unwrap();
        }
        let hosts = leaf.hosts();
        assert_eq!((hosts.len(), &hosts[0]), (2, &hosts[1]));
        *homes.entry(hosts[0].clone()).or_default() += 1;
    }
    assert_eq!(homes.len(), 3, "{homes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_conversation_of_known_items_is_made_where_they_are() {
    let pool = Pool::new(&Sticky::new(), resources());
    for _ in 0..10 {
        let (answer, maker) = pool.made(respond(json!({"input": "hi"}))).await;
        let item = |id: &Value| json!({"type": "message", "id": id, "content": "hello"});
        let items = json!({"items": [item(&answer["output"][1]["id"])]});
        let begun = pool.ask(post("/openai/v1/conversations", &items)).await;
        assert_eq!((served_by(&begun), account(&begun).held()), (maker, Some(StickyMatch::ById)));
        let items = json!({"items": [item(&json!("msg_unknown"))]});
        let begun = pool.ask(post("/openai/v1/conversations", &items)).await;
        assert_eq!(account(&begun).held(), Some(StickyMatch::Home));
    }
}
