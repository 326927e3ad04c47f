//! One request's account while it is under way; it is given in when the request is over.

use std::{sync::Arc, time::Instant};

use http::{HeaderMap, HeaderValue, StatusCode};
use tower_spillover::{Served, gate::cost::UsageScan};

use crate::{
    access_record::{Account, Tokens},
    serve::{
        clock,
        inbound::{connection::Busy, gateway::Gateway, runtime::Site},
    },
};

/// Holds a request's place among those under way. Dropping it is the end of the request, however
/// that came about.
pub(crate) struct Ledger {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) site: Arc<Site>,
    pub(crate) account: Account,
    pub(crate) usage: Option<UsageScan>,
    /// Of the concurrency that is limited.
    pub(crate) has_place: bool,
    _busy: Busy,
}

impl Ledger {
    pub(crate) fn open(gateway: Arc<Gateway>, busy: Busy, id: String, started: Instant) -> Self {
        let account = Account {
            id,
            at: clock::date(),
            started,
            client: String::new(),
            model: None,
            class: None,
            operation: String::new(),
            streaming: false,
            // What servers commonly note where the client left before there was an answer.
            status: StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT),
            served: None,
            to_head: std::time::Duration::ZERO,
            total: std::time::Duration::ZERO,
            usage: None,
            complete: false,
            trace: None,
        };
        let site = gateway.site();
        gateway.observer().arrived();
        Self { gateway, site, account, usage: None, has_place: false, _busy: busy }
    }

    /// Begins to trace the request, if anybody wants to know.
    pub(crate) fn trace(&mut self, headers: &mut HeaderMap) {
        self.account.trace = self.gateway.observer().trace(&self.account, headers);
    }

    pub(crate) fn head(&mut self, status: StatusCode, served: Option<Served>, now: Instant) {
        self.account.status = status;
        self.account.served = served;
        self.account.to_head = now.saturating_duration_since(self.account.started);
    }

    pub(crate) fn see(&mut self, piece: &[u8]) {
        if let Some(usage) = &mut self.usage {
            usage.push(piece);
        }
    }

    pub(crate) const fn complete(&mut self) {
        self.account.complete = true;
    }

    pub(crate) fn id(&self) -> HeaderValue {
        HeaderValue::from_str(&self.account.id).expect("an id is made of visible ASCII")
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let account = &mut self.account;
        account.total = clock::now().saturating_duration_since(account.started);
        if account.to_head.is_zero() {
            account.to_head = account.total;
        }
        account.usage = self.usage.take().and_then(UsageScan::finish).map(Tokens::from);
        if self.has_place {
            self.gateway.leave();
        }
        self.gateway.observer().finished(&self.account, &self.site.running);
    }
}
