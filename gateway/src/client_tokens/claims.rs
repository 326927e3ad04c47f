//! The claims of a verified token.

use serde_json::{Map, Value};

/// The claims of a token.
#[derive(Debug)]
pub(crate) struct Claims {
    claims: Map<String, Value>,
    is_entra: bool,
}

impl Claims {
    pub(super) const fn new(claims: Map<String, Value>, is_entra: bool) -> Self {
        Self { claims, is_entra }
    }

    /// The tenant that issued it.
    pub(super) fn tenant(&self) -> Option<&str> {
        self.text("tid")
    }

    /// The subjects. `oid` is Entra's: there, `sub` differs between the applications that a token is
    /// for. With another provider, a user might be able to choose `oid` freely.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = &str> {
        let object = self.text("oid").filter(|_| self.is_entra);
        [self.text("sub"), object].into_iter().flatten()
    }

    pub(crate) fn roles(&self) -> impl Iterator<Item = &str> {
        self.list("roles")
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = &str> {
        self.list("groups")
    }

    /// Whether its groups were left out because there are too many (Entra's "overage").
    pub(crate) fn leaves_groups_out(&self) -> bool {
        let elsewhere = self.claims.get("_claim_names").and_then(Value::as_object);
        elsewhere.is_some_and(|names| names.contains_key("groups"))
            || self.claims.get("hasgroups").is_some_and(|flag| *flag == Value::Bool(true))
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.claims.get(name).and_then(Value::as_str)
    }

    /// A list, or a single string, as some providers write a list of one.
    fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        let value = self.claims.get(name);
        let list = value.and_then(Value::as_array).into_iter().flatten();
        list.chain(value).filter_map(Value::as_str)
    }
}
