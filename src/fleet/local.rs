//! A store within one process.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_core::future::BoxFuture;

use super::{
    Allowance, Closing, GateCall, GateNews, GateReply, IdHolder, Leased, Listener, Name, OnStored,
    RateLimit, SharedGate, Store, Taken, Unreachable,
    budget::{StoredBudget, micros},
    ids::StoredIds,
    rate::StoredRate,
};
use crate::clock;

/// A [`Store`] for several stacks in one process, and for tests. Clones share what is stored; each
/// [`Fleet`](super::Fleet) with one of them counts as a replica.
#[derive(Clone, Default)]
pub struct Local {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    /// The store's clock starts when it is first used.
    since: Option<Instant>,
    is_down: bool,
    replicas: HashMap<Box<str>, u32>,
    budgets: HashMap<Name, StoredBudget>,
    rates: HashMap<Name, StoredRate>,
    /// By backend, and by what is closed; until when and, by the service's own hint, until when.
    closings: HashMap<(Name, u32), (Closing, Instant)>,
    listeners: HashMap<Name, Vec<Listener>>,
    /// By fleet.
    ids: HashMap<Box<str>, StoredIds>,
    gates: HashMap<Name, SharedGate>,
    gate_listeners: HashMap<Name, Vec<GateNews>>,
}

impl Local {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the store answers from now on, which it does at first. For rehearsals of an outage.
    pub fn set_up(&self, is_up: bool) {
        self.lock().is_down = !is_up;
    }

    /// Loses everything that is stored, like a store that restarts without its data. For rehearsals.
    pub fn forget(&self) {
        let mut shared = self.lock();
        shared.budgets.clear();
        shared.rates.clear();
        shared.closings.clear();
        shared.ids.clear();
        shared.gates.clear();
    }

    fn apply(&self, name: &Name, call: &GateCall) -> Option<GateReply> {
        let (reply, listeners) = {
            let mut shared = self.lock();
            if shared.is_down {
                return None;
            }
            let now = Duration::from_micros(shared.now());
            let reply = shared.gates.entry(name.clone()).or_default().apply(now, call);
            let listeners = reply.busy_for().and_then(|_| shared.gate_listeners.get(name).cloned());
            (reply, listeners)
        };
        if let (Some(time), Some(listeners)) = (reply.busy_for(), listeners) {
            for gate in listeners {
                gate.busy_for(time);
            }
        }
        Some(reply)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// The time of the store in microseconds; 0 is not a time.
    fn now(&mut self) -> u64 {
        let now = clock::now();
        let since = *self.since.get_or_insert(now);
        1 + micros(now.saturating_duration_since(since))
    }
}

impl Store for Local {
    fn join(&self, fleet: &str) {
        *self.lock().replicas.entry(fleet.into()).or_default() += 1;
    }

    fn leave(&self, fleet: &str) {
        if let Some(replicas) = self.lock().replicas.get_mut(fleet) {
            *replicas -= 1;
        }
    }

    fn is_up(&self) -> bool {
        !self.lock().is_down
    }

    fn replicas(&self, fleet: &str) -> u32 {
        self.lock().replicas.get(fleet).copied().unwrap_or(1)
    }

    fn take(
        &self,
        name: &Name,
        from: Allowance,
        amount: u64,
    ) -> BoxFuture<'static, Result<Taken, Unreachable>> {
        let (store, name) = (self.clone(), name.clone());
        // Nothing is taken before the future is polled, and it is ready then.
        Box::pin(async move {
            let mut shared = store.lock();
            if shared.is_down {
                return Err(Unreachable);
            }
            let now = shared.now();
            Ok(shared.budgets.entry(name).or_default().take(now, from, amount))
        })
    }

    fn lease(
        &self,
        name: &Name,
        limit: RateLimit,
        most: u32,
    ) -> BoxFuture<'static, Result<Leased, Unreachable>> {
        let (store, name) = (self.clone(), name.clone());
        Box::pin(async move {
            let mut shared = store.lock();
            if shared.is_down {
                return Err(Unreachable);
            }
            let now = shared.now() as f64;
            Ok(shared.rates.entry(name).or_default().lease(now, limit, most))
        })
    }

    fn close(&self, backend: &Name, closing: Closing) {
        let mut shared = self.lock();
        let now = clock::now();
        let known = shared.closings.get(&(backend.clone(), closing.what));
        let is_known = known.is_some_and(|(known, at)| *at + known.left >= now + closing.left);
        if shared.is_down || is_known {
            return;
        }
        shared.closings.insert((backend.clone(), closing.what), (closing, now));
        if let Some(listeners) = shared.listeners.get_mut(backend) {
            listeners.retain(|listener| listener(closing));
        }
    }

    fn follow(&self, backend: &Name, listener: Listener) {
        let mut shared = self.lock();
        let now = clock::now();
        for ((name, _), (closing, at)) in &shared.closings {
            let age = now.saturating_duration_since(*at);
            if let (true, Some(left)) = (name == backend, closing.left.checked_sub(age)) {
                listener(Closing { left, said: closing.said.saturating_sub(age), ..*closing });
            }
        }
        shared.listeners.entry(backend.clone()).or_default().push(listener);
    }

    fn correct(&self, name: &Name, window: u64, change: i64) {
        let mut shared = self.lock();
        if !shared.is_down
            && let Some(budget) = shared.budgets.get_mut(name)
        {
            budget.correct(window, change);
        }
    }

    fn keeps_ids(&self) -> bool {
        true
    }

    fn remember(
        &self,
        fleet: &str,
        ids: Vec<(Box<[u8]>, IdHolder)>,
        age: Duration,
        on_stored: OnStored,
    ) {
        let kept: Vec<IdHolder> = {
            let mut shared = self.lock();
            if shared.is_down {
                return;
            }
            let now = shared.now();
            let stored = shared.ids.entry(fleet.into()).or_default();
            ids.into_iter().map(|(id, is)| stored.remember(now, age, id, is)).collect()
        };
        on_stored(&kept);
    }

    fn recall(
        &self,
        fleet: &str,
        ids: Vec<Box<[u8]>>,
        age: Duration,
    ) -> BoxFuture<'static, Result<Vec<Option<IdHolder>>, Unreachable>> {
        let (store, fleet) = (self.clone(), Box::<str>::from(fleet));
        Box::pin(async move {
            let mut shared = store.lock();
            if shared.is_down {
                return Err(Unreachable);
            }
            let now = shared.now();
            let stored = shared.ids.entry(fleet).or_default();
            Ok(ids.iter().map(|id| stored.recall(now, age, id)).collect())
        })
    }

    fn gate(
        &self,
        name: &Name,
        call: GateCall,
    ) -> BoxFuture<'static, Result<GateReply, Unreachable>> {
        let (store, name) = (self.clone(), name.clone());
        // As above, so that nothing is ever to be taken back.
        Box::pin(async move { store.apply(&name, &call).ok_or(Unreachable) })
    }

    fn tell_gate(&self, name: &Name, call: GateCall) {
        self.apply(name, &call);
    }

    fn listen(&self, name: &Name, news: GateNews) {
        let mut shared = self.lock();
        let listeners = shared.gate_listeners.entry(name.clone()).or_default();
        listeners.retain(GateNews::is_heard);
        listeners.push(news);
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}
