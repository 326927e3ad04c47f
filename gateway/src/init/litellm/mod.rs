//! Converts the `config.yaml` of a LiteLLM proxy.

mod known;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use self::known::{INSTEAD, PROVIDERS, Provider, READ};
use super::{
    draft::{Auth, Backend, Client, Draft, Entra, Model, is_ptu, variable_name},
    endpoint::Endpoint,
    yaml,
};

/// Converts a configuration; `variable` reads the environment of this process.
pub(super) fn draft(
    text: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Draft, String> {
    let document = yaml::read(text)?;
    let list = document["model_list"].as_array();
    let list = list.ok_or("has no model_list: name a config.yaml of LiteLLM")?;
    let mut reader = Reader { draft: Draft::of("a LiteLLM config.yaml"), variable };
    let mut named = PROVIDERS.map(|provider| provider.variable.to_owned()).to_vec();
    name_variables(&document, &mut named);
    reader.draft.reserve(named);
    let mut groups: BTreeMap<String, Model> = BTreeMap::new();
    for (index, entry) in list.iter().enumerate() {
        reader.deployment(index, entry, &mut groups);
    }
    reader.fallbacks(&document, &mut groups);
    reader.aliases(&document, &mut groups);
    reader.client(&document);
    reader.rest(&document);
    let mut draft = reader.draft;
    draft.models = groups.into_values().collect();
    match draft.models.is_empty() {
        true => Err("has no deployment (model: azure/NAME) that could be served".to_owned()),
        false => Ok(draft),
    }
}

struct Reader<'a> {
    draft: Draft,
    variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Reader<'_> {
    /// An entry of `model_list`, which belongs to the group with its name.
    fn deployment(&mut self, index: usize, entry: &Value, groups: &mut BTreeMap<String, Model>) {
        let (group, params) = (text(&entry["model_name"]), &entry["litellm_params"]);
        let (Some(group), Some(model)) = (group, text(&params["model"])) else {
            let place =
                format!("model_list[{index}]: it has no model_name, or no litellm_params.model");
            return self.draft.leave_out(place);
        };
        if group.contains('*') || model.contains('*') {
            let place = format!("{group}: a wildcard; name each model");
            return self.draft.leave_out(place);
        }
        let custom = text(&params["custom_llm_provider"]);
        let (prefix, deployment) = match &custom {
            Some(custom) => {
                let rest = model.strip_prefix(custom.as_str()).and_then(|it| it.strip_prefix('/'));
                (custom.as_str(), rest.unwrap_or(&model))
            }
            None => model.split_once('/').unwrap_or(("openai", &model)),
        };
        let Some(provider) = PROVIDERS.iter().find(|it| it.prefix == prefix) else {
            let text = format!("{group}: {model}: the provider {prefix} cannot be converted");
            return self.draft.leave_out(text);
        };
        let id = text(&entry["model_info"]["id"]);
        let endpoint = self.endpoint(&group, params, provider);
        let name = id.clone().unwrap_or_else(|| match provider.name {
            None => endpoint.resource().to_owned(),
            Some(_) => prefix.to_owned(),
        });
        let auth = self.auth(&name, params, provider);
        let is_own = endpoint.url.starts_with(provider.base);
        if provider.name == Some("anthropic") {
            self.draft.remark(format!(
                "{name}: Anthropic supports only chat completions of OpenAI's API"
            ));
        }
        let backend = Backend {
            endpoint,
            auth,
            // A server with OpenAI's API that is not OpenAI's own.
            provider: provider.name.map(|name| if is_own { name } else { "http" }),
            deployment: Some(deployment.to_owned()).filter(|name| *name != group),
            api_version: self.plain(&params["api_version"]),
            region: self.plain(&params["region_name"]),
            priority: params["order"].as_u64().filter(|order| *order > 0),
            weight: params["weight"].as_u64().filter(|weight| *weight > 0),
            name,
        };
        let is_ptu =
            [Some(&*group), Some(deployment), id.as_deref()].into_iter().flatten().any(is_ptu);
        let model = groups.entry(group.clone()).or_default();
        model.name.clone_from(&group);
        model.add(backend, is_ptu);
        for key in ["order", "weight"] {
            if !params[key].is_null() && params[key].as_u64().is_none_or(|number| number == 0) {
                self.draft.leave_out(format!(
                    "{group}: litellm_params.{key}: not a whole number above 0"
                ));
            }
        }
        for key in params.as_object().into_iter().flat_map(Map::keys) {
            if !READ.contains(&key.as_str()) {
                self.leave_out_key(&format!("litellm_params.{key}"), key);
            }
        }
    }

    fn endpoint(&mut self, group: &str, params: &Value, provider: &Provider) -> Endpoint {
        let given = text(&params["api_base"]);
        if let (None, Some(_)) = (&given, provider.name)
            && let Some(own) = Endpoint::of_other(provider.base)
        {
            return own;
        }
        let read = if provider.name.is_none() { Endpoint::read } else { Endpoint::of_other };
        let unset = if provider.name.is_none() { "AZURE_API_BASE" } else { "HOSTED_VLLM_API_BASE" };
        let (variable, address) = match given {
            Some(base) => match base.strip_prefix("os.environ/") {
                Some(name) => (Some(name.to_owned()), (self.variable)(name)),
                None => (None, Some(base)),
            },
            None => (Some(unset.to_owned()), (self.variable)(unset)),
        };
        address.as_deref().and_then(read).unwrap_or_else(|| {
            // What is no address may be a key or contain a password, so it is not repeated.
            let unknown = Endpoint::unknown(variable.as_deref().unwrap_or(group));
            let url = &unknown.url;
            self.draft.remark(format!(
                "{group}: {url} is a placeholder for an unknown api_base; replace it by the address of the resource"
            ));
            unknown
        })
    }

    fn auth(&mut self, name: &str, params: &Value, provider: &Provider) -> Auth {
        let secret = ["tenant_id", "client_id", "client_secret"].map(|key| text(&params[key]));
        if let [Some(tenant), Some(client_id), Some(client_secret)] = secret {
            let variable =
                self.secret(&client_secret, "AZURE_CLIENT_SECRET", "the secret of the application");
            let [tenant, client_id] = [tenant, client_id].map(|id| self.resolved(&id));
            let entra = Entra::Secret { tenant, client_id, secret: variable };
            if *self.draft.entra.get_or_insert_with(|| entra.clone()) != entra {
                self.draft.remark(
                    "[entra]: the source has more than one identity; only one is supported"
                        .to_owned(),
                );
            }
            return Auth::Entra;
        }
        let has_token = params.get("azure_ad_token").is_some_and(|token| !token.is_null());
        if has_token {
            self.draft.entra.get_or_insert(Entra::Managed { client_id: None });
            self.draft.remark(format!(
                "{name}: a token of Entra ID (azure_ad_token) is replaced by [entra], which gets tokens itself; \
                 check its kind"
            ));
            return Auth::Entra;
        }
        let key = text(&params["api_key"]);
        if key.is_none() && provider.variable.is_empty() {
            return Auth::None;
        }
        let key = key.unwrap_or_else(|| format!("os.environ/{}", provider.variable));
        let fallback = format!("{}_KEY", variable_name(name));
        Auth::Key(self.secret(&key, &fallback, &format!("the key of {name}")))
    }

    /// The variable of a secret: the one that the source names, or a new one for a literal secret.
    fn secret(&mut self, value: &str, fallback: &str, what: &str) -> String {
        match value.strip_prefix("os.environ/") {
            Some(name) if !name.is_empty() => self.draft.variable(name, what),
            _ => {
                // A client's key must differ from a backend's, even if the source has one for both.
                let secret = format!("{fallback} {value}");
                let what = format!("{what}, which is in the source and was not copied");
                self.draft.variable_of(&secret, fallback, &what)
            }
        }
    }

    /// A text that is not secret, with the value of a variable inserted.
    fn plain(&mut self, value: &Value) -> Option<String> {
        text(value).map(|text| self.resolved(&text)).filter(|text| !text.is_empty())
    }

    fn resolved(&mut self, text: &str) -> String {
        let Some(name) = text.strip_prefix("os.environ/") else { return text.to_owned() };
        (self.variable)(name).unwrap_or_else(|| {
            self.draft.remark(format!("{name}: the variable is not set; replace it by its value"));
            name.to_owned()
        })
    }

    /// Turns a PTU group and its fallback into the two tiers of one model.
    fn fallbacks(&mut self, document: &Value, groups: &mut BTreeMap<String, Model>) {
        for section in ["router_settings", "litellm_settings"] {
            let fallbacks = document[section]["fallbacks"].as_array();
            for (from, to) in fallbacks.into_iter().flatten().filter_map(Value::as_object).flatten()
            {
                let names = to.as_array().map(Vec::as_slice).unwrap_or_default();
                let Some((Some(to), more)) =
                    names.split_first().map(|(to, more)| (to.as_str(), more))
                else {
                    continue;
                };
                for further in more.iter().filter_map(Value::as_str) {
                    self.draft.leave_out(format!(
                        "{section}.fallbacks of {from} to {further}: a model has two tiers, PTU and Standard"
                    ));
                }
                let is_front =
                    groups.get(from).is_some_and(|it| !it.ptu.is_empty() && it.standard.is_empty());
                let behind = groups.get(to).map(|it| (it.ptu.is_empty(), it.standard.clone()));
                match behind {
                    Some((true, standard)) if is_front => {
                        let Some(front) = groups.get_mut(from) else { continue };
                        for mut backend in standard {
                            // Its clients call the model by the other name.
                            backend.deployment.get_or_insert_with(|| to.to_owned());
                            front.add(backend, false);
                        }
                        self.draft.remark(format!(
                            "{from}: its fallback {to} is now its Standard tier, to which requests spill"
                        ));
                    }
                    _ => self.draft.leave_out(format!(
                        "{section}.fallbacks of {from} to {to}: another model is never answered with; put the \
                         backends of one model into one group"
                    )),
                }
            }
        }
    }

    fn aliases(&mut self, document: &Value, groups: &mut BTreeMap<String, Model>) {
        let aliases = document["router_settings"]["model_group_alias"].as_object();
        for (alias, target) in aliases.into_iter().flatten() {
            let target = text(target).or_else(|| text(&target["model"])).unwrap_or_default();
            let is_free = !groups.contains_key(alias);
            match groups.get_mut(&target).filter(|_| is_free) {
                Some(model) => model.aliases.push(alias.clone()),
                None => self.draft.leave_out(format!("model_group_alias {alias}: {target} is not served here, or {alias} is a model itself")),
            }
        }
    }

    fn client(&mut self, document: &Value) {
        let key = text(&document["general_settings"]["master_key"]);
        let Some(key) = key.filter(|key| !key.is_empty()) else { return };
        let variable = self.secret(
            &key,
            "LITELLM_MASTER_KEY",
            "the key for clients, with at least 12 characters",
        );
        self.draft.clients.push(Client { name: "litellm", key: variable, operates: true });
        self.draft.remark(
            "clients.litellm has the master key; give each team its own [clients.NAME] instead of virtual keys"
                .to_owned(),
        );
    }

    /// All other settings.
    fn rest(&mut self, document: &Value) {
        for (section, settings) in document.as_object().into_iter().flatten() {
            if section == "model_list" {
                continue;
            }
            let Some(settings) = settings.as_object() else {
                self.leave_out_key(section, section);
                continue;
            };
            for key in settings.keys() {
                if !["fallbacks", "model_group_alias", "master_key"].contains(&key.as_str()) {
                    self.leave_out_key(&format!("{section}.{key}"), key);
                }
            }
        }
    }

    fn leave_out_key(&mut self, place: &str, key: &str) {
        let known = INSTEAD.iter().find(|(keys, _)| keys.split(' ').any(|it| it == key));
        let instead = known.map_or("has no equivalent", |(_, instead)| instead);
        self.draft.leave_out(format!("{place}: {instead}"));
    }
}

/// Collects the names of all variables that a document refers to.
fn name_variables(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            names.extend(text.trim().strip_prefix("os.environ/").map(str::to_owned));
        }
        Value::Array(values) => values.iter().for_each(|value| name_variables(value, names)),
        Value::Object(values) => values.values().for_each(|value| name_variables(value, names)),
        _ => {}
    }
}

/// A text, or a number as a text: a version such as `2024` may be unquoted.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
    .filter(|text| !text.is_empty())
}
