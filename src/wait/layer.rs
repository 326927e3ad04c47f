//! The layer that waits: its settings and their defaults.

use std::{sync::Arc, time::Duration};

use tower_layer::Layer;

use super::{Class, Wait, WaitQueue};
use crate::{
    classify::{Classify, Rules},
    events::{EventSink, Events},
};

/// Waits until a service that refuses reopens, and sends the request again, within its `max_wait`.
///
/// Around a [`RegionRotateLayer`](crate::RegionRotateLayer) it makes a pool that waits: while a
/// backend is open it does nothing, and when all refuse, a request waits for the first to reopen
/// instead of being refused immediately. Any other service whose refusals carry a hint works as well.
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
/// # Order
///
/// Requests wait in the order of their [rank](Class::rank), then of their arrival, and keep their
/// position when they are refused again. When the service reopens, one request goes, and each that is
/// not refused releases two more, so that a small opening meets few refusals and a large one empties
/// the queue quickly. A request that arrives meanwhile waits behind them. A request whose time is up
/// before the service reopens does not wait: it gets its refusal immediately.
///
/// # State of the inner service
///
/// A pool remembers which of its backends refuse which requests. So a new request is passed to the
/// pool, which costs nothing if it is closed to it, and only the requests that it refused wait.
/// Around a service without such state, such as a client, one refusal applies to all requests: they
/// wait too, except those that cannot wait that long. Those are sent, as they would be without this
/// layer.
///
/// # Limitations
///
/// It does not wait after a used-up quota, a refusal that forbids retrying (`x-should-retry: false`), a
/// hint too long to be believed, or any failure.
///
/// # Cost
///
/// While nothing is refused: one clock read, one atomic load, and one copy of the request's head.
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
    pub(super) events: Events,
}

impl WaitLayer {
    /// A layer with its own queue, shared by the services that it makes.
    pub fn new() -> Self {
        let config = WaitConfig {
            max_wait: Duration::from_secs(4),
            classes: Vec::new(),
            name: "service".into(),
            queue: WaitQueue::new(),
            rules: Rules::AZURE,
            events: Events::default(),
        };
        Self { config: Arc::new(config) }
    }

    /// The longest time that a request may wait, counted from its arrival. Defaults to 4 s, like that
    /// of [`SmartFallbackLayer`](crate::SmartFallbackLayer), so that a stack keeps its waits when it
    /// gains or loses a tier: a person is still waiting, and most hints of a busy Azure deployment
    /// fit. [`MaxWait`](crate::MaxWait) overrides it for one request; zero disables waiting.
    #[must_use]
    pub fn max_wait(mut self, max_wait: Duration) -> Self {
        Arc::make_mut(&mut self.config).max_wait = max_wait;
        self
    }

    /// Reports what happens to requests to `sink`. By default nothing is reported.
    #[must_use]
    pub fn events(mut self, sink: impl EventSink) -> Self {
        Arc::make_mut(&mut self.config).events = Events::to(sink);
        self
    }

    /// Adds a class of requests, selected by [`Priority`](crate::Priority). If two share a name, the
    /// first wins.
    #[must_use]
    pub fn class(mut self, class: Class) -> Self {
        Arc::make_mut(&mut self.config).classes.push(class);
        self
    }

    /// The service's name in [`Served`](crate::Served), for a service that does not name its backends
    /// as [`RegionRotateLayer`](crate::RegionRotateLayer) does. Defaults to `service`.
    #[must_use]
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        Arc::make_mut(&mut self.config).name = name.into();
        self
    }

    /// The rules that classify the service's refusals. Defaults to Azure's. Without effect around a
    /// [`RegionRotateLayer`](crate::RegionRotateLayer), whose backends have their own
    /// [rules](crate::Backend::classify).
    #[must_use]
    pub fn classify(mut self, rules: impl Classify) -> Self {
        Arc::make_mut(&mut self.config).rules = Rules::new(rules);
        self
    }

    /// The queue of waiting requests, to observe it. Layers that share a queue wait for the same
    /// service.
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
