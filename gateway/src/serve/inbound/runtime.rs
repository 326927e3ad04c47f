//! A configuration at work, with its stacks and clients; a reload keeps what it can of the last.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::Request;
use tower_spillover::{BackendPool, Gate, Sticky, sticky::Residents};

use super::clients::Table;
use crate::{
    config::{
        self, Auth, Backend, Config, Entra, EntraKind, GateSettings, Model, Stickiness,
        StickySettings,
    },
    serve::upstream::{
        client::Upstream,
        request_body::Upload,
        stack::{self, Stack, Tokens},
    },
    snapshot::{RunningModel, Snapshot},
};

/// One loaded configuration, ready to serve.
pub(crate) struct Site {
    pub(crate) running: Arc<Snapshot>,
    pub(crate) clients: Table,
    lines: HashMap<String, Arc<Line>>,
    default: Option<Arc<Line>>,
    upstream: Upstream,
    tokens: Option<Tokens>,
}

/// Makes the source of access tokens for a configuration.
pub(crate) type OpenTokens = fn(&Entra) -> Result<Tokens, String>;

/// A model at work.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) model: Arc<RunningModel>,
    pub(crate) stack: Stack,
    /// Where its requests are kept with what they refer to.
    stays: Option<Stays>,
}

/// What tells that a request belongs to one of a model's backends.
#[derive(Debug)]
struct Stays {
    sticky: Sticky,
    residents: Residents,
}

impl Line {
    /// Whether its requests are kept with what they refer to.
    pub(crate) const fn is_sticky(&self) -> bool {
        self.stays.is_some()
    }

    pub(crate) fn has_backend(&self, name: &str) -> bool {
        let pools = self.model.ptu.iter().chain(&self.model.standard);
        pools.flat_map(BackendPool::names).any(|known| known == name)
    }

    /// How long the whole PTU tier goes on refusing; `None` while it may answer, or when it fails.
    pub(crate) fn ptu_refuses_for(&self) -> Option<Duration> {
        let ptu = self.model.ptu.as_ref()?;
        let backends = ptu.cooldowns().zip(ptu.failures());
        backends.map(|((_, resting), (_, failures))| resting.filter(|_| failures == 0)).min()?
    }

    /// Whether something that `request` refers to is known to be with one of its backends.
    fn holds(&self, request: &Request<Upload>) -> bool {
        let knows = |stays: &Stays| stays.sticky.knows(request, &stays.residents);
        self.stays.as_ref().is_some_and(knows)
    }
}

impl Site {
    /// Puts a configuration to work. What `before` learned of backends that are the same stays.
    ///
    /// # Errors
    ///
    /// When a backend or a certificate cannot work; nothing has changed then.
    pub(crate) fn new(
        config: Config,
        before: Option<&Self>,
        open_tokens: OpenTokens,
    ) -> Result<Self, String> {
        let last = before.map(|site| &site.running.config);
        let upstream = match before {
            Some(site) if same_upstream(&config.upstream, &site.running.config.upstream) => {
                site.upstream.clone()
            }
            _ => Upstream::new(&config.upstream)?,
        };
        let tokens = match (&config.entra, before) {
            (None, _) => None,
            (Some(entra), Some(site)) if site.has_tokens_by(entra) => site.tokens.clone(),
            (Some(entra), _) => Some(open_tokens(entra)?),
        };
        let keeps_tokens = before.is_some_and(|site| same_tokens(&site.tokens, &tokens));
        // No reload forgets where ids are: a resource that is still configured holds what it held.
        let sticky = before.map(|site| site.running.sticky.clone()).unwrap_or_default();
        let mut lines = HashMap::new();
        let mut models = std::collections::BTreeMap::new();
        for (name, model) in &config.models {
            let kept = last.and_then(|last| {
                Some((last.models.get(name)?, &**before?.running.models.get(name)?))
            });
            let kept = kept.filter(|_| keeps_tokens || !uses_tokens(model));
            let running = remember(name, model, kept, tokens.as_ref())
                .map_err(|error| format!("models.\"{name}\": {error}"))?;
            let running = Arc::new(running);
            let stays = match &model.steering.sticky {
                Stickiness::Off => None,
                Stickiness::On { default_backend } => {
                    let named = default_backend.clone();
                    let sticky = sticky.clone();
                    let sticky = named.into_iter().fold(sticky, Sticky::default_backend);
                    Some(Stays { sticky, residents: stack::residents(&running) })
                }
            };
            let sticky = stays.as_ref().map(|stays| &stays.sticky);
            let stack = Stack::new(model, &running, &upstream, sticky);
            let line = Arc::new(Line { model: Arc::clone(&running), stack, stays });
            for other in model.aliases.iter().chain([name]) {
                lines.insert(other.clone(), Arc::clone(&line));
            }
            models.insert(name.clone(), running);
        }
        let sticky = bounded(sticky, &config.sticky);
        let only = config.models.keys().next().filter(|_| config.models.len() == 1);
        let default = config.default_model.as_ref().or(only).and_then(|name| lines.get(name));
        Ok(Self {
            default: default.cloned(),
            clients: Table::new(&config.clients, before.map(|site| &site.clients)),
            lines,
            running: Arc::new(Snapshot { config, models, sticky }),
            upstream,
            tokens,
        })
    }

    /// The model called `name`, by its own name or another; the default model where there is one
    /// and the configuration names it.
    pub(crate) fn line(&self, name: &str) -> Option<&Arc<Line>> {
        let stand_in = || self.default.as_ref().filter(|_| self.config().default_model.is_some());
        self.lines.get(name).or_else(stand_in)
    }

    /// The model of requests that name none.
    pub(crate) const fn unnamed(&self) -> Option<&Arc<Line>> {
        self.default.as_ref()
    }

    /// The model that a request belongs to which names none, by the backend that it names or by what
    /// it refers to: the default model, or the first other one, for which `may_be` returns true.
    pub(crate) fn holder(
        &self,
        request: &Request<Upload>,
        backend: Option<&str>,
        may_be: impl Fn(&str) -> bool,
    ) -> Option<&Arc<Line>> {
        if self.running.models.len() < 2 {
            return None;
        }
        let others = self.running.models.keys().filter_map(|name| self.lines.get(name));
        let mut lines = self.default.iter().chain(others).filter(|line| may_be(&line.model.name));
        lines.find(|line| match backend {
            Some(name) => line.is_sticky() && line.has_backend(name),
            None => line.holds(request),
        })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.running.config
    }

    fn has_tokens_by(&self, entra: &Entra) -> bool {
        self.config().entra.as_ref().is_some_and(|last| same_entra(entra, last))
    }
}

/// Bounds a memory for all who share it, also for the configuration before: for nothing may go wrong
/// any more.
fn bounded(memory: Sticky, settings: &StickySettings) -> Sticky {
    memory.capacity(settings.capacity).longest_age(settings.longest_age)
}

/// The pools, the gate and the budget of a model: those of the last configuration where their
/// settings are the same, so that what they learned is not lost.
fn remember(
    name: &str,
    model: &Model,
    kept: Option<(&Model, &RunningModel)>,
    tokens: Option<&Tokens>,
) -> Result<RunningModel, String> {
    let keep = |now: &[Backend],
                last: fn(&Model) -> &Vec<Backend>,
                pool: fn(&RunningModel) -> &Option<BackendPool>| {
        match kept {
            Some((model, running)) if same_backends(now, last(model)) => Ok(pool(running).clone()),
            _ => stack::pool(name, now, tokens),
        }
    };
    let ptu = keep(&model.ptu, |model| &model.ptu, |running| &running.ptu)?;
    let standard = keep(&model.standard, |model| &model.standard, |running| &running.standard)?;
    let gate = kept
        .filter(|(last, _)| {
            same_backends(&model.ptu, &last.ptu) && same_gate(&model.gate, &last.gate)
        })
        .and_then(|(_, running)| running.gate.clone())
        .or_else(|| {
            (ptu.is_some() && standard.is_some()).then(|| -> Gate { stack::gate(&model.gate) })
        });
    if ptu.is_none() && standard.is_none() {
        return Err("has no backend".to_owned());
    }
    let spill_budget = kept
        .filter(|(last, _)| model.spill_budget == last.spill_budget)
        .and_then(|(_, running)| running.spill_budget.clone())
        .or_else(|| model.spill_budget.as_ref().map(stack::spill_budget));
    Ok(RunningModel { name: name.to_owned(), gate, ptu, standard, spill_budget })
}

fn same_backends(now: &[Backend], last: &[Backend]) -> bool {
    let facts = |it: &Backend| {
        let key = match &it.auth {
            Auth::Key(key) => Some(key.clone()),
            Auth::Entra => None,
        };
        (
            (it.name.clone(), it.endpoint.clone(), key),
            (it.deployment.clone(), it.api_version.clone(), it.region.clone()),
            (it.image_deployment.clone(), it.quota.clone()),
            (it.priority, it.weight),
        )
    };
    now.iter().map(facts).eq(last.iter().map(facts))
}

fn uses_tokens(model: &Model) -> bool {
    model.ptu.iter().chain(&model.standard).any(|backend| matches!(backend.auth, Auth::Entra))
}

fn same_tokens(now: &Option<Tokens>, last: &Option<Tokens>) -> bool {
    match (now, last) {
        (Some(now), Some(last)) => Arc::ptr_eq(now, last),
        (None, None) => true,
        _ => false,
    }
}

fn same_entra(now: &Entra, last: &Entra) -> bool {
    use EntraKind::{ClientSecret, Managed, Workload};
    let is_same_kind = match (&now.kind, &last.kind) {
        (Workload, Workload) => true,
        (Managed { client_id: now }, Managed { client_id: last }) => now == last,
        (
            ClientSecret { tenant, client_id, secret },
            ClientSecret { tenant: last_tenant, client_id: last_id, secret: last_secret },
        ) => (tenant, client_id, secret) == (last_tenant, last_id, last_secret),
        _ => false,
    };
    is_same_kind && (&now.scope, &now.authority) == (&last.scope, &last.authority)
}

fn same_gate(now: &GateSettings, last: &GateSettings) -> bool {
    (now.mode, now.patience, now.output_weight.to_bits())
        == (last.mode, last.patience, last.output_weight.to_bits())
}

fn same_upstream(now: &config::Upstream, last: &config::Upstream) -> bool {
    let times = |it: &config::Upstream| (it.connect_timeout, it.head_timeout, it.idle_connections);
    times(now) == times(last) && (now.http2, &now.trust) == (last.http2, &last.trust)
}
