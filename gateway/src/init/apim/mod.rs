//! Converts a policy of Azure API Management with its backends.

mod backends;
mod elements;
mod expressions;
mod policy;

use std::{collections::BTreeMap, path::Path};

use self::{backends::Known, policy::Policy};
use super::{
    draft::{Auth, Backend, Client, Draft, Entra, Model, is_ptu, variable_name},
    endpoint::Endpoint,
};

/// Converts a policy, with the backends and fragments in `more`, each with its file's name.
pub(super) fn draft(text: &str, more: &[(String, String)], model: &str) -> Result<Draft, String> {
    let (mut policy, mut known) = (Policy::read(text)?, Known::default());
    for (file, text) in more {
        let is_xml = text.trim_start_matches('\u{feff}').trim_start().starts_with('<');
        match is_xml {
            true => {
                let fragment =
                    Policy::read(text).map_err(|problem| format!("{file}: {problem}"))?;
                policy.add(Path::new(file), fragment);
            }
            false => known.read(text).map_err(|problem| format!("{file}: {problem}"))?,
        }
    }
    let mut maker = Maker {
        draft: Draft::of("a policy of API Management"),
        models: BTreeMap::new(),
        unnamed: model,
        policy: &policy,
        known: &known,
    };
    maker.backends();
    maker.client();
    let Maker { mut draft, models, .. } = maker;
    if models.is_empty() {
        return Err(
            "it contains no backend: pass what it refers to with --backends (JSON, or the XML of a \
             fragment)"
                .to_owned(),
        );
    }
    for id in policy.missing_fragments() {
        draft.leave_out(format!(
            "include-fragment {id}: pass its XML with --backends, as {id}.xml, to convert it"
        ));
    }
    policy.left_out.iter().for_each(|text| draft.leave_out(text.clone()));
    known.left_out.iter().for_each(|text| draft.leave_out(text.clone()));
    if models.contains_key(model) {
        draft.remark(format!(
            "models.{model}: a policy need not contain the clients' name for a model: the deployment in the paths of \
             their requests; --model names another"
        ));
    }
    draft.models.extend(models.into_values());
    Ok(draft)
}

/// Priority and weight.
type Order = (Option<u64>, Option<u64>);

struct Maker<'a> {
    draft: Draft,
    /// By name.
    models: BTreeMap<String, Model>,
    /// The model's name, if the policy does not state one.
    unnamed: &'a str,
    policy: &'a Policy,
    known: &'a Known,
}

impl Maker<'_> {
    fn backends(&mut self) {
        for target in &self.policy.targets {
            let key = target.key.as_deref();
            let model = target.deployment.as_deref().unwrap_or(self.unnamed);
            match &target.place {
                policy::Place::Address(text) => {
                    self.add(model, &target.name, text, key, (None, None));
                }
                policy::Place::Backend(id) => self.named(model, id, key),
            }
        }
        // If no backend is referred to by a readable name, use all: a policy may construct the
        // name.
        if self.models.is_empty() {
            let (ids, model): (Vec<_>, _) = (self.known.tops().collect(), self.unnamed);
            ids.iter().for_each(|id| self.named(model, id, None));
        }
    }

    /// Adds a backend by its id, or the members of a pool.
    fn named(&mut self, model: &str, id: &str, key: Option<&str>) {
        match self.known.backend(id) {
            Some(backends::Entity::Pool(members)) => {
                for member in members {
                    let order = (member.priority, member.weight);
                    self.single(model, &member.id, key, order);
                }
            }
            _ => self.single(model, id, key, (None, None)),
        }
    }

    /// A backend by its id, or a placeholder for an unknown one.
    fn single(&mut self, model: &str, id: &str, key: Option<&str>, order: Order) {
        match self.known.backend(id) {
            Some(backends::Entity::Single(single)) => {
                let key = single.key.as_deref().or(key);
                self.add(model, id, &single.url, key, order);
            }
            _ => self.add(model, id, "", key, order),
        }
    }

    fn add(&mut self, model: &str, name: &str, address: &str, key: Option<&str>, order: Order) {
        let endpoint = self.endpoint(name, address);
        let name = match name {
            "" => endpoint.resource().to_owned(),
            name => name.to_owned(),
        };
        let auth = self.auth(&name, key);
        let (priority, weight) = order;
        let is_ptu = is_ptu(&name) || is_ptu(endpoint.resource());
        let is_there = |other: &Backend| other.endpoint == endpoint && other.auth == auth;
        let model = self
            .models
            .entry(model.to_owned())
            .or_insert_with(|| Model { name: model.to_owned(), ..Model::default() });
        if model.ptu.iter().chain(&model.standard).any(is_there) {
            return;
        }
        let backend = Backend {
            name,
            endpoint,
            auth,
            provider: None,
            deployment: None,
            api_version: None,
            region: None,
            priority: priority.filter(|priority| *priority > 0),
            weight: weight.filter(|weight| *weight > 0),
        };
        model.add(backend, is_ptu);
    }

    fn endpoint(&mut self, name: &str, address: &str) -> Endpoint {
        let value = self.known.resolved(address);
        Endpoint::read(&value).unwrap_or_else(|| {
            let of = expressions::named_value(address).unwrap_or(if name.is_empty() { "backend" } else { name });
            let unknown = Endpoint::unknown(of);
            self.draft.remark(format!(
                "{} is a placeholder for {of}, whose value is unknown; replace it by the address of the resource",
                unknown.url
            ));
            unknown
        })
    }

    fn auth(&mut self, name: &str, key: Option<&str>) -> Auth {
        let Some(key) = key else {
            if let Some(client_id) = &self.policy.managed_identity {
                let client_id = client_id.as_deref().map(|id| self.known.resolved(id));
                if let Some(named) = client_id.as_deref().and_then(expressions::named_value) {
                    self.draft.remark(format!(
                        "entra.client_id: write the value of {named}, the id of the managed identity"
                    ));
                }
                let managed = || Entra::Managed { client_id };
                self.draft.entra.get_or_insert_with(managed);
                return Auth::Entra;
            }
            let variable = format!("{}_KEY", variable_name(name));
            return Auth::Key(self.draft.variable_of(
                &format!("of the resource {name}"),
                &variable,
                &format!("the key of {name}, which the policy does not contain"),
            ));
        };
        match expressions::named_value(key) {
            Some(named) => {
                let what = format!("the key of {name}: the named value {named}");
                Auth::Key(self.draft.variable_of(key, &variable_name(named), &what))
            }
            None => {
                let variable = format!("{}_KEY", variable_name(name));
                let what = format!("the key of {name}, which is in the source and was not copied");
                Auth::Key(self.draft.variable_of(key, &variable, &what))
            }
        }
    }

    /// Subscription keys become the keys of clients.
    fn client(&mut self) {
        let what = "a key for clients, such as their subscription key, with at least 12 characters";
        let key = self.draft.variable_of("of the clients", "CLIENT_KEY", what);
        self.draft.clients.push(Client { name: "default", key, operates: false });
        self.draft.remark(
            "clients.default: give each subscription a [clients.NAME] with its key; products become `models`, `class` and `may`"
                .to_owned(),
        );
    }
}
