//! A model's stack of layers: rotation within each tier, spillover between them.

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderName, Request, Response, header};
use tower::{
    Layer, ServiceExt,
    util::{Either, MapResponse},
};
use tower_spillover::{
    BackendPool, FirstTokenLayer, InspectLayer, LimitAttemptsLayer, RegionRotateLayer,
    ResponseBody, SmartFallback, SmartFallbackLayer, Sticky, WaitLayer,
    inspect::Inspect,
    policy::{CooldownPolicy, MoveOn},
    region_rotate::RegionRotate,
    wait::Wait,
};

use super::{
    classes::classes,
    client::UpstreamClient,
    client_pool::Download,
    error::UpstreamError,
    first_token::{self, first_token},
    move_on::{KindOf, move_on},
    request_body::RequestBody,
};
use crate::{
    config::{Backend, Inspection, Model},
    snapshot::RunningModel,
};

/// The layers for a model's requests.
#[derive(Clone)]
pub(crate) struct Stack {
    tiers: Tiers,
    /// If attempts are limited.
    limit: Option<LimitAttemptsLayer>,
    /// If late first tokens are not waited for.
    first_token: Option<FirstTokenLayer>,
    /// Whether answers are inspected for refusals.
    inspects: bool,
}

#[derive(Clone)]
enum Tiers {
    /// The PTU first, optionally with Standard behind it.
    Ptu(Box<SmartFallback<Tier, Tier, KindOf>>),
    Standard(Box<Wait<Tier>>),
}

pub(crate) type Answer = Response<AnswerBody>;
pub(crate) type AnswerBody = ResponseBody<Read>;
/// An answer's body whose beginning may have been inspected.
pub(crate) type Read = ResponseBody<Download>;
type Tier = RegionRotate<Leaf, KindOf>;
type TierLayer = RegionRotateLayer<KindOf>;
/// The innermost services, inside all layers.
type Leaf = Either<Inspect<UpstreamClient>, Unread>;
type Unread = MapResponse<UpstreamClient, fn(Response<Download>) -> Response<Read>>;
impl Stack {
    /// Builds a model's layers over `upstream`, with the shared state in `running` and, if its
    /// requests are sticky, `sticky`.
    pub(crate) fn new(
        model: &Model,
        running: &RunningModel,
        upstream: &UpstreamClient,
        sticky: Option<&Sticky>,
    ) -> Self {
        let steering = &model.steering;
        // Both tiers share the budget for moving on; spilling has its own.
        let [rotating, spilling] = [(); 2].map(|()| move_on(&steering.failures));
        let rotating = rotating.context_length(steering.rotate_long_context);
        let spilling = spilling.context_length(steering.spill_long_context);
        let tier = |pool: &BackendPool| tier(model, rotating.clone(), pool.clone());
        // The last tier retries connecting, because nothing follows it.
        let patience = CONNECT_PATIENCE.min(model.max_wait);
        let last = |pool: &BackendPool| tier(pool).connect_patience(patience);
        let upstream = &upstream.head_timeout(model.head_timeout);
        let leaf = leaf(upstream, steering.inspect.as_ref());
        let tiers = match (&running.ptu, &running.standard) {
            (Some(ptu), standard) => {
                let layer = match standard {
                    // A PTU has one service tier; flex requests have to reach Standard as flex.
                    Some(standard) => {
                        SmartFallbackLayer::new(tier(ptu).flex_as_default(false), last(standard))
                    }
                    None => SmartFallbackLayer::alone(last(ptu)),
                };
                let layer = ptu_first(model, running, layer).move_on(spilling);
                let layer = match sticky {
                    Some(sticky) => layer.sticky(sticky.clone()),
                    None => layer,
                };
                Tiers::Ptu(Box::new(layer.layer(leaf)))
            }
            (None, standard) => {
                let tier = last(standard.as_ref().expect("a model has a tier"));
                let tier = match sticky {
                    Some(sticky) => tier.sticky(sticky.clone()),
                    None => tier,
                };
                Tiers::Standard(Box::new(patient(model, running).layer(tier.layer(leaf))))
            }
        };
        let limit = steering.max_attempts.map(LimitAttemptsLayer::new);
        Self { tiers, limit, first_token: first_token(model), inspects: steering.inspect.is_some() }
    }

    pub(crate) async fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<Answer, UpstreamError> {
        if self.inspects {
            // A compressed refusal cannot be inspected.
            request.headers_mut().remove(header::ACCEPT_ENCODING);
        }
        // Boxed, because the future of a request has room for the largest of these, and is moved.
        if let Some(layer) = &self.first_token {
            return match &self.tiers {
                Tiers::Ptu(tiers) => {
                    let tiers = SmartFallback::clone(tiers);
                    Box::pin(first_token::send(layer, self.limit, tiers, request)).await
                }
                Tiers::Standard(tier) => {
                    let tier = Wait::clone(tier);
                    Box::pin(first_token::send(layer, self.limit, tier, request)).await
                }
            };
        }
        match (&self.tiers, self.limit) {
            (Tiers::Ptu(tiers), None) => {
                Box::pin(SmartFallback::clone(tiers).oneshot(request)).await
            }
            (Tiers::Ptu(tiers), Some(limit)) => {
                Box::pin(limit.layer(SmartFallback::clone(tiers)).oneshot(request)).await
            }
            (Tiers::Standard(tier), None) => Box::pin(Wait::clone(tier).oneshot(request)).await,
            (Tiers::Standard(tier), Some(limit)) => {
                Box::pin(limit.layer(Wait::clone(tier)).oneshot(request)).await
            }
        }
    }

    /// The label of the first tier.
    pub(crate) const fn first_tier(&self) -> &'static str {
        match self.tiers {
            Tiers::Ptu(_) => "ptu",
            Tiers::Standard(_) => "standard",
        }
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.first_tier())
    }
}

/// The layer of a PTU, with its model's settings.
fn ptu_first(
    model: &Model,
    running: &RunningModel,
    layer: SmartFallbackLayer<TierLayer, TierLayer>,
) -> SmartFallbackLayer<TierLayer, TierLayer> {
    let mut layer = layer
        .names(name(&model.ptu, "ptu"), name(&model.standard, "standard"))
        .max_wait(model.max_wait)
        .longest_cooldown(model.longest_cooldown)
        .fallback_queue(running.standard_queue.clone());
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

/// The layer around Standard alone: it waits like a PTU's does.
fn patient(model: &Model, running: &RunningModel) -> WaitLayer {
    let layer = WaitLayer::new()
        .name(name(&model.standard, "standard"))
        .max_wait(model.max_wait)
        .queue(running.standard_queue.clone());
    classes(model).fold(layer, WaitLayer::class)
}

/// The name for answers without a `Served`: the tier's, or that of its only backend.
fn name(backends: &[Backend], tier: &str) -> Arc<str> {
    match backends {
        [only] => (&*only.name).into(),
        _ => tier.into(),
    }
}

fn tier(model: &Model, move_on: MoveOn<KindOf>, pool: BackendPool) -> TierLayer {
    let layer = RegionRotateLayer::new(pool)
        .cooldowns(CooldownPolicy::default().longest(model.longest_cooldown))
        .name_header(BACKEND)
        .move_on(move_on)
        .flex_as_default(model.steering.flex_as_default);
    match model.steering.cache_affinity {
        Some(affinity) => layer.cache_affinity(affinity),
        None => layer,
    }
}

fn leaf(upstream: &UpstreamClient, inspection: Option<&Inspection>) -> Leaf {
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

/// How long a request retries connecting if nothing else is left: most restarts take less.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

pub(crate) const BACKEND: HeaderName = HeaderName::from_static("x-spillover-backend");
