//! Counts the calls to a store.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// The calls of a process to its fleet's store.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct FleetStats {
    /// By operation.
    pub operations: Vec<OperationStats>,
    /// Ids that the store was asked for, and had.
    pub ids_found: u64,
    /// Ids that the store was asked for, and did not have.
    pub ids_unknown: u64,
}

/// What a store is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// A spill is charged to a budget.
    Take,
    /// Requests are taken out of a rate.
    Lease,
    /// A request asks the gate of a busy PTU.
    Gate,
    /// A request refers to ids that its process does not know.
    Recall,
}

impl Operation {
    const ALL: [Self; 4] = [Self::Take, Self::Lease, Self::Gate, Self::Recall];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Take => "take",
            Self::Lease => "lease",
            Self::Gate => "gate",
            Self::Recall => "recall",
        }
    }
}

/// The calls of one operation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OperationStats {
    /// The operation.
    pub operation: Operation,
    /// The store answered.
    pub ok: u64,
    /// The store did not answer within the [timeout](super::Fleet::timeout).
    pub timeout: u64,
    /// The store answered with an error, or the connection failed.
    pub error: u64,
    /// The store was known to be down, and was not called.
    pub skipped: u64,
    /// The total time of the calls that were made.
    pub time: Duration,
    /// How many calls took at most each of the [`LATENCY_BOUNDS`] but longer than the one before it,
    /// and how many took longer than all.
    pub latencies: [u64; LATENCY_BOUNDS.len() + 1],
}

impl OperationStats {
    /// The number of calls by the name of their outcome in metrics.
    pub const fn outcomes(&self) -> [(&'static str, u64); 4] {
        [
            ("ok", self.ok),
            ("timeout", self.timeout),
            ("error", self.error),
            ("skipped", self.skipped),
        ]
    }
}

/// The bounds of [`latencies`](OperationStats::latencies): a store answers in less than a millisecond
/// on the same network and in 80 ms on another continent.
pub const LATENCY_BOUNDS: [Duration; 9] = [
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
];

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Answered,
    TimedOut,
    Failed,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    operations: [OperationCounters; Operation::ALL.len()],
    ids_found: AtomicU64,
    ids_unknown: AtomicU64,
}

#[derive(Debug, Default)]
struct OperationCounters {
    answered: AtomicU64,
    timed_out: AtomicU64,
    failed: AtomicU64,
    skipped: AtomicU64,
    micros: AtomicU64,
    latencies: [AtomicU64; LATENCY_BOUNDS.len() + 1],
}

impl Counters {
    pub(super) fn ended(&self, operation: Operation, ended: Ended, took: Duration) {
        let counters = &self.operations[operation as usize];
        let count = match ended {
            Ended::Answered => &counters.answered,
            Ended::TimedOut => &counters.timed_out,
            Ended::Failed => &counters.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        counters.micros.fetch_add(micros, Ordering::Relaxed);
        let bound = LATENCY_BOUNDS.partition_point(|bound| *bound < took);
        counters.latencies[bound].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn skipped(&self, operation: Operation) {
        self.operations[operation as usize].skipped.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn recalled(&self, found: usize, unknown: usize) {
        self.ids_found.fetch_add(found as u64, Ordering::Relaxed);
        self.ids_unknown.fetch_add(unknown as u64, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> FleetStats {
        let of = |operation: Operation| {
            let counters = &self.operations[operation as usize];
            let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
            OperationStats {
                operation,
                ok: read(&counters.answered),
                timeout: read(&counters.timed_out),
                error: read(&counters.failed),
                skipped: read(&counters.skipped),
                time: Duration::from_micros(read(&counters.micros)),
                latencies: std::array::from_fn(|bound| read(&counters.latencies[bound])),
            }
        };
        FleetStats {
            operations: Operation::ALL.into_iter().map(of).collect(),
            ids_found: self.ids_found.load(Ordering::Relaxed),
            ids_unknown: self.ids_unknown.load(Ordering::Relaxed),
        }
    }
}
