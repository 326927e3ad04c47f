//! Browsers' preflights, and what pages of other origins may read.

use crate::{
    emulate,
    served::{Answer, Gateway},
    witness::{Witness, serving},
};

fn gateway(name: &str, backend: &Witness, cors: &str) -> Gateway {
    let text = format!(
        "{cors}\nlisten.address = \"127.0.0.1:0\"\n\
         [clients.page]\nkeys = [\"env:TEAM_B_KEY\"]\nrequests_per_second = 2\n\
         [[models.\"gpt-4o\".standard]]\nname = \"east\"\nendpoint = \"{}\"\n\
         key = \"env:AZURE_KEY\"\n",
        backend.endpoint()
    );
    Gateway::start(&emulate::file(&format!("cors-{name}/g.toml"), &text))
}

const KEY: (&str, &str) = ("api-key", "a-key-of-team-b-0001");
const PAGE: (&str, &str) = ("origin", "https://app.example");
const CHAT: &str = "/openai/v1/chat/completions";

fn preflight(gateway: &Gateway, origin: &str) -> Answer {
    let asks = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "api-key, content-type, x-stainless-lang"),
    ];
    gateway.ask("OPTIONS", CHAT, &asks, "")
}

fn varies_by_origin(answer: &Answer) -> bool {
    answer.0.contains("\r\nvary: origin\r\n")
}

#[test]
fn a_preflight_is_answered_by_the_configuration_and_goes_to_no_backend() {
    let backend = serving();
    let settings = "listen.cors = { origins = [\"https://App.example:443\", \"http://localhost:3000\"], \
                    max_age = \"1h\" }";
    let gateway = gateway("preflight", &backend, settings);
    for origin in ["https://app.example", "http://localhost:3000"] {
        let answer = preflight(&gateway, origin);
        assert_eq!(answer.status(), 204, "{answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin), "{answer:?}");
        let methods = answer.header("access-control-allow-methods").unwrap();
        assert!(methods.contains("POST") && methods.contains("DELETE"), "{answer:?}");
        let headers = answer.header("access-control-allow-headers").unwrap();
        assert_eq!(headers, "api-key, content-type, x-stainless-lang");
        assert_eq!(answer.header("access-control-max-age"), Some("3600"));
        assert!(varies_by_origin(&answer), "{answer:?}");
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
    for origin in
        ["https://app.example.evil", "http://app.example", "null", "https://localhost:3000"]
    {
        let answer = preflight(&gateway, origin);
        assert_eq!(answer.status(), 403, "{answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), None, "{answer:?}");
        assert!(varies_by_origin(&answer), "{answer:?}");
    }
    assert!(backend.asked().is_empty());
}

#[test]
fn answers_and_refusals_say_that_the_page_may_read_them_and_their_hints() {
    let backend = Witness::new(|_| {
        let lines = "access-control-allow-origin: *\r\ncontent-type: application/json\r\n";
        (200, lines, "{}".to_owned())
    });
    let settings = "listen.cors = { origins = [\"https://app.example\"], credentials = true }";
    let gateway = gateway("answers", &backend, settings);
    let body = "{\"model\":\"gpt-4o\"}";
    let ask = |headers: &[_]| gateway.ask("POST", CHAT, headers, body);
    let answers = [&[PAGE][..], &[PAGE, KEY], &[PAGE, KEY], &[PAGE, KEY]].map(ask);
    assert_eq!(answers.each_ref().map(Answer::status), [401, 200, 200, 429]);
    for answer in answers {
        assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE.1), "{answer:?}");
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
        let exposed = answer.header("access-control-expose-headers").unwrap();
        for name in ["retry-after", "retry-after-ms", "x-spillover-decision", "x-request-id"] {
            assert!(exposed.split(", ").any(|known| known == name), "{name}: {exposed}");
        }
        assert!(varies_by_origin(&answer), "{answer:?}");
        assert_eq!(answer.0.matches("access-control-allow-origin").count(), 1, "{answer:?}");
    }
    let others = ask(&[("origin", "https://other.example")]);
    assert_eq!(others.header("access-control-allow-origin"), None, "{others:?}");
    let plain = ask(&[]);
    assert_eq!(plain.header("access-control-allow-origin"), None, "{plain:?}");
    assert!(varies_by_origin(&plain), "caches keep them apart: {plain:?}");
}

#[test]
fn any_origin_may_where_the_configuration_says_so() {
    let settings = "listen.cors = { origins = [\"*\"], headers = [\"Api-Key\", \"content-type\"] }";
    let gateway = gateway("any", &serving(), settings);
    let answer = preflight(&gateway, "https://anywhere.example");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{answer:?}");
    let headers = answer.header("access-control-allow-headers").unwrap();
    assert_eq!(headers, "api-key, content-type");
    assert_eq!(answer.header("access-control-allow-credentials"), None);
}

#[test]
fn without_a_section_no_page_may_and_no_preflight_passes() {
    let backend = Witness::new(|_| (200, "access-control-allow-origin: *\r\n", "{}".to_owned()));
    let gateway = gateway("off", &backend, "");
    let answer = preflight(&gateway, PAGE.1);
    assert_eq!(answer.status(), 403, "{answer:?}");
    assert!(!answer.0.contains("access-control-"), "{answer:?}");
    assert!(backend.asked().is_empty());
    let answer = gateway.ask("POST", CHAT, &[PAGE, KEY], "{\"model\":\"gpt-4o\"}");
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert!(!answer.0.contains("access-control-"), "a backend speaks for itself: {answer:?}");
}
