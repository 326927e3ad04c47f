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
    sticky::{Residents, Sticky, StickyTier, TierMap},
    wait::WaitQueue,
};

/// PTU first; waits for it while `elapsed + retry_after <= max_wait`; otherwise spills.
///
/// A PTU deployment refuses for milliseconds, whenever its leaky bucket is full, and it is paid
/// for whether it is used or not. So a refusal is worth waiting out, but not for long: a person is
/// waiting too. What one request learns of the primary tier serves the next ones: a [`Gate`] lets
/// them go one by one, as there is room for them, and spills those at once that would wait in
/// vain. While nothing is refused it lets everything pass.
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
/// Both tiers answer with the same response body type. A `RegionRotateLayer` may answer by itself,
/// so its body is a [`ResponseBody`](crate::ResponseBody); a [`DeploymentLayer`] leaves the client's
/// body as it is. To have the two as tiers of one layer, use a
/// [`BackendPool`](crate::BackendPool) of a single backend in the place of the `DeploymentLayer`.
///
/// # Refusals that are not waited for
///
/// A used-up quota spills at once, and so do the requests after it; a refusal that forbids to come
/// back (`x-should-retry: false`) spills its own request. Where Azure spilled by itself, and was refused, to
/// a Standard deployment of the PTU's resource, a [`BackendPool`](crate::BackendPool) in the
/// fallback tier leaves that deployment out.
///
/// # Where both refuse
///
/// A request that the fallback refuses as well waits for whichever tier reopens first, the primary by
/// the gate's queue, the fallback in one that is ordered as [`WaitLayer`](crate::WaitLayer) explains,
/// and keeps its place in both. Where neither reopens within its `max_wait`, it gets the fallback's
/// response at once, with the soonest time at which either tier is worth asking in `retry-after-ms` and
/// `retry-after`. A spill is paid for once out of the [budget](Self::spill_budget), however often the
/// fallback is asked, and not at all if it does not serve the request.
///
/// # Limitations
///
/// Only refusals (429, 529, a 5xx with a hint, and their gRPC forms), [failures](MoveOn::new) (500, 502,
/// 503) and a 400 for its [length](MoveOn::context_length) move a request: what moves one in Azure's own
/// spillover. Any other answer of the primary, and any error, is the caller's, as in the reference script,
/// unless others are to [spill](Self::move_on) too.
///
/// # Cost
///
/// On the way to the primary: a clone of the request's head, one clock read, one atomic load. On
/// the way to the fallback while the primary is closed, the same: the fallback may refuse too. A
/// request that must not wait is not cloned there.
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
    /// The fallback's deployment, when that is one of the primary's resource.
    pub(super) standard: Option<Arc<str>>,
    /// Until when the primary's quota is used up, as far as is known.
    pub(super) quota: Arc<Cooldowns>,
    pub(super) split: Option<TierMap>,
    /// Whether there is no fallback.
    pub(super) is_alone: bool,
    /// Those that wait for the fallback to reopen.
    pub(super) fallback_queue: WaitQueue,
    pub(super) events: Events,
    /// By which the answers of tiers are read that are no pools.
    pub(super) rules: Rules,
}

impl<P: Clone> SmartFallbackLayer<P, P> {
    /// `primary` without a fallback: a PTU alone, or a pool of several. Requests wait at the
    /// [gate](Self::gate) for up to `max_wait`, and get the refusal after it, or at once where the
    /// primary reopens later than that. Nothing spills.
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
        // What stands in for the fallback is never asked; the services are of one type with it.
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
    /// Two deployments of the one resource that requests are addressed to already: a PTU and the
    /// Standard deployment to spill to. Only the deployment's name is changed in a request.
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
    /// When a name is empty, `.` or `..`, or has control characters.
    pub fn deployments(ptu: &str, standard: &str) -> Result<Self, ConfigError> {
        let tiers = Self::new(DeploymentLayer::new(ptu)?, DeploymentLayer::new(standard)?);
        let mut layer = tiers.names(ptu, standard);
        Arc::make_mut(&mut layer.config).standard = Some(standard.into());
        Ok(layer)
    }
}

impl<P, F, X> SmartFallbackLayer<P, F, X> {
    /// The longest that a request may wait, counted from its arrival. Defaults to 4 s, as in the
    /// reference script. [`MaxWait`](crate::MaxWait) changes it for one request. It waits for the
    /// primary before it spills; and where the fallback refuses too, for whichever reopens first.
    ///
    /// It bounds waits, not attempts. A refusal that itself takes longer is followed at once: by the next
    /// backend of a pool, by the fallback or, after the fallback, by a primary that is open again. The
    /// caller gets a 429 where none of them is left.
    #[must_use]
    pub fn max_wait(mut self, max_wait: Duration) -> Self {
        Arc::make_mut(&mut self.config).max_wait = max_wait;
        self
    }

    /// The longest that the primary is taken to be closed, whatever it says. Defaults to 60 s:
    /// Azure's windows are no longer, and after it one look at the primary costs little.
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

    /// The gate in front of the primary: its rule, its settings, and a handle to look at it. By
    /// default the layer has an adaptive one of its own.
    #[must_use]
    pub fn gate(mut self, gate: Gate) -> Self {
        Arc::make_mut(&mut self.config).gate = gate;
        self
    }

    /// Lets every request find out by itself that the primary refuses, as the reference script
    /// does: [`Mode::Plain`]. A [`BackendPool`](crate::BackendPool) in the primary tier goes on
    /// remembering.
    #[must_use]
    pub fn forgetful(self) -> Self {
        self.gate(Gate::new().mode(Mode::Plain))
    }

    /// The queue of those that wait for the fallback to reopen, to look at it. By default the layer has
    /// one of its own.
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

    /// Adds a class of requests. Of two with one name, the first counts.
    #[must_use]
    pub fn class(mut self, class: Class) -> Self {
        Arc::make_mut(&mut self.config).classes.push(class);
        self
    }

    /// Bounds what is spilled. By default nothing does. What becomes of a request that it keeps from
    /// spilling, [`WhenSpent`](super::WhenSpent) says.
    #[must_use]
    pub fn spill_budget(mut self, budget: SpillBudget) -> Self {
        Arc::make_mut(&mut self.config).spill_budget = Some(budget);
        self
    }

    /// Keeps requests with the resource that holds what they refer to, as [`Sticky`] explains, in
    /// both tiers: a request that belongs to a resource of one tier alone is never sent to the
    /// other. It waits for the primary and is refused by it rather than spilled, or goes to the
    /// fallback at once. By default all rotate and spill.
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

    /// Spills after these failures of the primary, at once. By default after [those](MoveOn::new) that
    /// Azure's own spillover takes upon itself; any may have been carried out, and is billed twice then. A
    /// primary that cannot be reached spills once `errors` says which errors those are. What the fallback
    /// answers is the caller's in any case.
    ///
    /// Where the primary is a pool that rotates on the same failures, it remembers which of its
    /// backends fail, and the next requests spill without asking them.
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

    /// The rules by which the answers of both tiers are read. Defaults to Azure's. A tier with a
    /// [`RegionRotateLayer`](crate::RegionRotateLayer) is not read by them: its backends have
    /// [rules](crate::Backend::classify) of their own, so that the tiers may be of different providers.
    #[must_use]
    pub fn classify(mut self, rules: impl Classify) -> Self {
        Arc::make_mut(&mut self.config).rules = Rules::new(rules);
        self
    }

    /// Decides by `policy`, from hints and one memory of them ([`Mode::Shared`]), instead of by an
    /// adaptive gate.
    #[must_use]
    pub fn policy(mut self, policy: impl FallbackPolicy) -> Self {
        let config = Arc::make_mut(&mut self.config);
        config.policy = Arc::new(policy);
        if config.gate.is_adaptive() {
            config.gate = config.gate.clone().mode(Mode::Shared);
        }
        self
    }

    /// The service over two tiers that are services already instead of layers, such as the channels
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
        }
    }
}

/// See [`MoveOn::context_length`].
const MOVES_ON_CONTEXT_LENGTH: bool = true;
