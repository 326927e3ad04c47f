//! What happened to every request, as seen from outside of the layers.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::plan::PTU_SERVER;

/// What happened to one request. Times count from the beginning.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Record {
    pub(super) process: usize,
    pub(super) arrived: Duration,
    /// Attempts that were sent, to any server.
    pub(super) attempts: u32,
    pub(super) last_sent: Duration,
    /// The server that accepted it, and when the accepted attempt reached it.
    pub(super) accepted: Option<(usize, Duration)>,
    /// Whether the PTU accepted it while an older request of its process was waiting.
    pub(super) overtook: bool,
    /// Whether its caller got a 429 while a Standard deployment had quota.
    pub(super) needless: bool,
    pub(super) done: Option<Duration>,
}

/// All that a run left behind.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) records: Vec<Record>,
    /// The PTU's level in tokens, each second from the beginning.
    pub(super) levels: Vec<f64>,
    /// The level when measuring began, and when it ended.
    pub(super) level_at: [f64; 2],
}

/// The account that the driver and the network keep together.
#[derive(Debug)]
pub(super) struct Ledger(Mutex<State>);

#[derive(Debug)]
struct State {
    records: Vec<Record>,
    /// By process: requests that have arrived, have no attempt under way and no answer yet.
    waiting: Vec<BTreeSet<usize>>,
}

impl Ledger {
    pub(super) fn new(processes: usize, requests: usize) -> Self {
        let waiting = vec![BTreeSet::new(); processes];
        Self(Mutex::new(State { records: vec![Record::default(); requests], waiting }))
    }

    pub(super) fn arrive(&self, index: usize, process: usize, now: Duration) {
        let state = &mut *self.lock();
        state.records[index].process = process;
        state.records[index].arrived = now;
        state.waiting[process].insert(index);
    }

    /// An attempt leaves; returns how many were made before it.
    pub(super) fn send(&self, index: usize, now: Duration) -> u32 {
        let state = &mut *self.lock();
        let record = &mut state.records[index];
        record.attempts += 1;
        record.last_sent = now;
        state.waiting[record.process].remove(&index);
        record.attempts - 1
    }

    /// An attempt reached a server that accepts it.
    pub(super) fn accept(&self, index: usize, server: usize, now: Duration) {
        let state = &mut *self.lock();
        let record = &mut state.records[index];
        record.accepted = Some((server, now));
        let oldest = state.waiting[record.process].first();
        record.overtook = server == PTU_SERVER && oldest.is_some_and(|&oldest| oldest < index);
    }

    /// A refusal is back.
    pub(super) fn refused(&self, index: usize) {
        let state = &mut *self.lock();
        state.waiting[state.records[index].process].insert(index);
    }

    /// The caller has an answer.
    pub(super) fn finish(&self, index: usize, now: Duration) {
        let state = &mut *self.lock();
        let record = &mut state.records[index];
        record.done = Some(now);
        state.waiting[record.process].remove(&index);
    }

    /// The caller has a 429 though some Standard deployment had quota.
    pub(super) fn refused_needlessly(&self, index: usize) {
        self.lock().records[index].needless = true;
    }

    /// How many attempts were made so far.
    pub(super) fn attempts(&self, index: usize) -> u32 {
        self.lock().records[index].attempts
    }

    pub(super) fn take(&self) -> Vec<Record> {
        std::mem::take(&mut self.lock().records)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
