//! The layer of late first tokens: its settings, with their defaults.

use std::{sync::Arc, time::Duration};

use http::Request;
use tower_layer::Layer;

use super::FirstToken;
use crate::{
    Priority,
    classify::{Classify, Rules},
    policy::RetryBudget,
};

/// Sends a request a second time, to another backend, when the first token of its answer is late.
///
/// An accepted request may show nothing for a long time: the backend queues it, or has stalled. A
/// caller has received nothing by then, so that another backend can answer instead. It belongs around
/// the layers that know the backends, [`SmartFallbackLayer`](crate::SmartFallbackLayer) and
/// [`RegionRotateLayer`](crate::RegionRotateLayer), and inside of
/// [`ReplayLayer`](crate::ReplayLayer) and [`LimitAttemptsLayer`](crate::LimitAttemptsLayer).
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
/// # What the first token is
///
/// The moment at which the service inside answers. Of a stream that is its first output where an
/// [`InspectLayer`](crate::InspectLayer) is around the client: it holds back comments, keep-alive
/// events and whatever else says that nothing happened yet, at most for its
/// [`preamble_time`](crate::InspectLayer::preamble_time), so that a longer limit would not be kept.
/// Without it, it is the stream's head. Of an answer that is not streamed it is the head, which the
/// service sends when all of the answer is written: a limit for such requests has to be longer than
/// whole answers take.
///
/// The time counts from when a backend was sent the request. What it waits at a
/// [`Gate`](crate::Gate), for a backend to reopen or for a token to be fetched is not in it. A
/// [`RegionRotateLayer`](crate::RegionRotateLayer) inside says when that is: without one nothing is
/// ever late.
///
/// # Where the second attempt goes
///
/// The way of the first, except to the backend which that is at: to another backend of the tier, or to
/// the other tier, as far as class, [`SpillBudget`](crate::smart_fallback::SpillBudget), attempts and
/// the resource that the request belongs to permit. It never waits. Where there is nowhere to go, the
/// first goes on, and nothing is taken out of the budget.
///
/// A request is sent a second time once, and only when it asks for an answer and nothing else:
/// neither with `background` nor with a `conversation`, and nothing that a resource would then hold
/// twice, like a file or a batch.
///
/// # What a pool learns from it
///
/// If another backend of the pool answers, a late first token counts as a failure of its backend: one
/// that is late as often as not is asked after its neighbours. It is not closed.
///
/// # Cost
///
/// **Both attempts may be billed.** Azure charges a prompt that it has begun to process, and a
/// dropped connection does not stop all that goes on behind it. The [budget](Self::budget) bounds how
/// often that happens.
///
/// Nobody pays without this layer. With it, a request carries another copy of its head, two
/// extensions and, when it is not answered at once, a timer.
#[derive(Clone, Debug)]
pub struct FirstTokenLayer {
    config: Arc<Config>,
}

/// When the first token is late, and what happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub(super) after: Duration,
    pub(super) mode: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    MoveOn,
    Hedge,
}

#[derive(Clone, Debug)]
pub(super) struct Config {
    limit: Option<Limit>,
    classes: Vec<(Arc<str>, Option<Limit>)>,
    pub(super) budget: RetryBudget,
    pub(super) rules: Rules,
}

impl FirstTokenLayer {
    /// With this limit for requests whose class has none of its own; `None` for none.
    pub fn new(limit: impl Into<Option<Limit>>) -> Self {
        let budget = RetryBudget::new(BUDGET_AT_ONCE, BUDGET_PER_SUCCESS);
        let rules = Rules::AZURE;
        let config = Config { limit: limit.into(), classes: Vec::new(), budget, rules };
        Self { config: Arc::new(config) }
    }

    /// The limit of the class of this name, the [`Priority`] of a request; `None` for none. Of two
    /// with one name, the first counts.
    #[must_use]
    pub fn class(mut self, name: impl Into<Arc<str>>, limit: impl Into<Option<Limit>>) -> Self {
        Arc::make_mut(&mut self.config).classes.push((name.into(), limit.into()));
        self
    }

    /// Bounds the second attempts. Defaults to 10 at once, and one more in ten successes, the example
    /// of gRPC proposal A6 for hedging: when everything is slow they add a tenth to the load and to
    /// what is paid, which helps no request if it is more. One that finds no backend to go to costs
    /// nothing.
    #[must_use]
    pub fn budget(mut self, budget: RetryBudget) -> Self {
        Arc::make_mut(&mut self.config).budget = budget;
        self
    }

    /// The rules by which the answers of a service are read that is no pool. Defaults to Azure's.
    #[must_use]
    pub fn classify(mut self, rules: impl Classify) -> Self {
        Arc::make_mut(&mut self.config).rules = Rules::new(rules);
        self
    }
}

impl Limit {
    /// After this time a second attempt is made, and the first is given up as soon as that is taken
    /// for accepted: one second after a backend was sent it, as refusals come sooner. A second
    /// attempt that is refused or fails before leaves the first running. It costs no more capacity
    /// than one request takes.
    pub const fn move_on_after(after: Duration) -> Self {
        Self { after, mode: Mode::MoveOn }
    }

    /// After this time a second attempt is made beside the first. The one that answers first is the
    /// caller's, and the other is dropped; a refusal or a failure of either leaves the other running.
    pub const fn hedge_after(after: Duration) -> Self {
        Self { after, mode: Mode::Hedge }
    }

    /// When the first token is late.
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

const BUDGET_AT_ONCE: u32 = 10;
const BUDGET_PER_SUCCESS: f64 = 0.1;
