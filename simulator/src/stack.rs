//! The stacks of layers to compare.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use tower::{
    ServiceExt,
    retry::RetryLayer,
    util::{BoxCloneService, MapResult},
};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    Policy, fleet,
    network::{Answer, Network},
    outage,
    plan::{PTU, Plan, RESOURCES, STANDARD},
    region_chain::RandomPick,
};
use spillover_emulator::EmulatorError;
use tower_spillover::{
    Backend, BackendPool, ConfigError, Gate, RegionRotateLayer, RetryAfterPolicy,
    SmartFallbackLayer,
    backend::DeploymentLayer,
    gate::{Contention, Mode},
    policy::{ErrorKind, MoveOn},
};

/// A type-erased stack.
pub(super) type Stack = BoxCloneService<
    Request<Full<Bytes>>,
    Response<UnsyncBoxBody<Bytes, EmulatorError>>,
    EmulatorError,
>;

/// Builds the stack of one process; called inside the runtime, once per process.
pub(super) type Wiring = fn(&Plan, Network) -> Result<Stack, ConfigError>;

/// The builder of a policy's stack.
pub(super) fn wiring(policy: Policy) -> Result<Wiring, ConfigError> {
    Ok(match policy {
        Policy::SpillFirst => {
            |_, network| Ok(boxed(script(Duration::ZERO)?.layer(reached(network))))
        }
        Policy::Reference => {
            |plan, network| Ok(boxed(classed(script(plan.max_wait)?, plan).layer(reached(network))))
        }
        Policy::RegionChain => |_, network| {
            let chain = RetryAfterPolicy::api_management().budget(None);
            Ok(boxed(RetryLayer::new(chain).layer(RandomPick::new(network))))
        },
        Policy::Shared => |plan, network| gated(Gate::new().mode(Mode::Shared), plan, network),
        Policy::Gate => {
            |plan, network| gated(Gate::new().standing_queue_interval(None), plan, network)
        }
        Policy::GateStanding => |plan, network| gated(Gate::new(), plan, network),
        Policy::GateCompete => {
            |plan, network| gated(Gate::new().contention(Contention::Compete), plan, network)
        }
        Policy::Oracle | Policy::OracleStanding => unreachable!("an oracle has no layers"),
    })
}

/// Two tiers with a gate between the caller and the PTU.
fn gated(gate: Gate, plan: &Plan, network: Network) -> Result<Stack, ConfigError> {
    let gate = match fleet::of(network.run(), network.place())? {
        Some(fleet) => gate.fleet(&fleet, PTU),
        None => gate,
    };
    let layer = SmartFallbackLayer::new(ptus(plan)?, standard()?).gate(gate);
    let layer = classed(layer.move_on(MoveOn::new().errors(KIND)), plan);
    let layer = match plan.budget {
        Some(budget) => layer.spill_budget(budget.limit()),
        None => layer,
    };
    Ok(boxed(layer.max_wait(plan.max_wait).layer(network)))
}

/// Two deployments of one resource without shared state, as in the reference script, which spills
/// only after a 429. An unreachable server has to spill at once, so that every policy serves all
/// requests: it is presented as a refusal whose hint exceeds every `max_wait`.
fn script(
    max_wait: Duration,
) -> Result<SmartFallbackLayer<DeploymentLayer, DeploymentLayer>, ConfigError> {
    let script = SmartFallbackLayer::deployments(PTU, STANDARD)?.forgetful();
    Ok(script.move_on(MoveOn::none()).max_wait(max_wait))
}

/// The network, with failed connections turned into refusals.
fn reached(network: Network) -> MapResult<Network, fn(Answer) -> Answer> {
    network.map_result(|answer| match answer {
        Err(EmulatorError::Down) => Ok(outage::unreachable()),
        other => other,
    })
}

/// The PTU, or its parts, weighted by their size.
fn ptus(plan: &Plan) -> Result<RegionRotateLayer<Kind>, ConfigError> {
    let backend = |(name, part): (&&str, &f64)| {
        let backend = Backend::new(format!("{PTU}-{name}"), endpoint(name))?;
        let weight = ((part * 100.0).round() as u32).max(1);
        Ok(backend.deployment(PTU).api_key(KEY).weight(weight))
    };
    let backends: Result<Vec<_>, ConfigError> =
        RESOURCES.iter().zip(&plan.parts).map(backend).collect();
    Ok(rotating(BackendPool::new(backends?)?))
}

/// Adds the plan's classes; each request names its class.
fn classed<P, F, X>(
    layer: SmartFallbackLayer<P, F, X>,
    plan: &Plan,
) -> SmartFallbackLayer<P, F, X> {
    plan.classes.iter().fold(layer, |layer, class| layer.class(class.class()))
}

/// The deployment beside the PTU first, then the other regions.
fn standard() -> Result<RegionRotateLayer<Kind>, ConfigError> {
    let backend = |(index, name): (usize, &&str)| {
        let backend = Backend::new(Arc::from(*name), endpoint(name))?;
        Ok(backend.api_key(KEY).priority(if index == 0 { 1 } else { 2 }))
    };
    let backends: Result<Vec<_>, ConfigError> = RESOURCES.iter().enumerate().map(backend).collect();
    Ok(rotating(BackendPool::new(backends?)?))
}

fn rotating(pool: BackendPool) -> RegionRotateLayer<Kind> {
    RegionRotateLayer::new(pool).move_on(MoveOn::new().errors(KIND))
}

type Kind = fn(&EmulatorError) -> ErrorKind;

const KIND: Kind = |error| match error {
    EmulatorError::Down => ErrorKind::Connect,
    _ => ErrorKind::Other,
};

fn endpoint(resource: &str) -> String {
    format!("https://{resource}.openai.azure.com")
}

fn boxed<S, B>(service: S) -> Stack
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = EmulatorError>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error = EmulatorError> + Send + 'static,
{
    let plain = |response: Response<B>| response.map(BodyExt::boxed_unsync);
    BoxCloneService::new(service.map_response(plain))
}

/// The emulated resources require no key, but a pool does.
const KEY: &str = "key";
