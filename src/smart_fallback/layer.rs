//! The layer of the PTU fallback: its settings, with their defaults.

use std::{fmt, sync::Arc, time::Duration};

use tower_layer::Layer;

use super::{Class, SmartFallback, SpillBudget};
use crate::{
    ConfigError, Gate,
    backend::DeploymentLayer,
    classify::{Classify, Rules},
    clock,
    cooldown::Cooldowns,
    events::{EventSink, Events},
    gate::Mode,
    policy::{FallbackPolicy, MoveOn, ReturnErrors, WaitThenSpill},
    request_copy::Resends,
    sticky::{Residents, Sticky, StickyTier, TierMap},
    wait::WaitQueue,
};

/// PTU first; waits for it while `elapsed + retry_after <= max_wait`; otherwise spills.
///
/// A PTU deployment refuses for milliseconds whenever its leaky bucket is full, and it is paid for
/// whether it is used or not. So a refusal is worth waiting out, but not for long: a person is
/// waiting too. What one request learns about the primary tier, later requests use: a [`Gate`]
/// releases them one by one, as there is room, and spills a request immediately when waiting would
/// not help. While nothing is refused, everything passes.
///
/// Each tier is itself a layer over the one client, so that tiers nest:
///
/// ```
/// use std::time::Duration;
/// use tower_spillover::{Backend, BackendPool, RegionRotateLayer, SmartFallbackLayer};
///
/// # fn main() -> Result<(), tower_spillover::ConfigError> {
/// # let pool = |name: &str| BackendPool::new([
/// #     Backend::new(name, format!("https://{name}.example"))?.api_key("key"),
/// # ]);
/// let (first, second, standard) = (pool("ptu-1")?, pool("ptu-2")?, pool("standard")?);
/// let layer = SmartFallbackLayer::new(
///     RegionRotateLayer::new(first),
///     SmartFallbackLayer::new(RegionRotateLayer::new(second), RegionRotateLayer::new(standard)),
/// )
/// .max_wait(Duration::from_secs(2));
/// # drop(layer);
/// # Ok(())
/// # }
/// ```
///
/// For two deployments of one resource, see [`deployments`](Self::deployments).
///
/// Both tiers answer with the same response body type. A `RegionRotateLayer` may answer itself, so
/// its body is a [`ResponseBody`](crate::ResponseBody); a [`DeploymentLayer`] keeps the client's
/// body. To combine the two as tiers of one layer, replace the `DeploymentLayer` by a
/// [`BackendPool`](crate::BackendPool) of a single backend.
///
/// # Refusals that are not worth waiting for
///
/// A used-up quota spills immediately, and so do the requests after it; a refusal that forbids
/// retrying (`x-should-retry: false`) spills that request only. If Azure itself spilled to a Standard
/// deployment of the PTU's resource and was refused, a [`BackendPool`](crate::BackendPool) in the
/// fallback tier skips that deployment.
///
/// # When both tiers refuse
///
/// A request that the fallback refuses as well waits for the tier that reopens first: for the primary
/// in the gate's queue, for the fallback in one ordered as described for
/// [`WaitLayer`](crate::WaitLayer). It keeps its position in both. If neither reopens within its
/// `max_wait`, it gets the fallback's response immediately, with the earliest useful retry time of
/// either tier in `retry-after-ms` and `retry-after`. A spill is charged once to the
/// [budget](Self::spill_budget), however often the fallback is called, and not at all if the fallback
/// does not serve the request.
///
/// # Limitations
///
/// Only refusals (429, 529, a 5xx with a hint, and their gRPC forms), [failures](MoveOn::new) (500,
/// 502, 503) and a 400 for its [length](MoveOn::context_length) move a request on, as in Azure's own
/// spillover. Any other answer of the primary, and any error, is returned to the caller, as in the
/// reference script, unless [`move_on`](Self::move_on) includes it.
///
/// # Cost
///
/// To the primary: one clone of the request's head, one clock read, one atomic load. To the fallback
/// while the primary is closed, the same, because the fallback may refuse, too. A request that must
/// not wait is not cloned there.
#[derive(Clone)]
pub struct SmartFallbackLayer<P, F, X = ReturnErrors> {
    primary: P,
    fallback: F,
    config: Arc<FallbackConfig>,
    classify_error: X,
}

#[derive(Clone)]
pub(super) struct FallbackConfig {
    pub(super) max_wait: Duration,
    pub(super) longest_cooldown: Duration,
    pub(super) names: [Arc<str>; 2],
    pub(super) policy: Arc<dyn FallbackPolicy>,
    pub(super) gate: Gate,
    pub(super) classes: Vec<Class>,
    pub(super) spill_budget: Option<SpillBudget>,
    pub(super) move_on: MoveOn,
    /// The fallback's deployment, if that is on the primary's resource.
    pub(super) standard: Option<Arc<str>>,
    /// Until when the primary's quota is used up, as far as is known.
    pub(super) quota: Arc<Cooldowns>,
    pub(super) split: Option<TierMap>,
    /// Whether there is no fallback.
    pub(super) is_alone: bool,
    /// The requests that wait for the fallback to reopen.
    pub(super) fallback_queue: WaitQueue,
    pub(super) events: Events,
    /// The rules for answers of tiers that are not pools.
    pub(super) rules: Rules,
    pub(super) resends: Resends,
}

impl<P: Clone> SmartFallbackLayer<P, P> {
    /// `primary` without a fallback: a single PTU, or a pool of several. Requests wait at the
    /// [gate](Self::gate) for up to `max_wait`, and get the refusal after that, or immediately if the
    /// primary reopens later. Nothing spills.
    ///
    /// ```
    /// use tower_spillover::{Backend, BackendPool, RegionRotateLayer, SmartFallbackLayer};
    ///
    /// # fn main() -> Result<(), tower_spillover::ConfigError> {
    /// let ptu = Backend::new("ptu", "https://contoso.openai.azure.com")?.api_key("key");
    /// let layer = SmartFallbackLayer::alone(RegionRotateLayer::new(BackendPool::new([ptu])?));
    /// # drop(layer);
    /// # Ok(())
    /// # }
    /// ```
    pub fn alone(primary: P) -> Self {
        // The placeholder for the fallback is never called; it keeps the services of one type.
        let mut layer = Self::new(primary.clone(), primary);
        Arc::make_mut(&mut layer.config).is_alone = true;
        layer
    }
}

impl<P, F> SmartFallbackLayer<P, F> {
    /// Tries `primary`, a layer over the client that it wraps, and spills to `fallback`, another.
    pub fn new(primary: P, fallback: F) -> Self {
        let config = Arc::new(FallbackConfig::default());
        Self { primary, fallback, config, classify_error: ReturnErrors }
    }
}

impl SmartFallbackLayer<DeploymentLayer, DeploymentLayer> {
    /// Two deployments of the resource that requests are addressed to already: a PTU, and the
    /// Standard deployment to spill to. Only the deployment name in a request changes.
    ///
    /// ```
    /// use tower_spillover::SmartFallbackLayer;
    ///
    /// let layer = SmartFallbackLayer::deployments("gpt-4o-ptu", "gpt-4o")?;
    /// # drop(layer);
    /// # Ok::<(), tower_spillover::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If a name is empty, `.` or `..`, or has control characters.
    pub fn deployments(ptu: &str, standard: &str) -> Result<Self, ConfigError> {
        let tiers = Self::new(DeploymentLayer::new(ptu)?, DeploymentLayer::new(standard)?);
        let mut layer = tiers.names(ptu, standard);
        Arc::make_mut(&mut layer.config).standard = Some(standard.into());
        Ok(layer)
    }
}

impl<P, F, X> SmartFallbackLayer<P, F, X> {
    /// The longest time that a request may wait, counted from its arrival. Defaults to 4 s, as in the
    /// reference script. [`MaxWait`](crate::MaxWait) overrides it for one request. It waits for the
    /// primary before it spills; and if the fallback refuses too, for the tier that reopens first.
    ///
    /// It limits waits, not attempts. After a refusal that itself takes longer, the request moves on
    /// immediately: to the next backend of a pool, to the fallback or, after the fallback, to a
    /// primary that is open again. The caller gets a 429 if none of them is left.
    #[must_use]
    pub fn max_wait(mut self, max_wait: Duration) -> Self {
        Arc::make_mut(&mut self.config).max_wait = max_wait;
        self
    }

    /// The longest time that the primary is assumed to be closed, whatever its hint. Defaults to 60
    /// s: Azure's windows are no longer, and one attempt at the primary after that costs little.
    #[must_use]
    pub fn longest_cooldown(mut self, longest: Duration) -> Self {
        Arc::make_mut(&mut self.config).longest_cooldown = longest;
        self
    }

    /// The tiers' names in [`Served`](crate::Served), for tiers that do not name themselves as
    /// [`RegionRotateLayer`](crate::RegionRotateLayer) does. Default to `primary` and `fallback`.
    #[must_use]
    pub fn names(mut self, primary: impl Into<Arc<str>>, fallback: impl Into<Arc<str>>) -> Self {
        Arc::make_mut(&mut self.config).names = [primary.into(), fallback.into()];
        self
    }

    /// The gate in front of the primary: its rule, its settings, and a handle to observe it. By
    /// default the layer has its own, in adaptive mode.
    #[must_use]
    pub fn gate(mut self, gate: Gate) -> Self {
        Arc::make_mut(&mut self.config).gate = gate;
        self
    }

    /// Lets every request meet the primary's refusals itself, as the reference script does:
    /// [`Mode::Plain`]. A [`BackendPool`](crate::BackendPool) in the primary tier keeps its state.
    #[must_use]
    pub fn forgetful(self) -> Self {
        self.gate(Gate::new().mode(Mode::Plain))
    }

    /// The queue of requests that wait for the fallback to reopen, to observe it. By default the
    /// layer has its own.
    #[must_use]
    pub fn fallback_queue(mut self, queue: WaitQueue) -> Self {
        Arc::make_mut(&mut self.config).fallback_queue = queue;
        self
    }

    /// Reports what happens to requests to `sink`. By default nothing is reported. The tiers report what
    /// happens in them, if they are set to.
    #[must_use]
    pub fn events(mut self, sink: impl EventSink) -> Self {
        Arc::make_mut(&mut self.config).events = Events::to(sink);
        self
    }

    /// Adds a class of requests. If two share a name, the first wins.
    #[must_use]
    pub fn class(mut self, class: Class) -> Self {
        Arc::make_mut(&mut self.config).classes.push(class);
        self
    }

    /// Limits spilling. Unlimited by default. [`WhenSpent`](super::WhenSpent) sets what happens to a
    /// request that may not spill.
    #[must_use]
    pub fn spill_budget(mut self, budget: SpillBudget) -> Self {
        Arc::make_mut(&mut self.config).spill_budget = Some(budget);
        self
    }

    /// Keeps requests with the resource that holds the objects they refer to, in both tiers; see
    /// [`Sticky`]. A request that is pinned to a resource of one tier is never sent to the other: it
    /// waits for the primary and gets its refusal instead of spilling, or goes to the fallback
    /// immediately. By default all requests rotate and spill.
    #[must_use]
    pub fn sticky(self, sticky: Sticky) -> Self
    where
        P: StickyTier,
        F: StickyTier,
    {
        let Self { primary, fallback, mut config, classify_error } = self;
        let others = if config.is_alone { Residents::new([]) } else { fallback.residents() };
        let split = TierMap::new(sticky.clone(), primary.residents(), others);
        Arc::make_mut(&mut config).split = Some(split);
        let (primary, fallback) =
            (primary.with_sticky(sticky.clone()), fallback.with_sticky(sticky));
        Self { primary, fallback, config, classify_error }
    }

    /// Spills immediately after these failures of the primary. By default after [those](MoveOn::new)
    /// of Azure's own spillover; any of them may have been executed, and is then billed twice. An
    /// unreachable primary spills once `errors` identifies connection errors. Answers of the fallback
    /// are returned to the caller in any case.
    ///
    /// If the primary is a pool that rotates on the same failures, it remembers which of its backends
    /// fail, and later requests spill without calling them.
    ///
    /// ```
    /// # use tower_spillover::SmartFallbackLayer;
    /// use hyper_util::client::legacy::Error;
    /// use tower_spillover::policy::{ErrorKind, MoveOn};
    ///
    /// fn kind(error: &Error) -> ErrorKind {
    ///     if error.is_connect() { ErrorKind::Connect } else { ErrorKind::Other }
    /// }
    /// let layer = SmartFallbackLayer::deployments("gpt-4o-ptu", "gpt-4o")?
    ///     .move_on(MoveOn::new().errors(kind));
    /// # drop(layer);
    /// # Ok::<(), tower_spillover::ConfigError>(())
    /// ```
    #[must_use]
    pub fn move_on<Y>(self, move_on: MoveOn<Y>) -> SmartFallbackLayer<P, F, Y> {
        let Self { primary, fallback, mut config, .. } = self;
        let (move_on, classify_error) = move_on.split(MOVES_ON_CONTEXT_LENGTH);
        Arc::make_mut(&mut config).move_on = move_on;
        SmartFallbackLayer { primary, fallback, config, classify_error }
    }

    /// The rules that classify the answers of both tiers. Defaults to Azure's. They do not apply to a
    /// tier with a [`RegionRotateLayer`](crate::RegionRotateLayer), whose backends have their own
    /// [rules](crate::Backend::classify), so that tiers may be of different providers.
    #[must_use]
    pub fn classify(mut self, rules: impl Classify) -> Self {
        Arc::make_mut(&mut self.config).rules = Rules::new(rules);
        self
    }

    /// Decides by `policy`, from hints and one shared record of them ([`Mode::Shared`]), instead of
    /// by an adaptive gate.
    #[must_use]
    pub fn policy(mut self, policy: impl FallbackPolicy) -> Self {
        let config = Arc::make_mut(&mut self.config);
        config.policy = Arc::new(policy);
        if config.gate.is_adaptive() {
            config.gate = config.gate.clone().mode(Mode::Shared);
        }
        self
    }

    /// The service over two tiers that are existing services instead of layers, such as the channels
    /// of two gRPC servers.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_spillover::SmartFallbackLayer;
    ///
    /// # let [primary, fallback] = [(); 2].map(|()| tower::service_fn(
    /// #     |_: http::Request<String>| async { Ok::<_, ()>(http::Response::new(())) }
    /// # ));
    /// let service = SmartFallbackLayer::new(primary, fallback)
    ///     .max_wait(Duration::from_secs(1))
    ///     .into_service();
    /// # drop(service);
    /// ```
    pub fn into_service(self) -> SmartFallback<P, F, X> {
        let Self { primary, fallback, config, classify_error } = self;
        SmartFallback { primary, fallback, config, classify_error }
    }
}

impl<S, P, F, X> Layer<S> for SmartFallbackLayer<P, F, X>
where
    S: Clone,
    P: Layer<S>,
    F: Layer<S>,
    X: Clone,
{
    type Service = SmartFallback<P::Service, F::Service, X>;

    fn layer(&self, inner: S) -> Self::Service {
        SmartFallback {
            primary: self.primary.layer(inner.clone()),
            fallback: self.fallback.layer(inner),
            config: Arc::clone(&self.config),
            classify_error: self.classify_error.clone(),
        }
    }
}

impl<P: StickyTier, F: StickyTier, X> StickyTier for SmartFallbackLayer<P, F, X> {
    fn with_sticky(self, sticky: Sticky) -> Self {
        self.sticky(sticky)
    }

    fn residents(&self) -> Residents {
        match self.config.is_alone {
            true => self.primary.residents(),
            false => self.primary.residents().and(self.fallback.residents()),
        }
    }
}

impl<P: fmt::Debug, F: fmt::Debug, X> fmt::Debug for SmartFallbackLayer<P, F, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmartFallbackLayer")
            .field("primary", &self.primary)
            .field("fallback", &self.fallback)
            .field("config", &self.config)
            .finish()
    }
}

impl fmt::Debug for FallbackConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackConfig")
            .field("max_wait", &self.max_wait)
            .field("longest_cooldown", &self.longest_cooldown)
            .field("names", &self.names)
            .field("gate", &self.gate)
            .field("classes", &self.classes)
            .field("spill_budget", &self.spill_budget)
            .field("move_on", &self.move_on)
            .field("standard", &self.standard)
            .field("split", &self.split)
            .field("is_alone", &self.is_alone)
            .field("fallback_queue", &self.fallback_queue)
            .finish_non_exhaustive()
    }
}

impl Default for FallbackConfig {
    fn default() -> Self {
        Self {
            max_wait: Duration::from_millis(4_000),
            longest_cooldown: Duration::from_secs(60),
            names: ["primary".into(), "fallback".into()],
            policy: Arc::new(WaitThenSpill),
            gate: Gate::new(),
            classes: Vec::new(),
            spill_budget: None,
            move_on: MoveOn::new().context_length(MOVES_ON_CONTEXT_LENGTH),
            standard: None,
            quota: Arc::new(Cooldowns::new(1, clock::now())),
            split: None,
            is_alone: false,
            fallback_queue: WaitQueue::new(),
            events: Events::default(),
            rules: Rules::AZURE,
            resends: Resends::default(),
        }
    }
}

/// See [`MoveOn::context_length`].
const MOVES_ON_CONTEXT_LENGTH: bool = true;
