//! Who ended a request: the log, the metrics and the spans agree.

mod backend;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
};
use prost::Message;

use crate::{emulate, served::Gateway, witness::Witness};

const BODY: &str = "{\"messages\":[]}";

/// The ending of each model's answers.
const ENDINGS: [(&str, &str); 11] = [
    ("stream-whole", "complete"),
    ("stream-unmarked", "cut"),
    ("stream-cut", "cut"),
    ("stream-reset", "reset"),
    ("stream-silent", "stalled"),
    ("stream-gone", "client-gone"),
    ("plain-whole", "complete"),
    ("plain-cut", "cut"),
    ("plain-reset", "reset"),
    ("plain-silent", "stalled"),
    ("plain-gone", "client-gone"),
];

fn gateway(name: &str, backend: &str, http2: &str, collector: &Witness) -> Gateway {
    let mut text = format!(
        "clients.open = true\n[listen]\naddress = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n\
         [upstream]\nidle_timeout = \"500ms\"\nhttp2 = \"{http2}\"\n\
         [telemetry]\notlp = \"{}\"\n",
        collector.endpoint()
    );
    for (model, _) in ENDINGS {
        text += &format!(
            "[[models.{model}.standard]]\nname = \"a\"\nendpoint = \"{backend}\"\n\
             key = \"env:AZURE_KEY\"\n"
        );
    }
    Gateway::start(&emulate::file(&format!("endings-{name}/g.toml"), &text))
}

fn path(model: &str) -> String {
    format!("/openai/deployments/{model}/chat/completions?api-version=1")
}

/// Over HTTP/1.1. A client that should disconnect does so as soon as a part of the body has
/// arrived.
fn ask_http1(gateway: &Gateway, model: &str) {
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    let request = format!(
        "POST {} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{BODY}",
        path(model),
        BODY.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    // An answer that breaks off may end with a reset.
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..read]);
        if model.ends_with("-gone") && String::from_utf8_lossy(&answer).contains("choices") {
            return;
        }
    }
}

/// Over HTTP/2, all on one connection: disconnecting means resetting a stream.
async fn ask_http2(gateway: &Gateway) {
    let stream = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    for (model, _) in ENDINGS {
        let request = http::Request::post(format!("http://gateway{}", path(model)))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from_static(BODY.as_bytes())))
            .unwrap();
        let mut body = sender.send_request(request).await.unwrap().into_body();
        while let Some(Ok(_)) = body.frame().await {
            if model.ends_with("-gone") {
                break;
            }
        }
    }
}

/// The endings by model, according to the log.
fn logged(gateway: &Gateway) -> BTreeMap<String, String> {
    let log = gateway.log();
    let events = log.lines().filter_map(|line| serde_json::from_str(line).ok());
    events
        .filter_map(|event: serde_json::Value| {
            let text = |key: &str| Some(event[key].as_str()?.to_owned());
            Some((text("model")?, text("ended")?))
        })
        .collect()
}

fn exported(collector: &Witness) -> BTreeMap<String, String> {
    let text = |attributes: &[KeyValue], key: &str| {
        let found = attributes.iter().find(|attribute| attribute.key == key)?;
        match found.value.clone()?.value? {
            Value::StringValue(text) => Some(text),
            _ => None,
        }
    };
    let asked = collector.asked().into_iter().filter(|asked| asked.head[0].contains("/v1/traces"));
    let requests = asked.map(|asked| ExportTraceServiceRequest::decode(&*asked.body).unwrap());
    let scopes = requests.flat_map(|it| it.resource_spans).flat_map(|it| it.scope_spans);
    let spans = scopes.flat_map(|it| it.spans);
    spans
        .filter_map(|span| {
            let model = text(&span.attributes, "gen_ai.request.model")?;
            let ended = text(&span.attributes, "spillover.ended")?;
            let is_error = span.status.as_ref().is_some_and(|status| status.code == 2);
            assert_eq!(is_error, ended != "complete", "{model}");
            Some((model, ended))
        })
        .collect()
}

fn check(gateway: &Gateway, collector: &Witness) {
    let expected = ENDINGS.map(|(model, ended)| (model.to_owned(), ended.to_owned())).into();
    gateway.eventually(|gateway| logged(gateway).len() == ENDINGS.len());
    assert_eq!(logged(gateway), expected);
    let metrics = gateway.page("/metrics").0;
    for (model, ended) in ENDINGS {
        let line = format!(
            "spillover_requests_ended_total{{client=\"open\",model=\"{model}\",ended=\"{ended}\"}} 1"
        );
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
    gateway.signal("TERM");
    gateway.eventually(|_| exported(collector).len() == ENDINGS.len());
    assert_eq!(exported(collector), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_endings_are_told_apart_over_http1() {
    let collector = Witness::new(|_| (200, "", String::new()));
    let gateway = gateway("http1", &backend::http1().await, "never", &collector);
    std::thread::scope(|scope| {
        for (model, _) in ENDINGS {
            let gateway = &gateway;
            scope.spawn(move || ask_http1(gateway, model));
        }
    });
    check(&gateway, &collector);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_endings_are_told_apart_over_http2() {
    let collector = Witness::new(|_| (200, "", String::new()));
    let gateway = gateway("http2", &backend::http2().await, "always", &collector);
    ask_http2(&gateway).await;
    check(&gateway, &collector);
}

#[test]
fn a_client_that_leaves_before_the_head_is_gone_and_an_answer_of_the_gateways_own_is_complete() {
    let slow = Witness::new(|_| {
        std::thread::sleep(Duration::from_secs(4));
        (200, "", "{}".to_owned())
    });
    let collector = Witness::new(|_| (200, "", String::new()));
    let gateway = gateway("early", slow.endpoint(), "never", &collector);
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    let request = format!(
        "POST {} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{BODY}",
        path("plain-gone"),
        BODY.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    slow.wait_for(|asked| asked.len() == 1);
    drop(stream);
    gateway.eventually(|gateway| gateway.log().contains("\"status\":499"));
    assert_eq!(logged(&gateway)["plain-gone"], "client-gone");
    assert_eq!(gateway.chat("nothing", &[]).status(), 404);
    gateway.eventually(|gateway| logged(gateway).contains_key("unknown"));
    assert_eq!(logged(&gateway)["unknown"], "complete");
}
