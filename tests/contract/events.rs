//! What layers report while a request is under way.

use std::{
    collections::BTreeMap,
    fmt, io, mem,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use bytes::Bytes;
use futures::future::poll_immediate;
use http::{Request, Response};
use http_body_util::Full;
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, FirstTokenLayer, RegionRotateLayer, ResponseBody, SmartFallbackLayer,
    WaitLayer,
    classify::{Hint, Reason},
    events::{Event, EventSink, MetricsSink, RequestSpanLayer, Source, TracingSink},
    first_token::Limit,
};
use tracing_subscriber::fmt::format::FmtSpan;

use crate::{
    clock::ms,
    leaf::{Answer, Broken, Leaf, request},
};

type Ask = Request<Full<Bytes>>;
type Tiers = SmartFallbackLayer<RegionRotateLayer, RegionRotateLayer>;

/// Every event as a line.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// Those since the last look.
    fn take(&self) -> Vec<String> {
        mem::take(&mut *self.0.lock().unwrap())
    }
}

impl EventSink for Log {
    fn on_event(&self, source: Source, event: &Event<'_>) {
        let more = match event {
            Event::Attempted(attempt) => format!("{attempt}"),
            Event::Closed { backend, time } => format!("{backend} {time:?}"),
            Event::Waits(why) => why.to_string(),
            Event::Spills(why) => why.unwrap().to_string(),
            Event::SentTwice => String::new(),
            Event::Finished { served, status: Some(status) } => format!("{status} {served}"),
            Event::Finished { served, status: None } => format!("error {served}"),
            Event::Cancelled { served } => format!("{served}"),
            other => panic!("{other:?}"),
        };
        let source = match source {
            Source::SmartFallback => "tiers",
            Source::RegionRotate => "pool",
            other => other.label(),
        };
        let line = format!("{source} {}: {more}", event.label());
        self.0.lock().unwrap().push(line.trim_end_matches([':', ' ']).to_owned());
    }
}

fn pool<const N: usize>(names: [&str; N]) -> RegionRotateLayer {
    let backend = |name| Backend::new(name, format!("https://{name}.example")).unwrap();
    let pool = BackendPool::new(names.map(|name| backend(name).api_key("key"))).unwrap();
    pool.force_start(names[0]).unwrap();
    RegionRotateLayer::new(pool)
}

fn tiers(sink: &(impl EventSink + Clone)) -> Tiers {
    let pool = |name| pool([name]).events(sink.clone());
    SmartFallbackLayer::new(pool("ptu"), pool("standard")).events(sink.clone())
}

/// A client whose PTU answers so, and whose Standard serves.
fn ptu(answer: impl Fn() -> Answer + Send + Sync + 'static) -> Leaf {
    Leaf::new(move |seen| match seen.host() {
        "ptu.example" => answer(),
        _ => Answer::ok(),
    })
}

async fn ask<S>(service: &S) -> Result<Response<ResponseBody<Full<Bytes>>>, Broken>
where
    S: Service<Ask, Response = Response<ResponseBody<Full<Bytes>>>, Error = Broken> + Clone,
{
    service.clone().oneshot(request()).await
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_served_at_once_is_an_attempt_and_its_end() {
    let log = Log::default();
    ask(&tiers(&log).layer(ptu(Answer::ok))).await.unwrap();
    let expected = [
        "pool attempted: ptu 200",
        "pool finished: 200 OK ptu 200",
        "tiers finished: 200 OK ptu 200",
    ];
    assert_eq!(log.take(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_spill_is_reported_when_it_is_decided() {
    let log = Log::default();
    let service = tiers(&log).layer(ptu(|| Answer::refused(20_000)));
    ask(&service).await.unwrap();
    let expected = [
        "pool attempted: ptu 429 (20000 ms)",
        "pool closed: ptu 20s",
        "pool finished: 429 Too Many Requests ptu 429 (20000 ms); refused: all-closed (20s > 0s)",
        "tiers spills: hint (20s > 4s)",
        "pool attempted: standard 200",
        "pool finished: 200 OK standard 200",
        "tiers finished: 200 OK ptu 429 (20000 ms), standard 200; spilled: hint (20s > 4s)",
    ];
    let mut events = log.take();
    events.sort();
    let mut sorted = expected.map(str::to_owned);
    sorted.sort();
    assert_eq!(events, sorted);
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_reported_when_it_begins() {
    let log = Log::default();
    let service = tiers(&log).layer(Leaf::playing([Answer::refused(500), Answer::ok()]));
    let mut asking = Box::pin(ask(&service));
    assert!(poll_immediate(&mut asking).await.is_none());
    assert!(log.take().contains(&"tiers waits: queue (500ms of 4s)".to_owned()));
    asking.await.unwrap();
    let last = log.take().pop().unwrap();
    let expected = "tiers finished: 200 OK ptu 429 (500 ms), ptu 200; waited ";
    assert!(last.starts_with(expected) && last.ends_with(" ms: queue (500ms of 4s)"), "{last}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_is_reported_with_what_was_done_for_it() {
    let log = Log::default();
    let slow = tiers(&log).layer(ptu(|| Answer::ok().after(5_000)));
    assert!(poll_immediate(ask(&slow)).await.is_none());
    assert_eq!(log.take(), ["tiers cancelled", "pool cancelled"], "in the middle of an attempt");

    let busy = tiers(&log).layer(ptu(|| Answer::refused(500)));
    assert!(poll_immediate(ask(&busy)).await.is_none());
    let cancelled = log.take().pop().unwrap();
    assert_eq!(cancelled, "tiers cancelled: ptu 429 (500 ms)", "in the middle of a wait");

    let patient =
        WaitLayer::new().events(log.clone()).layer(pool(["a"]).layer(ptu(|| Answer::refused(9))));
    drop(patient.clone().oneshot(request()));
    assert!(log.take().is_empty(), "it was never called");
}

#[tokio::test(start_paused = true)]
async fn an_answer_and_a_refusal_are_over_before_their_future_is_dropped() {
    let log = Log::default();
    for leaf in
        [ptu(Answer::ok), Leaf::new(|_| Answer::refused(60_000)), Leaf::new(|_| Answer::broken())]
    {
        let service = tiers(&log).layer(leaf);
        let mut future = Box::pin(service.oneshot(request()));
        _ = (&mut future).await;
        drop(future);
        let events = log.take();
        assert!(events.iter().all(|event| !event.contains("cancelled")), "{events:?}");
        assert_eq!(events.iter().filter(|it| it.starts_with("tiers finished")).count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_without_an_account_has_its_attempts_reported_by_the_layer() {
    let log = Log::default();
    let deployments = SmartFallbackLayer::deployments("ptu", "standard").unwrap();
    let service = deployments
        .events(log.clone())
        .layer(Leaf::playing([Answer::refused(20_000), Answer::ok()]));
    service.oneshot(request()).await.unwrap();
    let expected = [
        "tiers attempted: ptu 429 (20000 ms)",
        "tiers spills: hint (20s > 4s)",
        "tiers attempted: standard 200",
        "tiers finished: 200 OK ptu 429 (20000 ms), standard 200; spilled: hint (20s > 4s)",
    ];
    assert_eq!(log.take(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_sent_twice_says_so() {
    let log = Log::default();
    let leaf = Leaf::new(|seen| match seen.host() {
        "a.example" => Answer::ok().after(60_000),
        _ => Answer::ok(),
    });
    let limit = FirstTokenLayer::new(Limit::hedge_after(ms(500))).events(log.clone());
    ask(&limit.layer(pool(["a", "b"]).events(log.clone()).layer(leaf))).await.unwrap();
    let events = log.take();
    assert_eq!(events[0], "first_token sent_twice");
    assert_eq!(events.last().unwrap(), "pool cancelled", "the other sending is given up");
}

struct Panics;

impl EventSink for Panics {
    fn on_event(&self, _: Source, _: &Event<'_>) {
        panic!("a bug of the sink");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_panics_ends_its_own_request_alone() {
    let service = tiers(&Arc::new(Panics)).layer(ptu(Answer::ok));
    let panicked = tokio::spawn(service.clone().oneshot(request())).await.unwrap_err();
    assert!(panicked.is_panic());
    let quiet = pool(["ptu"]).layer(ptu(Answer::ok));
    assert_eq!(ask(&quiet).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn two_sinks_get_the_same() {
    let (one, other) = (Log::default(), Log::default());
    ask(&tiers(&(one.clone(), Arc::new(other.clone()))).layer(ptu(Answer::ok))).await.unwrap();
    let events = one.take();
    assert_eq!((events.len(), &events), (3, &other.take()));
}

#[tokio::test(start_paused = true)]
async fn tracing_has_one_span_for_a_request_and_an_event_for_a_decision() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false)
        .without_time()
        .with_writer({
            let lines = lines.clone();
            move || lines.clone()
        })
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let stack = |leaf: Leaf| {
        ServiceBuilder::new()
            .layer(RequestSpanLayer::new())
            .layer(tiers(&TracingSink))
            .service(leaf)
    };
    ask(&stack(ptu(|| Answer::refused(20_000).because(Reason::Quota, Hint::None)))).await.unwrap();
    let text = lines.take();
    for expected in [
        "WARN request: tower_spillover: attempted layer=\"region_rotate\" backend=\"ptu\" status=429 why=\"quota\"",
        "DEBUG request: tower_spillover: closed layer=\"region_rotate\" backend=\"ptu\" time_ms=",
        "DEBUG request: tower_spillover: spills layer=\"smart_fallback\" why=\"quota\"\n",
        "DEBUG request: tower_spillover: finished layer=\"smart_fallback\" decision=\"spilled\" backend=\"standard\" status=200 why=\"quota\" attempts=2 waited_ms=0\n",
        "DEBUG request{status=200 decision=\"spilled\" attempts=2 backend=\"standard\" why=\"quota\"}: tower_spillover: close",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert_eq!(text.matches(": close\n").count(), 1, "{text}");

    assert!(poll_immediate(ask(&stack(ptu(|| Answer::refused(500))))).await.is_none());
    let text = lines.take();
    let expected =
        "request{cancelled=true}: tower_spillover: cancelled layer=\"smart_fallback\" attempts=1";
    assert!(text.contains(expected), "{text}");
    assert!(
        text.contains("waits layer=\"smart_fallback\" why=\"queue\" time_ms=500 limit_ms=4000"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn metrics_count_attempts_requests_and_decisions() {
    let recorder = Numbers::default();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let service = tiers(&Arc::new(MetricsSink::new())).layer(ptu(|| Answer::refused(20_000)));
    for _ in 0..3 {
        ask(&service).await.unwrap();
    }
    let slow = tiers(&Arc::new(MetricsSink::new())).layer(ptu(|| Answer::ok().after(9_000)));
    assert!(poll_immediate(ask(&slow)).await.is_none());
    let numbers = recorder.0.lock().unwrap();
    let counted = |name: &str| {
        numbers.get(name).map_or(0, |it| it.load(std::sync::atomic::Ordering::Relaxed))
    };
    for (name, expected) in [
        ("attempts_total{layer=region_rotate,backend=ptu,outcome=rate}", 1),
        ("attempts_total{layer=region_rotate,backend=standard,outcome=answered}", 3),
        ("requests_total{layer=smart_fallback,decision=spilled}", 3),
        ("requests_total{layer=smart_fallback,decision=cancelled}", 1),
        ("requests_total{layer=region_rotate,decision=refused}", 1),
        ("decisions_total{layer=smart_fallback,event=spills,why=hint}", 1),
        ("decisions_total{layer=smart_fallback,event=spills,why=queue}", 2),
        ("decisions_total{layer=region_rotate,event=refused,why=all-closed}", 1),
        ("cooldown_seconds{backend=ptu}", 20),
    ] {
        assert_eq!(
            counted(&format!("tower_spillover_{name}")),
            expected,
            "{name}: {:?}",
            numbers.keys()
        );
    }
}

/// What a subscriber wrote.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn take(&self) -> String {
        String::from_utf8(mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Counts, and sums of histograms in whole seconds.
#[derive(Clone, Default)]
struct Numbers(Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>);

struct Sum(Arc<AtomicU64>);

impl Numbers {
    fn number(&self, key: &Key) -> Arc<AtomicU64> {
        let labels = key.labels().map(|label| format!("{}={}", label.key(), label.value()));
        let labels = labels.collect::<Vec<_>>().join(",");
        let name = format!("{}{{{labels}}}", key.name());
        Arc::clone(self.0.lock().unwrap().entry(name).or_default())
    }
}

impl HistogramFn for Sum {
    fn record(&self, value: f64) {
        let seconds = Duration::from_secs_f64(value).as_secs();
        self.0.fetch_add(seconds, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Recorder for Numbers {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.number(key))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Sum(self.number(key))))
    }
}

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Numbers").finish_non_exhaustive()
    }
}
