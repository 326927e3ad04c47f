//! Builds a runtime from a configuration; a reload keeps what it can of the last one.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tower_spillover::{BackendPool, Sticky};

use crate::{
    client_tokens::Verifier,
    config::{self, Auth, Backend, Config, Model, Stickiness, StickySettings},
    entra,
    fleet::{self, RunningFleet},
    serve::{
        inbound::{client_keys::ClientKeys, runtime::Runtime},
        routing::{
            allowed_models::AllowedModels,
            client_home::ClientHomes,
            routes::{ModelRoute, Routes, StickyScope},
        },
        upstream::{
            client::UpstreamClient,
            gate,
            pools::{self, AccessTokens},
            stack::Stack,
        },
    },
    snapshot::{RunningModel, Snapshot},
    utilization::Utilizations,
};

/// Builds a configuration's runtime. Keeps what `last` learned about backends that are unchanged.
///
/// # Errors
///
/// If a backend or a certificate is unusable; nothing has changed then.
pub(crate) fn runtime(config: Config, last: Option<&Runtime>) -> Result<Runtime, String> {
    let upstream = match last {
        Some(last) if same_client(&config.upstream, &last.config().upstream) => {
            last.upstream.clone()
        }
        _ => UpstreamClient::new(&config.upstream)?,
    };
    let (tokens, keeps_tokens) = match (&config.entra, last) {
        (None, _) => (None, last.is_some_and(|last| last.tokens.is_none())),
        (Some(entra), Some(last)) if last.config().entra.as_ref() == Some(entra) => {
            (last.tokens.clone(), true)
        }
        (Some(entra), _) => {
            let tokens = entra::source(entra).map_err(|error| error.to_string())?;
            (Some(Arc::new(tokens) as AccessTokens), false)
        }
    };
    let verifier = match (&config.tokens, last) {
        // Keep the issuer's keys: the issuer may be unreachable now.
        (Some(tokens), Some(last)) if last.config().tokens.as_ref() == Some(tokens) => {
            last.verifier.clone()
        }
        (Some(tokens), _) => {
            let verifier = Verifier::new(tokens).map_err(|error| format!("tokens: {error}"))?;
            Some(Arc::new(verifier))
        }
        (None, _) => None,
    };
    let last_fleet = last.and_then(|last| {
        (last.config().fleet == config.fleet).then(|| last.snapshot.fleet.clone())
    });
    let keeps_fleet = last_fleet.is_some();
    let fleet = match (last_fleet, &config.fleet) {
        (Some(fleet), _) => fleet,
        (None, Some(settings)) => {
            let fleet = RunningFleet::new(settings).map_err(|error| format!("fleet: {error}"))?;
            Some(fleet)
        }
        (None, None) => None,
    };
    let share = config.fleet.as_ref().map(|fleet| fleet.share).unwrap_or_default();
    // A reload keeps the sticky ids: a resource that is still configured keeps its entries.
    let memory = last.map(|last| last.memory.clone()).unwrap_or_default();
    let sticky = match (last, &config.fleet, &fleet) {
        (Some(last), ..) if keeps_fleet => last.snapshot.sticky.clone(),
        (_, Some(settings), Some(running)) if share.sticky => {
            let sticky = memory.clone().fleet(&running.fleet, settings.sticky_age);
            sticky.map_err(|error| format!("fleet: {error}"))?
        }
        _ => memory.clone(),
    };
    let shared = Shared {
        gates: fleet.as_ref().filter(|_| share.gates),
        budgets: fleet.as_ref().filter(|_| share.budgets),
        cooldowns: fleet.as_ref().filter(|_| share.cooldowns),
        keeps_fleet,
        tokens: tokens.as_ref(),
    };
    let (mut routes, mut models) = (HashMap::new(), BTreeMap::new());
    for (name, model) in &config.models {
        let kept = last.and_then(|last| {
            let snapshot = &last.snapshot;
            Some((snapshot.config.models.get(name)?, &**snapshot.models.get(name)?))
        });
        let kept = kept.filter(|_| keeps_tokens || !uses_tokens(model));
        let running = running_model(name, model, kept, &shared)
            .map_err(|error| format!("models.\"{name}\": {error}"))?;
        let running = Arc::new(running);
        let scope = sticky_scope(&model.steering.sticky, &sticky, &running);
        let stack =
            Stack::new(model, &running, &upstream, scope.as_ref().map(|scope| &scope.sticky));
        let route = Arc::new(ModelRoute { model: Arc::clone(&running), stack, sticky: scope });
        for other in model.aliases.iter().chain([name]) {
            routes.insert(other.clone(), Arc::clone(&route));
        }
        models.insert(name.clone(), running);
    }
    let sticky = limited(sticky, &config.sticky);
    let snapshot = Arc::new(Snapshot::new(config, models, sticky, fleet));
    let routes = Routes::new(Arc::clone(&snapshot), routes);
    let homes = ClientHomes::new(&routes);
    let home = |client: &str, allowed: &AllowedModels| homes.of(client, allowed);
    let clients = &snapshot.config.clients;
    let rates = snapshot.fleet.as_ref().filter(|_| share.rates).map(|running| &running.fleet);
    let clients = ClientKeys::new(clients, home, last.map(|last| &last.clients), rates);
    Ok(Runtime { snapshot, clients, routes, upstream, tokens, verifier, memory })
}

/// Builds a configuration's runtime like a server, and drops it.
///
/// # Errors
///
/// As in [`runtime`].
pub(crate) fn try_to_build(mut config: Config) -> Result<(), String> {
    // Without the fleet, whose thread would connect to the store.
    if let Some(settings) = config.fleet.take() {
        fleet::store(&settings).map_err(|error| format!("fleet: {error}"))?;
    }
    // Timers and connections need an async runtime, as in a server.
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let executor = executor.map_err(|error| format!("cannot start: {error}"))?;
    let _entered = executor.enter();
    runtime(config, None).map(drop)
}

/// What the models of a configuration have in common.
struct Shared<'a> {
    /// Where gates are, if they are shared.
    gates: Option<&'a RunningFleet>,
    /// Where spill budgets are, if they are shared.
    budgets: Option<&'a RunningFleet>,
    /// Where cooldowns of Standard backends are, if they are shared.
    cooldowns: Option<&'a RunningFleet>,
    /// Whether that is the last configuration's, so that what is shared in it may be, too.
    keeps_fleet: bool,
    tokens: Option<&'a AccessTokens>,
}

/// The pools, the gate and the budget of a model: reused from the last configuration if their
/// settings are the same, so that they keep what they learned.
fn running_model(
    name: &str,
    model: &Model,
    last: Option<(&Model, &RunningModel)>,
    shared: &Shared<'_>,
) -> Result<RunningModel, String> {
    let tokens = shared.tokens;
    let last_ptu = last.map(|(settings, running)| (&*settings.ptu, &running.ptu));
    let last_standard = last
        .filter(|(settings, _)| {
            // A pool that shares its cooldowns is in one fleet, and believes no longer ones.
            shared.keeps_fleet && model.longest_cooldown == settings.longest_cooldown
        })
        .map(|(settings, running)| (&*settings.standard, &running.standard));
    let ptu = pool(name, &model.ptu, last_ptu, tokens)?;
    let standard = pool(name, &model.standard, last_standard, tokens)?;
    let standard = standard.map(|pool| match shared.cooldowns {
        Some(running) => pool.fleet(&running.fleet, name, model.longest_cooldown),
        None => pool,
    });
    if ptu.is_none() && standard.is_none() {
        return Err("has no backend".to_owned());
    }
    let kept_gate = last
        .filter(|(settings, _)| {
            shared.keeps_fleet && model.ptu == settings.ptu && model.gate == settings.gate
        })
        .and_then(|(_, running)| running.gate.clone());
    let gate = kept_gate.or_else(|| {
        ptu.as_ref()?;
        let gate = gate::gate(&model.gate);
        Some(match shared.gates {
            Some(running) => gate.fleet(&running.fleet, &gate::ptu(name, model)),
            None => gate,
        })
    });
    let standard_queue = last
        .filter(|(settings, _)| model.standard == settings.standard)
        .map(|(_, running)| running.standard_queue.clone());
    let spill_budget = last
        .filter(|(settings, _)| shared.keeps_fleet && model.spill_budget == settings.spill_budget)
        .and_then(|(_, running)| running.spill_budget.clone())
        .or_else(|| {
            let budget = gate::spill_budget(model.spill_budget.as_ref()?);
            Some(match shared.budgets {
                Some(running) => budget.fleet(&running.fleet, name),
                None => budget,
            })
        });
    let utilizations = last
        .filter(|(settings, _)| model.ptu == settings.ptu)
        .map(|(_, running)| running.utilizations.clone());
    let utilizations = utilizations
        .unwrap_or_else(|| Utilizations::new(model.ptu.iter().map(|backend| &*backend.name)));
    Ok(RunningModel {
        name: name.to_owned(),
        gate,
        ptu,
        standard,
        standard_queue: standard_queue.unwrap_or_default(),
        spill_budget,
        utilizations,
    })
}

/// The last pool if its backends are the same.
fn pool(
    name: &str,
    backends: &[Backend],
    last: Option<(&[Backend], &Option<BackendPool>)>,
    tokens: Option<&AccessTokens>,
) -> Result<Option<BackendPool>, String> {
    match last {
        Some((settings, pool)) if settings == backends => Ok(pool.clone()),
        _ => pools::pool(name, backends, tokens),
    }
}

/// Keeps a model's requests with the backend that stores what they refer to.
fn sticky_scope(
    settings: &Stickiness,
    memory: &Sticky,
    running: &RunningModel,
) -> Option<StickyScope> {
    let Stickiness::On { default_backend } = settings else { return None };
    let sticky = match default_backend {
        Some(name) => memory.clone().default_backend(name.clone()),
        None => memory.clone(),
    };
    Some(StickyScope { sticky, residents: pools::residents(running) })
}

/// Applies the limits to the shared memory. Call last: the old configuration shares it, so nothing
/// may fail afterwards.
fn limited(memory: Sticky, settings: &StickySettings) -> Sticky {
    memory.capacity(settings.capacity).longest_age(settings.longest_age)
}

fn uses_tokens(model: &Model) -> bool {
    model.ptu.iter().chain(&model.standard).any(|backend| backend.auth == Auth::Entra)
}

/// Whether two configurations can share a client. The idle timeout and the headers are applied
/// elsewhere.
fn same_client(settings: &config::Upstream, last: &config::Upstream) -> bool {
    let (idle_timeout, headers) = (last.idle_timeout, last.headers.clone());
    config::Upstream { idle_timeout, headers, ..settings.clone() } == *last
}
