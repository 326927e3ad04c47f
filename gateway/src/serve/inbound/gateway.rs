//! What every connection shares: the configuration at work, counts, and who is told of requests.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Instant, SystemTime},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, Response};
use sha2::{Digest, Sha256};

use super::runtime::{OpenTokens, Site};
use crate::{
    access_record::AccessRecord, config::Config, serve::clock, snapshot::Snapshot, telemetry::Trace,
};

/// Who counts, logs and exports what the gateway does.
pub(crate) trait Observe: Send + Sync + 'static {
    /// A request has come, and will be finished.
    fn arrived(&self) {}

    /// Begins to trace a request that arrived at this time; `headers` may continue a trace.
    fn trace(&self, _at: SystemTime, _started: Instant, _headers: &mut HeaderMap) -> Option<Trace> {
        None
    }

    /// A request is over, or was given up.
    fn finished(&self, record: &AccessRecord, trace: Option<&Trace>, running: &Snapshot);

    /// A page about the gateway itself, such as `/metrics`.
    fn page(&self, _path: &str, _running: &Snapshot) -> Option<Response<Bytes>> {
        None
    }
}

/// The gateway, without its sockets.
pub(crate) struct Gateway {
    site: ArcSwap<Site>,
    observer: Box<dyn Observe>,
    open_tokens: OpenTokens,
    under_way: AtomicUsize,
    is_draining: AtomicBool,
    ids: Ids,
}

impl Gateway {
    /// # Errors
    ///
    /// When a backend or a certificate of `config` cannot work.
    pub(crate) fn new(
        config: Config,
        observer: Box<dyn Observe>,
        open_tokens: OpenTokens,
    ) -> Result<Self, String> {
        let site = Site::new(config, None, open_tokens)?;
        Ok(Self {
            site: ArcSwap::from_pointee(site),
            observer,
            open_tokens,
            under_way: AtomicUsize::new(0),
            is_draining: AtomicBool::new(false),
            ids: Ids::new(),
        })
    }

    /// Serves by another configuration from now on. Requests under way finish by theirs.
    ///
    /// # Errors
    ///
    /// When it cannot work; the last one stays then.
    pub(crate) fn reload(&self, config: Config) -> Result<(), String> {
        let before = self.site.load_full();
        let site = Site::new(config, Some(&before), self.open_tokens)?;
        self.site.store(Arc::new(site));
        Ok(())
    }

    /// The configuration at work.
    pub(crate) fn running(&self) -> Arc<Snapshot> {
        Arc::clone(&self.site.load().running)
    }

    pub(crate) fn site(&self) -> Arc<Site> {
        self.site.load_full()
    }

    pub(crate) fn observer(&self) -> &dyn Observe {
        &*self.observer
    }

    /// Takes one of `limit` places; [`leave`](Self::leave) gives it back.
    pub(crate) fn enter(&self, limit: usize) -> bool {
        let is_free = self.under_way.fetch_add(1, Relaxed) < limit;
        if !is_free {
            self.leave();
        }
        is_free
    }

    pub(crate) fn leave(&self) {
        self.under_way.fetch_sub(1, Relaxed);
    }

    pub(crate) fn drain(&self) {
        self.is_draining.store(true, Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Relaxed)
    }

    pub(crate) fn next_id(&self) -> String {
        self.ids.next()
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("under_way", &self.under_way).finish_non_exhaustive()
    }
}

/// Ids of requests: a part that tells processes apart, and a count.
struct Ids {
    process: u64,
    count: AtomicU64,
}

impl Ids {
    fn new() -> Self {
        let seed = format!("{:?} {}", clock::date(), std::process::id());
        let digest: [u8; 32] = Sha256::digest(seed).into();
        let process = digest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        Self { process, count: AtomicU64::new(0) }
    }

    fn next(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let count = self.count.fetch_add(1, Relaxed);
        let bytes = self.process.to_be_bytes().into_iter().chain(count.to_be_bytes());
        let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
        bytes.flat_map(|byte| [digit(byte >> 4), digit(byte)]).collect()
    }
}
