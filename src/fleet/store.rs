//! What a store does for a fleet.

use std::{error::Error, fmt, future::ready, time::Duration};

use futures_core::future::BoxFuture;

use super::{GateCall, GateNews, GateReply, IdHolder, Name};

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

    /// Takes up to `most` requests, and at least one, out of the rate called `name`.
    fn lease(
        &self,
        name: &Name,
        limit: RateLimit,
        most: u32,
    ) -> BoxFuture<'static, Result<Leased, Unreachable>> {
        let _ = (name, limit, most);
        Box::pin(ready(Err(Unreachable)))
    }

    /// The `backend` refuses requests. Those that [follow](Self::follow) it hear of it, unless they know
    /// of a longer closing of the same. No request waits for it.
    fn close(&self, backend: &Name, closing: Closing) {
        let _ = (backend, closing);
    }

    /// Calls `listener` with what is closed at the `backend` now, and when a process
    /// [reports](Self::close) more; with the latest again from time to time.
    fn follow(&self, backend: &Name, listener: Listener) {
        let _ = (backend, listener);
    }

    /// Changes what was taken out of the budget called `name` by this much, if its `window` is still
    /// open. No request waits for it.
    fn correct(&self, name: &Name, window: u64, change: i64) {
        let _ = (name, window, change);
    }

    /// Whether it [remembers](Self::remember) ids. A store outside of this process hashes them, and needs
    /// a secret for that.
    fn keeps_ids(&self) -> bool {
        false
    }

    /// Objects with these ids are held like this, as an answer showed. The store keeps that for `age`
    /// after the last call about an id, or a little longer. The first owner keeps an id: others and
    /// holders without an owner do not replace it. Then it calls `on_stored` with the holders that it
    /// keeps, in the order of `ids`. No request waits for it.
    ///
    /// A store must not print or persist an id: it hashes them.
    fn remember(
        &self,
        fleet: &str,
        ids: Vec<(Box<[u8]>, IdHolder)>,
        age: Duration,
        on_stored: OnStored,
    ) {
        let _ = (fleet, ids, age, on_stored);
    }

    /// Who holds each of these ids, if the store [remembers](Self::remember) them.
    fn recall(
        &self,
        fleet: &str,
        ids: Vec<Box<[u8]>>,
        age: Duration,
    ) -> BoxFuture<'static, Result<Vec<Option<IdHolder>>, Unreachable>> {
        let _ = (fleet, ids, age);
        Box::pin(ready(Err(Unreachable)))
    }

    /// Applies `call` to the [`SharedGate`](super::SharedGate) called `name`.
    ///
    /// If the future is dropped before it is ready, the store [takes back](GateCall::undo) what it
    /// granted.
    fn gate(
        &self,
        name: &Name,
        call: GateCall,
    ) -> BoxFuture<'static, Result<GateReply, Unreachable>> {
        let _ = (name, call);
        Box::pin(ready(Err(Unreachable)))
    }

    /// Like [`gate`](Self::gate), for a call that asks nothing. No request waits for it.
    fn tell_gate(&self, name: &Name, call: GateCall) {
        let _ = (name, call);
    }

    /// Tells `news` from now on when the PTU of the gate called `name` is busy.
    fn listen(&self, name: &Name, news: GateNews) {
        let _ = (name, news);
    }
}

/// Is called with who holds ids, as a store keeps it.
pub type OnStored = Box<dyn FnOnce(&[IdHolder]) + Send>;

/// Hears how long a backend is closed. Returns whether it still listens.
pub type Listener = Box<dyn Fn(Closing) -> bool + Send + Sync>;

/// What a refusal closes at a backend, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Identifies what is closed: everything, a kind of traffic, or heavy requests. A store need not
    /// know more than which closings are of the same.
    pub what: u32,
    /// For how long.
    pub left: Duration,
    /// How long the service itself asked to wait, which is longer if it is not believed.
    pub said: Duration,
    /// Why, as a number that a store passes on.
    pub why: u8,
}

/// A rate of requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    /// Positive. After a pause, the requests of one second may come at once, or one, if that is more.
    pub per_second: f64,
}

impl RateLimit {
    pub(crate) fn interval_us(self) -> f64 {
        1e6 / self.per_second
    }
}

/// The answer of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leased {
    /// This many requests may be sent.
    Granted(u32),
    /// None may be sent now.
    Spent {
        /// The time until one may be sent.
        opens_in: Duration,
    },
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
