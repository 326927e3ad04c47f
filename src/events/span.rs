//! One `tracing` span per request.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;
use tracing::{Level, Span, debug_span, enabled, field::Empty};

use super::tracing::{TARGET, decision, millis};
use crate::Served;

/// Gives each request a span of the `tracing` crate that contains everything that inner layers
/// report: `request`, with the target `tower_spillover`, at level `DEBUG`. It belongs around all
/// other layers.
///
/// When the head of the answer arrives it records `decision`, `backend`, `status`, `why`, `attempts`
/// and `waited_ms`, and ends; a cancelled request only records `cancelled`. For a span of the whole
/// exchange, including the body, use tower-http's `TraceLayer`.
///
/// Needs the feature `tracing`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestSpanLayer(());

/// Gives each request a span. Made by [`RequestSpanLayer`].
#[derive(Clone, Debug)]
pub struct RequestSpan<S> {
    inner: S,
}

pin_project! {
    /// The response future of [`RequestSpan`].
    pub struct RequestSpanFuture<F> {
        // `None` once it has ended.
        #[pin]
        inner: Option<F>,
        span: Span,
    }

    impl<F> PinnedDrop for RequestSpanFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if this.inner.is_some() && !this.span.is_none() {
                this.span.record("cancelled", true);
                // Reports of inner layers belong to the span.
                let _entered = this.span.enter();
                this.inner.set(None);
            }
        }
    }
}

impl RequestSpanLayer {
    /// The layer; it has no settings.
    pub const fn new() -> Self {
        Self(())
    }
}

impl<S> Layer<S> for RequestSpanLayer {
    type Service = RequestSpan<S>;

    fn layer(&self, inner: S) -> RequestSpan<S> {
        RequestSpan { inner }
    }
}

impl<S, B, R> Service<Request<B>> for RequestSpan<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = RequestSpanFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if !enabled!(target: TARGET, Level::DEBUG) {
            return RequestSpanFuture { inner: Some(self.inner.call(request)), span: Span::none() };
        }
        let span = debug_span!(
            target: TARGET,
            "request",
            decision = Empty,
            backend = Empty,
            status = Empty,
            why = Empty,
            attempts = Empty,
            waited_ms = Empty,
            cancelled = Empty,
        );
        let entered = span.enter();
        let inner = self.inner.call(request);
        drop(entered);
        RequestSpanFuture { inner: Some(inner), span }
    }
}

impl<F, R, E> Future for RequestSpanFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let inner = this.inner.as_mut().as_pin_mut().expect("it is not polled after it ended");
        if this.span.is_none() {
            return inner.poll(cx);
        }
        let entered = this.span.enter();
        let result = ready!(inner.poll(cx));
        this.inner.set(None);
        drop(entered);
        if let Ok(response) = &result {
            record(this.span, response);
        }
        Poll::Ready(result)
    }
}

fn record<R>(span: &Span, response: &Response<R>) {
    span.record("status", response.status().as_u16());
    let Some(served) = response.extensions().get::<Served>() else { return };
    span.record("decision", decision(served));
    span.record("attempts", served.attempts().len());
    if let Some(backend) = served.backend() {
        span.record("backend", backend);
    }
    if let Some(why) = served.why() {
        span.record("why", why.label());
    }
    if !served.waited().is_zero() {
        span.record("waited_ms", millis(served.waited()));
    }
}

impl<F> fmt::Debug for RequestSpanFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestSpanFuture").finish_non_exhaustive()
    }
}
