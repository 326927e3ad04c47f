//! What is reported of the gateway's requests, and what pages show of it.

use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Response};

use crate::{access_record::AccessRecord, snapshot::Snapshot, telemetry::Trace};

/// Counts, logs and exports what the gateway does.
pub(crate) trait Observe: Send + Sync + 'static {
    /// A request has come, and will be finished.
    fn arrived(&self) {}

    /// Begins to trace a request that arrived at this time; `headers` may continue a trace.
    fn trace(&self, _at: SystemTime, _started: Instant, _headers: &mut HeaderMap) -> Option<Trace> {
        None
    }

    /// A request is over, or was given up.
    fn finished(&self, record: AccessRecord, trace: Option<&Trace>, snapshot: &Snapshot);

    /// A page about the gateway itself, such as `/metrics`.
    fn page(&self, _page: &Page<'_>, _snapshot: &Snapshot) -> Option<Response<Bytes>> {
        None
    }
}

/// Which page is asked for, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page<'a> {
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) headers: &'a HeaderMap,
}
