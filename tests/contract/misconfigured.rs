//! A backend's own fault is not the caller's: how the layers treat credentials, accounts and
//! deployments that differ from their configuration.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, Credential, InspectLayer, RegionRotateLayer, ResponseBody,
    SmartFallbackLayer,
    classify::{Outcome, Reason},
    policy::{CooldownPolicy, MoveOn},
};

use crate::{
    clock::{ms, pass},
    leaf::{Answer, Leaf, account, asked, header, request, text},
};

fn backend(name: &str) -> Backend {
    Backend::new(name, format!("https://{name}.example")).unwrap().api_key("key")
}

/// Backends in this order of priority.
fn pool<const N: usize>(names: [&str; N]) -> BackendPool {
    let mut priority = 0;
    BackendPool::new(names.map(|name| {
        priority += 1;
        backend(name).priority(priority)
    }))
    .unwrap()
}

/// A client whose backends answer by name; those not named serve.
fn regions<const N: usize>(answers: [(&'static str, Answer); N]) -> Leaf {
    Leaf::new(move |seen| {
        let name = seen.host().trim_end_matches(".example");
        let answer = answers.iter().find(|(other, _)| *other == name);
        answer.map_or_else(Answer::ok, |(_, answer)| answer.clone())
    })
}

async fn ask(pool: &BackendPool, leaf: &Leaf) -> Response<ResponseBody<Full<Bytes>>> {
    let layer = RegionRotateLayer::new(pool.clone()).move_on(MoveOn::none());
    layer.layer(leaf.clone()).oneshot(request()).await.unwrap()
}

fn deferred(pool: &BackendPool) -> Vec<Option<u128>> {
    pool.deferred().map(|(_, left)| left.map(|left| left.as_millis())).collect()
}

fn misconfigured(pool: &BackendPool) -> Vec<Option<u16>> {
    pool.misconfigured().map(|(_, status)| status.map(|status| status.as_u16())).collect()
}

const MISSING: &str = r#"{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}"#;
const FILTERED: &str = r#"{"statusCode":403,"message":"Request failed content safety check."}"#;

#[tokio::test(start_paused = true)]
async fn a_request_goes_on_from_a_backend_that_cannot_serve_anybody() {
    for status in [401, 402, 403, 410] {
        let pool = pool(["a", "b"]);
        let leaf = regions([("a", Answer::status(status))]);
        let response = ask(&pool, &leaf).await;
        assert_eq!(asked(account(&response)), [("a", 0), ("b", 0)], "{status}");
        let first = account(&response).attempts().next().unwrap();
        assert_eq!(first.outcome(), Outcome::Misconfigured);
        assert_eq!(first.reason(), Some(Reason::Misconfigured));
        assert_eq!(account(&response).to_string(), format!("a {status} misconfigured, b 200"));
        assert_eq!(misconfigured(&pool), [Some(status), None]);
        assert_eq!(deferred(&pool), [Some(60_000), None]);
        assert!(pool.cooldowns().all(|(_, rest)| rest.is_none()), "it refuses nothing");
        ask(&pool, &leaf).await;
        assert_eq!(leaf.hosts()[2..], ["b.example"], "the next one goes elsewhere at once");
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_looked_at_by_one_request_at_a_time_and_twice_as_late_each_time() {
    let pool = pool(["a", "b"]);
    let leaf = Leaf::new(|seen| match seen.host() {
        "a.example" if seen.at < ms(150_000) => Answer::status(401).after(10),
        _ => Answer::ok(),
    });
    ask(&pool, &leaf).await;
    pass(ms(60_000)).await;
    join_all((0..20).map(|_| ask(&pool, &leaf))).await;
    let looks = leaf.hosts().iter().filter(|host| *host == "a.example").count();
    assert_eq!((looks, deferred(&pool)), (2, vec![Some(120_000), None]));
    pass(ms(120_000)).await;
    assert_eq!(account(&ask(&pool, &leaf).await).backend(), Some("a"), "somebody mended it");
    assert_eq!((misconfigured(&pool), deferred(&pool)), (vec![None, None], vec![None, None]));
}

#[tokio::test(start_paused = true)]
async fn how_long_it_rests_is_a_setting() {
    let pool = pool(["a", "b"]);
    let cooldowns = CooldownPolicy::default().misconfigured(ms(5_000), ms(8_000));
    let layer = RegionRotateLayer::new(pool.clone()).cooldowns(cooldowns);
    for expected in [5_000, 8_000, 8_000] {
        let leaf = regions([("a", Answer::status(402))]);
        layer.layer(leaf).oneshot(request()).await.unwrap();
        assert_eq!(deferred(&pool), [Some(expected), None]);
        pass(ms(expected.try_into().unwrap())).await;
    }
}

#[tokio::test(start_paused = true)]
async fn where_all_are_alike_the_caller_gets_the_answer_as_it_came_every_time() {
    let pool = pool(["a", "b"]);
    let answer = Answer::status(401).with("www-authenticate", "Bearer");
    let leaf = regions([("a", answer.clone()), ("b", answer)]);
    for _ in 0..3 {
        let response = ask(&pool, &leaf).await;
        assert_eq!(asked(account(&response)), [("a", 0), ("b", 0)]);
        assert_eq!(response.status().as_u16(), 401);
        assert_eq!(header(&response, "www-authenticate"), Some("Bearer"));
        assert_eq!(header(&response, "retry-after-ms"), None);
        assert_eq!(text(response).await, "the answer");
    }
}

#[tokio::test(start_paused = true)]
async fn with_the_callers_own_credential_nothing_moves_and_nothing_rests() {
    let backends = ["a", "b"].map(|name| {
        let backend = Backend::new(name, format!("https://{name}.example")).unwrap();
        backend.credential(Credential::passthrough())
    });
    let pool = BackendPool::new(backends).unwrap();
    let missing = Answer::status(404).telling(MISSING);
    for answer in [Answer::status(401), Answer::status(403), Answer::status(410), missing] {
        let leaf = Leaf::playing([answer]);
        let standard = BackendPool::new([backend("standard")]).unwrap();
        let tiers = SmartFallbackLayer::new(
            RegionRotateLayer::new(pool.clone()),
            RegionRotateLayer::new(standard),
        );
        let service = tiers.layer(InspectLayer::new().layer(leaf.clone()));
        let response = service.oneshot(request()).await.unwrap();
        assert_eq!((leaf.len(), account(&response).attempts().len()), (1, 1));
        assert_eq!(account(&response).attempts().next().unwrap().outcome(), Outcome::Answered);
        assert_eq!(deferred(&pool), [None, None]);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_refused_is_worth_coming_back_for() {
    let leaf = regions([("a", Answer::refused(500)), ("b", Answer::status(403))]);
    let response = ask(&pool(["a", "b"]), &leaf).await;
    assert_eq!(asked(account(&response)), [("a", 0), ("b", 0)]);
    assert_eq!(response.status().as_u16(), 429);
    assert_eq!(header(&response, "retry-after-ms"), Some("500"));
}

#[tokio::test(start_paused = true)]
async fn a_tier_of_nothing_else_spills_and_takes_no_budget() {
    for (answer, status) in
        [(Answer::status(401), 401), (Answer::status(404).telling(MISSING), 404)]
    {
        let leaf = regions([("ptu", answer)]);
        let layer = SmartFallbackLayer::new(
            RegionRotateLayer::new(pool(["ptu"])),
            RegionRotateLayer::new(pool(["standard"])),
        )
        .move_on(MoveOn::none());
        let service = layer.layer(InspectLayer::new().layer(leaf));
        let response = service.oneshot(request()).await.unwrap();
        let served = account(&response);
        assert_eq!((response.status().as_u16(), served.spilled()), (200, true));
        assert_eq!(
            served.to_string(),
            format!("ptu {status} misconfigured, standard 200; spilled: misconfigured")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_tier_of_nothing_else_is_asked_after_the_other_until_it_is_mended() {
    let leaf = Leaf::new(|seen| match seen.host() {
        "ptu.example" if seen.at < ms(60_000) => Answer::status(401),
        _ => Answer::ok(),
    });
    let tiers = SmartFallbackLayer::new(
        RegionRotateLayer::new(pool(["ptu"])),
        RegionRotateLayer::new(pool(["standard"])),
    );
    let service = tiers.layer(leaf.clone());
    for _ in 0..3 {
        service.clone().oneshot(request()).await.unwrap();
    }
    let hosts = ["ptu.example", "standard.example", "standard.example", "standard.example"];
    assert_eq!(leaf.hosts(), hosts);
    pass(ms(60_000)).await;
    let response = service.oneshot(request()).await.unwrap();
    assert_eq!(account(&response).backend(), Some("ptu"));
}

#[tokio::test(start_paused = true)]
async fn what_is_about_the_request_is_the_callers() {
    let file = Request::get("/openai/v1/files/file-1").body(Full::default()).unwrap();
    for (request, answer, status) in [
        (request(), Answer::status(403).telling(FILTERED), 403),
        (file, Answer::status(404).telling(MISSING), 404),
        (
            request(),
            Answer::status(404).telling(r#"{"error":{"code":"container_not_found"}}"#),
            404,
        ),
        (request(), Answer::status(400).telling(MISSING), 400),
    ] {
        let pool = pool(["a", "b"]);
        let leaf = Leaf::playing([answer]);
        let service =
            RegionRotateLayer::new(pool.clone()).layer(InspectLayer::new().layer(leaf.clone()));
        let response = service.oneshot(request).await.unwrap();
        assert_eq!((response.status().as_u16(), leaf.len()), (status, 1));
        assert_eq!(deferred(&pool), [None, None]);
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_told_once_until_it_has_served_again() {
    let (pool, told) = (pool(["a", "b"]), Arc::<Mutex<Vec<String>>>::default());
    let telling = Arc::clone(&told);
    pool.on_misconfigured(move |name, status| {
        telling.lock().unwrap().push(format!("{name} {status}"));
    });
    let broken = regions([("a", Answer::status(401).after(10))]);
    join_all((0..20).map(|_| ask(&pool, &broken))).await;
    pass(ms(60_000)).await;
    ask(&pool, &broken).await;
    assert_eq!(*told.lock().unwrap(), ["a 401 Unauthorized"]);
    pass(ms(120_000)).await;
    ask(&pool, &regions([])).await;
    ask(&pool, &broken).await;
    assert_eq!(told.lock().unwrap().len(), 2, "it was well in between");
}

#[tokio::test(start_paused = true)]
async fn it_is_asked_after_those_that_fail() {
    let pool = pool(["a", "b"]);
    let layer = RegionRotateLayer::new(pool.clone())
        .cooldowns(CooldownPolicy::default().failed(ms(30_000)));
    let leaf = Leaf::new(|seen| match (seen.host(), seen.index) {
        ("a.example", _) => Answer::status(401),
        ("b.example", 0..12) => Answer::status(500),
        _ => Answer::ok(),
    });
    for _ in 0..12 {
        layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    }
    let response = layer.layer(leaf).oneshot(request()).await.unwrap();
    assert_eq!(asked(account(&response)), [("b", 0)]);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_known_to_refuse_is_worth_coming_back_for_too() {
    let leaf = regions([("a", Answer::refused(500)), ("b", Answer::status(403))]);
    let pool = pool(["a", "b"]);
    ask(&pool, &leaf).await;
    let response = ask(&pool, &leaf).await;
    assert_eq!(asked(account(&response)), [("b", 0)]);
    assert_eq!(response.status().as_u16(), 429);
    assert_eq!(header(&response, "retry-after-ms"), Some("500"));
}

#[tokio::test(start_paused = true)]
async fn what_no_backend_has_is_not_missing_at_one_of_them() {
    const UNKNOWN: &str = r#"{"error":{"code":"404","message":"Resource not found"}}"#;
    let moderation = || {
        let body = r#"{"model":"gpt-4o","input":"Hi"}"#;
        Request::post("/openai/v1/moderations").body(Full::from(body)).unwrap()
    };
    let leaf = Leaf::new(|seen| match seen.uri.path().ends_with("moderations") {
        true => Answer::status(404).telling(UNKNOWN),
        false => Answer::ok(),
    });
    let (ptus, standards) = (pool(["ptu-1", "ptu-2"]), pool(["standard"]));
    let layer = SmartFallbackLayer::new(
        RegionRotateLayer::new(ptus.clone()),
        RegionRotateLayer::new(standards.clone()),
    );
    let service = layer.layer(InspectLayer::new().layer(leaf));
    for _ in 0..20 {
        let response = service.clone().oneshot(moderation()).await.unwrap();
        assert_eq!(response.status().as_u16(), 404);
        let response = service.clone().oneshot(request()).await.unwrap();
        assert_eq!(account(&response).to_string(), "ptu-1 200", "others are served as before");
        assert_eq!((misconfigured(&ptus), deferred(&standards)), (vec![None; 2], vec![None]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_role_that_allows_no_uploads_is_no_matter_of_completions() {
    for standard_allows in [false, true] {
        let (ptus, standards) = (pool(["ptu-1", "ptu-2"]), pool(["standard"]));
        let layer = SmartFallbackLayer::new(
            RegionRotateLayer::new(ptus.clone()),
            RegionRotateLayer::new(standards.clone()),
        );
        let leaf = Leaf::new(move |seen| match seen.uri.path().ends_with("files") {
            true if !standard_allows || seen.host() != "standard.example" => Answer::status(403),
            _ => Answer::ok(),
        });
        let service = layer.layer(leaf);
        for upload in [true, false] {
            let files = Request::builder().uri("/openai/v1/files");
            let files = if upload { files.method("POST") } else { files };
            let response = service.clone().oneshot(files.body(Full::default()).unwrap()).await;
            let expected = if standard_allows { 200 } else { 403 };
            assert_eq!(response.unwrap().status().as_u16(), expected);
            let response = service.clone().oneshot(request()).await.unwrap();
            assert_eq!(account(&response).to_string(), "ptu-1 200");
            assert_eq!((misconfigured(&ptus), deferred(&standards)), (vec![None; 2], vec![None]));
        }
    }
}
