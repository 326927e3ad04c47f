//! A configuration under construction, from any source.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, iter,
};

use super::endpoint::Endpoint;

/// What to write, and the remarks about it.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// The source, for the first line.
    pub(super) source: &'static str,
    pub(super) models: Vec<Model>,
    pub(super) clients: Vec<Client>,
    pub(super) entra: Option<Entra>,
    /// Points for the user to check.
    pub(super) remarks: Vec<String>,
    /// Parts of the source that have no equivalent, or are not needed, with the reason.
    pub(super) left_out: Vec<String>,
    /// By name, with a description of the value to set.
    variables: BTreeMap<String, String>,
    /// The source's secrets, with the variable of each.
    secrets: BTreeMap<Secret, String>,
    /// Variables that the source names itself, which no other secret may get.
    reserved: BTreeSet<String>,
}

/// A secret of the source, which is compared and never shown.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
    pub(super) ptu: Vec<Backend>,
    pub(super) standard: Vec<Backend>,
}

#[derive(Clone, Debug)]
pub(super) struct Backend {
    pub(super) name: String,
    pub(super) endpoint: Endpoint,
    pub(super) auth: Auth,
    /// Defaults to Azure.
    pub(super) provider: Option<&'static str>,
    pub(super) deployment: Option<String>,
    pub(super) api_version: Option<String>,
    pub(super) region: Option<String>,
    pub(super) priority: Option<u64>,
    pub(super) weight: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Auth {
    /// The variable with the key.
    Key(String),
    Entra,
    None,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) name: &'static str,
    /// The variable with its key.
    pub(super) key: String,
    pub(super) operates: bool,
}

/// How to get tokens for `auth = "entra"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entra {
    Managed { client_id: Option<String> },
    Secret { tenant: String, client_id: String, secret: String },
}

impl Draft {
    /// An empty draft from `source`.
    pub(super) fn of(source: &'static str) -> Self {
        Self { source, ..Self::default() }
    }

    /// Adds a variable of this name for `what`.
    pub(super) fn variable(&mut self, name: &str, what: &str) -> String {
        self.variables.entry(name.to_owned()).or_insert_with(|| what.to_owned());
        name.to_owned()
    }

    /// Keeps these names for [`variable`](Self::variable).
    pub(super) fn reserve(&mut self, names: impl IntoIterator<Item = String>) {
        self.reserved.extend(names);
    }

    /// Adds a variable for a secret that the source contains or calls by a name of its own: this one, or a
    /// numbered one if it is taken. Two secrets never share a variable, since the resource of one would get
    /// the key of the other.
    pub(super) fn variable_of(&mut self, secret: &str, name: &str, what: &str) -> String {
        let secret = Secret(secret.to_owned());
        if let Some(known) = self.secrets.get(&secret) {
            return known.clone();
        }
        let numbered = (2..).map(|number| format!("{name}_{number}"));
        let is_free =
            |name: &String| !self.variables.contains_key(name) && !self.reserved.contains(name);
        let free = iter::once(name.to_owned()).chain(numbered).find(is_free);
        let variable = self.variable(&free.unwrap_or_else(|| name.to_owned()), what);
        self.secrets.insert(secret, variable.clone());
        variable
    }

    pub(super) fn variables(&self) -> Vec<String> {
        self.variables.iter().map(|(name, what)| format!("{name}: {what}")).collect()
    }

    pub(super) fn remark(&mut self, text: String) {
        push_once(&mut self.remarks, text);
    }

    pub(super) fn leave_out(&mut self, text: String) {
        push_once(&mut self.left_out, text);
    }
}

impl Model {
    /// Adds a backend to its tier, under a unique name.
    pub(super) fn add(&mut self, mut backend: Backend, is_ptu: bool) {
        let is_taken =
            |name: &str| self.ptu.iter().chain(&self.standard).any(|other| other.name == name);
        let base = identifier(&backend.name, '-');
        let numbered = (2..).map(|number| format!("{base}-{number}"));
        let name = iter::once(base.clone()).chain(numbered).find(|name| !is_taken(name));
        backend.name = name.unwrap_or(base);
        if is_ptu { self.ptu.push(backend) } else { self.standard.push(backend) }
    }
}

/// Whether a name indicates a provisioned deployment.
pub(super) fn is_ptu(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| {
        word.starts_with("ptu") || word.ends_with("ptu") || word.starts_with("provision")
    })
}

/// A name consisting of letters, digits and `between`.
pub(super) fn identifier(text: &str, between: char) -> String {
    let mut name = String::new();
    for character in text.chars().take(MAX_NAME_CHARS) {
        if character.is_ascii_alphanumeric() {
            name.push(character);
        } else if !name.is_empty() && !name.ends_with(between) {
            name.push(between);
        }
    }
    let name = name.trim_end_matches(between);
    if name.is_empty() { "backend".to_owned() } else { name.to_owned() }
}

/// A variable name made from these words.
pub(super) fn variable_name(text: &str) -> String {
    let name = identifier(text, '_').to_ascii_uppercase();
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        format!("KEY_{name}")
    } else {
        name
    }
}

fn push_once(texts: &mut Vec<String>, text: String) {
    if !texts.contains(&text) {
        texts.push(text);
    }
}

const MAX_NAME_CHARS: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_provisioned_says_so_in_a_word_of_its_name() {
        for name in ["ptu", "gpt-4o-PTU", "PTU-east", "gpt4o_provisioned", "eastptu", "ptu1"] {
            assert!(is_ptu(name), "{name}");
        }
        for name in ["gpt-4o", "computer", "standard", "aptuna-x", ""] {
            assert!(!is_ptu(name), "{name}");
        }
    }

    #[test]
    fn names_are_made_of_what_both_sides_take() {
        assert_eq!(identifier("  East US (2)! ", '-'), "East-US-2");
        assert_eq!(variable_name("aoai-eastus-key"), "AOAI_EASTUS_KEY");
        assert_eq!(variable_name("2nd"), "KEY_2ND");
        assert_eq!(identifier("äöü", '-'), "backend");
    }
}
