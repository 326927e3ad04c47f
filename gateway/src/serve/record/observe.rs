//! Receives reports on the gateway's requests, and serves pages about them.

use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Response};

use crate::{access_record::AccessRecord, snapshot::Snapshot, telemetry::Trace};

/// Counts, logs and exports what the gateway does.
pub(crate) trait Observe: Send + Sync + 'static {
    /// A request has arrived; `finished` will follow.
    fn arrived(&self) {}

    /// Starts a trace of a request that arrived at this time; `headers` may continue a trace.
    fn trace(&self, _at: SystemTime, _started: Instant, _headers: &mut HeaderMap) -> Option<Trace> {
        None
    }

    /// A request has ended, or was abandoned.
    fn finished(&self, record: AccessRecord, trace: Option<&Trace>, snapshot: &Snapshot);

    /// A page about the gateway itself, such as `/metrics`.
    fn page(&self, _page: &Page<'_>, _snapshot: &Snapshot) -> Option<Response<Bytes>> {
        None
    }
}

/// The requested page, and its format.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page<'a> {
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) headers: &'a HeaderMap,
}
