//! How many requests are under way, for the limit on them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// A count of requests; clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Concurrency(Arc<AtomicUsize>);

/// One of the requests under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct ConcurrencyPermit(Arc<AtomicUsize>);

impl Concurrency {
    /// `None` when `limit` requests are under way. It is an argument because a reload changes it.
    pub(crate) fn enter(&self, limit: usize) -> Option<ConcurrencyPermit> {
        let is_free = self.0.fetch_add(1, Relaxed) < limit;
        let permit = ConcurrencyPermit(Arc::clone(&self.0));
        is_free.then_some(permit)
    }
}

impl Drop for ConcurrencyPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
