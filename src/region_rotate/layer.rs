//! The layer of the region pool: its settings, with their defaults.

use std::{fmt, sync::Arc, time::Duration};

use http::HeaderName;
use tower_layer::Layer;

use super::RegionRotate;
use crate::{
    BackendPool, Sticky,
    events::{EventSink, Events},
    policy::{CooldownPolicy, MoveOn, ReturnErrors},
    request_copy::Resends,
    sticky::{CacheAffinity, Residents, RoutingConfig, StickyTier},
};

/// A pool of regional backends behind one client: a region that refuses cools down, and the next one
/// answers.
///
/// Each request starts with a backend of the first priority that has an open one, chosen at random by
/// weight. When it refuses, it cools down for as long as it asked, at most
/// [`CooldownPolicy::longest`], and the request moves on immediately: never to a backend that is
/// cooling down, and never to one that it was sent to before. The layer does not wait. What one
/// request learns, later requests use, so the same refusal is not met twice.
///
/// ```
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_spillover::{Backend, BackendPool, RegionRotateLayer, Served};
/// # use bytes::Bytes;
/// # use http::{Request, Response, StatusCode};
/// # use http_body_util::Full;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = BackendPool::new([
///     Backend::new("eastus", "https://contoso-east.openai.azure.com")?.api_key("key-1"),
///     Backend::new("sweden", "https://contoso-sweden.openai.azure.com")?.api_key("key-2"),
/// ])?;
/// # let client = service_fn(|request: Request<Full<Bytes>>| async move {
/// #     let refused = request.uri().host() == Some("contoso-east.openai.azure.com");
/// #     let mut response = Response::new(Full::<Bytes>::default());
/// #     if refused {
/// #         *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
/// #         response.headers_mut().insert("retry-after-ms", 500.into());
/// #     }
/// #     Ok::<_, std::convert::Infallible>(response)
/// # });
/// let azure = ServiceBuilder::new().layer(RegionRotateLayer::new(pool)).service(client);
///
/// let request = Request::post("/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21")
///     .body(Full::<Bytes>::from(r#"{"messages":[]}"#))?;
/// let response = azure.oneshot(request).await?; // eastus is refusing just now
/// assert_eq!(response.extensions().get::<Served>().unwrap().backend(), Some("sweden"));
/// # Ok(())
/// # }
/// ```
///
/// # When nothing is open
///
/// It answers without using the network: 429, with the earliest reopening in `retry-after-ms` and,
/// rounded up, in `retry-after`, and a JSON body in Azure's shape that names the backends. (The
/// status is 503 if no backend refused and the last one's token could not be obtained.) If the last
/// open backend refuses a request, its response gets the same two headers, so that a
/// `retry-after: 86400` of one region does not speak for all of them.
///
/// # What a refusal closes
///
/// | refusal | closes the backend for | what goes on |
/// |---|---|---|
/// | 429 for the limit of tokens; 429 with a hint above a minute that names no limit | requests of its kind with more than about half of its tokens | lighter ones; each power of two between the heaviest and the lightest request costs one refusal |
/// | 429 for the limit of calls, or with only a hint; no capacity; a 5xx with a hint | its kind of traffic | other kinds |
/// | 429 for a used-up quota | everything but operations without cost | |
/// | a refusal of reading, polling, listing, cancelling or deleting | nothing | these operations pass even if everything is closed, to an open backend first |
/// | 400 for its service tier, or for its length if that [moves on](MoveOn::context_length) | nothing | the request moves on to the next backend |
///
/// Kinds of traffic are tokens of each service tier (`default` and `auto`, `flex`, `priority`),
/// images, speech, transcriptions, videos, and stored objects (files, uploads, batches, vector
/// stores): what the service limits separately. The weight of a request is estimated as the service
/// does: its prompt, and the most that it may generate. The exceeded limit is read from
/// `x-ratelimit-type`, `policy-id`, the message, or the remainders. A backend is closed for at most
/// [`CooldownPolicy::longest`], after which one request checks again. A request that is too heavy
/// gets the service's own hint, and [`Why::Weight`](crate::served::Why::Weight) gives the smallest
/// number of tokens refused.
///
/// # Which backends cool down
///
/// The one that refused; those that share its [`quota`](crate::Backend::quota), unless it refused for
/// a reason other than its limits; those of its [`region`](crate::Backend::region) and deployment, if
/// the service has no capacity left there. An inner layer that reads bodies reports the latter, as a
/// [`Refusal`](crate::classify::Refusal), and a used-up quota. That is not waited for: the backend
/// cools down for the maximum, and a pool with only such backends reports it to outer layers.
///
/// # Which backends fail
///
/// A backend that fails, if failures move requests on, is *deferred*: called after the others, but
/// never skipped in their favour. Failures order, refusals close. It takes several failures of
/// several requests: five within ten seconds, or three connections, and at least as many as there
/// were answers. A failure that may be the request's own fault counts once another backend has
/// answered the same request; a failure everywhere says nothing about the backends. The backend is
/// then deferred for [a second](CooldownPolicy::failed), twice as long each time, and probed by one
/// request at a time until it answers or, if it was unreachable, until a [connection
/// stands](crate::backend::OnConnect). If all the others refuse or fail it is called nevertheless:
/// failures alone never make the pool answer itself.
///
/// # Which backends are misconfigured
///
/// One that answers 401, 402, 403, 410 or, as read by an inner layer, that it lacks the deployment:
/// nothing was executed, and the request moves on as after a refusal, without charge to any budget.
/// The backend is deferred behind all others for [a minute](CooldownPolicy::misconfigured), twice as
/// long each time, and probed by one request at a time; [`BackendPool::misconfigured`] lists such
/// backends. A rejected token is first [replaced](crate::backend::TokenSource::rejected), and the
/// request sent again to the same backend. If all backends are misconfigured, the caller gets the
/// answer unchanged. With [`passthrough`](crate::Credential::passthrough) it is the caller's own
/// error, and nothing moves on.
///
/// # Unprocessed requests
///
/// A request that a backend [did not process](crate::policy::ErrorKind::Unprocessed) is sent to it
/// again, once, and that is not a failure. The same holds for one that met the [end of a reused
/// connection](crate::policy::ErrorKind::ClosedOnReuse), as long as the backend can be connected to.
///
/// # What it writes
///
/// Scheme, authority, `Host`, base path, HTTP version, deployment, `api-version` and every
/// credential, together, on every attempt. The caller's authority is never used. A key is sent only
/// to its own resource, and one in the caller's query (`api-key`, `subscription-key`) to none, except
/// with [`passthrough`](crate::Credential::passthrough). If a v1 request names its deployment in the
/// body, `model` is replaced: in memory, or in passing for a body that supports it
/// ([`ReplayLayer`](crate::ReplayLayer)'s). A body that does not is refused with a 413 before
/// anything is sent, if it may name a model: no backend is sent another backend's deployment name.
///
/// # Limitations
///
/// It never waits: a [`SmartFallbackLayer`](crate::SmartFallbackLayer) or a
/// [`WaitLayer`](crate::WaitLayer) around it does. It sends nothing in the background: callers' requests
/// probe whether a backend has recovered.
///
/// # Cost
///
/// One clone of the request's head, one clock read, one random draw, one atomic load: independent of
/// the number of backends while most are open.
#[derive(Clone)]
pub struct RegionRotateLayer<X = ReturnErrors> {
    config: Arc<RotateConfig>,
    classify_error: X,
}

#[derive(Clone)]
pub(super) struct RotateConfig {
    pub(super) pool: BackendPool,
    pub(super) cooldowns: CooldownPolicy,
    pub(super) max_attempts: usize,
    pub(super) connect_patience: Duration,
    pub(super) move_on: MoveOn,
    pub(super) name_header: Option<HeaderName>,
    pub(super) routing: RoutingConfig,
    pub(super) flex_as_default: bool,
    pub(super) events: Events,
    pub(super) resends: Resends,
}

impl RegionRotateLayer {
    /// Rotates through `pool`.
    pub fn new(pool: BackendPool) -> Self {
        Self {
            config: Arc::new(RotateConfig {
                pool,
                cooldowns: CooldownPolicy::default(),
                max_attempts: usize::MAX,
                connect_patience: Duration::ZERO,
                move_on: MoveOn::new().context_length(MOVES_ON_CONTEXT_LENGTH),
                name_header: None,
                routing: RoutingConfig::default(),
                flex_as_default: false,
                events: Events::default(),
                resends: Resends::default(),
            }),
            classify_error: ReturnErrors,
        }
    }
}

impl<X> RegionRotateLayer<X> {
    /// Reports what happens to requests to `sink`. By default nothing is reported.
    #[must_use]
    pub fn events(mut self, sink: impl EventSink) -> Self {
        self.config_mut().events = Events::to(sink);
        self
    }

    /// How long backends cool down after refusals, and are deferred after failures.
    #[must_use]
    pub fn cooldowns(mut self, cooldowns: CooldownPolicy) -> Self {
        self.config_mut().cooldowns = cooldowns;
        self
    }

    /// The most backends that one request is sent to, at least 1. By default every open backend, each
    /// once.
    #[must_use]
    pub fn max_attempts(mut self, attempts: usize) -> Self {
        self.config_mut().max_attempts = attempts.max(1);
        self
    }

    /// How long a request may keep trying to connect, from its arrival, if no other backend is left:
    /// after pauses of 20 ms, 40 ms and so on it retries the unreachable ones. A connection error
    /// executed nothing, and a restarting server is back soon; a backend that is known to be down for
    /// more than [a second](CooldownPolicy::failed) is not waited for. It needs [`MoveOn::connect`],
    /// takes one move from its budget each time, and stays within [`MaxWait`](crate::MaxWait),
    /// [`Deadline`](crate::Deadline), [`AttemptBudget`](crate::AttemptBudget) and
    /// [`max_attempts`](Self::max_attempts).
    ///
    /// Defaults to zero: as the primary of a [`SmartFallbackLayer`](crate::SmartFallbackLayer), an
    /// unreachable pool should spill immediately. For a pool without a fallback, a second rides out
    /// most restarts.
    #[must_use]
    pub fn connect_patience(mut self, patience: Duration) -> Self {
        self.config_mut().connect_patience = patience;
        self
    }

    /// Moves a request on after these failures. By default after [those](MoveOn::new) of Azure's own
    /// spillover, but not for its [length](MoveOn::context_length): a 429 was not executed; any other
    /// failure may have been, and a completion that is requested twice is billed twice. Connection
    /// errors are included once `errors` identifies them.
    ///
    /// A backend that keeps failing is deferred.
    ///
    /// ```
    /// # use tower_spillover::{Backend, BackendPool, RegionRotateLayer};
    /// # fn main() -> Result<(), tower_spillover::ConfigError> {
    /// # let pool = BackendPool::new([Backend::new("a", "https://a.example")?.api_key("k")])?;
    /// use hyper_util::client::legacy::Error;
    /// use tower_spillover::policy::{ErrorKind, MoveOn};
    ///
    /// fn kind(error: &Error) -> ErrorKind {
    ///     if error.is_connect() { ErrorKind::Connect } else { ErrorKind::Other }
    /// }
    /// let layer = RegionRotateLayer::new(pool).move_on(MoveOn::new().errors(kind));
    /// # drop(layer);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn move_on<Y>(self, move_on: MoveOn<Y>) -> RegionRotateLayer<Y> {
        let mut config = self.config;
        let (move_on, classify_error) = move_on.split(MOVES_ON_CONTEXT_LENGTH);
        Arc::make_mut(&mut config).move_on = move_on;
        RegionRotateLayer { config, classify_error }
    }

    /// Names the backend that served a response in this header of it, for example
    /// `backend-service-url`. By default no header is added.
    ///
    /// The API Management policy that this crate is modelled on reports its first pick, which is not
    /// the backend that answers once one has refused.
    #[must_use]
    pub fn name_header(mut self, header: HeaderName) -> Self {
        self.config_mut().name_header = Some(header);
        self
    }

    /// Keeps requests with the resource that holds the objects they refer to; see [`Sticky`]. By
    /// default all requests rotate. A tier of a [`SmartFallbackLayer`](crate::SmartFallbackLayer)
    /// uses that layer's.
    #[must_use]
    pub fn sticky(mut self, sticky: Sticky) -> Self {
        self.config_mut().routing.sticky = Some(sticky);
        self
    }

    /// Starts requests whose prompts have the same beginning with the same backend, where the service
    /// may have it in its cache. Off by default: requests start anywhere, by weight.
    ///
    /// Cached tokens are free on a PTU and cheaper on Standard, and no resource uses another's cache.
    /// The start is chosen by consistent hashing within the first open priority: weights hold to
    /// within a tenth as far as there are many keys, a backend that is cooling down is skipped for the
    /// next in the order of its key, and a new backend takes over its share of the keys and moves no
    /// other. Every process makes the same choice.
    ///
    /// In a simulation of 200 growing conversations, over four resources whose PTUs drain half of the
    /// load without a cache, 77 % instead of 50 % of prompt tokens are cached, and nothing instead of
    /// 8.3 % of weighted tokens is spilled:
    /// `cargo run --release --example simulate -- --conversations 200 --ptu-fraction 0.5`. With PTUs
    /// for 40 % of the load it is 24.3 % instead of 34.3 %.
    ///
    /// Reading a body in memory costs 0.1 microseconds per KiB, 0.3 for one with a key. The choice costs
    /// the same whatever the number of backends.
    #[must_use]
    pub fn cache_affinity(mut self, affinity: CacheAffinity) -> Self {
        self.config_mut().routing.affinity = Some(affinity);
        self
    }

    /// Lets a request with `service_tier: flex` that every backend refuses, or does not offer the
    /// tier to, continue in the default tier: its body then says `default`, and it may try every
    /// backend that is open for such a request once more, within
    /// [`max_attempts`](Self::max_attempts). [`Served`](crate::Served::went_on_as_default) reports
    /// it.
    ///
    /// Off by default: the service itself never does this, the default tier costs twice as much, and
    /// a caller that requests flex can usually wait (Azure page "Flex processing").
    #[must_use]
    pub fn flex_as_default(mut self, goes_on: bool) -> Self {
        self.config_mut().flex_as_default = goes_on;
        self
    }

    fn config_mut(&mut self) -> &mut RotateConfig {
        Arc::make_mut(&mut self.config)
    }
}

impl<S, X: Clone> Layer<S> for RegionRotateLayer<X> {
    type Service = RegionRotate<S, X>;

    fn layer(&self, inner: S) -> Self::Service {
        let (config, classify_error) = (Arc::clone(&self.config), self.classify_error.clone());
        RegionRotate { inner, config, classify_error }
    }
}

impl<X> StickyTier for RegionRotateLayer<X> {
    fn with_sticky(self, sticky: Sticky) -> Self {
        self.sticky(sticky)
    }

    fn residents(&self) -> Residents {
        self.config.pool.residents().clone()
    }
}

impl<X> fmt::Debug for RegionRotateLayer<X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionRotateLayer").field("config", &self.config).finish()
    }
}

impl fmt::Debug for RotateConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RotateConfig")
            .field("pool", &self.pool)
            .field("cooldowns", &self.cooldowns)
            .field("max_attempts", &self.max_attempts)
            .field("connect_patience", &self.connect_patience)
            .field("move_on", &self.move_on)
            .field("name_header", &self.name_header)
            .field("routing", &self.routing)
            .field("flex_as_default", &self.flex_as_default)
            .finish_non_exhaustive()
    }
}

/// See [`MoveOn::context_length`].
const MOVES_ON_CONTEXT_LENGTH: bool = false;
