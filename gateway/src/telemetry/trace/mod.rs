//! The trace of a request, and its upstream calls.

mod parent;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use http::{HeaderMap, Request, StatusCode, Uri, Version};
use opentelemetry::{
    Context, KeyValue,
    trace::{Span as _, SpanContext, SpanKind, TraceContextExt, TraceId, Tracer},
};
use opentelemetry_sdk::trace::{SdkTracer, Span};

use super::clock::now;

/// A request's open span, and those of its calls. Clones belong to the same request; one in the
/// extensions of a request causes its calls to be traced.
#[derive(Clone)]
pub(crate) struct Trace(Arc<Inner>);

struct Inner {
    tracer: SdkTracer,
    /// The request's span, as the parent of its calls.
    context: Context,
    arrived: (SystemTime, Instant),
    spans: Mutex<Spans>,
}

#[derive(Default)]
struct Spans {
    request: Option<Span>,
    calls: Vec<Called>,
}

/// A call in flight. Dropping it ends it as cancelled.
#[derive(Debug)]
pub(crate) struct Call {
    trace: Trace,
    uri: Uri,
    span: Option<Span>,
    started: Instant,
}

/// A finished call.
pub(crate) struct Called {
    pub(crate) uri: Uri,
    pub(crate) span: Span,
    pub(crate) ended: SystemTime,
    started: Instant,
    pub(crate) answer: Answer,
}

/// The head of an answer, or a one-word reason why there is none.
pub(crate) type Answer = Result<(StatusCode, Version), &'static str>;

impl Trace {
    /// Continues the trace in `headers`, or begins one; removes malformed trace headers.
    pub(crate) fn begin(
        tracer: &SdkTracer,
        arrived: (SystemTime, Instant),
        headers: &mut HeaderMap,
    ) -> Self {
        let parent = parent::read(headers);
        let parent = parent.map(|parent| Context::new().with_remote_span_context(parent));
        let span = tracer
            .span_builder("request")
            .with_kind(SpanKind::Server)
            .with_start_time(arrived.0)
            .start_with_context(tracer, &parent.unwrap_or_default());
        let of_span = span.span_context();
        let (id, flags) = (of_span.span_id(), of_span.trace_flags());
        let state = of_span.trace_state().clone();
        let here = SpanContext::new(of_span.trace_id(), id, flags, false, state);
        Self(Arc::new(Inner {
            tracer: tracer.clone(),
            context: Context::new().with_remote_span_context(here),
            arrived,
            spans: Mutex::new(Spans { request: Some(span), calls: Vec::new() }),
        }))
    }

    /// Begins a call if the request is traced; its `traceparent` is sent upstream.
    pub(crate) fn call<B>(request: &mut Request<B>) -> Option<Box<Call>> {
        let trace = request.extensions().get::<Self>()?.clone();
        let (inner, started) = (&*trace.0, now());
        let method = method(request);
        let span = inner
            .tracer
            .span_builder(method.unwrap_or("HTTP"))
            .with_kind(SpanKind::Client)
            .with_start_time(trace.date(started))
            .with_attributes([KeyValue::new("http.request.method", method.unwrap_or("_OTHER"))])
            .start_with_context(&inner.tracer, &inner.context);
        // Invalid after the exporter has shut down.
        if span.span_context().is_valid() {
            parent::write(span.span_context(), request.headers_mut());
        }
        let uri = request.uri().clone();
        Some(Box::new(Call { trace, uri, span: Some(span), started }))
    }

    pub(crate) fn id(&self) -> TraceId {
        self.0.context.span().span_context().trace_id()
    }

    /// Takes the request's span, and its calls in the order in which they began.
    pub(crate) fn end(&self) -> Option<(Span, Vec<Called>)> {
        let Spans { request, mut calls } = std::mem::take(&mut *self.spans());
        calls.sort_by_key(|call| call.started);
        Some((request?, calls))
    }

    fn date(&self, instant: Instant) -> SystemTime {
        let (date, arrived) = self.0.arrived;
        date.checked_add(instant.saturating_duration_since(arrived)).unwrap_or(date)
    }

    fn spans(&self) -> MutexGuard<'_, Spans> {
        self.0.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Call {
    pub(crate) fn end(mut self, answer: Answer) {
        self.record(answer);
    }

    fn record(&mut self, answer: Answer) {
        let Some(span) = self.span.take() else { return };
        let (uri, started) = (std::mem::take(&mut self.uri), self.started);
        let ended = self.trace.date(now());
        self.trace.spans().calls.push(Called { uri, span, ended, started, answer });
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.record(Err("cancelled"));
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Trace").field(&self.id()).finish()
    }
}

/// The method, if the conventions for HTTP know it.
fn method<B>(request: &Request<B>) -> Option<&'static str> {
    ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
        .into_iter()
        .find(|&known| *request.method() == known)
}
