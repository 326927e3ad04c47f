//! Names of what a fleet shares.

use std::sync::Arc;

use crate::ConfigError;

/// The name of one piece of shared state: the fleet, what kind of state it is, and which one.
///
/// A store must not print or persist the third part, which may name hosts: it hashes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    fleet: Arc<str>,
    kind: Kind,
    of: Arc<str>,
}

/// What a fleet shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A spill budget.
    Budget,
    /// A rate, for example of a client.
    Rate,
    /// The cooldowns of a backend.
    Cooldown,
    /// The gate of a PTU.
    Gate,
}

impl Kind {
    /// The letter that represents it in keys.
    pub const fn letter(self) -> char {
        match self {
            Self::Budget => 'b',
            Self::Rate => 'r',
            Self::Cooldown => 'c',
            Self::Gate => 'g',
        }
    }
}

impl Name {
    pub(crate) fn new(fleet: &Arc<str>, kind: Kind, of: &str) -> Self {
        Self { fleet: Arc::clone(fleet), kind, of: of.into() }
    }

    /// The name of the fleet.
    pub fn fleet(&self) -> &str {
        &self.fleet
    }

    /// What kind of state it names.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Which one of its kind, for example a model.
    pub fn of(&self) -> &str {
        &self.of
    }
}

/// A fleet's name, if it can be a part of keys and channels.
pub(super) fn check(name: &str) -> Result<Arc<str>, ConfigError> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(is_allowed) {
        return Err(ConfigError::new(
            "fleet name",
            format!(
                "{name:?} is not a name of a fleet; use 1 to {MAX_NAME_BYTES} ASCII letters, digits, \
                 `.`, `_` and `-`"
            ),
        ));
    }
    Ok(name.into())
}

const MAX_NAME_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_break_keys_is_refused() {
        for name in ["prod", "a.b_c-9", &"x".repeat(MAX_NAME_BYTES)] {
            assert_eq!(check(name).as_deref(), Ok(name));
        }
        for name in ["", "a b", "a{b}", "a:b", "ä", "*", &"x".repeat(MAX_NAME_BYTES + 1)] {
            assert!(check(name).is_err(), "{name}");
        }
    }
}
