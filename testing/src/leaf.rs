//! A client with scripted answers, which records the requests.

use std::{
    fmt,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use http::{HeaderMap, Request, Response, Uri, Version};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt};
use tower_spillover::{
    Served,
    classify::{Hint, Reason, Refusal},
    policy::{ErrorKind, MoveOn},
};

use crate::paused;

/// Maps an error to its kind.
pub type Kind<E = Broken> = fn(&E) -> ErrorKind;

/// Every error of the client moves on to the next backend.
pub fn every_error<E>() -> MoveOn<Kind<E>> {
    let kind: Kind<E> = |_| ErrorKind::Other;
    MoveOn::none().errors(kind).other()
}

/// Every error of the client is a connection error, and moves on to the next backend.
pub fn every_connect<E>() -> MoveOn<Kind<E>> {
    let kind: Kind<E> = |_| ErrorKind::Connect;
    MoveOn::new().errors(kind).connect()
}

/// A clonable client. It panics when called without being ready, and clones do not inherit
/// readiness, as the tower contract allows.
pub struct Leaf {
    shared: Arc<Shared>,
    ready: bool,
}

struct Shared {
    start: Instant,
    script: Box<dyn Fn(&Seen) -> Answer + Send + Sync>,
    seen: Mutex<Vec<Seen>>,
    /// Held by every request in flight.
    under_way: Arc<()>,
}

/// One request as the client received it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its index among all requests, from 0.
    pub index: usize,
    pub at: Duration,
    pub version: Version,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// An answer of the client, and the delay before it.
#[derive(Clone, Debug)]
pub struct Answer {
    result: Result<Response<Full<Bytes>>, Broken>,
    delay: Duration,
}

/// A transport error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(pub &'static str);

/// The error of [`Answer::unreachable`].
pub const UNREACHABLE: Broken = Broken("connection refused");

impl Leaf {
    pub fn new(script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let (start, script) = (paused::now(), Box::new(script));
        let (seen, under_way) = Default::default();
        Self { shared: Arc::new(Shared { start, script, seen, under_way }), ready: false }
    }

    /// Plays these answers in turn, then repeats the last one.
    pub fn playing(answers: impl Into<Vec<Answer>>) -> Self {
        let answers = answers.into();
        Self::new(move |seen| answers[seen.index.min(answers.len() - 1)].clone())
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The time since its creation.
    pub fn elapsed(&self) -> Duration {
        self.shared.start.elapsed()
    }

    /// The number of requests that are neither answered nor dropped.
    pub fn under_way(&self) -> usize {
        Arc::strong_count(&self.shared.under_way) - 1
    }

    pub fn len(&self) -> usize {
        self.seen().len()
    }

    /// The arrival times of the requests, in milliseconds.
    pub fn times(&self) -> Vec<u128> {
        self.seen().iter().map(|seen| seen.at.as_millis()).collect()
    }

    /// The hosts of the requests.
    pub fn hosts(&self) -> Vec<String> {
        self.seen().iter().map(|seen| seen.host().to_owned()).collect()
    }
}

impl Clone for Leaf {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), ready: false }
    }
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Leaf")
    }
}

impl<B> Service<Request<B>> for Leaf
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: fmt::Debug,
{
    type Response = Response<Full<Bytes>>;
    type Error = Broken;
    type Future = BoxFuture<'static, Result<Self::Response, Broken>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        let shared = Arc::clone(&self.shared);
        let under_way = Arc::clone(&shared.under_way);
        async move {
            let _under_way = under_way;
            let (head, body) = request.into_parts();
            let body = body.collect().await.expect("a whole body").to_bytes();
            let seen = {
                let mut all = shared.seen.lock().unwrap();
                let (index, at) = (all.len(), shared.start.elapsed());
                let http::request::Parts { version, uri, headers, .. } = head;
                all.push(Seen { index, at, version, uri, headers, body });
                all[index].clone()
            };
            let answer = (shared.script)(&seen);
            if !answer.delay.is_zero() {
                paused::pass(answer.delay).await;
            }
            answer.result
        }
        .boxed()
    }
}

impl Seen {
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Answer {
    pub fn status(status: u16) -> Self {
        let mut response = Response::new(Full::from("the answer"));
        *response.status_mut() = status.try_into().unwrap();
        Self { result: Ok(response), delay: Duration::ZERO }
    }

    pub fn ok() -> Self {
        Self::status(200)
    }

    /// A PTU's refusal, with both hint headers.
    pub fn refused(ms: u64) -> Self {
        let seconds = ms.div_ceil(1_000).to_string();
        Self::status(429).with("retry-after-ms", ms.to_string()).with("retry-after", seconds)
    }

    pub fn broken() -> Self {
        Self { result: Err(Broken("reset by peer")), delay: Duration::ZERO }
    }

    /// A refused connection.
    pub fn unreachable() -> Self {
        Self { result: Err(UNREACHABLE), delay: Duration::ZERO }
    }

    pub fn with(mut self, name: &'static str, value: impl AsRef<str>) -> Self {
        let value = value.as_ref().parse().unwrap();
        self.result.as_mut().unwrap().headers_mut().insert(name, value);
        self
    }

    /// With a refusal as a layer that inspects bodies reports it.
    pub fn because(self, reason: Reason, hint: Hint) -> Self {
        self.leaving(Refusal::new(reason, hint))
    }

    /// With this complete `Refusal`.
    pub fn leaving(mut self, refusal: Refusal) -> Self {
        self.result.as_mut().unwrap().extensions_mut().insert(refusal);
        self
    }

    /// With this body, of JSON or of events.
    pub fn telling(mut self, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let kind = if body.starts_with(b"{") { "application/json" } else { "text/event-stream" };
        *self.result.as_mut().unwrap().body_mut() = Full::new(body);
        self.with("content-type", kind)
    }

    pub fn after(self, ms: u64) -> Self {
        Self { delay: paused::ms(ms), ..self }
    }

    pub fn into_response(self) -> Response<Full<Bytes>> {
        self.result.unwrap()
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Broken {}

/// A layer that replaces the inner service with a given one.
#[derive(Clone, Debug)]
pub struct Put<S>(pub S);

impl<S: Clone, I> Layer<I> for Put<S> {
    type Service = S;

    fn layer(&self, _: I) -> S {
        self.0.clone()
    }
}

pub const CLASSIC: &str = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";

pub fn request() -> Request<Full<Bytes>> {
    Request::post(CLASSIC).body(Full::from(r#"{"messages":[]}"#)).unwrap()
}

/// The `Served` of a response.
pub fn account<R>(response: &Response<R>) -> &Served {
    response.extensions().get().expect("a response of these layers has an account")
}

/// The backends that were called, and when, in milliseconds.
pub fn asked(served: &Served) -> Vec<(&str, u128)> {
    served.attempts().map(|attempt| (attempt.backend(), attempt.at().as_millis())).collect()
}

pub fn header<'a, R>(response: &'a Response<R>, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

pub async fn text<R>(response: Response<R>) -> String
where
    R: Body,
    R::Error: fmt::Debug,
{
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// Waits until a service is ready for these requests.
pub async fn readied<S>(service: &mut S) -> &mut S
where
    S: Service<Request<Full<Bytes>>, Error: fmt::Debug>,
{
    service.ready().await.unwrap()
}

/// Sends `request` through a service that is kept, as a connection keeps it, not cloned.
pub async fn through<S, B>(service: &mut S, request: Request<B>) -> Result<S::Response, S::Error>
where
    S: Service<Request<B>>,
{
    service.ready().await?.call(request).await
}
