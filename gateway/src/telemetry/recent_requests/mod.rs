//! The last requests, kept in memory for `/-/requests`.

mod document;
mod filter;

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use opentelemetry::trace::TraceId;
use serde_json::{Value, json};

use self::filter::Filter;
use super::labels::Decision;
use crate::{access_record::AccessRecord, snapshot::Snapshot};

/// A ring of the last finished requests, without their bodies.
///
/// A finished request reserves its slot with one atomic addition and moves its record there without
/// a copy; it locks only the slot, which is contended only by a reader of the ring, or by a request
/// that ended a full round later.
#[derive(Debug)]
pub(crate) struct RecentRequests {
    places: Box<[Mutex<Option<Finished>>]>,
    count: AtomicU64,
}

/// A finished request.
#[derive(Debug)]
struct Finished {
    /// The number of requests kept before it.
    number: u64,
    record: AccessRecord,
    decision: Decision,
    trace: Option<TraceId>,
}

impl RecentRequests {
    /// Keeps the last `size` requests.
    pub(crate) fn new(size: usize) -> Self {
        let places = (0..size).map(|_| Mutex::new(None)).collect();
        Self { places, count: AtomicU64::new(0) }
    }

    /// Keeps a request in the slot of the oldest.
    pub(crate) fn push(&self, record: AccessRecord, decision: Decision, trace: Option<TraceId>) {
        if self.places.is_empty() {
            return;
        }
        let number = self.count.fetch_add(1, Relaxed);
        let index = self.index(number);
        let finished = Finished { number, record, decision, trace };
        let last = lock(&self.places[index]).replace(finished);
        // Dropped outside the lock.
        drop(last);
    }

    /// The slot of the request with this number; 0 if none is kept.
    fn index(&self, number: u64) -> usize {
        let index = number.checked_rem(self.places.len() as u64).unwrap_or_default();
        usize::try_from(index).unwrap_or_default()
    }

    /// The requests that match the page's `query`, the latest first.
    ///
    /// # Errors
    ///
    /// What is wrong with the query, and how to fix it.
    pub(crate) fn document(&self, query: &str, running: &Snapshot) -> Result<Value, String> {
        let filter = Filter::read(query)?;
        let count = self.count.load(Relaxed);
        let (mut matching, mut found) = (0_usize, Vec::new());
        // From the latest, so that only the requests to be shown are described.
        let (older, newer) = self.places.split_at(self.index(count));
        for place in older.iter().rev().chain(newer.iter().rev()) {
            if let Some(finished) = &*lock(place)
                && filter.takes(finished)
            {
                matching += 1;
                if matching <= filter.limit {
                    found.push((finished.number, document::of(finished, running)));
                }
            }
        }
        // Requests that end while this reads overwrite the oldest places.
        found.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
        let requests: Vec<_> = found.into_iter().map(|(_, request)| request).collect();
        Ok(json!({
            "capacity": self.places.len(),
            "finished": count,
            "matching": matching,
            "requests": requests,
        }))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
