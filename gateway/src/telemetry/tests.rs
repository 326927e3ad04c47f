//! Telemetry of requests that went through the real layers.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn as hyper_service};
use hyper_util::rt::TokioIo;
use prometheus_client::metrics::counter::Counter;
use tokio::net::TcpListener;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_spillover::{
    Backend as PoolBackend, BackendPool, Gate, MaxWait, RegionRotateLayer, Served,
    SmartFallbackLayer, Sticky, azure::Usage, smart_fallback::SpillBudget, wait::WaitQueue,
};

use super::*;
use crate::{
    access_record::Ended,
    config::{
        Auth, Backend, Client, Clients, Config, GateSettings, Http2, Identities, Limits, Listen,
        Model, Permissions, Secret, Steering, StickySettings, Upstream,
    },
    snapshot::RunningModel,
    utilization::Utilizations,
};

const CANARY: &str = "canary-0123456789";

fn telemetry(otlp: Option<String>) -> TelemetrySettings {
    let service_name = "spillover-test".to_owned();
    TelemetrySettings {
        log: "trace".to_owned(),
        json: true,
        otlp,
        service_name,
        recent_requests: 100,
    }
}

fn backend(name: &str) -> Backend {
    Backend {
        name: name.to_owned(),
        endpoint: format!("https://{name}.example:8443/base"),
        provider: None,
        auth: Auth::Key(Secret::new(CANARY.to_owned())),
        deployment: None,
        api_version: None,
        quota: None,
        image_deployment: None,
        region: Some("Sweden Central".to_owned()),
        priority: 1,
        weight: 1,
    }
}

fn pool(backend: &Backend) -> BackendPool {
    let backend = PoolBackend::new(&*backend.name, &backend.endpoint).expect("an address");
    BackendPool::new([backend.api_key(CANARY)]).expect("a pool")
}

/// `gpt-4o` with a PTU backend and a Standard one, and the client `team-a`.
fn running() -> Snapshot {
    let (ptu, standard) = (backend("ptu-east"), backend("sweden"));
    let state = RunningModel {
        name: "gpt-4o".to_owned(),
        gate: Some(Gate::new()),
        ptu: Some(pool(&ptu)),
        standard: Some(pool(&standard)),
        standard_queue: WaitQueue::new(),
        spill_budget: Some(SpillBudget::requests(7, Duration::from_secs(60))),
        utilizations: Utilizations::new(["ptu-east"]),
    };
    let model = Model {
        ptu: vec![ptu],
        standard: vec![standard],
        max_wait: Duration::from_secs(4),
        longest_cooldown: Duration::from_secs(60),
        head_timeout: None,
        gate: GateSettings { patience: None, ..GateSettings::default() },
        spill_budget: None,
        aliases: Vec::new(),
        steering: Steering::default(),
        classes: BTreeMap::new(),
    };
    Snapshot::new(
        config(BTreeMap::from([("gpt-4o".to_owned(), model)])),
        BTreeMap::from([("gpt-4o".to_owned(), Arc::new(state))]),
        Sticky::new(),
        None,
    )
}

fn config(models: BTreeMap<String, Model>) -> Config {
    let second = Duration::from_secs(1);
    let address = "127.0.0.1:0".parse().expect("an address");
    let client = Client {
        name: "team-a".to_owned(),
        group: None,
        keys: vec![[7; 32]],
        identities: Identities::default(),
        models: None,
        class: None,
        requests_per_second: None,
        concurrency: None,
        may: Permissions::default(),
    };
    Config {
        listen: Listen { address, tls: None, admin: None, drain: second, cors: None },
        limits: Limits {
            body: 1,
            replay: 1,
            replay_total: 1,
            headers: 1,
            head: 1,
            concurrency: 1,
            client_share: 1.0,
            head_timeout: second,
            idle_timeout: second,
        },
        upstream: Upstream {
            connect_timeout: second,
            head_timeout: second.into(),
            idle_timeout: second,
            idle_connections: 1,
            idle_connection_timeout: Duration::from_secs(1),
            http2: Http2::default(),
            connection_age: second,
            proxies: BTreeMap::new(),
            trust: Vec::new(),
            headers: Vec::new(),
        },
        operations: Vec::new(),
        models,
        sticky: StickySettings::default(),
        default_model: None,
        clients: Clients::Keyed(vec![client]),
        tokens: None,
        entra: None,
        fleet: None,
        telemetry: telemetry(None),
        idle: Vec::new(),
    }
}

/// The record of a request whose PTU asks for 43 ms, and which may not wait.
async fn spilled(running: &Snapshot) -> AccessRecord {
    let model = &running.models["gpt-4o"];
    let tiers = [&model.ptu, &model.standard]
        .map(|pool| RegionRotateLayer::new(pool.clone().expect("both tiers are there")));
    let [ptu, standard] = tiers;
    let gate = model.gate.clone().expect("a gate");
    let client = service_fn(|request: Request<Full<Bytes>>| async move {
        let is_ptu = request.uri().host() == Some("ptu-east.example");
        let answer = if is_ptu {
            Response::builder().status(429).header("retry-after-ms", "43")
        } else {
            Response::builder()
        };
        Ok::<_, Infallible>(answer.body(Full::<Bytes>::default()).expect("a head"))
    });
    let stack = ServiceBuilder::new()
        .layer(SmartFallbackLayer::new(ptu, standard).gate(gate))
        .service(client);
    let request = Request::post("/openai/deployments/gpt-4o/chat/completions?api-version=1")
        .header("api-key", CANARY)
        .extension(MaxWait(Duration::ZERO))
        .body(Full::from(CANARY))
        .expect("a head");
    let response = stack.oneshot(request).await.expect("it cannot fail");
    recorded(response.status(), response.extensions().get().cloned())
}

#[expect(clippy::disallowed_methods, reason = "a record says when its request began")]
fn recorded(status: StatusCode, served: Option<Served>) -> AccessRecord {
    AccessRecord {
        client: "team-a".to_owned(),
        model: Some("gpt-4o".to_owned()),
        class: Some("batch".to_owned()),
        operation: "chat.completions",
        streaming: true,
        status,
        served,
        to_head: Duration::from_millis(30),
        total: Duration::from_secs(2),
        usage: Some(Usage::new(100, 40, 7)),
        ended: Ended::Complete,
        first_token: Some(Duration::from_millis(250)),
        ..AccessRecord::new("request-1".to_owned(), SystemTime::now(), Instant::now())
    }
}

#[tokio::test]
async fn a_spilled_request_is_counted_where_somebody_would_look_for_it() {
    let running = running();
    let operations = Telemetry::new(&telemetry(None)).expect("good settings");
    operations.arrived();
    operations.arrived();
    operations.finished(spilled(&running).await, None, &running);
    let text = operations.metrics(&running, Format::OpenMetrics);
    for line in [
        "spillover_requests_total{client=\"team-a\",model=\"gpt-4o\",\
         operation=\"chat.completions\",status=\"200\",decision=\"standard\"} 1",
        "spillover_requests_in_flight 1",
        "spillover_spilled_requests_total{client=\"team-a\",model=\"gpt-4o\",\
         backend=\"sweden\"} 1",
        "spillover_spilled_tokens_total{client=\"team-a\",model=\"gpt-4o\",backend=\"sweden\",\
         kind=\"prompt\"} 100",
        "spillover_time_to_first_token_seconds_sum{model=\"gpt-4o\",decision=\"standard\"} 0.25",
        "spillover_tokens_total{client=\"team-a\",model=\"gpt-4o\",backend=\"sweden\",\
         tier=\"standard\",kind=\"cached\"} 40",
        "spillover_backend_attempts_total{model=\"gpt-4o\",tier=\"ptu\",backend=\"ptu-east\",\
         status=\"429\"} 1",
        "spillover_backend_attempts_total{model=\"gpt-4o\",tier=\"standard\",\
         backend=\"sweden\",status=\"200\"} 1",
        "spillover_backend_hint_seconds_sum{model=\"gpt-4o\",tier=\"ptu\",\
         backend=\"ptu-east\"} 0.043",
        "spillover_backend_cooldown_seconds{model=\"gpt-4o\",tier=\"standard\",\
         backend=\"sweden\"} 0.0",
        "spillover_gate_waiting{model=\"gpt-4o\"} 0.0",
        "spillover_gate_state{model=\"gpt-4o\",state=\"learning\"} 1.0",
        "spillover_gate_mode{model=\"gpt-4o\",mode=\"adaptive\"} 1.0",
        "spillover_standard_waiting{model=\"gpt-4o\"} 0.0",
        "spillover_spill_budget_left{model=\"gpt-4o\"} 7.0",
        "spillover_spill_budget_under_way{model=\"gpt-4o\"} 0.0",
        "spillover_time_to_head_seconds_bucket{le=\"0.05\",model=\"gpt-4o\",\
         decision=\"standard\"} 1",
        "spillover_time_to_end_seconds_sum{model=\"gpt-4o\",decision=\"standard\"} 2.0",
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\nis not in\n{text}");
    }
    assert_eq!(text.matches("# EOF").count(), 1);
    operations.finished(spilled(&running).await, None, &running);
    assert!(
        operations
            .metrics(&running, Format::OpenMetrics)
            .contains("spillover_requests_in_flight 0")
    );
}

#[tokio::test]
async fn names_that_clients_make_up_become_no_labels() {
    let running = running();
    let operations = Telemetry::new(&telemetry(None)).expect("good settings");
    for number in 0..100 {
        let mut record = recorded(StatusCode::NOT_FOUND, None);
        record.client = format!("made-up-{number}");
        record.model = Some(format!("made-up-{number}"));
        record.operation = "other";
        operations.finished(record, None, &running);
    }
    let text = operations.metrics(&running, Format::OpenMetrics);
    assert!(!text.contains("made-up"));
    let line = "spillover_requests_total{client=\"unknown\",model=\"unknown\",\
                operation=\"other\",status=\"404\",decision=\"gateway\"} 100";
    assert!(text.contains(line), "{text}");
}

#[tokio::test]
async fn counting_a_request_like_an_earlier_one_allocates_nothing() {
    let running = running();
    let metrics = Metrics::new(Counter::default());
    let record = spilled(&running).await;
    let labels = Labels::of(&record, &running);
    metrics.count(&labels);
    let again = allocation_counter::measure(|| metrics.count(&Labels::of(&record, &running)));
    assert_eq!(again.count_total, 0);
}

#[tokio::test]
async fn keeping_a_request_in_the_ring_allocates_nothing() {
    let (running, ring) = (running(), recent_requests::RecentRequests::new(2));
    let mut records = Vec::new();
    for _ in 0..5 {
        records.push(spilled(&running).await);
    }
    let kept = allocation_counter::measure(|| {
        for record in records.drain(..) {
            ring.push(record, labels::Decision::Standard, None);
        }
    });
    assert_eq!(kept.count_total, 0);
    let document = ring.document("", &running).expect("no filter");
    assert_eq!((&document["finished"], &document["matching"]), (&5.into(), &2.into()));
}

#[test]
fn tracing_for_nobody_allocates_nothing_and_changes_nothing() {
    let operations = Telemetry::new(&telemetry(None)).expect("good settings");
    let record = recorded(StatusCode::OK, None);
    let parent = ("traceparent", "of-another-kind");
    let mut request = Request::post("/").header(parent.0, parent.1).body(()).expect("a head");
    let traced = allocation_counter::measure(|| {
        assert!(operations.trace(record.at, record.started, request.headers_mut()).is_none());
        assert!(Trace::call(&mut request).is_none());
    });
    assert_eq!(traced.count_total, 0);
    assert_eq!(request.headers()[parent.0], parent.1);
}

#[tokio::test]
async fn the_status_names_models_backends_and_clients_and_no_key() {
    let running = running();
    let operations = Telemetry::new(&telemetry(None)).expect("good settings");
    operations.finished(spilled(&running).await, None, &running);
    let status = operations.status(&running);
    assert_eq!(status["clients"], serde_json::json!(["team-a"]));
    let model = &status["models"]["gpt-4o"];
    assert_eq!(model["gate"]["mode"], "adaptive");
    assert_eq!(model["standard_waiting"], 0);
    assert_eq!(
        (&model["spill_budget_left"], &model["spill_budget_under_way"]),
        (&7.0.into(), &0.0.into())
    );
    let ptu = &model["backends"][0];
    assert_eq!((&ptu["name"], &ptu["tier"]), (&"ptu-east".into(), &"ptu".into()));
    assert_eq!((&ptu["provider"], &ptu["host"]), (&"azure".into(), &"ptu-east.example".into()));
    assert_eq!(ptu["attempts"], serde_json::json!({ "429": 1 }));
    assert_eq!(ptu["last_hint"], serde_json::json!({ "ms": 43 }));
    assert_eq!(model["backends"][1]["attempts"], serde_json::json!({ "200": 1 }));
    assert!(!status.to_string().contains(CANARY));
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

#[tokio::test]
async fn a_request_is_one_line_and_no_key_is_printed_even_at_trace() {
    for json in [true, false] {
        let lines = Lines::default();
        let writer = lines.clone();
        let telemetry = TelemetrySettings { json, ..telemetry(None) };
        let subscriber = logs::subscriber(&telemetry, move || writer.clone()).expect("a filter");
        let running = running();
        let logging = tracing::subscriber::set_default(subscriber);
        let operations = Telemetry::new(&telemetry).expect("good settings");
        operations.finished(spilled(&running).await, None, &running);
        tracing::trace!(target: "h2::hpack", key = CANARY, "decoded");
        drop(logging);
        let text = lines.text();
        assert!(!text.contains(CANARY), "{text}");
        let line = text.lines().find(|line| line.contains("request-1")).expect("a line");
        assert!(line.contains("ptu-east 429 (43 ms), sweden 200; spilled"), "{line}");
        if json {
            let line: serde_json::Value = serde_json::from_str(line).expect("a JSON object");
            assert_eq!(
                (&line["decision"], &line["backend"]),
                (&"standard".into(), &"sweden".into())
            );
            assert_eq!((&line["status"], &line["total_ms"]), (&200.into(), &2_000.into()));
            assert_eq!(line["completion_tokens"], 7);
        }
    }
}

#[test]
fn a_filter_that_cannot_be_read_is_an_error() {
    let telemetry = TelemetrySettings { log: "info,=?=".to_owned(), ..telemetry(None) };
    let error = Telemetry::new(&telemetry).map(drop).expect_err("it is no filter");
    assert!(error.to_string().starts_with("[telemetry] log: "), "{error}");
}

#[test]
fn a_collector_without_a_scheme_is_an_error() {
    let error = Telemetry::new(&telemetry(Some("collector:4318".to_owned())));
    let error = error.map(drop).expect_err("it is no address");
    assert!(error.to_string().starts_with("[telemetry] otlp: "), "{error}");
}

/// A collector that keeps `path body` of each request.
async fn collector() -> (String, Arc<Mutex<Vec<(String, Bytes)>>>) {
    let seen: Arc<Mutex<Vec<(String, Bytes)>>> = Arc::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("it is bound"));
    let kept = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            let service = hyper_service(move |request: Request<Incoming>| {
                let kept = Arc::clone(&kept);
                async move {
                    let path = request.uri().path().to_owned();
                    let body = request.into_body().collect().await.expect("a body").to_bytes();
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push((path, body));
                    Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, seen)
}

#[tokio::test]
async fn a_request_reaches_the_collector_as_a_span_and_as_numbers() {
    let (address, seen) = collector().await;
    let running = running();
    let operations = Telemetry::new(&telemetry(Some(address))).expect("good settings");
    let record = spilled(&running).await;
    let trace = operations.trace(record.at, record.started, &mut HeaderMap::new());
    operations.finished(record, trace.as_ref(), &running);
    tokio::task::spawn_blocking(|| operations.shutdown()).await.expect("it flushes");
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let sent = |to: &str| -> String {
        let bodies = seen.iter().filter(|(path, _)| path == to);
        bodies.map(|(_, body)| String::from_utf8_lossy(body).into_owned()).collect()
    };
    let (spans, numbers) = (sent("/v1/traces"), sent("/v1/metrics"));
    for name in [
        "spillover-test",
        "chat gpt-4o",
        "gen_ai.provider.name",
        "azure.ai.openai",
        "gen_ai.usage.input_tokens",
        "http.response.status_code",
        "sweden.example",
        "spillover.attempt",
        "ptu-east",
        "spillover.decision",
    ] {
        assert!(spans.contains(name), "{name} is not in {spans:?}");
    }
    for name in ["gen_ai.client.token.usage", "gen_ai.client.operation.duration", "gpt-4o"] {
        assert!(numbers.contains(name), "{name} is not in {numbers:?}");
    }
    assert!(!spans.contains(CANARY) && !numbers.contains(CANARY));
}
