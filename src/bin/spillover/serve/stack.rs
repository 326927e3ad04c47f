//! A model's stack of layers: rotation within each tier, spillover from one to the other.

use std::{fmt, sync::Arc};

use http::{HeaderName, Request, Response};
use tower::{Layer, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, Gate, RegionRotateLayer, ResponseBody, SmartFallback, SmartFallbackLayer,
    backend::{TokenFuture, TokenSource},
    gate::{Class, SpillBudget, WhenSpent, cost::TokenWeights},
    policy::Rests,
    region_rotate::{ErrorFn, RegionRotate},
};

use super::{
    lanes::Download,
    upload::Upload,
    upstream::{Upstream, UpstreamError},
};
use crate::{
    config::{Auth, Budget, GateSettings, Model},
    running::RunningModel,
};

/// What a model's requests go through.
#[derive(Clone)]
pub(super) enum Stack {
    Tiers(Box<SmartFallback<Tier, Tier>>),
    Ptu(Tier),
    Standard(Tier),
}

pub(super) type Answer = Response<ResponseBody<Download>>;
type Tier = RegionRotate<Upstream, OnError>;
type OnError = ErrorFn<fn(&UpstreamError) -> bool>;
pub(super) type Tokens = Arc<dyn TokenSource>;

impl Stack {
    /// The layers of a model over `upstream`, around the memory in `running`.
    pub(super) fn new(model: &Model, running: &RunningModel, upstream: &Upstream) -> Self {
        let tier = |pool: &BackendPool| tier(model, pool.clone());
        match (&running.ptu, &running.standard) {
            (Some(ptu), Some(standard)) => {
                let mut layer = SmartFallbackLayer::new(tier(ptu), tier(standard))
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
                Self::Tiers(Box::new(layer.layer(upstream.clone())))
            }
            (Some(ptu), None) => Self::Ptu(tier(ptu).layer(upstream.clone())),
            (None, standard) => {
                let pool = standard.as_ref().expect("a model has a tier");
                Self::Standard(tier(pool).layer(upstream.clone()))
            }
        }
    }

    pub(super) async fn send(&self, request: Request<Upload>) -> Result<Answer, UpstreamError> {
        match self {
            Self::Tiers(tiers) => SmartFallback::clone(tiers).oneshot(request).await,
            Self::Ptu(tier) | Self::Standard(tier) => tier.clone().oneshot(request).await,
        }
    }

    /// What an answer of the first tier is called.
    pub(super) const fn first_tier(&self) -> &'static str {
        match self {
            Self::Tiers(_) | Self::Ptu(_) => "ptu",
            Self::Standard(_) => "standard",
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
pub(super) fn never_spilling(class: Option<&str>) -> String {
    format!("{} no-spill", class.unwrap_or_default())
}

/// A pool of one tier's backends.
///
/// # Errors
///
/// When a backend cannot work.
pub(super) fn pool(
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

pub(super) fn gate(settings: &GateSettings) -> Gate {
    Gate::new()
        .mode(settings.mode)
        .patience(settings.patience)
        .cost(TokenWeights::new().output(settings.output_weight))
}

/// One source for many backends.
struct Shared(Tokens);

impl TokenSource for Shared {
    fn token(&self) -> TokenFuture {
        self.0.token()
    }
}

fn tier(model: &Model, pool: BackendPool) -> RegionRotateLayer<OnError> {
    let is_connect: fn(&UpstreamError) -> bool = UpstreamError::is_connect;
    let layer = RegionRotateLayer::new(pool)
        .rests(Rests::default().longest(model.longest_cooldown))
        .name_header(BACKEND)
        .rotate_on_error(is_connect);
    if model.rotate_on_failure { layer.rotate_on_failure() } else { layer }
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

pub(super) fn spill_budget(budget: &Budget) -> SpillBudget {
    let spent = if budget.waits_when_spent { WhenSpent::Wait } else { WhenSpent::Refuse };
    match (budget.tokens, budget.requests) {
        (Some(tokens), _) => SpillBudget::tokens(tokens, budget.window),
        (None, requests) => SpillBudget::requests(requests.unwrap_or(u32::MAX), budget.window),
    }
    .when_spent(spent)
}

pub(super) const BACKEND: HeaderName = HeaderName::from_static("x-spillover-backend");
