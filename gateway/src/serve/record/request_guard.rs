//! The record of a request under way; it is handed in when the request is over.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{Extensions, HeaderMap, HeaderValue, StatusCode};
use tower_spillover::{
    Served,
    azure::Usage,
    body::{OnUsage, UsageSink},
};

use super::observe::Observe;
use crate::{
    access_record::AccessRecord,
    serve::{activity::Busy, clock, concurrency::ConcurrencyPermit},
    snapshot::Snapshot,
    telemetry::Trace,
};

/// Dropping it is the end of the request, however that came about.
pub(crate) struct RequestGuard {
    pub(crate) record: AccessRecord,
    /// Where traces are exported.
    pub(crate) trace: Option<Trace>,
    /// What the answer used, once the layers sent the request.
    usage: Option<Arc<LastUsage>>,
    /// Of the concurrency that is limited.
    pub(crate) permit: Option<ConcurrencyPermit>,
    observer: Arc<dyn Observe>,
    snapshot: Arc<Snapshot>,
    pub(crate) busy: Busy,
}

/// The usage of the last answer that had one.
#[derive(Default)]
struct LastUsage(Mutex<Option<Usage>>);

impl UsageSink for LastUsage {
    fn ended(&self, usage: Option<Usage>) {
        // A tier that refused has none to say.
        if usage.is_some() {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = usage;
        }
    }
}

impl RequestGuard {
    pub(crate) fn new(
        observer: Arc<dyn Observe>,
        snapshot: Arc<Snapshot>,
        busy: Busy,
        id: String,
        started: Instant,
    ) -> Self {
        let record = AccessRecord {
            id,
            at: clock::date(),
            started,
            client: String::new(),
            model: None,
            class: None,
            operation: "other",
            streaming: false,
            // What servers commonly note where the client left before there was an answer.
            status: StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT),
            served: None,
            to_head: Duration::ZERO,
            total: Duration::ZERO,
            usage: None,
            complete: false,
        };
        observer.arrived();
        Self { record, trace: None, usage: None, permit: None, observer, snapshot, busy }
    }

    /// Begins to trace the request, where traces are exported.
    pub(crate) fn begin_trace(&mut self, headers: &mut HeaderMap) {
        let AccessRecord { at, started, .. } = self.record;
        self.trace = self.observer.trace(at, started, headers);
    }

    /// The head of the answer goes out.
    pub(crate) fn head(&mut self, status: StatusCode, served: Option<Served>, now: Instant) {
        self.record.status = status;
        self.record.served = served;
        self.record.to_head = now.saturating_duration_since(self.record.started);
    }

    /// Asks the layers, by the `extensions` of the request, what the answer uses.
    pub(crate) fn observe_usage(&mut self, extensions: &mut Extensions) {
        let usage = self.usage.insert(Arc::default());
        OnUsage::subscribe(extensions, Arc::clone(usage));
    }

    /// The whole answer went out.
    pub(crate) const fn complete(&mut self) {
        self.record.complete = true;
    }

    pub(crate) fn id(&self) -> HeaderValue {
        HeaderValue::from_str(&self.record.id).expect("an id is made of visible ASCII")
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let record = &mut self.record;
        record.total = clock::now().saturating_duration_since(record.started);
        if record.to_head.is_zero() {
            record.to_head = record.total;
        }
        record.usage = self
            .usage
            .take()
            .and_then(|usage| *usage.0.lock().unwrap_or_else(PoisonError::into_inner));
        // Before the request is reported: who hears of its end may send another.
        self.permit = None;
        self.observer.finished(&self.record, self.trace.as_ref(), &self.snapshot);
    }
}
