//! Reads models, their tiers and their backends.

use std::{collections::BTreeMap, time::Duration};

use tower_spillover::{
    Backend as Probe, BackendPool, ConfigError, Credential,
    backend::DeploymentLayer,
    classify::Provider,
    gate::{Contention, Mode},
};

use super::{
    Auth, Backend, Budget, GateSettings, Model, Secret,
    client::Classes,
    endpoint::strip_field,
    model_policy,
    proxy::ServerProxies,
    server::head_timeout,
    toml::{DAY, Section, Value},
};

/// The models by name, and the model of each name and alias.
#[derive(Default)]
pub(super) struct Models {
    pub(super) models: BTreeMap<String, Model>,
    pub(super) names: BTreeMap<String, String>,
    /// The keys of backends with `auth = "entra"`.
    pub(super) entra: Vec<String>,
    pub(super) proxies: ServerProxies,
}

impl Models {
    pub(super) fn read(section: &Section<'_>, classes: &Classes) -> Self {
        let mut models = Self::default();
        let entries = section.entries();
        if entries.is_empty() {
            section.report("has no model; add [models.NAME] and [[models.NAME.standard]]");
        }
        for (name, _, value) in &entries {
            check_name(value, name);
            models.names.insert((*name).to_owned(), (*name).to_owned());
        }
        for (name, _, value) in entries {
            if let Some(section) = value.section() {
                let model = models.model(name, section, classes);
                models.models.insert(name.to_owned(), model);
            }
        }
        models
    }

    /// The model with the name or alias in `value`.
    pub(super) fn find(&self, value: &Value<'_>) -> Option<String> {
        let name = value.text()?;
        let found = self.names.get(name).cloned();
        if found.is_none() {
            let known: Vec<&str> = self.names.keys().map(String::as_str).collect();
            value.unknown(name, &known);
        }
        found
    }

    fn model(&mut self, name: &str, mut section: Section<'_>, classes: &Classes) -> Model {
        let mut taken = BTreeMap::new();
        let ptu = self.tier(section.get("ptu"), &mut taken);
        let standard = self.tier(section.get("standard"), &mut taken);
        if taken.is_empty() && ptu.is_empty() && standard.is_empty() {
            section.report(format!("has no backend; add [[{}.standard]]", section.key));
        }
        let gate = section.get("gate");
        if let Some(gate) = gate.as_ref().filter(|_| ptu.is_empty()) {
            gate.report("has no effect without a PTU tier; remove it or add `ptu`");
        }
        let budget = section.get("spill_budget");
        if let Some(budget) = budget.as_ref().filter(|_| ptu.is_empty() || standard.is_empty()) {
            budget.report("has no effect without both tiers; remove it or add the other tier");
        }
        let aliases = section.get("aliases").map(|value| self.aliases(name, &value));
        let steering = model_policy::read(&mut section, &ptu, &standard, classes);
        let model = Model {
            ptu,
            standard,
            max_wait: section.duration("max_wait", Duration::ZERO, Duration::from_secs(4)),
            longest_cooldown: section.duration("longest_cooldown", MOMENT, Duration::from_secs(60)),
            head_timeout: head_timeout(&mut section),
            gate: gate
                .and_then(|value| value.section())
                .map_or_else(GateSettings::default, gate_settings),
            spill_budget: budget.and_then(|value| spill_budget(value.section()?)),
            aliases: aliases.unwrap_or_default(),
            steering,
            classes: classes.clone(),
        };
        section.finish();
        model
    }

    fn aliases(&mut self, name: &str, list: &Value<'_>) -> Vec<String> {
        let mut aliases = Vec::new();
        for value in list.list().unwrap_or_default() {
            let Some(alias) = value.text() else { continue };
            check_name(&value, alias);
            match self.names.get(alias) {
                None => {
                    self.names.insert(alias.to_owned(), name.to_owned());
                    aliases.push(alias.to_owned());
                }
                Some(owner) => value.report(format!(
                    "{alias:?} is already a name of model {owner:?}; a name leads to one model"
                )),
            }
        }
        aliases
    }

    fn tier(
        &mut self,
        value: Option<Value<'_>>,
        taken: &mut BTreeMap<String, String>,
    ) -> Vec<Backend> {
        let mut tier = Vec::new();
        for value in value.and_then(|value| value.list()).unwrap_or_default() {
            let Some(mut section) = value.section() else { continue };
            let Some(backend) = self.backend(&mut section) else { continue };
            let name = section.path("name");
            match taken.get(&backend.name) {
                Some(other) if !backend.name.is_empty() => {
                    let text = format!("{:?} is taken by {other}; make it unique", backend.name);
                    let place =
                        section.get("name").map_or_else(|| section.span.clone(), |v| v.span);
                    section.context.report(place, name, text);
                }
                _ => drop(taken.insert(backend.name.clone(), name)),
            }
            section.finish();
            tier.push(backend);
        }
        tier
    }

    fn backend(&mut self, section: &mut Section<'_>) -> Option<Backend> {
        let name = section.required("name", "it identifies the backend in logs and metrics");
        let name = name.and_then(|value| {
            let name = value.text()?;
            let probe = Probe::new(name, PROBE).map(drop);
            probe.map_err(|error| value.report(strip_field(&error))).ok()?;
            Some(name.to_owned())
        });
        let allow_http = section.flag("allow_http", false);
        let endpoint = section
            .required("endpoint", "write it like \"https://contoso.openai.azure.com\"")
            .and_then(|value| value.endpoint(allow_http, "use https://, or allow_http = true"));
        self.proxies.read(section, endpoint);
        let provider = section.get("provider");
        let is_named = provider.is_some();
        let provider = provider.and_then(|value| {
            let provider = value.text()?.parse::<Provider>();
            provider.map_err(|error| value.report(strip_field(&error))).ok()
        });
        let auth = self.auth(section, provider.unwrap_or_default());
        let is_whole = name.is_some() && endpoint.is_some() && is_named == provider.is_some();
        let backend = Backend {
            name: name.unwrap_or_default(),
            endpoint: endpoint.unwrap_or(PROBE).to_owned(),
            provider,
            auth,
            deployment: probed(section, "deployment", Probe::deployment),
            api_version: probed(section, "api_version", Probe::api_version),
            region: section.text("region"),
            quota: section.text("quota"),
            image_deployment: probed(section, "image_deployment", Probe::image_deployment),
            priority: share(section, "priority"),
            weight: share(section, "weight"),
        };
        if is_whole {
            check_together(section, &backend);
        }
        Some(backend)
    }

    fn auth(&mut self, section: &mut Section<'_>, provider: Provider) -> Auth {
        let (auth, key) = (section.get("auth"), section.get("key"));
        match (&auth, &key) {
            (None, None) => {
                section.report(if provider == Provider::Azure {
                    "has neither `key` nor `auth`; add key = \"env:NAME\", auth = \"entra\", or \
                     auth = \"none\" if the network authenticates"
                } else {
                    "has neither `key` nor `auth`; add key = \"env:NAME\", or auth = \"none\" if \
                     the network authenticates"
                });
            }
            (Some(auth), Some(_)) => {
                auth.report("cannot be combined with `key`; remove one of the two")
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        let word = auth.as_ref().and_then(|value| value.one_of(&AUTHS));
        if word == Some(Word::Entra) {
            match auth.filter(|_| provider != Provider::Azure) {
                Some(auth) => auth.report(format!(
                    "is for Azure, and the provider is \"{provider}\"; use key = \"env:NAME\""
                )),
                None => self.entra.push(section.path("auth")),
            }
        }
        let key = key.and_then(|value| {
            let secret = value.secret()?;
            let usable = Credential::api_key(secret.expose()).map(drop);
            usable.map_err(|error| value.report(strip_field(&error))).ok()?;
            Some(secret)
        });
        match (key, word) {
            (Some(key), _) => Auth::Key(key),
            (None, Some(Word::Entra)) => Auth::Entra,
            (None, Some(Word::None)) => Auth::None,
            (None, None) => Auth::Key(Secret::new(String::new())),
        }
    }
}

/// The values of `auth`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Entra,
    None,
}

const AUTHS: [(&str, Word); 2] = [("entra", Word::Entra), ("none", Word::None)];

/// Reports settings of a backend that conflict, at the key that has to change. Each setting is
/// valid on its own.
fn check_together(section: &mut Section<'_>, backend: &Backend) {
    let Err(error) = probe(backend).and_then(|probe| BackendPool::new([probe])) else { return };
    let key = match error.field().rsplit(' ').next() {
        Some("endpoint") => "endpoint",
        Some("api_version") => "api_version",
        Some("image_deployment") => "image_deployment",
        Some("api_key") => "key",
        // The check of the pool as a whole reports it.
        _ => return,
    };
    match section.get(key) {
        Some(value) => value.report(strip_field(&error)),
        None => section.report(strip_field(&error)),
    }
}

/// A backend as the library would build it, with a placeholder for a missing key.
fn probe(backend: &Backend) -> Result<Probe, ConfigError> {
    let credential = match &backend.auth {
        Auth::Key(key) if !key.expose().is_empty() => Credential::api_key(key.expose())?,
        Auth::Key(_) | Auth::Entra => Credential::api_key("a token")?,
        Auth::None => Credential::none(),
    };
    let mut probe = Probe::new(backend.name.as_str(), &backend.endpoint)?.credential(credential);
    if let Some(provider) = backend.provider {
        probe = probe.provider(provider);
    }
    if let Some(version) = &backend.api_version {
        probe = probe.api_version(version);
    }
    if let Some(deployment) = &backend.image_deployment {
        probe = probe.image_deployment(deployment);
    }
    Ok(probe.weight(backend.weight).priority(backend.priority))
}

/// Validates a tier as a whole with the library; its parts are valid on their own.
pub(super) fn pool(backends: &[Backend]) -> Result<BackendPool, ConfigError> {
    BackendPool::new(backends.iter().map(probe).collect::<Result<Vec<_>, ConfigError>>()?)
}

/// A text that the library has to accept as a setting of a backend.
fn probed(
    section: &mut Section<'_>,
    key: &'static str,
    set: fn(Probe, String) -> Probe,
) -> Option<String> {
    let value = section.get(key)?;
    let text = value.text()?;
    let pool = Probe::new("probe", PROBE)
        .map(|probe| set(probe.credential(Credential::passthrough()), text.to_owned()))
        .and_then(|probe| BackendPool::new([probe]));
    pool.map_err(|error| value.report(strip_field(&error))).ok()?;
    Some(text.to_owned())
}

fn share(section: &mut Section<'_>, key: &'static str) -> u32 {
    let number = section.get(key).and_then(|value| value.whole(1..MAX_WEIGHT + 1));
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or(1)
}

fn check_name(value: &Value<'_>, name: &str) {
    if let Err(error) = DeploymentLayer::new(name) {
        value.report(strip_field(&error));
    }
}

fn gate_settings(mut section: Section<'_>) -> GateSettings {
    let modes = [("adaptive", Mode::Adaptive), ("shared", Mode::Shared), ("plain", Mode::Plain)];
    let default = GateSettings::default();
    let mode = section.get("mode").and_then(|value| value.one_of(&modes));
    let contentions = [("yield", Contention::Yield), ("compete", Contention::Compete)];
    let contention = section.get("contention").and_then(|value| value.one_of(&contentions));
    let patience = match section.get("patience") {
        None => default.patience,
        Some(value) if matches!(value.value.as_str(), Some("never")) => None,
        Some(value) => value.duration(MOMENT, DAY),
    };
    let weight = section.get("output_weight").and_then(|value| value.number(0.0, 1_000.0));
    let unstated = section.get("unstated_output");
    let unstated = unstated.and_then(|value| value.number(0.0, MAX_OUTPUT_TOKENS));
    section.finish();
    GateSettings {
        mode: mode.unwrap_or(default.mode),
        contention: contention.unwrap_or(default.contention),
        patience,
        output_weight: weight.unwrap_or(default.output_weight),
        unstated_output: unstated.unwrap_or(default.unstated_output),
    }
}

fn spill_budget(mut section: Section<'_>) -> Option<Budget> {
    let (requests, tokens) = (section.get("requests"), section.get("tokens"));
    match (&requests, &tokens) {
        (None, None) => section.report("has no limit; add `requests` or `tokens`"),
        (Some(_), Some(tokens)) => {
            tokens.report("cannot be combined with `requests`; remove one of the two")
        }
        (Some(_), None) | (None, Some(_)) => {}
    }
    let requests = requests.and_then(|value| value.whole(1..u64::from(u32::MAX) + 1));
    let budget = Budget {
        requests: requests.and_then(|number| u32::try_from(number).ok()),
        tokens: tokens.and_then(|value| value.whole(1..1_000_000_000_000_001)),
        window: section
            .get("window")
            .and_then(|value| value.duration(Duration::from_secs(1), 30 * DAY))
            .unwrap_or(Duration::from_secs(60)),
        waits_when_spent: section
            .get("when_spent")
            .and_then(|value| value.one_of(&[("refuse", false), ("wait", true)]))
            .unwrap_or(false),
    };
    section.finish();
    Some(budget)
}

/// An address to validate other settings with.
const PROBE: &str = "https://probe.invalid";
const MOMENT: Duration = Duration::from_millis(1);
/// No model generates more tokens in one answer; the library's limit.
const MAX_OUTPUT_TOKENS: f64 = 1_048_576.0;
/// Higher weights and priorities are mistakes.
const MAX_WEIGHT: u64 = 1_000_000;
