//! One request's record while it is under way; it is given in when the request is over.

use std::{sync::Arc, time::Instant};

use http::{HeaderMap, HeaderValue, StatusCode};
use tower_spillover::{Served, gate::cost::UsageScan};

use crate::{
    access_record::{AccessRecord, Tokens},
    serve::{
        clock,
        inbound::{connection::Busy, gateway::Gateway, runtime::Site},
    },
    telemetry::Trace,
};

/// Holds a request's place among those under way. Dropping it is the end of the request, however
/// that came about.
pub(crate) struct Ledger {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) site: Arc<Site>,
    pub(crate) record: AccessRecord,
    /// Where traces are exported.
    pub(crate) trace: Option<Trace>,
    pub(crate) usage: Option<UsageScan>,
    /// Of the concurrency that is limited.
    pub(crate) has_place: bool,
    _busy: Busy,
}

impl Ledger {
    pub(crate) fn open(gateway: Arc<Gateway>, busy: Busy, id: String, started: Instant) -> Self {
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
            to_head: std::time::Duration::ZERO,
            total: std::time::Duration::ZERO,
            usage: None,
            complete: false,
        };
        let site = gateway.site();
        gateway.observer().arrived();
        Self { gateway, site, record, trace: None, usage: None, has_place: false, _busy: busy }
    }

    /// Begins to trace the request, if anybody wants to know.
    pub(crate) fn trace(&mut self, headers: &mut HeaderMap) {
        let AccessRecord { at, started, .. } = self.record;
        self.trace = self.gateway.observer().trace(at, started, headers);
    }

    pub(crate) fn head(&mut self, status: StatusCode, served: Option<Served>, now: Instant) {
        self.record.status = status;
        self.record.served = served;
        self.record.to_head = now.saturating_duration_since(self.record.started);
    }

    pub(crate) fn see(&mut self, piece: &[u8]) {
        if let Some(usage) = &mut self.usage {
            usage.push(piece);
        }
    }

    pub(crate) const fn complete(&mut self) {
        self.record.complete = true;
    }

    pub(crate) fn id(&self) -> HeaderValue {
        HeaderValue::from_str(&self.record.id).expect("an id is made of visible ASCII")
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let record = &mut self.record;
        record.total = clock::now().saturating_duration_since(record.started);
        if record.to_head.is_zero() {
            record.to_head = record.total;
        }
        record.usage = self.usage.take().and_then(UsageScan::finish).map(Tokens::from);
        if self.has_place {
            self.gateway.leave();
        }
        self.gateway.observer().finished(&self.record, self.trace.as_ref(), &self.site.running);
    }
}
