//! A store within one process.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use futures_core::future::BoxFuture;

use super::{
    Allowance, Name, Store, Taken, Unreachable,
    budget::{StoredBudget, micros},
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

    fn correct(&self, name: &Name, window: u64, change: i64) {
        let mut shared = self.lock();
        if !shared.is_down
            && let Some(budget) = shared.budgets.get_mut(name)
        {
            budget.correct(window, change);
        }
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}
