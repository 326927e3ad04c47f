//! Warns of settings that have no effect in combination with the others, and of unreachable pages,
//! with a remedy for each.

use std::collections::HashMap;

use tower_spillover::gate::Mode;

use super::{
    Auth, Backend, Client, Clients, Config, Model, Share, Stickiness,
    toml::{Section, Value},
};

/// Warns of settings without effect in a file that was read as `config`.
pub(super) fn warn(mut file: Section<'_>, config: &Config) {
    sections(&mut file, config);
    for (name, _, value) in file.section("classes").entries() {
        class(name, &value, config);
    }
    for (name, _, value) in file.section("models").entries() {
        if let (Some(section), Some(settings)) = (value.section(), config.models.get(name)) {
            model(section, settings);
        }
    }
    if let Clients::Keyed(clients) = &config.clients {
        let by_name: HashMap<_, _> = clients.iter().map(|it| (it.name.as_str(), it)).collect();
        let mut section = file.section("clients");
        section.get("open");
        for (name, _, value) in section.entries() {
            if let (Some(section), Some(settings)) = (value.section(), by_name.get(name)) {
                client(section, settings, config);
            }
        }
    }
}

fn sections(file: &mut Section<'_>, config: &Config) {
    let may_operate = match &config.clients {
        Clients::Open => false,
        Clients::Keyed(clients) => clients.iter().any(|client| client.may.operate),
    };
    if config.listen.admin.is_none() && !may_operate {
        let listen = file.section("listen");
        let text = "is missing, and no client may operate, so /metrics, /-/status and \
                    /-/requests cannot be read; add admin = \"127.0.0.1:9090\", or give a client may = [\"operate\"]";
        listen.context.warn(listen.span.clone(), listen.path("admin"), text);
    }
    if config.limits.replay as u64 > config.limits.body
        && let Some(replay) = file.section("limits").get("replay")
    {
        replay.warn("has no effect beyond `body`, which is lower; lower it, or raise `body`");
    }
    let is_entra = |backend: &Backend| backend.auth == Auth::Entra;
    if let Some(entra) = file.get("entra")
        && !config.models.values().flat_map(backends).any(is_entra)
        && config.fleet.as_ref().is_none_or(|fleet| fleet.entra.is_none())
    {
        entra.warn(
            "has no effect: neither a backend nor [fleet] has auth = \"entra\"; remove it, or add that",
        );
    }
    if let (Some(fleet), Some(settings)) = (file.get("fleet"), &config.fleet)
        && !shares_something(settings.share, config)
    {
        fleet.warn(
            "has no effect: nothing that it shares is configured; remove it, or share something else",
        );
    }
    identities(file, config);
    let is_off = |model: &Model| model.steering.sticky == Stickiness::Off;
    if let Some(sticky) = file.get("sticky")
        && config.models.values().all(is_off)
    {
        sticky.warn("has no effect: every model has sticky = false; remove one of the two");
    }
    if config.models.values().all(is_off)
        && let Some(mut fleet) = file.optional("fleet")
        && let Some(secret) = fleet.get("secret")
    {
        secret.warn("has no effect: every model has sticky = false; remove it");
    }
    if config.telemetry.otlp.is_none()
        && let Some(name) = file.section("telemetry").get("service_name")
    {
        name.warn("has no effect without a collector; remove it, or add `otlp`");
    }
    if let (Some(default), Some(value)) = (&config.default_model, file.get("default_model"))
        && let Clients::Keyed(clients) = &config.clients
        && !clients.iter().any(|client| may_use(client, default))
    {
        value.warn(
            "has no effect: no client may use the model; remove it, or add it to a client's `models`",
        );
    }
}

fn shares_something(share: Share, config: &Config) -> bool {
    let has_rate = match &config.clients {
        Clients::Open => false,
        Clients::Keyed(clients) => clients.iter().any(|it| it.requests_per_second.is_some()),
    };
    let has_budget = config.models.values().any(|model| model.spill_budget.is_some());
    let has_standard = config.models.values().any(|model| !model.standard.is_empty());
    let has_gate = config.models.values().any(|model| !model.ptu.is_empty());
    let has_sticky = config.models.values().any(|it| it.steering.sticky != Stickiness::Off);
    share.gates && has_gate
        || share.rates && has_rate
        || share.budgets && has_budget
        || share.cooldowns && has_standard
        || share.sticky && has_sticky
}

/// Sources of identities that no client uses.
fn identities(file: &mut Section<'_>, config: &Config) {
    let has = |is_one: &dyn Fn(&Client) -> bool| match &config.clients {
        Clients::Open => false,
        Clients::Keyed(clients) => clients.iter().any(is_one),
    };
    if let Some(tokens) = file.get("tokens")
        && !has(&|client| client.identities.has_claims())
    {
        tokens.warn(
            "has no effect: no client has roles, groups or subjects; remove it, or give a client some",
        );
    }
    if let Some(client) = config.listen.tls.as_ref().and_then(|tls| tls.client.as_ref())
        && !client.is_required
        && !has(&|client| !client.identities.certificates.is_empty())
        && let Some(authorities) = file.section("listen").section("tls").get("client_ca")
    {
        authorities.warn(
            "has no effect: no client has certificates; remove it, give a client some, or set \
             client_required = true",
        );
    }
}

fn class(name: &str, value: &Value<'_>, config: &Config) {
    let Some(mut section) = value.section() else { return };
    let may_have = |client: &Client| client.may.class || client.class.as_deref() == Some(name);
    let is_reached = match &config.clients {
        Clients::Open => true,
        Clients::Keyed(clients) => clients.iter().any(may_have),
    };
    if !is_reached {
        let text = format!(
            "has no effect: no client has this class or may name it; remove it, or give a client \
             class = {name:?} or may = [\"class\"]"
        );
        value.warn(text);
    }
    let models = || config.models.values();
    if let Some(spill) = section.get("spill")
        && !models().any(spills)
    {
        spill.warn("has no effect: no model has both tiers; remove it, or add the other tier");
    }
    let class = models().find_map(|model| model.classes.get(name));
    if let Some(value) = section.get("first_token")
        && let Some(first_token) = class.and_then(|class| class.first_token)
    {
        let has_limit = |model: &Model| model.steering.first_token.is_some();
        if first_token.is_none() && !models().any(has_limit) {
            value.warn("has no effect: no model has a limit; remove it, or give one `first_token`");
        } else if !models().any(|model| backends(model).count() > 1) {
            value.warn("has no effect: no model has a second backend; remove it, or add one");
        }
    }
    let waits =
        |model: &Model| !class.and_then(|class| class.max_wait).unwrap_or(model.max_wait).is_zero();
    if let Some(rank) = section.get("rank")
        && !models().any(waits)
    {
        rank.warn(
            "has no effect: requests of this class never wait; remove it, or raise `max_wait`",
        );
    }
}

fn model(mut section: Section<'_>, model: &Model) {
    let is_alone = backends(model).count() == 1;
    let rotates = model.ptu.len() > 1 || model.standard.len() > 1;
    let only = "has no effect: the model has one backend; remove it, or add another";
    for key in ["failures", "rotate_on_failure"] {
        if let Some(failures) = section.get(key).filter(|_| is_alone) {
            failures.warn(only);
        }
    }
    if let Some(sticky) = section.get("sticky")
        && let Stickiness::On { default_backend: Some(_) } = model.steering.sticky
        && is_alone
    {
        sticky.warn(only);
    }
    let each = "has no effect: each tier has one backend; remove it, or add another";
    if let Some(affinity) = section.get("cache_affinity")
        && model.steering.cache_affinity.is_some()
        && !rotates
    {
        affinity.warn(each);
    }
    if let Some(long) = section.get("rotate_long_context")
        && model.steering.rotate_long_context
        && !rotates
    {
        long.warn(each);
    }
    if let Some(mut gate) = section.get("gate").and_then(|value| value.section())
        && model.gate.mode != Mode::Adaptive
    {
        for key in ["contention", "patience"] {
            if let Some(value) = gate.get(key) {
                value.warn("has no effect in this `mode`; remove it, or set mode = \"adaptive\"");
            }
        }
    }
    for (key, tier) in [("ptu", &model.ptu), ("standard", &model.standard)] {
        let values = section.get(key).and_then(|value| value.list()).unwrap_or_default();
        for (index, (value, backend)) in values.iter().zip(tier).enumerate() {
            let others = tier.iter().enumerate().filter(|(other, _)| *other != index);
            let others: Vec<_> = others.map(|(_, other)| other).collect();
            if let Some(section) = value.section() {
                self::backend(section, backend, &others);
            }
        }
    }
}

/// `others` are the other backends of its tier.
fn backend(mut section: Section<'_>, backend: &Backend, others: &[&Backend]) {
    let shares = |is_shared: &dyn Fn(&Backend) -> bool| others.iter().any(|it| is_shared(it));
    if let Some(quota) = section.get("quota")
        && !shares(&|other| other.quota == backend.quota)
    {
        quota
            .warn("has no effect: no other backend of the tier has this quota; remove it, or set it on another one too");
    }
    if let Some(weight) = section.get("weight")
        && !shares(&|other| other.priority == backend.priority)
    {
        weight.warn(
            "has no effect: no other backend of the tier has the same priority; remove it, or give \
             another one the same priority",
        );
    }
    if let Some(priority) = section.get("priority")
        && others.is_empty()
    {
        priority.warn("has no effect: the tier has one backend; remove it, or add another");
    }
}

fn client(mut section: Section<'_>, client: &Client, config: &Config) {
    let models = || config.models.iter().filter(|(name, _)| may_use(client, name));
    let is_sticky = |model: &Model| model.steering.sticky != Stickiness::Off;
    let words = section.get("may").and_then(|value| value.list()).unwrap_or_default();
    for word in words {
        let problem = match word.text() {
            Some("class") if config.models.values().all(|model| model.classes.is_empty()) => {
                "there is no class; remove it, or add [classes.NAME]"
            }
            Some("no-spill") if !models().any(|(_, model)| spills(model)) => {
                "none of the client's models has both tiers; remove it, or add the other tier"
            }
            Some("backend") if !models().any(|(_, model)| is_sticky(model)) => {
                "none of the client's models is sticky; remove it, or sticky = false"
            }
            _ => continue,
        };
        word.warn(format!("has no effect: {problem}"));
    }
}

fn backends(model: &Model) -> impl Iterator<Item = &Backend> {
    model.ptu.iter().chain(&model.standard)
}

fn spills(model: &Model) -> bool {
    !model.ptu.is_empty() && !model.standard.is_empty()
}

fn may_use(client: &Client, model: &str) -> bool {
    client.models.as_ref().is_none_or(|models| models.iter().any(|name| name == model))
}
