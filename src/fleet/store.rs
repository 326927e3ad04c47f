//! What a store does for a fleet.

use std::{error::Error, fmt, future::ready, time::Duration};

use futures_core::future::BoxFuture;

use super::Name;

/// Holds the state that the processes of a fleet share.
///
/// Every method has a default that shares nothing, as a store that cannot be reached, so that an
/// implementation may begin with one of them.
///
/// A future is polled on the task of the request that waits for it, and dropped when the fleet's
/// [`timeout`](super::Fleet::timeout) has passed or the request is cancelled. Only durations are
/// exchanged: the clocks of the processes need not agree.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// This process uses the `fleet` from now on. Called once for each [`Fleet`](super::Fleet) that is
    /// created.
    fn join(&self, fleet: &str) {
        let _ = fleet;
    }

    /// This process does not use the `fleet` any more; the counterpart of [`join`](Self::join).
    fn leave(&self, fleet: &str) {
        let _ = fleet;
    }

    /// Whether the store is known to answer. If not, it is not called.
    fn is_up(&self) -> bool {
        true
    }

    /// The number of processes that use the `fleet`, as last known.
    fn replicas(&self, fleet: &str) -> u32 {
        let _ = fleet;
        1
    }

    /// No request waits for longer than `timeout` from now on, which is 50 ms at first. A store that
    /// takes longer again and again should say that it is [down](Self::is_up).
    fn set_timeout(&self, timeout: Duration) {
        let _ = timeout;
    }

    /// Takes `amount` out of the budget called `name` if that has something left. The first one to
    /// take something opens a window, in which at most the [`limit`](Allowance::limit) is left; the one
    /// that crosses the limit still gets all that it takes.
    ///
    /// If the future is dropped before it is ready, the store [returns](Self::correct) what it took.
    fn take(
        &self,
        name: &Name,
        from: Allowance,
        amount: u64,
    ) -> BoxFuture<'static, Result<Taken, Unreachable>> {
        let _ = (name, from, amount);
        Box::pin(ready(Err(Unreachable)))
    }

    /// Changes what was taken out of the budget called `name` by this much, if its `window` is still
    /// open. Nobody waits for it.
    fn correct(&self, name: &Name, window: u64, change: i64) {
        let _ = (name, window, change);
    }
}

/// The limit of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Requests or weighted tokens per window.
    pub limit: u64,
    /// How long a window is open.
    pub window: Duration,
}

/// The answer of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The amount was taken.
    Granted {
        /// Identifies the window.
        window: u64,
        /// What is left in the window.
        left: u64,
        /// The time until the window closes.
        closes_in: Duration,
    },
    /// Nothing was left.
    Spent {
        /// The time until the next window.
        opens_in: Duration,
    },
}

/// The store did not answer: it cannot be reached, refused the call, or took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable;

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the store of the fleet did not answer")
    }
}

impl Error for Unreachable {}
