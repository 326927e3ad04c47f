//! A configuration at work, with its stacks and clients; a reload keeps what it can of the last.

use std::{collections::HashMap, sync::Arc};

use tower_spillover::{BackendPool, Gate};

use super::{
    clients::Table,
    stack::{self, Stack, Tokens},
    upstream::Upstream,
};
use crate::{
    config::{self, Auth, Backend, Config, Entra, EntraKind, GateSettings, Model},
    running::{Running, RunningModel},
};

/// One loaded configuration, ready to serve.
pub(super) struct Site {
    pub(super) running: Arc<Running>,
    pub(super) clients: Table,
    lines: HashMap<String, Arc<Line>>,
    default: Option<Arc<Line>>,
    upstream: Upstream,
    tokens: Option<Tokens>,
}

/// Makes the source of access tokens for a configuration.
pub(super) type OpenTokens = fn(&Entra) -> Result<Tokens, String>;

/// A model at work.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) model: Arc<RunningModel>,
    pub(super) stack: Stack,
}

impl Site {
    /// Puts a configuration to work. What `before` learned of backends that are the same stays.
    ///
    /// # Errors
    ///
    /// When a backend or a certificate cannot work; nothing has changed then.
    pub(super) fn new(
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
            let stack = Stack::new(model, &running, &upstream);
            let line = Arc::new(Line { model: Arc::clone(&running), stack });
            for other in model.aliases.iter().chain([name]) {
                lines.insert(other.clone(), Arc::clone(&line));
            }
            models.insert(name.clone(), running);
        }
        let only = config.models.keys().next().filter(|_| config.models.len() == 1);
        let default = config.default_model.as_ref().or(only).and_then(|name| lines.get(name));
        Ok(Self {
            default: default.cloned(),
            clients: Table::new(&config.clients, before.map(|site| &site.clients)),
            lines,
            running: Arc::new(Running { config, models }),
            upstream,
            tokens,
        })
    }

    /// The model called `name`, by its own name or another; the default model where there is one
    /// and the configuration names it.
    pub(super) fn line(&self, name: &str) -> Option<&Arc<Line>> {
        let stand_in = || self.default.as_ref().filter(|_| self.config().default_model.is_some());
        self.lines.get(name).or_else(stand_in)
    }

    /// The model of requests that name none.
    pub(super) const fn unnamed(&self) -> Option<&Arc<Line>> {
        self.default.as_ref()
    }

    pub(super) fn config(&self) -> &Config {
        &self.running.config
    }

    fn has_tokens_by(&self, entra: &Entra) -> bool {
        self.config().entra.as_ref().is_some_and(|last| same_entra(entra, last))
    }
}

/// The pools, the gate and the budget of a model: those of the last configuration where their settings are the
/// same, so that what they learned is not lost.
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
            it.image_deployment.clone(),
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
