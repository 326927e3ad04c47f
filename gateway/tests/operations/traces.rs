//! A request's spans, and what backends receive of them.

use std::{fs, process::Stdio, thread, time::Duration};

use opentelemetry_proto::tonic::trace::v1::{Span, Status, span::SpanKind, status::StatusCode};

use super::{EXPORTING, Scene, asking, attribute};
use crate::{served::Gateway, started::Started, witness::Witness};

#[test]
fn a_caller_s_trace_goes_on_through_the_gateway_to_every_backend() {
    let scene = Scene::new("trace", "standard", EXPORTING);
    scene.run(|gateway| {
        let headers = [("traceparent", PARENT), ("tracestate", "vendor=opaque")];
        assert_eq!(gateway.chat("gpt-4o", &headers).status(), 200);
        gateway.eventually(|gateway| gateway.log().contains(&format!("\"trace_id\":\"{TRACE}\"")));
    });
    let spans = scene.spans();
    let [request] = of_kind(&spans, SpanKind::Server)[..] else { panic!("{spans:?}") };
    assert_eq!(hex(&request.trace_id), TRACE);
    assert_eq!(hex(&request.parent_span_id), "00f067aa0ba902b7");
    assert_eq!((&*request.name, &*request.trace_state), ("chat gpt-4o", "vendor=opaque"));
    let operation = [
        ("gen_ai.operation.name", Some("chat")),
        ("gen_ai.request.model", Some("gpt-4o")),
        ("gen_ai.usage.input_tokens", Some("11")),
        ("spillover.backend", Some("second")),
        ("spillover.attempts", Some("2")),
    ];
    assert_attributes(request, &operation);
    assert!(request.events.is_empty() && !is_error(request), "{request:?}");

    let [refused, served] = of_kind(&spans, SpanKind::Client)[..] else { panic!("{spans:?}") };
    for (call, witness) in [(refused, &scene.first), (served, &scene.second)] {
        assert_eq!(call.parent_span_id, request.span_id);
        let told = format!("00-{TRACE}-{}-01", hex(&call.span_id));
        let [asked] = &witness.asked()[..] else { panic!("one request goes there") };
        assert_eq!(asked.header("traceparent"), Some(&*told));
        assert_eq!(asked.header("tracestate"), Some("vendor=opaque"));
        let port = witness.endpoint().rsplit_once(':').unwrap().1;
        let url = format!("{}/openai/deployments/gpt-4o/chat/completions", witness.endpoint());
        let of_call = [
            ("http.request.method", Some("POST")),
            ("server.address", Some("127.0.0.1")),
            ("server.port", Some(port)),
            ("url.full", Some(&*url)),
            ("network.protocol.version", Some("1.1")),
            ("spillover.tier", Some("standard")),
        ];
        assert_attributes(call, &of_call);
        assert_eq!(call.name, "POST");
        assert!(request.start_time_unix_nano <= call.start_time_unix_nano);
        assert!(call.start_time_unix_nano < call.end_time_unix_nano, "{call:?}");
        assert!(call.end_time_unix_nano <= request.end_time_unix_nano);
    }
    let of_refused = [
        ("http.response.status_code", Some("429")),
        ("error.type", Some("429")),
        ("spillover.backend", Some("first")),
        ("spillover.region", Some("East US")),
        ("spillover.hint_ms", Some("30000")),
        ("http.request.resend_count", None),
    ];
    assert_attributes(refused, &of_refused);
    let of_served = [
        ("http.response.status_code", Some("200")),
        ("error.type", None),
        ("spillover.backend", Some("second")),
        ("spillover.region", Some("Sweden Central")),
        ("spillover.hint_ms", None),
        ("http.request.resend_count", Some("1")),
    ];
    assert_attributes(served, &of_served);
    assert!(is_error(refused) && !is_error(served));
    assert!(refused.end_time_unix_nano <= served.start_time_unix_nano, "one after the other");
}

#[test]
fn a_caller_that_samples_nothing_is_obeyed_and_a_wrong_parent_begins_a_trace() {
    let scene = Scene::new("unsampled", "standard", EXPORTING);
    scene.run(|gateway| {
        let unsampled = PARENT.replace("-01", "-00");
        gateway.chat("gpt-4o", &[("traceparent", &unsampled)]);
        let wrong = [("traceparent", "00-zz-zz-01"), ("tracestate", "vendor=opaque")];
        gateway.chat("gpt-4o", &wrong);
    });
    let asked = scene.second.asked();
    let [unsampled, begun] = &asked[..] else { panic!("{asked:?}") };
    let told = unsampled.header("traceparent").unwrap();
    assert!(told.starts_with(&format!("00-{TRACE}-")) && told.ends_with("-00"), "{told}");
    assert_ne!(told, PARENT.replace("-01", "-00"), "the call has an id of its own");

    let told = begun.header("traceparent").unwrap();
    assert!(told.len() == 55 && told.ends_with("-01") && !told.contains(TRACE), "{told}");
    assert_eq!(begun.header("tracestate"), None);
    let spans = scene.spans();
    let [request] = of_kind(&spans, SpanKind::Server)[..] else { panic!("{spans:?}") };
    assert!(told.contains(&hex(&request.trace_id)) && request.parent_span_id.is_empty());
}

#[test]
fn without_a_collector_a_caller_s_trace_passes_as_it_is() {
    let scene = Scene::new("untraced", "standard", "");
    let gateway = Gateway::start(&scene.config);
    // Whatever its value.
    for parent in [PARENT, "of-another-kind"] {
        gateway.chat("gpt-4o", &[("traceparent", parent), ("tracestate", "vendor=opaque")]);
        let asked = scene.second.asked();
        assert_eq!(asked.last().unwrap().header("traceparent"), Some(parent));
        assert_eq!(asked.last().unwrap().header("tracestate"), Some("vendor=opaque"));
    }
}

#[test]
fn a_backend_that_is_not_there_is_a_call_that_failed() {
    let scene = Scene::new("absent", "standard", EXPORTING);
    let text = fs::read_to_string(&scene.config).unwrap();
    let text = text.replace(scene.first.endpoint(), "http://127.0.0.1:1");
    fs::write(&scene.config, text).unwrap();
    scene.run(|gateway| assert_eq!(gateway.chat("gpt-4o", &[]).status(), 200));
    let spans = scene.spans();
    let [failed, _] = of_kind(&spans, SpanKind::Client)[..] else { panic!("{spans:?}") };
    let expected = [
        ("error.type", Some("connect")),
        ("http.response.status_code", None),
        ("spillover.backend", Some("first")),
    ];
    assert_attributes(failed, &expected);
    assert!(is_error(failed));
}

#[test]
fn an_attempt_without_a_token_is_an_event_and_no_call() {
    let scene = Scene::new("tokenless", "standard", EXPORTING);
    let authority = Witness::new(|_| (401, "", r#"{"error":"invalid_client"}"#.to_owned()));
    let text = fs::read_to_string(&scene.config).unwrap();
    let text = text.replacen("key = \"file:key\"", "auth = \"entra\"", 1);
    let entra = format!(
        "[entra]\nkind = \"secret\"\ntenant = \"contoso\"\nclient_id = \"client-1\"\n\
         secret = \"file:key\"\nauthority = \"{}\"\n",
        authority.endpoint()
    );
    fs::write(&scene.config, entra + &text).unwrap();
    scene.run(|gateway| assert_eq!(gateway.chat("gpt-4o", &[]).status(), 200));
    let spans = scene.spans();
    let [call] = of_kind(&spans, SpanKind::Client)[..] else { panic!("{spans:?}") };
    let of_call = [("spillover.backend", Some("second")), ("http.request.resend_count", None)];
    assert_attributes(call, &of_call);
    let [request] = of_kind(&spans, SpanKind::Server)[..] else { panic!("{spans:?}") };
    let [event] = &request.events[..] else { panic!("{request:?}") };
    assert_eq!(event.name, "spillover.attempt");
    assert_eq!(attribute(&event.attributes, "spillover.backend").unwrap(), "first");
}

#[test]
fn a_call_whose_client_leaves_ends_with_it() {
    let scene = Scene::new("left", "standard", EXPORTING);
    let slow = Witness::new(|_| {
        thread::sleep(Duration::from_secs(3));
        (200, "", String::new())
    });
    let text = fs::read_to_string(&scene.config).unwrap();
    fs::write(&scene.config, text.replace(scene.first.endpoint(), slow.endpoint())).unwrap();
    let arguments = ["serve", "--config", scene.config.to_str().unwrap()];
    let mut gateway = Started::with(&arguments, |command| command.stderr(Stdio::null()));
    let client = asking(&gateway.endpoint(), "POST /openai/deployments/gpt-4o/embeddings");
    slow.wait_for(|asked| !asked.is_empty());
    drop(client);
    gateway.signal("TERM");
    scene.wait_for_exports();
    let spans = scene.spans();
    let [call] = of_kind(&spans, SpanKind::Client)[..] else { panic!("{spans:?}") };
    let expected = [("error.type", Some("cancelled")), ("spillover.backend", Some("first"))];
    assert_attributes(call, &expected);
    assert!(call.end_time_unix_nano - call.start_time_unix_nano < 2_000_000_000, "{call:?}");
}

fn of_kind(spans: &[Span], kind: SpanKind) -> Vec<&Span> {
    let mut found: Vec<_> = spans.iter().filter(|span| span.kind == kind as i32).collect();
    found.sort_by_key(|span| span.start_time_unix_nano);
    found
}

fn assert_attributes(span: &Span, expected: &[(&str, Option<&str>)]) {
    for &(key, value) in expected {
        assert_eq!(attribute(&span.attributes, key).as_deref(), value, "{key} of {span:?}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_error(span: &Span) -> bool {
    matches!(&span.status, Some(Status { code, .. }) if *code == StatusCode::Error as i32)
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
