//! The scope of a refusal, over sockets: minimum weight, operation, service tier.

use crate::{
    emulate,
    served::{Answer, Gateway},
    steering::{JSON, gateway, get, in_front_of},
    witness::{Asked, Witness, serving},
};

const DAY: &str = "retry-after: 86400\r\n";
const CHAT: &str = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";

fn chat(gateway: &Gateway, tokens: u64) -> Answer {
    gateway.ask("POST", CHAT, &[], &format!(r#"{{"messages":[],"max_tokens":{tokens}}}"#))
}

fn of_tier(gateway: &Gateway, tier: &str) -> Answer {
    let body = format!(r#"{{"model":"gpt-4o","input":"Hi","service_tier":"{tier}"}}"#);
    gateway.ask("POST", "/openai/v1/responses", &[], &body)
}

/// A backend that refuses some requests with `head` and `body`.
fn refusing(
    refuses: impl Fn(&Asked) -> bool + Send + Sync + 'static,
    (status, head, body): (u16, &'static str, &'static str),
) -> Witness {
    Witness::new(move |asked| match refuses(asked) {
        true => (status, head, body.to_owned()),
        false => (200, JSON, r#"{"id":"resp_1","object":"response","output":[]}"#.to_owned()),
    })
}

fn says(asked: &Asked, text: &str) -> bool {
    asked.head[0].contains(text) || String::from_utf8_lossy(&asked.body).contains(text)
}

/// Whether a request needs more than 50,000 tokens.
fn is_huge(asked: &Asked) -> bool {
    let body = String::from_utf8_lossy(&asked.body);
    let tokens = body.split("\"max_tokens\":").nth(1).and_then(|rest| rest.split('}').next());
    tokens.and_then(|tokens| tokens.parse().ok()).is_some_and(|tokens: u64| tokens > 50_000)
}

fn backend(answer: &Answer) -> (u16, Option<&str>) {
    (answer.status(), answer.header("x-spillover-backend"))
}

/// A model with a PTU before Standard.
fn tiers(name: &str, [ptu, standard]: [&Witness; 2], model: &str) -> Gateway {
    let tier = |tier: &str, endpoint: &str| {
        format!(
            "[[models.\"gpt-4o\".{tier}]]\nname = \"{tier}\"\nendpoint = \"{endpoint}\"\n\
             key = \"env:AZURE_KEY\"\n"
        )
    };
    let text = format!(
        "listen.address = \"127.0.0.1:0\"\nclients.open = true\n[models.\"gpt-4o\"]\n{model}\n{}{}",
        tier("ptu", ptu.endpoint()),
        tier("standard", standard.endpoint())
    );
    Gateway::start(&emulate::file(&format!("scope-{name}/g.toml"), &text))
}

#[test]
fn a_day_for_a_huge_request_leaves_lighter_ones_alone_and_is_told_to_the_huge_one() {
    let [east, sweden] = [(); 2].map(|()| refusing(is_huge, (429, DAY, "")));
    let gateway = in_front_of("huge", [&east, &sweden]);
    for asked in [1, 1, 1] {
        let refused = chat(&gateway, 100_000);
        assert_eq!((refused.status(), east.asked().len()), (429, asked), "{refused:?}");
        let told: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((86_395..=86_400).contains(&told), "{refused:?}");
        assert_eq!(refused.header("x-should-retry"), Some("false"));
    }
    for light in [100, 10_000, 50_000] {
        assert_eq!(backend(&chat(&gateway, light)), (200, Some("east")));
    }
    let heavy = chat(&gateway, 70_000);
    assert_eq!(heavy.status(), 429, "about as heavy");
    let decision = heavy.header("x-spillover-decision").unwrap();
    assert!(
        decision.starts_with("refused; why=weight (from 52") && decision.contains(" tokens); "),
        "{decision}"
    );
    assert_eq!((east.asked().len(), sweden.asked().len()), (4, 1));
}

#[test]
fn a_day_for_a_huge_request_leaves_lighter_ones_on_the_ptu() {
    let (ptu, standard) = (refusing(is_huge, (429, DAY, "")), serving());
    let gateway = tiers("huge-ptu", [&ptu, &standard], "");
    for _ in 0..2 {
        assert_eq!(backend(&chat(&gateway, 100_000)), (200, Some("standard")));
        for light in [100, 50_000] {
            assert_eq!(backend(&chat(&gateway, light)), (200, Some("ptu")));
        }
    }
    assert_eq!(ptu.asked().iter().filter(|asked| is_huge(asked)).count(), 1);
}

#[test]
fn the_limit_of_calls_closes_for_all_and_that_of_tokens_from_a_weight_up() {
    const TOKENS: &str = r#"{"error":{"code":"429","message":"Requests to the ChatCompletions_Create Operation have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 30 seconds."}}"#;
    const CALLS: &str = r#"{"error":{"code":"429","message":"Requests to the ChatCompletions_Create Operation have exceeded call rate limit of your current OpenAI S0 pricing tier. Please retry after 30 seconds."}}"#;
    for (name, body, light) in [("tokens", TOKENS, "east"), ("calls", CALLS, "sweden")] {
        let (east, sweden) = (refusing(is_huge, (429, JSON, body)), serving());
        let gateway = in_front_of(name, [&east, &sweden]);
        assert_eq!(backend(&chat(&gateway, 100_000)), (200, Some("sweden")), "{name}");
        assert_eq!(backend(&chat(&gateway, 100)), (200, Some(light)), "{name}");
    }
}

#[test]
fn what_costs_no_tokens_passes_while_everything_is_closed() {
    let refuses = |asked: &Asked| says(asked, "chat/completions");
    let [ptu, standard] = [(); 2].map(|()| refusing(refuses, (429, "retry-after: 30\r\n", "")));
    let gateway = tiers("free", [&ptu, &standard], "max_wait = \"0s\"");
    for _ in 0..2 {
        assert_eq!(chat(&gateway, 100).status(), 429);
    }
    for (method, path) in [
        ("GET", "/openai/v1/responses/resp_9"),
        ("DELETE", "/openai/v1/responses/resp_9"),
        ("POST", "/openai/v1/responses/resp_9/cancel"),
        ("GET", "/openai/v1/files"),
    ] {
        let answer = gateway.ask(method, path, &[], "");
        assert_eq!(answer.status(), 200, "{method} {path} {answer:?}");
    }
    assert_eq!(chat(&gateway, 100).status(), 429);
}

#[test]
fn a_cancel_reaches_the_ptu_that_holds_the_response_however_full_it_is() {
    let refuses = |asked: &Asked| says(asked, "chat/completions");
    let ptu = refusing(refuses, (429, "retry-after: 30\r\n", ""));
    let standard = serving();
    let gateway = tiers("cancel", [&ptu, &standard], "");
    let begun = of_tier(&gateway, "default");
    assert_eq!(backend(&begun), (200, Some("ptu")), "{begun:?}");
    assert_eq!(backend(&chat(&gateway, 100)), (200, Some("standard")));
    let cancelled = gateway.ask("POST", "/openai/v1/responses/resp_1/cancel", &[], "");
    assert_eq!(backend(&cancelled), (200, Some("ptu")), "{cancelled:?}");
    assert_eq!(cancelled.header("x-spillover-sticky"), Some("known"));
}

#[test]
fn a_refused_poll_closes_nothing() {
    let refuses = |asked: &Asked| says(asked, "GET ");
    let [east, sweden] = [(); 2].map(|()| refusing(refuses, (429, "retry-after: 30\r\n", "")));
    let gateway = in_front_of("poll", [&east, &sweden]);
    let polled = get(&gateway, "/openai/v1/videos/video_1");
    assert_eq!((polled.status(), polled.header("retry-after")), (429, Some("30")), "{polled:?}");
    assert_eq!(backend(&chat(&gateway, 100)), (200, Some("east")));
}

#[test]
fn images_that_are_refused_leave_chat_alone() {
    let [east, sweden] =
        [(); 2].map(|()| refusing(|asked| says(asked, "images"), (429, "retry-after: 30\r\n", "")));
    let gateway = in_front_of("images", [&east, &sweden]);
    let body = r#"{"model":"gpt-4o","prompt":"a lighthouse"}"#;
    for _ in 0..2 {
        let drawn = gateway.ask("POST", "/openai/v1/images/generations", &[], body);
        assert_eq!(drawn.status(), 429, "{drawn:?}");
    }
    assert_eq!((east.asked().len(), sweden.asked().len()), (1, 1));
    assert_eq!(backend(&chat(&gateway, 100_000)), (200, Some("east")));
}

const NO_FLEX: &str = r#"{"error":{"code":"resource_unavailable","message":"Flex capacity is not available.","type":"too_many_requests","param":null}}"#;

#[test]
fn flex_that_is_refused_leaves_the_default_tier_alone() {
    let [east, sweden] = [(); 2].map(|()| {
        let head = "content-type: application/json\r\nretry-after: 30\r\n";
        refusing(|asked| says(asked, "flex"), (429, head, NO_FLEX))
    });
    let gateway = in_front_of("flex", [&east, &sweden]);
    for _ in 0..2 {
        assert_eq!(of_tier(&gateway, "flex").status(), 429);
    }
    assert_eq!((east.asked().len(), sweden.asked().len()), (1, 1));
    for tier in ["default", "auto", "priority"] {
        assert_eq!(backend(&of_tier(&gateway, tier)), (200, Some("east")), "{tier}");
    }
}

#[test]
fn a_ptu_that_does_not_offer_the_service_tier_sends_the_request_on() {
    const NO_TIER: &str = include_str!("../../tests/corpus/body-service-tier.http");
    let body = NO_TIER.split_once("\n\n").unwrap().1;
    let (ptu, standard) = (refusing(|asked| says(asked, "flex"), (400, JSON, body)), serving());
    let gateway = tiers("tier", [&ptu, &standard], "");
    for _ in 0..2 {
        assert_eq!(backend(&of_tier(&gateway, "flex")), (200, Some("standard")));
        assert_eq!(backend(&of_tier(&gateway, "default")), (200, Some("ptu")));
    }
}

#[test]
fn a_flex_request_that_is_refused_goes_on_as_default_where_that_is_set() {
    let head = "content-type: application/json\r\nretry-after: 30\r\n";
    for (set, status) in [(false, 429), (true, 200)] {
        let [east, sweden] =
            [(); 2].map(|()| refusing(|asked| says(asked, "flex"), (429, head, NO_FLEX)));
        let model = format!("flex_as_default = {set}");
        let backends = [east.endpoint(), sweden.endpoint()];
        let gateway = gateway(&format!("flex-{set}"), backends, &model, "");
        let answer = of_tier(&gateway, "flex");
        assert_eq!(answer.status(), status, "{answer:?}");
        let asked = east.asked();
        assert_eq!(asked.len(), if set { 2 } else { 1 });
        let last = String::from_utf8_lossy(&asked.last().unwrap().body).into_owned();
        assert_eq!(last.contains(r#""service_tier":"default""#), set, "{last}");
    }
}
