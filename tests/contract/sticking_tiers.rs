//! How requests that are pinned to one resource pass through two tiers.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;
use tower::{Layer, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, Gate, MaxWait, RegionRotateLayer, ReplayLayer, ResponseBody,
    SmartFallbackLayer, StickTo, Sticky, gate::Mode, sticky::StickyMatch,
};

use crate::{
    clock::{ms, timed},
    leaf::{Answer, Leaf, account, asked, header, request, text},
    sticking::{continuing, post, respond, served_by},
};

/// PTUs on `both` and `ptu-only`; Standard on `both` and `standard-only`.
pub(crate) type Tiers = SmartFallbackLayer<RegionRotateLayer, RegionRotateLayer>;

pub(crate) fn tiers(sticky: &Sticky, mode: Mode) -> Tiers {
    tiers_with(["both", "ptu-only"], sticky, mode)
}

/// The same with PTUs on these resources.
fn tiers_with<const N: usize>(ptus: [&str; N], sticky: &Sticky, mode: Mode) -> Tiers {
    let backend = |name: &str, host: &str, deployment: &str| {
        let backend = Backend::new(name, format!("https://{host}.example")).unwrap();
        backend.deployment(deployment).api_key("key")
    };
    let ptus = ptus.map(|name| match name {
        "both" => backend("both-ptu", "both", "ptu"),
        name => backend(name, name, "ptu"),
    });
    let ptu = BackendPool::new(ptus);
    let standard = BackendPool::new([
        backend("standard-only", "standard-only", "standard"),
        backend("both", "both", "standard"),
    ]);
    let standard = standard.unwrap();
    standard.force_start("standard-only").unwrap();
    let tiers = SmartFallbackLayer::new(
        RegionRotateLayer::new(ptu.unwrap()),
        RegionRotateLayer::new(standard),
    );
    tiers.gate(Gate::new().mode(mode)).sticky(sticky.clone())
}

/// The PTUs refuse for this long, Standard serves.
pub(crate) fn closed_ptus(ms: u64) -> Leaf {
    Leaf::new(move |seen| {
        let is_ptu =
            seen.uri.path().contains("/ptu/") || seen.body.windows(5).any(|w| w == b"\"ptu\"");
        if is_ptu { Answer::refused(ms) } else { Answer::ok().telling(r#"{"id":"resp_1"}"#) }
    })
}

fn named(name: &'static str) -> Request<Full<Bytes>> {
    let mut request = request();
    request.extensions_mut().insert(StickTo::from(name));
    request
}

pub(crate) async fn ask(
    tiers: &Tiers,
    leaf: &Leaf,
    request: Request<Full<Bytes>>,
) -> Response<ResponseBody<Full<Bytes>>> {
    tiers.layer(leaf.clone()).oneshot(request).await.unwrap()
}

pub(crate) const MODES: [Mode; 3] = [Mode::Adaptive, Mode::Shared, Mode::Plain];

#[tokio::test(start_paused = true)]
async fn what_only_the_ptus_resource_holds_is_refused_and_never_spilled() {
    for (mode, alone) in MODES.into_iter().flat_map(|mode| [(mode, true), (mode, false)]) {
        let tiers = match alone {
            true => tiers_with(["ptu-only"], &Sticky::new(), mode),
            false => tiers(&Sticky::new(), mode),
        };
        let leaf = closed_ptus(60_000);
        for _ in 0..3 {
            let (response, took) = timed(ask(&tiers, &leaf, named("ptu-only"))).await;
            assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS, "{mode:?}");
            assert_eq!(header(&response, "retry-after-ms"), Some("60000"), "{mode:?}");
            assert_eq!(account(&response).held(), Some(StickyMatch::ByName));
            assert!(!account(&response).spilled());
            assert!(took <= ms(4_000), "{took:?}");
        }
        assert!(leaf.hosts().iter().all(|host| host == "ptu-only.example"), "{mode:?}");
        assert_eq!(leaf.len(), 1, "a backend that rests is not asked: {mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_the_ptu_like_any_other() {
    for (mode, alone) in MODES.into_iter().flat_map(|mode| [(mode, true), (mode, false)]) {
        let leaf = Leaf::new(|seen| match seen.index {
            0 => Answer::refused(300),
            _ => Answer::ok(),
        });
        let tiers = match alone {
            true => tiers_with(["ptu-only"], &Sticky::new(), mode),
            false => tiers(&Sticky::new(), mode),
        };
        let (response, took) = timed(ask(&tiers, &leaf, named("ptu-only"))).await;
        assert_eq!(served_by(&response), "ptu-only", "{mode:?}");
        assert!((300..500).contains(&took.as_millis()), "{mode:?}: {took:?}");
        assert_eq!(leaf.hosts(), ["ptu-only.example"; 2]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_only_standard_holds_goes_there_at_once_and_the_ptu_is_not_asked() {
    for mode in MODES {
        let (tiers, leaf) = (tiers(&Sticky::new(), mode), closed_ptus(60_000));
        let spilled = ask(&tiers, &leaf, respond(json!({"model": "m", "input": "hi"}))).await;
        assert_eq!(served_by(&spilled), "standard-only", "{mode:?}");
        text(spilled).await;
        let asked_before = leaf.len();
        for _ in 0..3 {
            // The PTUs are closed, and no request queues for them.
            let (response, took) = timed(ask(&tiers, &leaf, continuing("resp_1"))).await;
            assert_eq!(asked(account(&response)), [("standard-only", 0)], "{mode:?}");
            assert_eq!(account(&response).held(), Some(StickyMatch::ById));
            assert!(account(&response).spilled() && took.is_zero());
        }
        assert_eq!(leaf.len(), asked_before + 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_standard_keeps_its_own_hint() {
    let leaf = Leaf::new(|seen| match seen.host() {
        "standard-only.example" => Answer::refused(20_000),
        _ => Answer::ok(),
    });
    let tiers = tiers(&Sticky::new(), Mode::Adaptive);
    for attempts in [1, 0] {
        let response = ask(&tiers, &leaf, named("standard-only")).await;
        assert_eq!(account(&response).attempts().len(), attempts);
        assert_eq!(header(&response, "retry-after-ms"), Some("20000"));
    }
    assert_eq!(leaf.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_in_both_spills_to_the_other_deployment_of_its_resource_alone() {
    for mode in MODES {
        let (tiers, leaf) = (tiers(&Sticky::new(), mode), closed_ptus(60_000));
        let mut request = named("both-ptu");
        request.extensions_mut().insert(MaxWait(ms(0)));
        let response = ask(&tiers, &leaf, request).await;
        assert_eq!(asked(account(&response)), [("both-ptu", 0), ("both", 0)], "{mode:?}");
        assert!(account(&response).spilled());
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_id_goes_to_a_resource_that_both_tiers_have() {
    let leaf = Leaf::playing([Answer::ok()]);
    let response = ask(&tiers(&Sticky::new(), Mode::Adaptive), &leaf, continuing("resp_x")).await;
    assert_eq!(served_by(&response), "both-ptu");
    assert_eq!(account(&response).held(), Some(StickyMatch::Default));
    let sticky = Sticky::new().default_backend("standard-only");
    let response = ask(&tiers(&sticky, Mode::Adaptive), &leaf, continuing("resp_x")).await;
    assert_eq!(served_by(&response), "standard-only");
}

#[tokio::test(start_paused = true)]
async fn tiers_inside_of_tiers_hold_it_too() {
    let pool = |name: &str| {
        let backend = Backend::new(name, format!("https://{name}.example")).unwrap();
        RegionRotateLayer::new(BackendPool::new([backend.api_key("key")]).unwrap())
    };
    let layer = SmartFallbackLayer::new(
        pool("first"),
        SmartFallbackLayer::new(pool("second"), pool("third")),
    )
    .sticky(Sticky::new());
    for name in ["first", "second", "third"] {
        let leaf = Leaf::playing([Answer::refused(1), Answer::refused(60_000)]);
        let response = layer.layer(leaf.clone()).oneshot(named(name)).await.unwrap();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(leaf.hosts().iter().all(|host| *host == format!("{name}.example")), "{name}");
        assert!(leaf.len() >= 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_is_closed_for_a_held_request_closes_no_other() {
    for mode in MODES {
        let leaf = Leaf::new(|seen| match seen.host() {
            "ptu-only.example" => Answer::refused(60_000),
            _ => Answer::ok(),
        });
        let tiers = tiers(&Sticky::new(), mode);
        for _ in 0..3 {
            let refused = ask(&tiers, &leaf, named("ptu-only")).await;
            assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "{mode:?}");
            let (response, took) = timed(ask(&tiers, &leaf, request())).await;
            assert_eq!(served_by(&response), "both-ptu", "{mode:?}");
            assert!(took.is_zero(), "{mode:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_too_large_to_keep_goes_where_its_caller_says() {
    let (tiers, leaf) = (tiers(&Sticky::new(), Mode::Adaptive), closed_ptus(60_000));
    let layer = ReplayLayer::new(10);
    let mut upload = post("/openai/v1/files", &json!("x".repeat(100)));
    upload.headers_mut().insert("x-spillover-backend", "standard-only".parse().unwrap());
    let response = layer.layer(tiers.layer(leaf.clone())).oneshot(upload).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(leaf.hosts(), ["standard-only.example"]);
}
