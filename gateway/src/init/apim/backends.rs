//! Reads backends and named values of API Management from JSON.

use std::collections::BTreeMap;

use serde_json::Value;

use super::expressions;

/// The known entities of a service, by the last part of each name.
#[derive(Debug, Default)]
pub(super) struct Known {
    backends: BTreeMap<String, Entity>,
    named_values: BTreeMap<String, String>,
    parameters: BTreeMap<String, String>,
    pub(super) left_out: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entity {
    Single(Single),
    Pool(Vec<Member>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Single {
    pub(super) url: String,
    /// The `api-key` among its credentials: a named value, or a literal key.
    pub(super) key: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) priority: Option<u64>,
    pub(super) weight: Option<u64>,
}

impl Known {
    /// Adds the entities of a document: a template, a list, or a single entity.
    pub(super) fn read(&mut self, text: &str) -> Result<(), String> {
        let document: Value = serde_json::from_str(text.trim_start_matches('\u{feff}'))
            .map_err(|error| format!("is neither JSON ({error}) nor a fragment in XML"))?;
        for (name, parameter) in document["parameters"].as_object().into_iter().flatten() {
            if let Some(value) =
                parameter["defaultValue"].as_str().or_else(|| parameter["value"].as_str())
            {
                self.parameters.insert(name.clone(), value.to_owned());
            }
        }
        let before = self.backends.len() + self.named_values.len() + self.parameters.len();
        self.visit(&document);
        match self.backends.len() + self.named_values.len() + self.parameters.len() > before {
            true => Ok(()),
            false if before > 0 => Ok(()),
            false => Err("contains no backend and no named value of API Management".to_owned()),
        }
    }

    pub(super) fn backend(&self, id: &str) -> Option<&Entity> {
        self.backends.get(&last(id))
    }

    /// The pools, and the backends that are in no pool.
    pub(super) fn tops(&self) -> impl Iterator<Item = &str> {
        let is_member = |name: &str| {
            let pools = self.backends.values().filter_map(|entity| match entity {
                Entity::Pool(members) => Some(members),
                Entity::Single(_) => None,
            });
            pools.flatten().any(|member| last(&member.id) == *name)
        };
        self.backends.keys().map(String::as_str).filter(move |name| !is_member(name))
    }

    /// Replaces the named values in a text by their values, if known.
    pub(super) fn resolved(&self, text: &str) -> String {
        let named = expressions::named_value(text).and_then(|name| {
            let value = self.named_values.get(name)?;
            let (before, rest) = text.split_once("{{")?;
            let (_, after) = rest.split_once("}}")?;
            Some(format!("{before}{value}{after}"))
        });
        let text = named.unwrap_or_else(|| text.to_owned());
        let parameter =
            text.strip_prefix("[parameters('").and_then(|rest| rest.strip_suffix("')]"));
        parameter.and_then(|name| self.parameters.get(name).cloned()).unwrap_or(text)
    }

    fn visit(&mut self, value: &Value) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| self.visit(value)),
            Value::Object(members) => {
                self.entity(value);
                for (name, member) in members {
                    // An entity's own properties are read elsewhere.
                    if name != "properties"
                        || member.get("resources").is_some()
                        || member.get("template").is_some()
                    {
                        self.visit(member);
                    }
                }
            }
            _ => {}
        }
    }

    fn entity(&mut self, value: &Value) {
        let name = value["name"].as_str().or_else(|| value["id"].as_str()).map(last);
        let (Some(name), properties) = (name, &value["properties"]) else { return };
        let kind = value["type"]
            .as_str()
            .or_else(|| value["id"].as_str())
            .unwrap_or_default()
            .to_ascii_lowercase();
        if kind.contains("namedvalues") {
            let is_secret = properties["secret"].as_bool().unwrap_or_default();
            if let Some(value) = properties["value"].as_str().filter(|_| !is_secret) {
                let name = properties["displayName"].as_str().map_or(name, str::to_owned);
                self.named_values.insert(name, value.to_owned());
            }
            return;
        }
        if !kind.contains("/backends") {
            return;
        }
        if properties.get("circuitBreaker").is_some() {
            self.left_out.push(format!(
                "circuitBreaker of {name}: not needed, a refusal closes what it is about for as long as it asks"
            ));
        }
        if let Some(services) = properties["pool"]["services"].as_array() {
            let members = services.iter().filter_map(|service| {
                let id = last(service["id"].as_str()?);
                let (priority, weight) = (service["priority"].as_u64(), service["weight"].as_u64());
                Some(Member { id, priority, weight })
            });
            self.backends.insert(name, Entity::Pool(members.collect()));
        } else if let Some(url) = properties["url"].as_str() {
            let headers = properties["credentials"]["header"].as_object();
            let key = headers.into_iter().flatten().find_map(|(header, values)| {
                let is_key = header.eq_ignore_ascii_case("api-key");
                values[0].as_str().filter(|_| is_key).map(str::to_owned)
            });
            self.backends.insert(name, Entity::Single(Single { url: url.to_owned(), key }));
        }
    }
}

/// The last part of a name: `ptu` for `apim/ptu`, for `[concat(parameters('apim'), '/ptu')]` and
/// for `[resourceId('Microsoft.ApiManagement/service/backends', 'apim', 'ptu')]`.
fn last(name: &str) -> String {
    let name = name.trim_end_matches([']', ')', '\'', '"', ' ']);
    name.rsplit(['/', '\'', '"']).next().unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_templates_and_of_answers_end_alike() {
        for name in [
            "ptu",
            "apim/ptu",
            "[concat(parameters('apim'), '/ptu')]",
            "[resourceId('Microsoft.ApiManagement/service/backends', parameters('apim'), 'ptu')]",
            "/subscriptions/1/resourceGroups/g/providers/Microsoft.ApiManagement/service/a/backends/ptu",
            "[format('{0}/{1}', parameters('apim'), 'ptu')]",
        ] {
            assert_eq!(last(name), "ptu", "{name}");
        }
    }
}
