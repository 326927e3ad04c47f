//! The layer that waits: its settings, with their defaults.

use std::{sync::Arc, time::Duration};

use tower_layer::Layer;

use super::{Class, Wait, WaitQueue};
use crate::classify::{Classify, Rules};

/// Waits until a service that refuses reopens, and sends the request again, within its `max_wait`.
///
/// Around a [`RegionRotateLayer`](crate::RegionRotateLayer) it makes a patient pool: while a backend
/// is open it does nothing, and when all refuse, a request waits for the first to reopen instead of
/// being refused at once. Any other service that says in its refusals when it reopens will do.
///
/// ```
/// use std::time::Duration;
/// use tower::ServiceBuilder;
/// use tower_spillover::{Backend, BackendPool, RegionRotateLayer, WaitLayer};
///
/// # fn main() -> Result<(), tower_spillover::ConfigError> {
/// # let client = tower::service_fn(|_: http::Request<String>| async {
/// #     Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
/// # });
/// # let pool = BackendPool::new([Backend::new("a", "https://a.example")?.api_key("key")])?;
/// let service = ServiceBuilder::new()
///     .layer(WaitLayer::new().max_wait(Duration::from_secs(2)))
///     .layer(RegionRotateLayer::new(pool))
///     .service(client);
/// # drop(service);
/// # Ok(())
/// # }
/// ```
///
/// # Who goes first
///
/// Requests wait in the order of their [rank](Class::rank), then of their arrival, and keep their
/// place when they are refused again. At the instant of a reopening one of them goes, and each that
/// is not refused lets two more go, so that a small opening meets few refusals and a large one
/// empties the queue soon. One that comes meanwhile waits behind them. A request
/// whose time is up before the service reopens does not wait, and gets its refusal at once.
///
/// # What is not waited for
///
/// A used-up quota, a refusal that forbids to come back (`x-should-retry: false`) or whose hint is
/// beyond belief, and every failure.
///
/// # What the service remembers
///
/// A pool remembers by itself which of its backends refuse, and for which requests. So newcomers ask
/// it, which costs nothing where it is closed to them, and only those wait that it refused. Around a
/// service without a memory, such as a client, one refusal counts for all: they wait too, except those
/// that cannot wait so long, which are sent, as they would be without this layer.
///
/// # Cost
///
/// While nothing is refused: a clock read, an atomic load, and a copy of the request's head.
#[derive(Clone, Debug)]
pub struct WaitLayer {
    config: Arc<WaitConfig>,
}

#[derive(Clone, Debug)]
pub(super) struct WaitConfig {
    pub(super) max_wait: Duration,
    pub(super) classes: Vec<Class>,
    pub(super) name: Arc<str>,
    pub(super) queue: WaitQueue,
    pub(super) rules: Rules,
}

impl WaitLayer {
    /// A layer with a queue of its own; the services that it makes share it.
    pub fn new() -> Self {
        let config = WaitConfig {
            max_wait: Duration::from_secs(4),
            classes: Vec::new(),
            name: "service".into(),
            queue: WaitQueue::new(),
            rules: Rules::AZURE,
        };
        Self { config: Arc::new(config) }
    }

    /// The longest that a request may wait, counted from its arrival. Defaults to 4 s, as that of
    /// [`SmartFallbackLayer`](crate::SmartFallbackLayer), so that a stack keeps its waits when it
    /// gains or loses a tier: a person still waits, and most of Azure's hints of a busy
    /// deployment fit. [`MaxWait`](crate::MaxWait) changes it for one request; zero is no wait.
    #[must_use]
    pub fn max_wait(mut self, max_wait: Duration) -> Self {
        Arc::make_mut(&mut self.config).max_wait = max_wait;
        self
    }

    /// Adds a class of requests, which [`Priority`](crate::Priority) names. Of two with one name, the
    /// first counts.
    #[must_use]
    pub fn class(mut self, class: Class) -> Self {
        Arc::make_mut(&mut self.config).classes.push(class);
        self
    }

    /// The service's name in [`Served`](crate::Served), for one that does not name its backends as
    /// [`RegionRotateLayer`](crate::RegionRotateLayer) does. Defaults to `service`.
    #[must_use]
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        Arc::make_mut(&mut self.config).name = name.into();
        self
    }

    /// The rules by which the service's refusals are read. Defaults to Azure's. Around a
    /// [`RegionRotateLayer`](crate::RegionRotateLayer) there is nothing for them to read: its backends
    /// have [rules](crate::Backend::classify) of their own.
    #[must_use]
    pub fn classify(mut self, rules: impl Classify) -> Self {
        Arc::make_mut(&mut self.config).rules = Rules::new(rules);
        self
    }

    /// The queue of those that wait, to look at it. Layers that share one wait for the same service.
    #[must_use]
    pub fn queue(mut self, queue: WaitQueue) -> Self {
        Arc::make_mut(&mut self.config).queue = queue;
        self
    }
}

impl Default for WaitLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for WaitLayer {
    type Service = Wait<S>;

    fn layer(&self, inner: S) -> Wait<S> {
        Wait { inner, config: Arc::clone(&self.config) }
    }
}
