//! What the layers report: to `tracing`, to `metrics`, and to a custom sink.
//!
//! `cargo run --example events`

use std::{
    collections::BTreeMap,
    error::Error,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use spillover_emulator::{Deployment, Emulator, Fault, Ptu, Resource, Standard};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, RegionRotateLayer, SmartFallbackLayer,
    events::{Event, EventSink, MetricsSink, RequestSpanLayer, Source, TracingSink},
};
use tracing::Level;

/// Notes why requests spilled.
#[derive(Default)]
struct Spills(Mutex<Vec<String>>);

impl EventSink for Spills {
    fn on_event(&self, _: Source, event: &Event<'_>) {
        if let Event::Spills(Some(why)) = event {
            self.0.lock().expect("no panic").push(why.to_string());
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_max_level(Level::DEBUG).with_ansi(false).init();
    let counters = Counters::default();
    metrics::set_global_recorder(counters.clone())?;

    // A PTU that is full for 20 s, longer than a request can wait.
    let emulator = Emulator::new([Resource::new("contoso")
        .key("key")
        .deployment(Deployment::ptu("gpt-4o-ptu", Ptu::new(1_000.0)))
        .deployment(Deployment::standard("gpt-4o", Standard::unlimited()))]);
    let full = |ms| Fault::status(429).header("retry-after-ms", ms);
    let azure = emulator.serve("contoso", TcpListener::bind("127.0.0.1:0").await?);

    let spills = Arc::new(Spills::default());
    let sink = Arc::new((Arc::clone(&spills), (MetricsSink::new(), TracingSink)));
    let tier = |name: &str, deployment: &str| {
        let backend = Backend::new(name, azure.endpoint())?.deployment(deployment).api_key("key");
        let pool = BackendPool::new([backend])?;
        Ok::<_, tower_spillover::ConfigError>(
            RegionRotateLayer::new(pool).events(Arc::clone(&sink)),
        )
    };
    let tiers = SmartFallbackLayer::new(tier("ptu", "gpt-4o-ptu")?, tier("standard", "gpt-4o")?);
    let service = ServiceBuilder::new()
        .layer(RequestSpanLayer::new())
        .layer(tiers.events(Arc::clone(&sink)))
        .service(Client::builder(TokioExecutor::new()).build_http());

    for hint in ["100", "20000"] {
        emulator.script("contoso", "gpt-4o-ptu", [full(hint)]);
        let path = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";
        let body = r#"{"messages":[{"role":"user","content":"Hello"}],"max_tokens":10}"#;
        let request = Request::post(path)
            .header("content-type", "application/json")
            .body(Full::<Bytes>::from(body))?;
        let response = service.clone().oneshot(request).await?;
        assert_eq!(response.status(), 200);
    }

    let spilled = spills.0.lock().expect("no panic").clone();
    println!("spilled: {spilled:?}");
    assert!(matches!(&spilled[..], [why] if why.starts_with("hint (20s > ")));
    for (name, count) in counters.all() {
        println!("{count} {name}");
    }
    let spilled = "tower_spillover_requests_total{layer=smart_fallback,decision=spilled}";
    assert_eq!(counters.all().get(spilled), Some(&1));
    Ok(())
}

/// In place of an exporter, such as metrics-exporter-prometheus.
#[derive(Clone, Default)]
struct Counters(Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>);

impl Counters {
    fn all(&self) -> BTreeMap<String, u64> {
        let counters = self.0.lock().expect("no panic");
        counters.iter().map(|(name, it)| (name.clone(), it.load(Ordering::Relaxed))).collect()
    }
}

impl Recorder for Counters {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let labels: Vec<_> =
            key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Counter::from_arc(Arc::clone(self.0.lock().expect("no panic").entry(name).or_default()))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
