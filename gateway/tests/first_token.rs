//! A late first token over sockets: which backends are called, which one answers, and the headers
//! and metrics.

use std::{thread, time::Duration};

use crate::{
    emulate,
    served::{Answer, Gateway, TEAM_B},
    steering::{gateway, respond},
    witness::{PAUSE, Witness, serving},
};

/// Its head is late by this many milliseconds.
fn slow(ms: u64) -> Witness {
    Witness::new(move |_| {
        thread::sleep(Duration::from_millis(ms));
        (200, JSON, r#"{"id":"resp_slow","object":"response","status":"completed"}"#.to_owned())
    })
}

/// Its head arrives immediately, then keep-alive events, but no output for two seconds.
fn silent() -> Witness {
    Witness::new(|_| {
        let preamble = "event: response.created\ndata: {\"response\":{\"status\":\"in_progress\"}}\n\n\
             : still here\n\nevent: keepalive\ndata: {\"type\":\"keepalive\"}\n\n";
        (200, EVENTS, format!("{preamble}{PAUSE}{OUTPUT}"))
    })
}

fn speaking() -> Witness {
    Witness::new(|_| (200, EVENTS, OUTPUT.to_owned()))
}

fn in_front_of(name: &str, [east, sweden]: [&Witness; 2], model: &str, rest: &str) -> Gateway {
    gateway(&format!("late-{name}"), [east.endpoint(), sweden.endpoint()], model, rest)
}

fn backend(answer: &Answer) -> Option<&str> {
    assert_eq!(answer.status(), 200, "{answer:?}");
    answer.header("x-spillover-backend")
}

#[test]
fn a_late_head_moves_the_request_on_and_everything_tells_so() {
    let (east, sweden) = (slow(5_000), serving());
    let gateway = in_front_of("head", [&east, &sweden], MOVES_ON, "");
    let answer = gateway.chat("gpt-4o", &[("x-spillover-trace", "true")]);
    assert_eq!(backend(&answer), Some("sweden"));
    let decision = answer.header("x-spillover-decision").unwrap();
    let told = "standard; why=first-token-late; waited=0ms; attempts=2; rotated; late=moved-on";
    assert_eq!(decision, told);
    let trace = answer.header("x-spillover-trace").unwrap();
    assert!(
        trace.contains(r#""status":null,"hint_ms":null,"reason":"first-token-late"}"#),
        "{trace}"
    );
    assert_eq!((east.asked().len(), sweden.asked().len()), (1, 1));
    assert_eq!(east.asked()[0].body, sweden.asked()[0].body);
    let metrics = gateway.page("/metrics").0;
    for line in [
        "spillover_first_token_late_total{model=\"gpt-4o\",result=\"moved-on\"} 1",
        "backend=\"east\",status=\"failed\",reason=\"first-token-late\"} 1",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    gateway.eventually(|gateway| gateway.log().contains(r#""late":"moved-on""#));
    assert!(gateway.log().contains("east late, sweden 200"), "{}", gateway.log());
}

#[test]
fn a_stream_that_only_keeps_itself_alive_moves_on_and_one_that_speaks_does_not() {
    let (silent, speaking) = (silent(), speaking());
    let moved = in_front_of("silent", [&silent, &speaking], MOVES_ON, "");
    let answer = respond(&moved, STREAM, &[]);
    assert_eq!(backend(&answer), Some("sweden"));
    assert!(answer.0.ends_with(OUTPUT), "nothing of the other one: {answer:?}");

    let stayed = in_front_of("speaks", [&speaking, &silent], MOVES_ON, "");
    assert_eq!(backend(&respond(&stayed, STREAM, &[])), Some("east"));
    assert_eq!(silent.asked().len(), 1);
}

#[test]
fn without_the_setting_a_late_answer_is_waited_for() {
    let (silent, speaking) = (silent(), speaking());
    let gateway = in_front_of("off", [&silent, &speaking], "", "");
    let answer = respond(&gateway, STREAM, &[]);
    assert_eq!((backend(&answer), speaking.asked().len()), (Some("east"), 0));
}

#[test]
fn a_hedge_is_won_by_either() {
    for (name, [east, sweden], winner, late) in [
        ("lost", [900, 5_000], "east", "late=hedge-lost"),
        ("won", [5_000, 200], "sweden", "late=hedge-won"),
    ] {
        let (east, sweden) = (slow(east), slow(sweden));
        let gateway = in_front_of(name, [&east, &sweden], HEDGES, "");
        let answer = respond(&gateway, PLAIN, &[]);
        assert_eq!(backend(&answer), Some(winner));
        assert!(answer.header("x-spillover-decision").unwrap().contains(late), "{answer:?}");
        assert_eq!((east.asked().len(), sweden.asked().len()), (1, 1));
    }
}

#[test]
fn a_class_has_its_own_limit_or_none() {
    let rest = "[classes.hurry]\nfirst_token = { after = \"200ms\" }\n\
         [classes.batch]\nfirst_token = \"off\"\n\
         [clients.a]\nkeys = [\"env:TEAM_B_KEY\"]\nmay = [\"class\"]\n";
    let model = "first_token = { after = \"5s\" }";
    let (east, sweden) = (slow(1_500), serving());
    let gateway = in_front_of("class", [&east, &sweden], model, rest);
    for (class, answered_by) in [("hurry", "sweden"), ("batch", "east")] {
        let answer = gateway.chat("gpt-4o", &[TEAM_B, ("x-spillover-class", class)]);
        assert_eq!(backend(&answer), Some(answered_by), "{class}");
    }
    assert_eq!(backend(&gateway.chat("gpt-4o", &[TEAM_B])), Some("east"), "the model's");
}

#[test]
fn a_request_that_names_its_backend_stays_and_so_does_one_beyond_the_budget() {
    let (east, sweden) = (slow(1_000), serving());
    let gateway = in_front_of("named", [&east, &sweden], MOVES_ON, "");
    let named = gateway.chat("gpt-4o", &[("x-spillover-backend", "east")]);
    assert_eq!((backend(&named), sweden.asked().len()), (Some("east"), 0));

    let once = "first_token = { after = \"300ms\", budget = { moves = 1, per_success = 0 } }";
    let gateway = in_front_of("budget", [&east, &sweden], once, "");
    let answers = [(); 2].map(|()| gateway.chat("gpt-4o", &[]));
    assert_eq!(answers.each_ref().map(backend), [Some("sweden"), Some("east")]);
}

#[test]
fn waiting_at_the_gate_is_not_late_and_a_ptu_that_is_late_spills() {
    // It refuses for longer than the limit, then serves in time; later it is silent.
    let turns = std::sync::atomic::AtomicUsize::new(0);
    let ptu =
        Witness::new(move |_| match turns.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => (429, "retry-after-ms: 900\r\n", String::new()),
            1 => (200, JSON, "{}".to_owned()),
            _ => {
                thread::sleep(Duration::from_secs(1));
                (200, JSON, "{}".to_owned())
            }
        });
    let standard = serving();
    let text = format!(
        "listen.address = \"127.0.0.1:0\"\nlisten.admin = \"127.0.0.1:0\"\nclients.open = true\n[models.\"gpt-4o\"]\n{MOVES_ON}\n\
         ptu = [{{ name = \"ptu\", endpoint = \"{}\", key = \"env:AZURE_KEY\" }}]\n\
         standard = [{{ name = \"std\", endpoint = \"{}\", key = \"env:AZURE_KEY\" }}]\n",
        ptu.endpoint(),
        standard.endpoint()
    );
    let gateway = Gateway::start(&emulate::file("late-gate/g.toml", &text));
    let waited = gateway.chat("gpt-4o", &[]);
    assert_eq!((backend(&waited), standard.asked().len()), (Some("ptu"), 0), "{waited:?}");
    assert!(!waited.header("x-spillover-decision").unwrap().contains("late"));

    let spilled = gateway.chat("gpt-4o", &[]);
    assert_eq!(backend(&spilled), Some("std"));
    let decision = spilled.header("x-spillover-decision").unwrap();
    assert_eq!(decision, "spilled; why=first-token-late; waited=0ms; attempts=2; late=moved-on");
    let kept = gateway.chat("gpt-4o", &[("x-spillover-no-spill", "true")]);
    assert_eq!(backend(&kept), Some("ptu"), "{kept:?}");
}

const MOVES_ON: &str = "first_token = { after = \"300ms\", mode = \"move-on\" }";
const HEDGES: &str = "first_token = { after = \"300ms\", mode = \"hedge\" }";
const STREAM: &str = r#"{"model":"gpt-4o","input":"x","stream":true}"#;
const PLAIN: &str = r#"{"model":"gpt-4o","input":"x"}"#;
const OUTPUT: &str = "event: response.output_text.delta\ndata: {\"delta\":\"Hello\"}\n\n";
const JSON: &str = "content-type: application/json\r\n";
const EVENTS: &str = "content-type: text/event-stream\r\n";
