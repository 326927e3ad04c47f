//! The state shared by all connections: the active configuration, counters, and the observer.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use tower_spillover::replay::ReplayTotal;

use super::runtime::Runtime;
use crate::{
    serve::{clock, concurrency::Concurrency, peers::Peers, record::observe::Observe},
    snapshot::Snapshot,
};

/// The gateway, without its sockets.
pub(crate) struct Gateway {
    runtime: ArcSwap<Runtime>,
    observer: Arc<dyn Observe>,
    pub(crate) concurrency: Concurrency,
    pub(crate) peers: Peers,
    /// The memory that all kept request bodies use.
    pub(crate) kept: ReplayTotal,
    is_draining: AtomicBool,
    ids: Ids,
}

impl Gateway {
    pub(crate) fn new(runtime: Runtime, observer: Arc<dyn Observe>) -> Self {
        Self {
            kept: ReplayTotal::new(runtime.config().limits.replay_total),
            runtime: ArcSwap::from_pointee(runtime),
            observer,
            concurrency: Concurrency::default(),
            peers: Peers::default(),
            is_draining: AtomicBool::new(false),
            ids: Ids::new(),
        }
    }

    /// Activates another configuration. Requests in flight finish with theirs.
    pub(crate) fn replace(&self, runtime: Runtime) {
        self.kept.set_limit(runtime.config().limits.replay_total);
        self.runtime.store(Arc::new(runtime));
    }

    pub(crate) fn runtime(&self) -> Arc<Runtime> {
        self.runtime.load_full()
    }

    /// The active configuration.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.runtime.load().snapshot)
    }

    pub(crate) fn observer(&self) -> &Arc<dyn Observe> {
        &self.observer
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
        f.debug_struct("Gateway").field("under_way", &self.concurrency).finish_non_exhaustive()
    }
}

/// Request ids: a random part for the process, and a counter.
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
