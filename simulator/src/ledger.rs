//! Records what happened to every request, as seen from outside the layers.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    open::OpenWatch,
    outage::Window,
    plan::{PTU_SERVER, is_ptu},
};

/// What happened to one request. Times count from the beginning of the run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Record {
    pub(super) process: usize,
    pub(super) arrived: Duration,
    /// Attempts sent, to any server.
    pub(super) attempts: u32,
    pub(super) last_sent: Duration,
    /// The largest number of attempts sent to the PTU within any four seconds.
    pub(super) most_asks: u32,
    /// The server that accepted it, and when the accepted attempt reached that server.
    pub(super) accepted: Option<(usize, Duration)>,
    /// Whether the PTU accepted it while an older request of its process or fleet was waiting.
    pub(super) overtook: bool,
    /// Whether its caller got a 429 while a Standard deployment had quota.
    pub(super) needless: bool,
    pub(super) done: Option<Duration>,
}

/// The raw outcome of a run.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) records: Vec<Record>,
    /// The PTU's level in tokens, each second from the beginning.
    pub(super) levels: Vec<f64>,
    /// The level when measuring began, and when it ended.
    pub(super) level_at: [f64; 2],
    /// When the end of each outage was noticed: the first later attempt that reached the PTU.
    pub(super) noticed: Vec<Option<Duration>>,
    /// How long the PTU stood open while a request waited; `None` for an oracle.
    pub(super) open: Option<OpenWatch>,
}

/// Shared by the driver and the network.
#[derive(Debug)]
pub(super) struct Ledger(Mutex<State>);

#[derive(Debug)]
struct State {
    records: Vec<Record>,
    /// By process, or in one queue for a fleet: requests that have arrived, and have neither an attempt in flight nor an answer.
    waiting: Vec<BTreeSet<usize>>,
    waiting_count: usize,
    /// By request: the times at which it was sent to the PTU in the last four seconds.
    asks: Vec<VecDeque<Duration>>,
    noticed: Vec<Option<Duration>>,
}

impl Ledger {
    pub(super) fn new(queues: usize, requests: usize) -> Self {
        let waiting = vec![BTreeSet::new(); queues];
        Self(Mutex::new(State {
            records: vec![Record::default(); requests],
            waiting,
            waiting_count: 0,
            asks: vec![VecDeque::new(); requests],
            noticed: Vec::new(),
        }))
    }

    pub(super) fn arrive(&self, index: usize, process: usize, now: Duration) {
        let state = &mut *self.lock();
        state.records[index].process = process;
        state.records[index].arrived = now;
        state.wait(index);
    }

    /// Records an attempt at `server`; returns the number of earlier attempts.
    pub(super) fn send(&self, index: usize, server: usize, now: Duration) -> u32 {
        let state = &mut *self.lock();
        let record = &mut state.records[index];
        if is_ptu(server) {
            let asks = &mut state.asks[index];
            asks.push_back(now);
            while asks.front().is_some_and(|first| now - *first >= ASKS_WITHIN) {
                asks.pop_front();
            }
            record.most_asks = record.most_asks.max(asks.len() as u32);
        }
        record.attempts += 1;
        record.last_sent = now;
        let earlier = record.attempts - 1;
        state.go(index);
        earlier
    }

    /// Records that `server` accepted an attempt.
    pub(super) fn accept(&self, index: usize, server: usize, now: Duration) {
        let state = &mut *self.lock();
        let record = &mut state.records[index];
        record.accepted = Some((server, now));
        let queue = record.process % state.waiting.len();
        let oldest = state.waiting[queue].first();
        record.overtook = is_ptu(server) && oldest.is_some_and(|&oldest| oldest < index);
    }

    /// Records that an attempt reached `server`.
    pub(super) fn reach(&self, server: usize, now: Duration, outages: &[Window]) {
        if server != PTU_SERVER || outages.is_empty() {
            return;
        }
        let noticed = &mut self.lock().noticed;
        noticed.resize(outages.len(), None);
        for (noticed, window) in noticed.iter_mut().zip(outages) {
            if now >= window.to {
                noticed.get_or_insert(now);
            }
        }
    }

    /// Records that a refusal has come back.
    pub(super) fn refused(&self, index: usize) {
        let state = &mut *self.lock();
        state.wait(index);
    }

    /// Records that the caller has an answer.
    pub(super) fn finish(&self, index: usize, now: Duration) {
        let state = &mut *self.lock();
        let record = &mut state.records[index];
        record.done = Some(now);
        state.asks[index] = VecDeque::new();
        state.go(index);
    }

    /// Records that the process of this request crashed, unless its caller already had an answer.
    pub(super) fn lose(&self, index: usize, now: Duration) {
        if self.lock().records[index].done.is_none() {
            self.finish(index, now);
        }
    }

    /// Records that the caller got a 429 although a Standard deployment had quota.
    pub(super) fn refused_needlessly(&self, index: usize) {
        self.lock().records[index].needless = true;
    }

    /// The number of attempts so far.
    pub(super) fn attempts(&self, index: usize) -> u32 {
        self.lock().records[index].attempts
    }

    /// Whether any request has arrived and has neither an attempt in flight nor an answer.
    pub(super) fn any_request_waits(&self) -> bool {
        self.lock().waiting_count > 0
    }

    /// Takes the records, and when the ends of outages were noticed.
    pub(super) fn take(&self) -> (Vec<Record>, Vec<Option<Duration>>) {
        let state = &mut *self.lock();
        (std::mem::take(&mut state.records), std::mem::take(&mut state.noticed))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait(&mut self, index: usize) {
        let queue = self.records[index].process % self.waiting.len();
        self.waiting_count += usize::from(self.waiting[queue].insert(index));
    }

    fn go(&mut self, index: usize) {
        let queue = self.records[index].process % self.waiting.len();
        self.waiting_count -= usize::from(self.waiting[queue].remove(&index));
    }
}

const ASKS_WITHIN: Duration = Duration::from_secs(4);
