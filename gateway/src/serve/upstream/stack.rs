//! A model's stack of layers: rotation within each tier, spillover from one to the other.

use std::{fmt, sync::Arc};

use http::{HeaderName, Request, Response, header};
use tower::{
    Layer, ServiceExt,
    util::{Either, MapResponse},
};
use tower_spillover::{
    Backend, BackendPool, Gate, InspectLayer, LimitAttemptsLayer, RegionRotateLayer, ResponseBody,
    SmartFallback, SmartFallbackLayer, Sticky,
    backend::{TokenFuture, TokenSource},
    gate::cost::TokenWeights,
    inspect::Inspect,
    policy::{CooldownPolicy, ErrorKind, MoveOn, RetryBudget},
    region_rotate::RegionRotate,
    smart_fallback::{Class, SpillBudget, WhenSpent},
    sticky::{Residents, StickyTier},
};

use super::{
    client::{Upstream, UpstreamError},
    client_pool::Download,
    request_body::Upload,
};
use crate::{
    config::{Auth, Budget, Failure, Failures, GateSettings, Inspection, Model},
    snapshot::RunningModel,
};

/// What a model's requests go through.
#[derive(Clone)]
pub(crate) struct Stack {
    tiers: Tiers,
    /// Where attempts are limited.
    limit: Option<LimitAttemptsLayer>,
    /// Whether answers are read, as far as they may be refusals.
    inspects: bool,
}

#[derive(Clone)]
enum Tiers {
    Both(Box<SmartFallback<Tier, Tier, KindOf>>),
    Ptu(Tier),
    Standard(Tier),
}

pub(crate) type Answer = Response<ResponseBody<Read>>;
/// An answer's body, of which the beginning may have been read.
pub(crate) type Read = ResponseBody<Download>;
type Tier = RegionRotate<Leaf, KindOf>;
type TierLayer = RegionRotateLayer<KindOf>;
/// What is inside of all layers but one.
type Leaf = Either<Inspect<Upstream>, Unread>;
type Unread = MapResponse<Upstream, fn(Response<Download>) -> Response<Read>>;
type KindOf = fn(&UpstreamError) -> ErrorKind;
pub(crate) type Tokens = Arc<dyn TokenSource>;

impl Stack {
    /// The layers of a model over `upstream`, around the memory in `running` and, where its requests
    /// are kept with what they refer to, `sticky`.
    pub(crate) fn new(
        model: &Model,
        running: &RunningModel,
        upstream: &Upstream,
        sticky: Option<&Sticky>,
    ) -> Self {
        let steering = &model.steering;
        // The budget of moves is one for both tiers; spilling has its own.
        let [rotating, spilling] = [(); 2].map(|()| move_on(&steering.failures));
        let rotating = rotating.context_length(steering.rotate_long_context);
        let spilling = spilling.context_length(steering.spill_long_context);
        let tier = |pool: &BackendPool| tier(model, rotating.clone(), pool.clone());
        let alone = |pool: &BackendPool| match sticky {
            Some(sticky) => tier(pool).sticky(sticky.clone()),
            None => tier(pool),
        };
        let leaf = leaf(upstream, steering.inspect.as_ref());
        let tiers = match (&running.ptu, &running.standard) {
            (Some(ptu), Some(standard)) => {
                let layer = both(model, running, tier(ptu), tier(standard)).move_on(spilling);
                let layer = match sticky {
                    Some(sticky) => layer.sticky(sticky.clone()),
                    None => layer,
                };
                Tiers::Both(Box::new(layer.layer(leaf)))
            }
            (Some(ptu), None) => Tiers::Ptu(alone(ptu).layer(leaf)),
            (None, standard) => {
                let pool = standard.as_ref().expect("a model has a tier");
                Tiers::Standard(alone(pool).layer(leaf))
            }
        };
        let limit = steering.max_attempts.map(LimitAttemptsLayer::new);
        Self { tiers, limit, inspects: steering.inspect.is_some() }
    }

    pub(crate) async fn send(&self, mut request: Request<Upload>) -> Result<Answer, UpstreamError> {
        if self.inspects {
            // A refusal that is compressed cannot be read.
            request.headers_mut().remove(header::ACCEPT_ENCODING);
        }
        match (&self.tiers, self.limit) {
            (Tiers::Both(tiers), None) => SmartFallback::clone(tiers).oneshot(request).await,
            (Tiers::Both(tiers), Some(limit)) => {
                limit.layer(SmartFallback::clone(tiers)).oneshot(request).await
            }
            (Tiers::Ptu(tier) | Tiers::Standard(tier), None) => tier.clone().oneshot(request).await,
            (Tiers::Ptu(tier) | Tiers::Standard(tier), Some(limit)) => {
                limit.layer(tier.clone()).oneshot(request).await
            }
        }
    }

    /// What an answer of the first tier is called.
    pub(crate) const fn first_tier(&self) -> &'static str {
        match self.tiers {
            Tiers::Both(_) | Tiers::Ptu(_) => "ptu",
            Tiers::Standard(_) => "standard",
        }
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.first_tier())
    }
}

/// The name of the class like `class` that never spills, or like that of requests without one. No
/// configured name has a space.
pub(crate) fn never_spilling(class: Option<&str>) -> String {
    format!("{} no-spill", class.unwrap_or_default())
}

/// A pool of one tier's backends.
///
/// # Errors
///
/// When a backend cannot work.
pub(crate) fn pool(
    name: &str,
    backends: &[crate::config::Backend],
    tokens: Option<&Tokens>,
) -> Result<Option<BackendPool>, String> {
    if backends.is_empty() {
        return Ok(None);
    }
    let members = backends.iter().map(|backend| {
        let mut member = Backend::new(&*backend.name, &backend.endpoint)
            .map_err(|error| error.to_string())?
            // Without it the caller's spelling of the model would be asked for: an alias, or
            // whatever else the default model serves.
            .deployment(backend.deployment.as_deref().unwrap_or(name))
            .weight(backend.weight)
            .priority(backend.priority);
        if let Some(version) = &backend.api_version {
            member = member.api_version(version);
        }
        if let Some(region) = &backend.region {
            member = member.region(&**region);
        }
        if let Some(quota) = &backend.quota {
            member = member.quota(&**quota);
        }
        if let Some(deployment) = &backend.image_deployment {
            member = member.image_deployment(deployment);
        }
        match &backend.auth {
            Auth::Key(key) => Ok(member.api_key(key.expose())),
            Auth::Entra => match tokens {
                Some(tokens) => Ok(member.bearer(Shared(Arc::clone(tokens)))),
                None => Err(format!("backend `{}`: auth: needs [entra]", backend.name)),
            },
        }
    });
    let members = members.collect::<Result<Vec<_>, _>>()?;
    BackendPool::new(members).map(Some).map_err(|error| error.to_string())
}

pub(crate) fn gate(settings: &GateSettings) -> Gate {
    Gate::new()
        .mode(settings.mode)
        .standing_queue_interval(settings.patience)
        .cost(TokenWeights::new().output(settings.output_weight))
}

/// One source for many backends.
struct Shared(Tokens);

impl TokenSource for Shared {
    fn token(&self) -> TokenFuture {
        self.0.token()
    }
}

/// The layer of two tiers.
fn both(
    model: &Model,
    running: &RunningModel,
    ptu: TierLayer,
    standard: TierLayer,
) -> SmartFallbackLayer<TierLayer, TierLayer> {
    // What answers without an account of its own is called after its tier, or its only backend.
    let name = |backends: &[crate::config::Backend], tier: &str| -> Arc<str> {
        match backends {
            [only] => (&*only.name).into(),
            _ => tier.into(),
        }
    };
    let mut layer = SmartFallbackLayer::new(ptu, standard)
        .names(name(&model.ptu, "ptu"), name(&model.standard, "standard"))
        .max_wait(model.max_wait)
        .longest_cooldown(model.longest_cooldown);
    if let Some(gate) = &running.gate {
        layer = layer.gate(gate.clone());
    }
    for class in classes(model) {
        layer = layer.class(class);
    }
    if let Some(budget) = &running.spill_budget {
        layer = layer.spill_budget(budget.clone());
    }
    layer
}

fn tier(model: &Model, move_on: MoveOn<KindOf>, pool: BackendPool) -> TierLayer {
    let layer = RegionRotateLayer::new(pool)
        .cooldowns(CooldownPolicy::default().longest(model.longest_cooldown))
        .name_header(BACKEND)
        .move_on(move_on);
    match model.steering.cache_affinity {
        Some(affinity) => layer.cache_affinity(affinity),
        None => layer,
    }
}

/// The backends behind a model's tiers, the first of which is the one that is asked first.
pub(crate) fn residents(running: &RunningModel) -> Residents {
    let pools = running.ptu.iter().chain(&running.standard);
    let residents = pools.map(|pool| RegionRotateLayer::new(pool.clone()).residents());
    residents.reduce(Residents::and).unwrap_or_default()
}

fn leaf(upstream: &Upstream, inspection: Option<&Inspection>) -> Leaf {
    let Some(&Inspection { body_time, preamble_time, preamble_limit }) = inspection else {
        return Either::Right(MapResponse::new(upstream.clone(), |answer| answer.map(Read::from)));
    };
    let mut layer = InspectLayer::new();
    if let Some(time) = body_time {
        layer = layer.body_time(time);
    }
    if let Some(time) = preamble_time {
        layer = layer.preamble_time(time);
    }
    if let Some(limit) = preamble_limit {
        layer = layer.preamble_limit(limit);
    }
    Either::Left(layer.layer(upstream.clone()))
}

/// What moves on beside refusals.
fn move_on(settings: &Failures) -> MoveOn<KindOf> {
    let budget = settings.budget.map(|budget| RetryBudget::new(budget.moves, budget.per_success));
    let kind: KindOf = |error| match error {
        UpstreamError::Silent => ErrorKind::Timeout,
        error if error.is_connect() => ErrorKind::Connect,
        error if error.is_reset() => ErrorKind::Reset,
        UpstreamError::Client(_) => ErrorKind::Other,
    };
    let none = MoveOn::new().budget(budget).errors(kind);
    settings.on.iter().fold(none, |move_on, failure| match failure {
        Failure::Connect => move_on.connect(),
        Failure::Reset => move_on.reset(),
        Failure::Timeout => move_on.timeout(),
        Failure::RequestTimeout => move_on.request_timeout(),
        Failure::Conflict => move_on.conflict(),
        Failure::InternalError => move_on.internal_error(),
        Failure::BadGateway => move_on.bad_gateway(),
        Failure::Unavailable => move_on.unavailable(),
        Failure::GatewayTimeout => move_on.gateway_timeout(),
    })
}

fn classes(model: &Model) -> impl Iterator<Item = Class> + '_ {
    let configured = model.classes.iter().flat_map(|(name, class)| {
        let like_it = |name: String| {
            let mut like_it = Class::new(name).rank(class.rank);
            if let Some(max_wait) = class.max_wait {
                like_it = like_it.max_wait(max_wait);
            }
            like_it
        };
        let plain = like_it(name.clone());
        [
            if class.spills { plain } else { plain.never_spill() },
            like_it(never_spilling(Some(name))).never_spill(),
        ]
    });
    configured.chain([Class::new(never_spilling(None)).never_spill()])
}

pub(crate) fn spill_budget(budget: &Budget) -> SpillBudget {
    let spent = if budget.waits_when_spent { WhenSpent::Wait } else { WhenSpent::Refuse };
    match (budget.tokens, budget.requests) {
        (Some(tokens), _) => SpillBudget::tokens(tokens, budget.window),
        (None, requests) => SpillBudget::requests(requests.unwrap_or(u32::MAX), budget.window),
    }
    .when_spent(spent)
}

pub(crate) const BACKEND: HeaderName = HeaderName::from_static("x-spillover-backend");
