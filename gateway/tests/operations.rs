//! What a running gateway reports: pages, logs, and, for a collector, spans and metrics.

mod traces;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::Stdio,
    thread,
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, KeyValue, any_value::Value},
    metrics::v1::{Metric, NumberDataPoint, metric::Data, number_data_point},
    trace::v1::Span,
};
use prost::Message;

use crate::{
    emulate,
    served::Gateway,
    started::Started,
    witness::{PAUSE, Witness, refusing, serving},
};

/// Must not appear anywhere.
const CANARY: &str = "canary-7c21";

/// A model whose first backend refuses and whose second serves, with a collector.
struct Scene {
    first: Witness,
    second: Witness,
    collector: Witness,
    config: PathBuf,
}

impl Scene {
    /// `tier` is the first backend's; `more` goes into the configuration.
    fn new(name: &str, tier: &str, more: &str) -> Self {
        let (first, second) = (refusing(), serving());
        let collector = Witness::new(|_| (200, "", String::new()));
        emulate::file(&format!("{name}/key"), CANARY);
        let text = format!(
            r#"
            [listen]
            address = "127.0.0.1:0"
            admin = "127.0.0.1:0"
            [clients]
            open = true
            [models."gpt-4o"]
            max_wait = "0s"
            BUDGET
            [[models."gpt-4o".{tier}]]
            name = "first"
            endpoint = "{}"
            key = "file:key"
            region = "East US"
            priority = 1
            [[models."gpt-4o".standard]]
            name = "second"
            endpoint = "{}"
            key = "file:key"
            region = "Sweden Central"
            priority = 2
            [telemetry]
            {more}
            "#,
            first.endpoint(),
            second.endpoint(),
        );
        let otlp = format!("otlp = \"{}\"", collector.endpoint());
        let budget = "spill_budget = { requests = 9, window = \"1h\" }";
        let budget = if tier == "ptu" { budget } else { "" };
        let text = text.replace("OTLP", &otlp).replace("BUDGET", budget);
        let config = emulate::file(&format!("{name}/g.toml"), &text);
        Self { first, second, collector, config }
    }

    /// Starts a gateway, runs `ask`, and stops it, so that it exports its data.
    fn run(&self, ask: impl FnOnce(&Gateway)) {
        let gateway = Gateway::start(&self.config);
        ask(&gateway);
        gateway.signal("TERM");
        self.wait_for_exports();
    }

    fn wait_for_exports(&self) {
        for to in ["/v1/traces", "/v1/metrics"] {
            self.collector.wait_for(|asked| asked.iter().any(|asked| asked.head[0].contains(to)));
        }
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.exported::<ExportTraceServiceRequest>("/v1/traces");
        let resources = requests.into_iter().flat_map(|request| request.resource_spans);
        resources.flat_map(|it| it.scope_spans).flat_map(|it| it.spans).collect()
    }

    fn metrics(&self) -> Vec<Metric> {
        let requests = self.exported::<ExportMetricsServiceRequest>("/v1/metrics");
        let resources = requests.into_iter().flat_map(|request| request.resource_metrics);
        resources.flat_map(|it| it.scope_metrics).flat_map(|it| it.metrics).collect()
    }

    fn exported<M: Message + Default>(&self, to: &str) -> Vec<M> {
        let line = format!("POST {to} HTTP/1.1");
        let bodies = self.collector.asked().into_iter().filter(|asked| asked.head[0] == line);
        bodies.map(|asked| M::decode(&*asked.body).unwrap()).collect()
    }
}

/// The value of an attribute, as text.
fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.clone()? {
        AnyValue { value: Some(Value::StringValue(text)) } => Some(text),
        AnyValue { value: Some(Value::IntValue(number)) } => Some(number.to_string()),
        AnyValue { value: Some(Value::BoolValue(is_so)) } => Some(is_so.to_string()),
        other => panic!("{other:?}"),
    }
}

/// The points of a gauge.
fn gauge<'a>(metrics: &'a [Metric], name: &str) -> &'a [NumberDataPoint] {
    let found = metrics.iter().rfind(|metric| metric.name == name);
    match found.and_then(|metric| metric.data.as_ref()) {
        Some(Data::Gauge(gauge)) => &gauge.data_points,
        other => panic!("{name}: {other:?}"),
    }
}

fn number(point: &NumberDataPoint) -> f64 {
    match point.value {
        Some(number_data_point::Value::AsDouble(number)) => number,
        other => panic!("{other:?}"),
    }
}

#[test]
fn gauges_and_histograms_reach_the_collector() {
    let scene = Scene::new("gauges", "ptu", EXPORTING);
    scene.run(|gateway| assert_eq!(gateway.chat("gpt-4o", &[]).status(), 200));
    let metrics = scene.metrics();
    for (name, expected) in [
        ("spillover.gate.waiting", 0.0),
        ("spillover.gate.mode", 1.0),
        ("spillover.spill_budget.left", 8.0),
    ] {
        let [point] = gauge(&metrics, name) else { panic!("{name}: there is one model") };
        assert_eq!(attribute(&point.attributes, "gen_ai.request.model").unwrap(), "gpt-4o");
        assert_eq!(number(point), expected, "{name}");
    }
    let mode = &gauge(&metrics, "spillover.gate.mode")[0].attributes;
    assert_eq!(attribute(mode, "spillover.mode").unwrap(), "adaptive");
    let cooldown = |backend: &str| {
        let mut points = gauge(&metrics, "spillover.backend.cooldown").iter();
        let named = |point: &&NumberDataPoint| {
            attribute(&point.attributes, "spillover.backend").unwrap() == backend
        };
        number(points.find(named).unwrap())
    };
    assert!((20.0..=30.0).contains(&cooldown("first")), "{}", cooldown("first"));
    assert_eq!(cooldown("second"), 0.0);
    for name in ["gen_ai.client.token.usage", "gen_ai.client.operation.duration"] {
        assert!(metrics.iter().any(|metric| metric.name == name), "{name}");
    }
    let of = |name: &str| {
        let found = metrics.iter().rfind(|metric| metric.name == name);
        found.and_then(|metric| metric.data.clone()).unwrap_or_else(|| panic!("{name}"))
    };
    let Data::Sum(requests) = of("spillover.requests") else { panic!("requests are counted") };
    let Data::Histogram(waits) = of("spillover.wait.duration") else { panic!("waits are timed") };
    for attributes in [&requests.data_points[0].attributes, &waits.data_points[0].attributes] {
        for (key, value) in [
            ("gen_ai.request.model", "gpt-4o"),
            ("spillover.client", "open"),
            ("spillover.decision", "standard"),
            ("spillover.backend", "second"),
        ] {
            assert_eq!(attribute(attributes, key).as_deref(), Some(value), "{attributes:?}");
        }
    }
    let Data::Sum(attempts) = of("spillover.attempts") else { panic!("attempts are counted") };
    let mut attempts: Vec<_> = (attempts.data_points.iter())
        .map(|point| {
            let of = |key| attribute(&point.attributes, key).unwrap();
            (of("spillover.backend"), of("spillover.tier"), of("http.response.status_code"))
        })
        .collect();
    attempts.sort();
    let expected = [("first", "ptu", "429"), ("second", "standard", "200")];
    let expected = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
    assert_eq!(attempts, expected);
}

#[test]
fn a_reload_keeps_what_is_spent_of_a_budget() {
    let scene = Scene::new("budget", "ptu", "");
    let gateway = Gateway::start(&scene.config);
    assert_eq!(gateway.chat("gpt-4o", &[]).status(), 200);
    let has_left = |number: &str| {
        let line = format!("spillover_spill_budget_left{{model=\"gpt-4o\"}} {number}");
        gateway.page("/metrics").0.lines().any(|other| other == line)
    };
    assert!(has_left("8.0"));
    // The signal is handled once the file is watched, a moment after the start of listening.
    thread::sleep(Duration::from_millis(500));
    gateway.signal("HUP");
    gateway.eventually(|gateway| gateway.log().contains("configuration reloaded"));
    assert!(has_left("8.0"));
    let text = fs::read_to_string(&scene.config).unwrap();
    fs::write(&scene.config, text.replace("requests = 9", "requests = 5")).unwrap();
    gateway.eventually(|_| has_left("5.0"));
}

#[test]
fn a_budget_of_tokens_is_charged_with_what_answers_used() {
    let scene = Scene::new("charged", "ptu", "");
    let (first, last) = (
        r#"data: {"choices":[]}"#,
        r#"data: {"usage":{"prompt_tokens":11,"completion_tokens":7}}"#,
    );
    let second = Witness::new(move |_| {
        let events = format!("{first}\n\n{PAUSE}{last}\n\ndata: [DONE]\n\n");
        (200, "content-type: text/event-stream\r\n", events)
    });
    let text = fs::read_to_string(&scene.config).unwrap();
    let budget = "gate = { unstated_output = 50 }\nspill_budget = { tokens = 1000";
    let text = text.replace("spill_budget = { requests = 9", budget);
    fs::write(&scene.config, text.replace(scene.second.endpoint(), second.endpoint())).unwrap();
    let gateway = Gateway::start(&scene.config);
    let read = |name: &str| -> f64 {
        let page = gateway.page("/metrics").0;
        let line = format!("spillover_spill_budget_{name}{{model=\"gpt-4o\"}} ");
        page.lines().find_map(|other| other.strip_prefix(&line)).unwrap().parse().unwrap()
    };
    let path = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";
    let mut left = 1_000.0;
    for (body, estimate) in [(r#"{"max_tokens":100}"#, 300.0), (r#"{"stream":true}"#, 150.0)] {
        thread::scope(|scope| {
            let call = scope.spawn(|| gateway.ask("POST", path, &[], body));
            gateway
                .eventually(|_| (read("left"), read("under_way")) == (left - estimate, estimate));
            assert_eq!(call.join().unwrap().status(), 200);
        });
        left -= 11.0 + 3.0 * 7.0;
        gateway.eventually(|_| (read("left"), read("under_way")) == (left, 0.0));
    }
}

#[test]
fn pages_logs_and_exports_tell_what_happened_and_no_secret() {
    let more = "log = \"trace\"\nservice_name = \"edge\"\nOTLP";
    let scene = Scene::new("told", "ptu", more);
    let mut pages = String::new();
    scene.run(|gateway| {
        let own = [("api-key", CANARY), ("authorization", CANARY), ("cookie", CANARY)];
        assert_eq!(gateway.chat("gpt-4o", &own).status(), 200);
        for (path, expected) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
            let page = gateway.ask("GET", path, &[], "");
            assert_eq!(page.status(), 200);
            assert!(page.0.ends_with(expected), "{page:?}");
        }
        let metrics = gateway.page("/metrics");
        assert!(metrics.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
        for line in [
            "spillover_spilled_requests_total{client=\"open\",model=\"gpt-4o\",backend=\"second\"} 1",
            "spillover_tokens_total{client=\"open\",model=\"gpt-4o\",backend=\"second\",\
             tier=\"standard\",kind=\"prompt\"} 11",
            "spillover_gate_mode{model=\"gpt-4o\",mode=\"adaptive\"} 1.0",
            "spillover_backend_attempts_total{model=\"gpt-4o\",tier=\"ptu\",backend=\"first\",\
             status=\"429\",reason=\"rate\"} 1",
        ] {
            assert!(metrics.0.lines().any(|other| other == line), "{line} is not in {metrics:?}");
        }
        let status = gateway.page("/-/status");
        let (_, document) = status.0.split_once("\r\n\r\n").unwrap();
        let document: serde_json::Value = serde_json::from_str(document).unwrap();
        let first = &document["models"]["gpt-4o"]["backends"][0];
        assert_eq!((&first["name"], &first["attempts"]["429"]), (&"first".into(), &1.into()));
        let gate = &document["models"]["gpt-4o"]["gate"];
        assert_eq!((&gate["mode"], &gate["contention"]), (&"adaptive".into(), &"yield".into()));
        let [state, since, why] = ["state", "since", "why"].map(|key| gate[key].as_str().unwrap());
        assert!(["learning", "doubting"].contains(&state), "after one refusal: {gate}");
        assert!(since.starts_with("20") && since.ends_with('Z'), "{gate}");
        assert!(why.contains("refusal") || why.contains("hint"), "{gate}");
        let line = format!("spillover_gate_state{{model=\"gpt-4o\",state=\"{state}\"}} 1.0");
        assert!(metrics.0.lines().any(|other| other == line), "{line} is not in {metrics:?}");
        pages = metrics.0 + &status.0;
    });
    let log = fs::read_to_string(scene.config.with_file_name("gateway.log")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str(line).expect(line));
    let lines: Vec<serde_json::Value> = lines.collect();
    let told = lines.iter().find(|line| line["message"] == "request").unwrap();
    assert_eq!((&told["decision"], &told["status"]), (&"standard".into(), &200.into()));
    assert_eq!(told["course"], "first 429 (30000 ms), second 200; spilled: never-waits");
    assert_eq!(told["trace_id"].as_str().map(str::len), Some(32));

    let exported = scene.collector.asked();
    let bodies = exported.iter().map(|asked| String::from_utf8_lossy(&asked.body).into_owned());
    let exported: String = bodies.collect();
    assert!(exported.contains("edge"), "the service is named");
    for text in [&pages, &log, &exported] {
        assert!(!text.contains(CANARY), "{text}");
    }
    let asked = scene.second.asked();
    assert_eq!(asked[0].header("api-key"), Some(CANARY), "the canary is what is sent upstream");
}

/// A connection that waits for its answer.
/// Sends a method with its path, without a body.
fn asking(endpoint: &str, what: &str) -> TcpStream {
    let mut stream = TcpStream::connect(endpoint.strip_prefix("http://").unwrap()).unwrap();
    let head = format!("{what} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

fn page(endpoint: &str, path: &str) -> String {
    let mut text = String::new();
    asking(endpoint, &format!("GET {path}")).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn an_address_for_operators_keeps_metrics_from_clients_and_tells_of_the_draining() {
    let slow = Witness::new(|_| {
        thread::sleep(Duration::from_secs(2));
        (200, "", String::new())
    });
    let text = format!(
        "[listen]\naddress = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n\
         [clients]\nopen = true\n[[models.text.standard]]\nname = \"slow\"\n\
         endpoint = \"{}\"\nkey = \"file:key\"\n",
        slow.endpoint()
    );
    emulate::file("admin/key", CANARY);
    let config = emulate::file("admin/g.toml", &text);
    let arguments = ["serve", "--config", config.to_str().unwrap()];
    let mut gateway = Started::with(&arguments, |command| command.stderr(Stdio::null()));
    let line = gateway.line();
    let admin = line.strip_prefix("admin on ").unwrap();
    let public = gateway.endpoint();
    for (endpoint, path, expected) in [
        (&*public, "/healthz", "200"),
        (&*public, "/metrics", "404"),
        (&*public, "/-/status", "404"),
        (admin, "/readyz", "200"),
        (admin, "/metrics", "200"),
        (admin, "/-/status", "200"),
        (admin, "/openai/v1/models", "404"),
    ] {
        let answer = page(endpoint, path);
        assert_eq!(answer.split(' ').nth(1), Some(expected), "{endpoint}{path}: {answer}");
    }
    let path = "/openai/deployments/text/files?api-version=2024-10-21";
    let pending = thread::spawn(move || page(&public, path));
    slow.wait_for(|asked| !asked.is_empty());
    gateway.signal("TERM");
    let is_told = (0..30).any(|_| {
        thread::sleep(Duration::from_millis(20));
        page(admin, "/readyz").ends_with("draining\n")
    });
    assert!(is_told);
    assert!(pending.join().unwrap().starts_with("HTTP/1.1 200"), "it is drained, not cut off");
}

const EXPORTING: &str = "OTLP";
