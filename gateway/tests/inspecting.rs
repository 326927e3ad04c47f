//! Refusals visible only in the body, and how far the gateway reads for them.

use serde_json::Value;

use crate::{
    steering::{JSON, NO_QUOTA, STREAM, body_of, gateway, in_front_of, respond, status},
    witness::{Asked, PAUSE, Witness},
};

fn streaming(sample: &'static str) -> Witness {
    Witness::new(move |_| (200, "content-type: text/event-stream\r\n", body_of(sample)))
}

#[test]
fn a_refusal_hidden_in_a_stream_moves_on_and_the_client_sees_a_clean_stream() {
    let backends = [&streaming(NO_CAPACITY), &streaming(SERVED)];
    let gateway = in_front_of("stream", backends);
    let answer = respond(&gateway, STREAM, &[("x-spillover-trace", "true")]);
    assert_eq!((answer.status(), answer.header("x-spillover-backend")), (200, Some("sweden")));
    assert!(answer.0.ends_with(&body_of(SERVED)), "{answer:?}");
    assert_eq!(
        answer.header("x-spillover-decision"),
        Some("standard; why=capacity; waited=0ms; attempts=2; rotated")
    );
    let trace: Value = serde_json::from_str(answer.header("x-spillover-trace").unwrap()).unwrap();
    assert_eq!((&trace[0]["reason"], &trace[0]["hint_ms"]), (&"capacity".into(), &8_000.into()));
    assert_eq!((&trace[0]["status"], &trace[1]["reason"]), (&429.into(), &Value::Null));
    let metrics = gateway.page("/metrics").0;
    let attempts = "spillover_backend_attempts_total{model=\"gpt-4o\",tier=\"standard\",";
    for line in [
        "backend=\"east\",status=\"429\",reason=\"capacity\"} 1",
        "backend=\"sweden\",status=\"200\"} 1",
    ] {
        assert!(metrics.contains(&format!("{attempts}{line}")), "{metrics}");
    }
    gateway.eventually(|gateway| gateway.log().contains(r#""why":"capacity""#));
}

#[test]
fn without_inspection_a_stream_passes_as_it_is() {
    let backends = [streaming(NO_CAPACITY), streaming(SERVED)];
    let endpoints = [0, 1].map(|index: usize| backends[index].endpoint());
    let gateway = gateway("unread", endpoints, "inspect = false", "");
    let answer = respond(&gateway, STREAM, &[]);
    assert_eq!(answer.header("x-spillover-backend"), Some("east"));
    assert!(answer.0.ends_with(&body_of(NO_CAPACITY)), "{answer:?}");
}

#[test]
fn answers_that_are_read_are_asked_for_uncompressed() {
    for (name, model, seen) in
        [("plain", "", None), ("compressed", "inspect = false", Some("gzip, br"))]
    {
        let (east, sweden) = (streaming(SERVED), streaming(SERVED));
        let gateway = gateway(name, [east.endpoint(), sweden.endpoint()], model, "");
        respond(&gateway, STREAM, &[("accept-encoding", "gzip, br")]);
        assert_eq!(east.asked()[0].header("accept-encoding"), seen, "{model}");
    }
}

#[test]
fn an_answer_is_read_no_longer_and_no_further_than_it_is_allowed() {
    let begun = |_: &Asked| {
        let (preamble, error) =
            NO_CAPACITY.split_once("\n\n").unwrap().1.split_once("\n\n").unwrap();
        (200, "content-type: text/event-stream\r\n", format!("{preamble}\n\n{PAUSE}{error}"))
    };
    let refusing = |_: &Asked| (429, JSON, format!("{PAUSE}{}", body_of(NO_QUOTA)));
    let (begun, refusing, sweden) =
        (Witness::new(begun), Witness::new(refusing), streaming(SERVED));
    for (number, (east, inspect, backend)) in [
        (&begun, "", "sweden"),
        (&begun, "preamble_time = \"100ms\"", "east"),
        (&begun, "preamble_limit = \"16 B\"", "east"),
        (&refusing, "", "sweden"),
    ]
    .into_iter()
    .enumerate()
    {
        let model = format!("inspect = {{ {inspect} }}");
        let name = format!("limits-{number}");
        let gateway = gateway(&name, [east.endpoint(), sweden.endpoint()], &model, "");
        let answer = respond(&gateway, STREAM, &[]);
        assert_eq!(answer.header("x-spillover-backend"), Some(backend), "{inspect} {answer:?}");
        assert!(
            backend == "sweden" || answer.0.contains("no_capacity"),
            "it came whole: {answer:?}"
        );
    }
    for (name, time, reason) in [("late", "10s", "quota"), ("early", "100ms", "rate")] {
        let model = format!("inspect = {{ body_time = \"{time}\" }}");
        let gateway = gateway(name, [refusing.endpoint(), sweden.endpoint()], &model, "");
        respond(&gateway, STREAM, &[]);
        let status = status(&gateway);
        let refused = &status["models"]["gpt-4o"]["backends"][0]["refused_for"];
        assert_eq!(refused[reason], 1, "{time} {status}");
    }
}

const NO_CAPACITY: &str = include_str!("../../tests/corpus/stream-no-capacity.http");
const SERVED: &str = include_str!("../../tests/corpus/stream-served.http");
