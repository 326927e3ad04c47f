//! What moves requests, what pins them, and how both are reported, in front of scripted backends.

use std::{net::TcpListener, time::Duration};

use serde_json::Value;

use crate::{
    emulate,
    served::{Answer, Gateway, TEAM_A, TEAM_B},
    witness::{Asked, Witness, serving},
};

/// `gpt-4o` on `east`, then on `sweden`, with `model` among its settings.
pub(crate) fn gateway(name: &str, [east, sweden]: [&str; 2], model: &str, rest: &str) -> Gateway {
    let rest = if rest.contains("clients") {
        rest.to_owned()
    } else {
        format!("clients.open = true\n{rest}")
    };
    let text = format!(
        "listen.address = \"127.0.0.1:0\"\nlisten.admin = \"127.0.0.1:0\"\n{rest}\n[models.\"gpt-4o\"]\n{model}\n\
         [[models.\"gpt-4o\".standard]]\nname = \"east\"\nendpoint = \"{east}\"\n\
         key = \"env:AZURE_KEY\"\nquota = \"one\"\n\
         [[models.\"gpt-4o\".standard]]\nname = \"sweden\"\nendpoint = \"{sweden}\"\n\
         key = \"env:AZURE_KEY\"\npriority = 2\nquota = \"QUOTA\"\n"
    );
    let quota = if name == "quota" { "one" } else { "two" };
    let text = text.replace("QUOTA", quota);
    Gateway::start(&emulate::file(&format!("steering-{name}/g.toml"), &text))
}

pub(crate) fn in_front_of(name: &str, backends: [&Witness; 2]) -> Gateway {
    gateway(name, backends.map(Witness::endpoint), "", "")
}

pub(crate) fn respond(gateway: &Gateway, body: &str, headers: &[(&str, &str)]) -> Answer {
    gateway.ask("POST", "/openai/v1/responses", headers, body)
}

pub(crate) fn get(gateway: &Gateway, path: &str) -> Answer {
    gateway.ask("GET", path, &[], "")
}

pub(crate) fn status(gateway: &Gateway) -> Value {
    let page = gateway.page("/-/status").0;
    let (_, text) = page.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(text).unwrap()
}

/// A backend that stores each response under `id`.
fn storing(id: &'static str) -> Witness {
    Witness::new(move |_| (200, JSON, response(id)))
}

fn response(id: &str) -> String {
    format!(r#"{{"id":"{id}","object":"response","status":"completed","output":[]}}"#)
}

fn is_continued(asked: &Asked) -> bool {
    String::from_utf8_lossy(&asked.body).contains("previous_response_id")
}

pub(crate) fn body_of(sample: &'static str) -> String {
    sample.split_once("\n\n").unwrap().1.to_owned()
}

#[test]
fn a_continued_response_is_refused_with_its_hint_rather_than_moved() {
    let east = Witness::new(|asked| match is_continued(asked) {
        true => (429, "retry-after-ms: 7000\r\n", String::new()),
        false => (200, JSON, response("resp_east")),
    });
    let sweden = storing("resp_sweden");
    let gateway = in_front_of("continued", [&east, &sweden]);
    let first = respond(&gateway, r#"{"model":"gpt-4o","input":"a"}"#, &[]);
    assert_eq!(first.header("x-spillover-backend"), Some("east"), "{first:?}");
    assert_eq!(first.header("x-spillover-sticky"), None, "it refers to nothing");

    let continued = r#"{"model":"gpt-4o","input":"b","previous_response_id":"resp_east"}"#;
    let refused = respond(&gateway, continued, &[]);
    assert_eq!((refused.status(), refused.header("x-spillover-sticky")), (429, Some("known")));
    let hint: u64 = refused.header("retry-after-ms").unwrap().parse().unwrap();
    assert!((6_000..=7_000).contains(&hint), "{refused:?}");
    assert_eq!(refused.header("x-should-retry"), Some("true"), "{refused:?}");

    let free = respond(&gateway, r#"{"model":"gpt-4o","input":"c"}"#, &[]);
    assert_eq!((free.status(), free.header("x-spillover-backend")), (200, Some("sweden")));
    let read = get(&gateway, "/openai/v1/responses/resp_east");
    let known = Some("known");
    assert_eq!((read.status(), read.header("x-spillover-sticky")), (200, known), "it is free");
    assert!(!sweden.asked().iter().any(is_continued));
    assert_eq!((east.asked().len(), sweden.asked().len()), (3, 1));
    assert_eq!(status(&gateway)["sticky_ids"], 2);
}

#[test]
fn an_id_leads_to_the_model_whose_backend_made_it() {
    let [east, sweden, japan] = ["resp_east", "resp_sweden", "resp_japan"].map(storing);
    let other = format!(
        "default_model = \"gpt-4o\"\n[[models.other.standard]]\nname = \"japan\"\nendpoint = \"{}\"\n\
         key = \"env:AZURE_KEY\"\n",
        japan.endpoint()
    );
    let sticky = "sticky = { default_backend = \"east\" }";
    let gateway = gateway("models", [east.endpoint(), sweden.endpoint()], sticky, &other);
    assert_eq!(respond(&gateway, r#"{"model":"other","input":"a"}"#, &[]).status(), 200);
    for (id, backend, sticky) in [
        ("resp_japan", "japan", "known"),
        ("resp_nobody", "east", "unknown"),
        ("resp_japan/input_items", "japan", "known"),
    ] {
        let answer = get(&gateway, &format!("/openai/v1/responses/{id}"));
        assert_eq!(answer.header("x-spillover-backend"), Some(backend), "{answer:?}");
        assert_eq!(answer.header("x-spillover-sticky"), Some(sticky), "{answer:?}");
    }
    let cancelled = gateway.ask("POST", "/openai/v1/responses/resp_japan/cancel", &[], "");
    assert_eq!(cancelled.header("x-spillover-backend"), Some("japan"), "{cancelled:?}");
    let named = gateway.ask("GET", "/openai/v1/files", &[("x-spillover-backend", "japan")], "");
    assert_eq!(named.header("x-spillover-backend"), Some("japan"), "{named:?}");
    assert_eq!(japan.asked().len(), 5);

    gateway.signal("HUP");
    gateway.eventually(|gateway| gateway.log().contains("configuration reloaded"));
    let kept = get(&gateway, "/openai/v1/responses/resp_japan");
    assert_eq!(kept.header("x-spillover-sticky"), Some("known"), "{kept:?}");
}

#[test]
fn a_used_up_quota_rests_its_backend() {
    let east = Witness::new(|_| {
        (429, "content-type: application/json\r\nretry-after: 86400\r\n", body_of(NO_QUOTA))
    });
    let sweden = storing("resp_1");
    let gateway = in_front_of("spent", [&east, &sweden]);
    for _ in 0..3 {
        let answer = gateway.chat("gpt-4o", &[]);
        assert_eq!(answer.header("x-spillover-backend"), Some("sweden"), "{answer:?}");
    }
    assert_eq!(east.asked().len(), 1);
    let status = status(&gateway);
    let of_east = &status["models"]["gpt-4o"]["backends"][0];
    assert_eq!(of_east["refused_for"]["quota"], 1, "{status}");
    assert_eq!((&of_east["quota"], &of_east["failures_in_a_row"]), (&"one".into(), &0.into()));
    let cooldown = of_east["cooldown_ms"].as_u64().unwrap();
    assert!((50_000..=60_000).contains(&cooldown), "{status}");
}

#[test]
fn backends_of_one_quota_refuse_together() {
    let east = crate::witness::refusing();
    let sweden = storing("resp_1");
    let gateway = in_front_of("quota", [&east, &sweden]);
    assert_eq!(gateway.chat("gpt-4o", &[]).status(), 429);
    assert!(sweden.asked().is_empty());
}

#[test]
fn what_azure_spilled_is_told_and_counted() {
    let east = Witness::new(|_| (200, SPILLED, CHAT.to_owned()));
    let sweden = storing("resp_1");
    let text = format!(
        "listen.address = \"127.0.0.1:0\"\nlisten.admin = \"127.0.0.1:0\"\nclients.open = true\n\
         [models.\"gpt-4o\"]\n\
         ptu = [{{ name = \"ptu\", endpoint = \"{}\", key = \"env:AZURE_KEY\" }}]\n\
         standard = [{{ name = \"sweden\", endpoint = \"{}\", key = \"env:AZURE_KEY\" }}]\n",
        east.endpoint(),
        sweden.endpoint()
    );
    let gateway = Gateway::start(&emulate::file("steering-azure/g.toml", &text));
    let answer = gateway.chat("gpt-4o", &[]);
    let decision = answer.header("x-spillover-decision");
    assert_eq!(decision, Some("spilled; why=by-azure; waited=0ms; attempts=1"), "{answer:?}");
    assert_eq!(answer.header("x-spillover-backend"), Some("ptu"));
    let is_counted = |gateway: &Gateway| {
        let metrics = gateway.page("/metrics").0;
        [
            "spillover_spilled_requests_total{client=\"open\",model=\"gpt-4o\",backend=\"ptu\"} 1",
            "spillover_spilled_tokens_total{client=\"open\",model=\"gpt-4o\",backend=\"ptu\",kind=\"prompt\"} 11",
            "spillover_tokens_total{client=\"open\",model=\"gpt-4o\",backend=\"ptu\",tier=\"standard\",kind=\"completion\"} 7",
        ]
        .iter()
        .all(|line| metrics.contains(line))
    };
    gateway.eventually(is_counted);
}

#[test]
fn a_backend_is_named_by_who_may() {
    let [east, sweden] = ["resp_east", "resp_sweden"].map(storing);
    let clients = "[clients.a]\nkeys = [\"env:TEAM_A_KEY\"]\nmay = [\"backend\"]\n\
                   [clients.b]\nkeys = [\"env:TEAM_B_KEY\"]\n";
    let endpoints = [east.endpoint(), sweden.endpoint()];
    let gateway = gateway("named", endpoints, "", clients);
    let (a, b) = (TEAM_A, TEAM_B);
    let (header, cookie) =
        (("x-spillover-backend", "sweden"), ("cookie", "x=J\u{fc}; spillover-backend = sweden"));
    for (client, named, status, backend, sticky) in [
        (a, header, 200, Some("sweden"), Some("named")),
        (a, cookie, 200, Some("sweden"), Some("named")),
        (a, ("x-spillover-backend", "nowhere"), 400, None, None),
        (a, ("cookie", "spillover-backend=nowhere"), 200, Some("east"), None),
        (b, header, 403, None, None),
        (b, cookie, 200, Some("east"), None),
    ] {
        let answer = gateway.chat("gpt-4o", &[client, named]);
        assert_eq!(answer.status(), status, "{named:?} {answer:?}");
        assert_eq!(answer.header("x-spillover-backend"), backend, "{answer:?}");
        assert_eq!(answer.header("x-spillover-sticky"), sticky, "{answer:?}");
    }
    for asked in sweden.asked() {
        assert!(asked.header("x-spillover-backend").is_none());
        assert!(asked.header("cookie").is_none());
    }
}

#[test]
fn only_the_failures_that_are_listed_move_on_and_attempts_are_limited() {
    let sweden = storing("resp_1");
    let failing = Witness::new(|_| (503, "", String::new()));
    let given_up = Witness::new(|_| (524, "", String::new()));
    let refusing = crate::witness::refusing();
    let breaking = TcpListener::bind("127.0.0.1:0").unwrap();
    let broken = format!("http://{}", breaking.local_addr().unwrap());
    std::thread::spawn(move || breaking.incoming().map_while(Result::ok).for_each(drop));
    let nobody = "http://127.0.0.1:1";
    for (number, (east, model, expected)) in [
        (failing.endpoint(), "", 200),
        (failing.endpoint(), "failures = []", 503),
        (failing.endpoint(), "rotate_on_failure = false", 503),
        (failing.endpoint(), "failures = [\"503\"]", 200),
        (failing.endpoint(), "rotate_on_failure = true", 200),
        (failing.endpoint(), "failures = [\"503\"]\nmax_attempts = 1", 503),
        (given_up.endpoint(), "", 524),
        (given_up.endpoint(), "failures = [\"424\", \"524\"]", 200),
        (&*broken, "", 502),
        (&*broken, "failures = { on = [\"reset\"], budget = \"none\" }", 200),
        (nobody, "", 200),
        (nobody, "failures = [\"reset\", \"timeout\", \"500\"]", 502),
        (refusing.endpoint(), "max_attempts = 1", 429),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("failures-{number}");
        let gateway = gateway(&name, [east, sweden.endpoint()], model, "");
        let answer = gateway.chat("gpt-4o", &[]);
        assert_eq!(answer.status(), expected, "{east} {model} {answer:?}");
        let status = status(&gateway);
        let east = &status["models"]["gpt-4o"]["backends"][0];
        assert_eq!(east["failures_in_a_row"], 0, "one is none");
    }
}

#[test]
fn a_backend_that_goes_on_failing_is_asked_after_the_others() {
    let (failing, sweden) = (Witness::new(|_| (503, "", String::new())), serving());
    let model = "failures = [\"503\"]";
    let gateway = gateway("deferring", [failing.endpoint(), sweden.endpoint()], model, "");
    (0..20).for_each(|_| assert_eq!(gateway.chat("gpt-4o", &[]).status(), 200));
    let status = status(&gateway);
    let east = &status["models"]["gpt-4o"]["backends"][0];
    assert_eq!((&east["failures_in_a_row"], &east["cooldown_ms"]), (&1.into(), &0.into()));
    assert!((1..=1_000).contains(&east["deferred_ms"].as_u64().unwrap()), "{east}");
    assert_eq!(failing.asked().len(), 5);
}

#[test]
fn a_backend_that_stays_silent_is_left_where_timeouts_move() {
    let silent = Witness::new(|_| {
        std::thread::sleep(Duration::from_secs(20));
        (200, JSON, CHAT.to_owned())
    });
    let (sweden, impatient) = (serving(), "upstream.head_timeout = \"300ms\"\n");
    for (name, model, expected) in [("stays", "", 504), ("leaves", "failures = [\"timeout\"]", 200)]
    {
        let gateway = gateway(name, [silent.endpoint(), sweden.endpoint()], model, impatient);
        assert_eq!(gateway.chat("gpt-4o", &[]).status(), expected, "{model}");
    }
}

#[test]
fn a_standard_tier_that_is_not_there_does_not_hide_when_the_ptu_reopens() {
    let ptu = crate::witness::refusing();
    let text = format!(
        "listen.address = \"127.0.0.1:0\"\nlisten.admin = \"127.0.0.1:0\"\nclients.open = true\n[models.\"gpt-4o\"]\n\
         ptu = [{{ name = \"ptu\", endpoint = \"{}\", key = \"env:AZURE_KEY\" }}]\n\
         standard = [{{ name = \"nowhere\", endpoint = \"http://127.0.0.1:1\", key = \"env:AZURE_KEY\" }}]\n",
        ptu.endpoint()
    );
    let gateway = Gateway::start(&emulate::file("steering-nowhere/g.toml", &text));
    let answer = gateway.chat("gpt-4o", &[]);
    assert_eq!(answer.status(), 429, "{answer:?}");
    let hint: u64 = answer.header("retry-after-ms").unwrap().parse().unwrap();
    assert!((20_000..=30_000).contains(&hint), "{answer:?}");
    assert!(answer.0.contains("no Standard backend could be reached"), "{answer:?}");
}

#[test]
fn a_ptu_that_nobody_reaches_costs_no_request_while_standard_serves() {
    let standard = serving();
    let text = format!(
        "listen.address = \"127.0.0.1:0\"\nlisten.admin = \"127.0.0.1:0\"\nclients.open = true\n[models.\"gpt-4o\"]\n\
         ptu = [{{ name = \"ptu\", endpoint = \"http://127.0.0.1:1\", key = \"env:AZURE_KEY\" }}]\n\
         standard = [{{ name = \"standard\", endpoint = \"{}\", key = \"env:AZURE_KEY\" }}]\n",
        standard.endpoint()
    );
    let gateway = Gateway::start(&emulate::file("steering-down/g.toml", &text));
    for number in 0..6 {
        let answer = gateway.chat("gpt-4o", &[]);
        assert_eq!(answer.status(), 200, "{number} {answer:?}");
        let decision = answer.header("x-spillover-decision").unwrap();
        assert!(
            decision.starts_with("spilled; why=fail") && decision.contains("; waited=0ms"),
            "{number} {decision}"
        );
    }
}

#[test]
fn a_ptu_that_nobody_reaches_is_counted_as_itself() {
    let standard = serving();
    let ptu = "{ name = \"NAME\", endpoint = \"http://127.0.0.1:1\", key = \"env:AZURE_KEY\" }";
    for (names, counted) in [(&["only"][..], "only"), (&["first", "second"], "ptu")] {
        let ptus: Vec<_> = names.iter().map(|name| ptu.replace("NAME", name)).collect();
        let text = format!(
            "listen.address = \"127.0.0.1:0\"\nlisten.admin = \"127.0.0.1:0\"\nclients.open = true\n[models.\"gpt-4o\"]\n\
             ptu = [{}]\n\
             standard = [{{ name = \"sweden\", endpoint = \"{}\", key = \"env:AZURE_KEY\" }}]\n",
            ptus.join(", "),
            standard.endpoint()
        );
        let gateway = Gateway::start(&emulate::file(&format!("steering-{counted}/g.toml"), &text));
        assert_eq!(gateway.chat("gpt-4o", &[]).status(), 200);
        let metrics = gateway.page("/metrics").0;
        let line = format!(
            "spillover_backend_attempts_total{{model=\"gpt-4o\",tier=\"ptu\",backend=\"{counted}\""
        );
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[test]
fn conversations_stay_with_the_backend_that_has_their_cache() {
    let backends: Vec<_> = ["a", "b", "c"].map(|name| (name, serving())).into();
    let tables = backends.iter().map(|(name, backend)| {
        let endpoint = backend.endpoint();
        format!("{{ name = \"{name}\", endpoint = \"{endpoint}\", key = \"env:AZURE_KEY\" }}")
    });
    let text = format!(
        "listen.address = \"127.0.0.1:0\"\nlisten.admin = \"127.0.0.1:0\"\nclients.open = true\n[models.\"gpt-4o\"]\n\
         cache_affinity = \"key\"\nstandard = [{}]\n",
        tables.collect::<Vec<_>>().join(", ")
    );
    let gateway = Gateway::start(&emulate::file("steering-affinity/g.toml", &text));
    let ask = |key: usize| {
        let body = format!(r#"{{"model":"gpt-4o","messages":[],"prompt_cache_key":"{key}"}}"#);
        let answer = gateway.ask("POST", "/openai/v1/chat/completions", &[], &body);
        answer.header("x-spillover-backend").unwrap().to_owned()
    };
    let first: Vec<_> = (0..12).map(ask).collect();
    let again: Vec<_> = (0..12).map(ask).collect();
    assert_eq!(first, again);
    assert!(first.iter().any(|backend| *backend != first[0]), "all keys with one: {first:?}");
}

#[test]
fn a_context_that_is_too_long_for_one_backend_goes_where_it_is_told_to() {
    let short = Witness::new(|_| (400, JSON, body_of(LONG_CONTEXT)));
    let long = serving();
    let tier = |tier: &str, name: &str, backend: &Witness| {
        format!(
            "[[models.\"gpt-4o\".{tier}]]\nname = \"{name}\"\nendpoint = \"{}\"\n\
             key = \"env:AZURE_KEY\"\n",
            backend.endpoint()
        )
    };
    for (number, (model, first, served)) in [
        ("", "ptu", true),
        ("spill_long_context = false", "ptu", false),
        ("", "standard", false),
        ("rotate_long_context = true", "standard", true),
    ]
    .into_iter()
    .enumerate()
    {
        let text = format!(
            "listen.address = \"127.0.0.1:0\"\nlisten.admin = \"127.0.0.1:0\"\nclients.open = true\n[models.\"gpt-4o\"]\n{model}\n\
             {}{}priority = 2\n",
            tier(first, "short", &short),
            tier("standard", "long", &long)
        );
        let file = emulate::file(&format!("steering-long-{number}/g.toml"), &text);
        let answer = Gateway::start(&file).chat("gpt-4o", &[]);
        let (status, backend) = if served { (200, "long") } else { (400, "short") };
        assert_eq!(answer.status(), status, "{model} {first} {answer:?}");
        assert_eq!(answer.header("x-spillover-backend"), Some(backend), "{model} {first}");
        assert!(served || answer.0.ends_with(&body_of(LONG_CONTEXT)), "{answer:?}");
    }
}

pub(crate) const JSON: &str = "content-type: application/json\r\n";
const SPILLED: &str =
    "content-type: application/json\r\nx-ms-spillover-from-deployment: gpt-4o-ptu\r\n";
pub(crate) const STREAM: &str = r#"{"model":"gpt-4o","input":"Hello","stream":true}"#;
pub(crate) const CHAT: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","choices":[],
    "usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}"#;
const LONG_CONTEXT: &str = include_str!("../../tests/corpus/body-context-length.http");
pub(crate) const NO_QUOTA: &str = include_str!("../../tests/corpus/body-insufficient-quota.http");
