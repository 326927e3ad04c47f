//! A fault of the backend's own: the request moves on, and status, metrics and a log line report
//! it.

use crate::{
    steering::{JSON, body_of, gateway, in_front_of, status},
    witness::{Witness, serving},
};

const MISSING: &str = include_str!("../../tests/corpus/body-deployment-not-found.http");
const NO_MODEL: &str = include_str!("../../tests/corpus/body-model-not-found.http");
const NO_PATH: &str = include_str!("../../tests/corpus/body-apim-not-found.http");
const FIREWALL: &str = include_str!("../../tests/corpus/body-forbidden.http");
const BLOCKED: &str = include_str!("../../tests/corpus/body-temporarily-blocked.http");
const UNAUTHORIZED: &str = include_str!("../../tests/corpus/body-unauthorized.http");
const UNPAID: &str = include_str!("../../tests/corpus/body-payment-required.http");
const GONE: &str = include_str!("../../tests/corpus/body-gone.http");
const FILTERED: &str = include_str!("../../tests/corpus/body-apim-content-safety.http");
const NO_RESPONSE: &str = include_str!("../../tests/corpus/body-response-not-found.http");
const NO_FILE: &str = include_str!("../../tests/corpus/body-file-not-found.http");

fn saying(status: u16, sample: &'static str) -> Witness {
    Witness::new(move |_| (status, JSON, body_of(sample)))
}

#[test]
fn whatever_is_wrong_with_a_backend_the_next_one_serves() {
    for (number, (code, sample)) in [
        (401, UNAUTHORIZED),
        (402, UNPAID),
        (403, FIREWALL),
        (403, BLOCKED),
        (404, MISSING),
        (404, NO_MODEL),
        (404, NO_PATH),
        (410, GONE),
    ]
    .into_iter()
    .enumerate()
    {
        let (east, sweden) = (saying(code, sample), serving());
        let gateway = in_front_of(&format!("misconfigured-{number}"), [&east, &sweden]);
        for _ in 0..10 {
            let answer = gateway.chat("gpt-4o", &[]);
            assert_eq!(answer.header("x-spillover-backend"), Some("sweden"), "{answer:?}");
            assert_eq!(answer.status(), 200);
        }
        assert_eq!((east.asked().len(), sweden.asked().len()), (1, 10), "{sample}");
        let of_east = &status(&gateway)["models"]["gpt-4o"]["backends"][0];
        let told = of_east["misconfigured"].as_str().unwrap();
        assert!(told.starts_with(&code.to_string()), "{told}");
        let metrics = gateway.page("/metrics").0;
        let gauge = format!(
            "spillover_backend_misconfigured{{model=\"gpt-4o\",tier=\"standard\",backend=\"east\",\
             status=\"{code}\"}} 1"
        );
        assert!(metrics.contains(&gauge), "{metrics}");
        gateway.eventually(|gateway| gateway.log().contains(&format!("misconfigured: {code} ")));
        assert_eq!(gateway.log().matches("misconfigured: ").count(), 1, "{}", gateway.log());
    }
}

#[test]
fn the_decision_says_why() {
    let (east, sweden) = (saying(401, UNAUTHORIZED), serving());
    let gateway = in_front_of("misconfigured-decision", [&east, &sweden]);
    let answer = gateway.chat("gpt-4o", &[]);
    assert_eq!(
        answer.header("x-spillover-decision"),
        Some("standard; why=misconfigured; waited=0ms; attempts=2; rotated")
    );
}

#[test]
fn where_all_are_alike_the_client_gets_the_answer_as_it_came() {
    let backends = [saying(403, FIREWALL), saying(403, FIREWALL)];
    let gateway = in_front_of("misconfigured-all", [&backends[0], &backends[1]]);
    for _ in 0..3 {
        let answer = gateway.chat("gpt-4o", &[]);
        assert_eq!(answer.status(), 403);
        assert!(answer.0.ends_with(&body_of(FIREWALL)), "{answer:?}");
    }
}

#[test]
fn a_refused_key_of_the_gateway_is_neither_quoted_nor_taken_for_the_clients() {
    const QUOTING: &str = r#"{"error":{"message":"Incorrect API key provided: backend-key-1."}}"#;
    let quoting = || Witness::new(move |_| (401, JSON, QUOTING.to_owned()));
    let backends = [quoting(), quoting()];
    let gateway = in_front_of("misconfigured-quoting", [&backends[0], &backends[1]]);
    let answer = gateway.chat("gpt-4o", &[]);
    assert_eq!(answer.status(), 502, "{answer:?}");
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    assert_eq!(answer.header("www-authenticate"), None);
    assert!(answer.header("x-spillover-backend").is_some(), "{answer:?}");
    assert!(!answer.0.contains("backend-key-1"), "{answer:?}");
    assert!(!gateway.log().contains("backend-key-1"), "{}", gateway.log());
}

#[test]
fn what_is_wrong_with_a_request_is_the_clients_own() {
    for (name, code, sample, method, path) in [
        (
            "filtered",
            403,
            FILTERED,
            "POST",
            "/openai/deployments/gpt-4o/chat/completions?api-version=1",
        ),
        ("response", 404, NO_RESPONSE, "POST", "/openai/v1/responses"),
        ("file", 404, NO_FILE, "GET", "/openai/v1/files/file-1"),
    ] {
        let (east, sweden) = (saying(code, sample), saying(code, sample));
        let endpoints = [east.endpoint(), sweden.endpoint()];
        let gateway =
            gateway(&format!("own-{name}"), endpoints, "", "default_model = \"gpt-4o\"\n");
        let body = if method == "POST" { r#"{"model":"gpt-4o","input":"a"}"# } else { "" };
        let answer = gateway.ask(method, path, &[], body);
        assert_eq!(answer.status(), code, "{answer:?}");
        assert_eq!(east.asked().len() + sweden.asked().len(), 1, "{name}");
        assert!(!gateway.log().contains("misconfigured"), "{}", gateway.log());
    }
}
