//! The library's layers beside those of tower-resilience that come closest, by turns, so that a
//! disturbance of one also disturbs the others. Prints a table in Markdown.
//!
//! ```console
//! $ cargo run --release --manifest-path benches/peers/Cargo.toml
//! ```
//!
//! tower-resilience's futures can be sent to other threads, so the leaf is shared behind a lock. That
//! of the library's own bench is not, and is a little faster.

use std::{
    convert::Infallible,
    fmt::Debug,
    future::{Future, Ready, ready},
    mem,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, request};
use http_body_util::Full;
use tower::{
    Layer, Service,
    layer::layer_fn,
    retry::{Policy, Retry},
};
use tower_resilience::{
    circuitbreaker::CircuitBreakerLayer, fallback::FallbackLayer, retry::RetryLayer,
};
use tower_spillover::{
    Backend, BackendPool, RegionRotateLayer, SmartFallbackLayer, region_rotate::RegionRotate,
};

fn main() {
    let mut times = vec![Vec::with_capacity(ROUNDS); PATHS.len()];
    for _ in 0..ROUNDS {
        for ((_, build), times) in PATHS.iter().zip(&mut times) {
            let mut send = build(&Leaf::new());
            (0..REQUESTS).for_each(|_| send());
            let start = Instant::now();
            (0..REQUESTS).for_each(|_| send());
            times.push(start.elapsed());
        }
    }
    let medians: Vec<f64> = times.into_iter().map(median).collect();
    println!("| path | ns | ratio |\n|---|---:|---:|");
    for ((name, _), median) in PATHS.iter().zip(&medians) {
        println!("| {name} | {median:.0} | {:.2} |", median / medians[BASELINE]);
    }
}

/// The ratios are to this one.
const BASELINE: usize = 1;

const PATHS: [(&str, fn(&Leaf) -> Send); 9] = [
    ("bare leaf", |leaf| over(leaf, leaf.clone())),
    ("`tower::retry`, served", |leaf| over(leaf, Retry::new(Once(1), leaf.clone()))),
    ("Fallback, served", |leaf| over(leaf, two_tiers(leaf.clone(), leaf.clone()).layer(()))),
    ("tower-resilience fallback, served", |leaf| peer_fallback(leaf, leaf.clone())),
    ("Fallback(Rotate 1, Rotate 2), served", |leaf| {
        over(leaf, two_tiers(rotate(leaf, 1), rotate(leaf, 2)).layer(()))
    }),
    ("tower-resilience fallback(retry(breaker)), served", peer_stack),
    ("`tower::retry`, first refused", |leaf| {
        over(leaf, Retry::new(Once(1), leaf.refusing_every_other()))
    }),
    ("Fallback, first refused", |leaf| {
        over(leaf, two_tiers(leaf.refusing(), leaf.clone()).layer(()))
    }),
    ("tower-resilience fallback, first refused", |leaf| peer_fallback(leaf, leaf.refusing())),
];

/// Sends one request, and takes its parts back.
type Send = Box<dyn FnMut()>;
type Outgoing = Request<Full<Bytes>>;
type Incoming = Response<Full<Bytes>>;

fn over<S>(leaf: &Leaf, mut service: S) -> Send
where
    S: Service<Outgoing, Response: Into<Taken>, Error: Debug> + 'static,
{
    let leaf = leaf.clone();
    Box::new(move || {
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(())) = service.poll_ready(&mut cx) else { panic!("a leaf is ready") };
        let Poll::Ready(answer) = pin!(service.call(leaf.request())).poll(&mut cx) else {
            panic!("a path that waits cannot be measured here")
        };
        let Taken(headers, status) = answer.expect("a leaf does not fail").into();
        assert_eq!(status, StatusCode::OK, "every request is answered in the end");
        leaf.lock().answer = headers;
    })
}

/// What is taken back of an answer.
struct Taken(HeaderMap, StatusCode);

impl<B> From<Response<B>> for Taken {
    fn from(answer: Response<B>) -> Self {
        let (head, _) = answer.into_parts();
        Self(head.headers, head.status)
    }
}

/// The second tier is asked if the first refuses; every request meets that refusal itself.
fn two_tiers<P: Clone, F: Clone>(
    primary: P,
    fallback: F,
) -> SmartFallbackLayer<impl Layer<(), Service = P>, impl Layer<(), Service = F>> {
    let (primary, fallback) = (move |()| primary.clone(), move |()| fallback.clone());
    SmartFallbackLayer::new(layer_fn(primary), layer_fn(fallback)).forgetful()
}

fn rotate(leaf: &Leaf, count: usize) -> RegionRotate<Leaf> {
    let backends = (0..count).map(|index| {
        let endpoint = format!("https://backend-{index}.openai.azure.com");
        let backend = Backend::new(format!("backend-{index}"), endpoint).expect("an endpoint");
        backend.api_key(format!("{index:032x}"))
    });
    let pool = BackendPool::new(backends).expect("a valid pool");
    RegionRotateLayer::new(pool).layer(leaf.clone())
}

/// The other service is asked if `primary` refuses.
fn peer_fallback(leaf: &Leaf, primary: Leaf) -> Send {
    let layer = FallbackLayer::<Outgoing, Incoming, Infallible>::tower_service(leaf.clone());
    over(leaf, layer.handle_response(is_refusal).layer(primary))
}

/// The stack that its documentation recommends, with one retry, where nothing fails.
fn peer_stack(leaf: &Leaf) -> Send {
    let breaker = CircuitBreakerLayer::standard().build().expect("a valid breaker");
    let breaker = breaker.layer(leaf.clone());
    let retry = RetryLayer::builder().max_attempts(2).retry_on_response(is_refusal).build();
    let fallback = FallbackLayer::tower_service(leaf.clone()).handle_response(is_refusal);
    over(leaf, fallback.layer(retry.layer(breaker)))
}

fn is_refusal(answer: &Incoming) -> bool {
    answer.status() == StatusCode::TOO_MANY_REQUESTS
}

/// The retries that are left.
#[derive(Clone)]
struct Once(u32);

impl<E> Policy<Outgoing, Incoming, E> for Once {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Outgoing, result: &mut Result<Incoming, E>) -> Option<Ready<()>> {
        let is_refused = result.as_ref().is_ok_and(is_refusal);
        self.0 = self.0.checked_sub(u32::from(is_refused))?;
        is_refused.then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Outgoing) -> Option<Outgoing> {
        (self.0 > 0).then(|| request.clone())
    }
}

/// A ready service that keeps what it is given, so that no request is built while measuring.
#[derive(Clone)]
struct Leaf {
    kept: Arc<Mutex<Kept>>,
    refusals: Refusals,
}

/// Which requests a leaf refuses.
#[derive(Clone, Copy)]
enum Refusals {
    None,
    All,
    EveryOther,
}

struct Kept {
    /// Of the last request; cloned from the template if none came here.
    request: Option<request::Parts>,
    template: request::Parts,
    body: Bytes,
    answer: HeaderMap,
    refusal: HeaderMap,
    calls: u64,
}

impl Leaf {
    fn new() -> Self {
        let mut request = Request::post(
            "https://gateway.contoso.example/openai/deployments/gpt-4o/chat/completions\
             ?api-version=2024-10-21",
        );
        *request.headers_mut().expect("a valid request") = headers(&REQUEST);
        let template = request.body(()).expect("a valid request").into_parts().0;
        let kept = Kept {
            request: None,
            template,
            body: Bytes::from(vec![b'x'; 2 << 10]),
            answer: headers(&ANSWER),
            refusal: headers(&REFUSAL),
            calls: 0,
        };
        Self { kept: Arc::new(Mutex::new(kept)), refusals: Refusals::None }
    }

    fn refusing(&self) -> Self {
        Self { refusals: Refusals::All, ..self.clone() }
    }

    fn refusing_every_other(&self) -> Self {
        Self { refusals: Refusals::EveryOther, ..self.clone() }
    }

    fn request(&self) -> Outgoing {
        let mut kept = self.lock();
        let head = kept.request.take().unwrap_or_else(|| kept.template.clone());
        Request::from_parts(head, Full::new(kept.body.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> Service<Request<B>> for Leaf {
    type Response = Incoming;
    type Error = Infallible;
    type Future = Ready<Result<Incoming, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut head, _) = request.into_parts();
        head.extensions = Default::default();
        let mut kept = self.lock();
        kept.request = Some(head);
        kept.calls += 1;
        let refuses = match self.refusals {
            Refusals::None => false,
            Refusals::All => true,
            Refusals::EveryOther => kept.calls % 2 == 1,
        };
        let mut answer = Response::new(Full::default());
        *answer.headers_mut() = if refuses {
            *answer.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            kept.refusal.clone()
        } else {
            mem::take(&mut kept.answer)
        };
        ready(Ok(answer))
    }
}

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let line = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    lines.iter().map(line).collect()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e9 / f64::from(REQUESTS)
}

/// As in the library's own bench.
const REQUEST: [(&str, &str); 12] = [
    ("host", "gateway.contoso.example"),
    ("content-type", "application/json"),
    ("content-length", "2048"),
    ("accept", "application/json"),
    ("accept-encoding", "gzip, deflate"),
    ("api-key", "0123456789abcdef0123456789abcdef"),
    ("user-agent", "AsyncAzureOpenAI/Python 1.109.1"),
    ("x-request-id", "4b0a8a5c-9bdb-4a0b-8f2a-0d7a0f9c6d2e"),
    ("x-stainless-lang", "python"),
    ("x-stainless-retry-count", "0"),
    ("x-stainless-read-timeout", "600"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
];
const ANSWER: [(&str, &str); 4] = [
    ("content-type", "application/json"),
    ("x-ms-region", "Sweden Central"),
    ("apim-request-id", "4b0a8a5c-9bdb-4a0b-8f2a-0d7a0f9c6d2e"),
    ("x-ratelimit-remaining-tokens", "119000"),
];
const REFUSAL: [(&str, &str); 3] =
    [("content-type", "application/json"), ("retry-after", "60"), ("retry-after-ms", "60000")];
const ROUNDS: usize = 100;
const REQUESTS: u32 = 2_000;
