//! The layer for late first tokens: its settings and their defaults.

use std::{sync::Arc, time::Duration};

use http::Request;
use tower_layer::Layer;

use super::FirstToken;
use crate::{
    Priority,
    classify::{Classify, Rules},
    events::{EventSink, Events},
    policy::RetryBudget,
};

/// Sends a request a second time, to another backend, when the first token of its answer is late.
///
/// An accepted request may show nothing for a long time, because the backend queues it or has
/// stalled. The caller has received nothing by then, so another backend can answer instead. It
/// belongs around the layers that know the backends,
/// [`SmartFallbackLayer`](crate::SmartFallbackLayer) and
/// [`RegionRotateLayer`](crate::RegionRotateLayer), and inside [`ReplayLayer`](crate::ReplayLayer)
/// and [`LimitAttemptsLayer`](crate::LimitAttemptsLayer).
///
/// ```
/// use std::time::Duration;
/// use tower::ServiceBuilder;
/// use tower_spillover::{
///     Backend, BackendPool, FirstTokenLayer, InspectLayer, RegionRotateLayer, first_token::Limit,
/// };
/// # use bytes::Bytes;
/// # use http::{Request, Response};
/// # use http_body_util::Full;
///
/// # fn main() -> Result<(), tower_spillover::ConfigError> {
/// # let client = tower::service_fn(|_: Request<Full<Bytes>>| async {
/// #     Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default()))
/// # });
/// # let pool = BackendPool::new([Backend::new("a", "https://a.example")?.api_key("k")])?;
/// let late = Limit::move_on_after(Duration::from_secs(8));
/// let service = ServiceBuilder::new()
///     .layer(
///         FirstTokenLayer::new(late)
///             .class("interactive", Limit::hedge_after(Duration::from_secs(2)))
///             .class("batch", None),
///     )
///     .layer(RegionRotateLayer::new(pool))
///     .layer(InspectLayer::new()) // knows a stream's first token
///     .service(client);
/// # drop(service);
/// # Ok(())
/// # }
/// ```
///
/// # What counts as the first token
///
/// The moment at which the inner service answers. For a stream that is its first output, if an
/// [`InspectLayer`](crate::InspectLayer) is around the client: it holds back comments, keep-alive
/// events and everything else that shows no progress, for at most its
/// [`preamble_time`](crate::InspectLayer::preamble_time), so a limit longer than that is never
/// reached. Without it, it is the head of the stream. For an answer that is not streamed it is the
/// head, which the service sends when the whole answer is written: a limit for such requests has to
/// be longer than whole answers take.
///
/// The time counts from when a backend was sent the request. It excludes waits at a
/// [`Gate`](crate::Gate), for a backend to reopen, or for a token to be fetched. An inner
/// [`RegionRotateLayer`](crate::RegionRotateLayer) reports when that is: without one, no request is
/// ever late.
///
/// # Where the second attempt goes
///
/// It takes the same path as the first, but to another backend: to one of the same tier, or to the
/// other tier, as far as class, [`SpillBudget`](crate::smart_fallback::SpillBudget), attempts and the
/// resource that the request is pinned to permit. It never waits. If there is no other backend, the
/// first attempt continues, and the budget is not charged.
///
/// # Effect on the pool
///
/// If another backend of the pool answers, a late first token counts as a failure of its backend: one
/// that is late as often as not is deferred, but not closed.
///
/// # Limitations
///
/// A request is sent a second time only once, and only if it has no effect beyond its answer: neither
/// with `background` nor with a `conversation`, and nothing that a resource would then store twice,
/// like a file or a batch.
///
/// # Cost
///
/// **Both attempts may be billed.** Azure charges for a prompt that it has begun to process, and
/// dropping the connection does not stop all of the work behind it. The [budget](Self::budget) limits
/// how often that happens.
///
/// Without this layer there is no cost. With it, a request carries another copy of its head, two
/// extensions and, unless it is answered immediately, a timer.
#[derive(Clone, Debug)]
pub struct FirstTokenLayer {
    config: Arc<Config>,
}

/// When the first token is late, and what happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub(super) after: Duration,
    pub(super) mode: LimitMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LimitMode {
    MoveOn,
    Hedge,
}

#[derive(Clone, Debug)]
pub(super) struct Config {
    limit: Option<Limit>,
    classes: Vec<(Arc<str>, Option<Limit>)>,
    pub(super) budget: RetryBudget,
    pub(super) rules: Rules,
    pub(super) events: Events,
}

impl FirstTokenLayer {
    /// Applies `limit` to requests whose class has none of its own; `None` for no limit.
    pub fn new(limit: impl Into<Option<Limit>>) -> Self {
        let budget = RetryBudget::new(BUDGET_CAPACITY, BUDGET_PER_SUCCESS);
        let (rules, events) = (Rules::AZURE, Events::default());
        let config = Config { limit: limit.into(), classes: Vec::new(), budget, rules, events };
        Self { config: Arc::new(config) }
    }

    /// The limit of the class of this name, the [`Priority`] of a request; `None` for no limit. If
    /// two share a name, the first wins.
    #[must_use]
    pub fn class(mut self, name: impl Into<Arc<str>>, limit: impl Into<Option<Limit>>) -> Self {
        Arc::make_mut(&mut self.config).classes.push((name.into(), limit.into()));
        self
    }

    /// Reports requests that are sent twice to `sink`. By default nothing is reported.
    #[must_use]
    pub fn events(mut self, sink: impl EventSink) -> Self {
        Arc::make_mut(&mut self.config).events = Events::to(sink);
        self
    }

    /// Limits the second attempts. Defaults to 10 at once, and one more per ten successes, the
    /// example of gRPC proposal A6 for hedging: when everything is slow they add a tenth to the load
    /// and to the cost, and more than that would help no request. An attempt that finds no backend is
    /// not charged.
    #[must_use]
    pub fn budget(mut self, budget: RetryBudget) -> Self {
        Arc::make_mut(&mut self.config).budget = budget;
        self
    }

    /// The rules that classify the answers of a service that is not a pool. Defaults to Azure's.
    #[must_use]
    pub fn classify(mut self, rules: impl Classify) -> Self {
        Arc::make_mut(&mut self.config).rules = Rules::new(rules);
        self
    }
}

impl Limit {
    /// After this time a second attempt is made, and the first is dropped as soon as the second
    /// counts as accepted: one second after a backend was sent it, since refusals come sooner. If the
    /// second attempt is refused or fails before that, the first continues. It uses no more capacity
    /// than one request.
    pub const fn move_on_after(after: Duration) -> Self {
        Self { after, mode: LimitMode::MoveOn }
    }

    /// After this time a second attempt is made beside the first. The caller gets the one that
    /// answers first, and the other is dropped; a refusal or a failure of either leaves the other
    /// running.
    pub const fn hedge_after(after: Duration) -> Self {
        Self { after, mode: LimitMode::Hedge }
    }

    /// The time after which the first token is late.
    pub const fn after(&self) -> Duration {
        self.after
    }
}

impl Config {
    /// The limit of `request`, if it has one.
    pub(super) fn limit<B>(&self, request: &Request<B>) -> Option<Limit> {
        if !self.classes.is_empty()
            && let Some(priority) = request.extensions().get::<Priority>()
            && let Some((_, limit)) = self.classes.iter().find(|(it, _)| **it == *priority.as_str())
        {
            return *limit;
        }
        self.limit
    }
}

impl<S> Layer<S> for FirstTokenLayer {
    type Service = FirstToken<S>;

    fn layer(&self, inner: S) -> Self::Service {
        FirstToken { inner, config: Arc::clone(&self.config) }
    }
}

const BUDGET_CAPACITY: u32 = 10;
const BUDGET_PER_SUCCESS: f64 = 0.1;
