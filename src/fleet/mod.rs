//! State that several processes share: a store, what is kept there, and what happens without it.
//!
//! Processes that use these layers learn separately: with four replicas, a
//! [`SpillBudget`](crate::smart_fallback::SpillBudget) allows four times its limit. A [`Fleet`] is the
//! state that they share instead, in a [`Store`]: [`Local`] within one process, or `RedisStore`
//! (feature `redis`) between processes.
//!
//! ```
//! use std::time::Duration;
//! use tower_spillover::{fleet::{Fleet, Local}, smart_fallback::SpillBudget};
//!
//! let fleet = Fleet::new("prod", Local::new())?;
//! let minute = Duration::from_secs(60);
//! let budget = SpillBudget::requests(100, minute).fleet(&fleet, "gpt-4o");
//! # drop(budget);
//! # Ok::<(), tower_spillover::ConfigError>(())
//! ```
//!
//! # Without the store
//!
//! A request waits for the store at most [`timeout`](Fleet::timeout), and only if it leaves the success
//! path: a request that the primary serves does not call the store. If the store does not answer, the
//! process decides alone. It then uses its share of a limit: the limit divided by the number of
//! [replicas](Fleet::replicas), as last known. No request fails because of the store.

pub(crate) mod budget;
mod call;
mod core;
mod gate;
mod ids;
mod local;
mod name;
mod rate;
#[cfg(feature = "redis")]
mod redis;
mod stats;
mod store;

use std::{fmt, sync::Arc, time::Duration};

use crate::ConfigError;

#[cfg(test)]
pub(crate) use self::core::CONSTANTS;
#[cfg(feature = "redis")]
pub(crate) use self::core::{gate_layout, gate_script};
#[cfg(feature = "redis")]
pub(crate) use self::redis::PasswordSource;
#[cfg(all(fuzzing, feature = "redis"))]
pub(crate) use self::redis::read_answer;
#[cfg(feature = "redis")]
pub use self::redis::{RedisStore, StoreStatus};
pub(crate) use self::{
    call::{Call, Caller},
    core::{Answer, Attempt, Grant, MAX_RANK, Newcomer, Refusal, Seed, SpillKind, Step, Ticket},
    gate::{OnBusy, duration},
};
pub use self::{
    gate::{GateCall, GateNews, GateReply, SharedGate},
    ids::IdHolder,
    local::Local,
    name::{Kind, Name},
    rate::Rate,
    stats::{FleetStats, LATENCY_BOUNDS, Operation, OperationStats},
    store::{Allowance, Closing, Leased, Listener, OnStored, RateLimit, Store, Taken, Unreachable},
};

/// The state that several processes share. Clones are handles to the same fleet.
///
/// Processes are in the same fleet if their fleets have the same name and the same store.
#[derive(Clone)]
pub struct Fleet {
    caller: Arc<Caller>,
}

impl Fleet {
    /// The fleet called `name` in `store`.
    ///
    /// # Errors
    ///
    /// If the name is empty, longer than 64 bytes, or contains other characters than ASCII letters,
    /// digits, `.`, `_` and `-`: it is a part of the store's keys.
    pub fn new(name: &str, store: impl Store) -> Result<Self, ConfigError> {
        Ok(Self { caller: Arc::new(Caller::new(name::check(name)?, Arc::new(store))) })
    }

    /// How long a request waits for the store before its own process decides. Defaults to 50 ms: a
    /// store in the same region answers within 1 ms, and a request that leaves the success path waits
    /// for seconds anyway. Applies to what is connected to the fleet afterwards.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.caller.set_timeout(timeout);
        self
    }

    /// Whether the store answers. While it does not, each process decides alone.
    pub fn is_up(&self) -> bool {
        self.caller.store().is_up()
    }

    /// The number of processes in the fleet, as last known; at least 1.
    pub fn replicas(&self) -> u32 {
        self.caller.replicas()
    }

    /// The calls to the store so far.
    pub fn stats(&self) -> FleetStats {
        self.caller.stats()
    }

    /// The name of the fleet.
    pub fn name(&self) -> &str {
        self.caller.fleet()
    }

    pub(crate) const fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet")
            .field("name", &self.name())
            .field("timeout", &self.caller.timeout())
            .field("store", self.caller.store())
            .finish()
    }
}
