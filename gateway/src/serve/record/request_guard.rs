//! The record of a request in flight, reported when the request ends.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use http::{Extensions, HeaderMap, HeaderValue, StatusCode};
use tower_spillover::{
    Served,
    azure::Usage,
    body::{OnUsage, UsageSink},
};

use super::{end_mark::EndMark, first_token::FirstToken, observe::Observe};
use crate::{
    access_record::{AccessRecord, Ended},
    serve::{activity::Busy, clock, concurrency::ConcurrencyPermit},
    snapshot::Snapshot,
    telemetry::Trace,
};

/// Dropping it ends the request, for whatever reason.
pub(crate) struct RequestGuard {
    pub(crate) record: AccessRecord,
    /// If traces are exported.
    pub(crate) trace: Option<Trace>,
    /// For an event stream.
    end_mark: Option<EndMark>,
    /// For an event stream without output so far.
    first_token: Option<FirstToken>,
    /// The answer's usage, once the layers have sent the request.
    usage: Option<Arc<LastUsage>>,
    /// Its place in the concurrency limits.
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
        // A refusal has no usage.
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
        let record = AccessRecord::new(id, clock::date(), started);
        observer.arrived();
        let (trace, end_mark, first_token) = (None, None, None);
        let (usage, permit) = (None, None);
        Self { record, trace, end_mark, first_token, usage, permit, observer, snapshot, busy }
    }

    /// Starts a trace of the request, if traces are exported.
    pub(crate) fn begin_trace(&mut self, headers: &mut HeaderMap) {
        let AccessRecord { at, started, .. } = self.record;
        self.trace = self.observer.trace(at, started, headers);
    }

    /// The head of the answer is sent.
    pub(crate) fn head(&mut self, status: StatusCode, served: Option<Served>, now: Instant) {
        self.record.status = status;
        self.record.served = served;
        self.record.to_head = now.saturating_duration_since(self.record.started);
    }

    /// Subscribes, through the request's `extensions`, to the usage of the answer.
    pub(crate) fn observe_usage(&mut self, extensions: &mut Extensions) {
        let usage = self.usage.insert(Arc::default());
        OnUsage::subscribe(extensions, Arc::clone(usage));
    }

    /// The answer is an event stream that can be read.
    pub(crate) fn expect_events(&mut self) {
        self.end_mark = Some(EndMark::default());
        self.first_token = Some(FirstToken::default());
    }

    /// A piece of the answer is sent.
    pub(crate) fn passes(&mut self, piece: &[u8]) {
        if self.record.streaming {
            self.busy.note_event();
        }
        if let Some(mark) = &mut self.end_mark {
            mark.push(piece);
        }
        if self.first_token.as_mut().is_some_and(|token| token.is_in(piece)) {
            self.first_token = None;
            let since = clock::now().saturating_duration_since(self.record.started);
            self.record.first_token = Some(since);
        }
    }

    /// The answer reached its end.
    pub(crate) fn complete(&mut self) {
        let is_whole = self.end_mark.as_ref().is_none_or(EndMark::is_seen);
        self.record.ended = if is_whole { Ended::Complete } else { Ended::Cut };
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
        // A client that has received all of a stream need not wait for the end of its answer.
        if record.ended == Ended::ClientGone && self.end_mark.as_ref().is_some_and(EndMark::is_seen)
        {
            record.ended = Ended::Complete;
        }
        // Before the request is reported: a client that sees it end may send another.
        self.permit = None;
        let (at, started) = (record.at, record.started);
        let record = mem::replace(record, AccessRecord::new(String::new(), at, started));
        self.observer.finished(record, self.trace.as_ref(), &self.snapshot);
    }
}
