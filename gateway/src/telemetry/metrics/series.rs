//! Groups the series of one kind of request, looked up once instead of for every request.

use std::{
    array,
    cell::RefCell,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use prometheus_client::metrics::{counter::Counter, histogram::Histogram};

use crate::telemetry::labels::{Decision, Labels};

/// The series of one kind of request. Those that only some requests use are created on first use: a
/// series that never counted is not shown.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) requests: Counter,
    pub(crate) to_head: Histogram,
    pub(crate) total: Histogram,
    /// By who ended them.
    pub(crate) ended: [OnceLock<Counter>; 5],
    pub(crate) waited: OnceLock<Histogram>,
    pub(crate) spilled: OnceLock<Counter>,
    /// Until the first token, for streams.
    pub(crate) first_token: OnceLock<Histogram>,
    /// Prompt, cached, completion; likewise below.
    pub(crate) tokens: OnceLock<[Counter; 3]>,
    pub(crate) spilled_tokens: OnceLock<[Counter; 3]>,
}

/// A cache of series, on each thread those that it used last.
#[derive(Debug)]
pub(crate) struct Recent {
    /// The owner of the series: a process may have several registries.
    owner: u64,
}

struct Entry {
    owner: u64,
    client: Box<str>,
    model: Box<str>,
    backend: Box<str>,
    operation: &'static str,
    status: u16,
    decision: Decision,
    series: Arc<Series>,
}

impl Recent {
    pub(crate) fn new() -> Self {
        static OWNERS: AtomicU64 = AtomicU64::new(0);
        Self { owner: OWNERS.fetch_add(1, Relaxed) }
    }

    /// The series for requests like this one; `find` looks them up if they are not cached.
    pub(crate) fn series(
        &self,
        labels: &Labels<'_>,
        find: impl FnOnce() -> Arc<Series>,
    ) -> Arc<Series> {
        ENTRIES.with_borrow_mut(|entries| {
            let entry = &mut entries[place(labels)];
            match entry {
                Some(entry) if entry.is_of(self.owner, labels) => Arc::clone(&entry.series),
                _ => {
                    let series = find();
                    *entry = Some(Entry::new(self.owner, labels, Arc::clone(&series)));
                    series
                }
            }
        })
    }
}

impl Entry {
    fn new(owner: u64, labels: &Labels<'_>, series: Arc<Series>) -> Self {
        Self {
            owner,
            client: labels.client.into(),
            model: labels.model.into(),
            backend: labels.backend().unwrap_or_default().into(),
            operation: labels.operation,
            status: labels.record.status.as_u16(),
            decision: labels.decision,
            series,
        }
    }

    fn is_of(&self, owner: u64, labels: &Labels<'_>) -> bool {
        self.owner == owner
            && self.status == labels.record.status.as_u16()
            && self.decision == labels.decision
            && self.operation == labels.operation
            && *self.client == *labels.client
            && *self.model == *labels.model
            && *self.backend == *labels.backend().unwrap_or_default()
    }
}

/// The cache slot of such requests; it may evict others.
fn place(labels: &Labels<'_>) -> usize {
    let backend = labels.backend().unwrap_or_default();
    let words = [labels.client, labels.model, labels.operation, backend];
    let bytes = words.iter().flat_map(|word| word.bytes());
    let status = usize::from(labels.record.status.as_u16());
    let mix = |sum: usize, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte));
    bytes.fold(status + labels.decision as usize, mix) % PLACES
}

const PLACES: usize = 127;

thread_local! {
    static ENTRIES: RefCell<[Option<Entry>; PLACES]> = RefCell::new(array::from_fn(|_| None));
}
