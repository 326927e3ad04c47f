//! The one error type of this crate: a configuration that cannot work.

use std::{error::Error, fmt};

/// A configuration that cannot work: names the field, what is wrong with it, and the remedy.
///
/// It is returned while a stack is being built, never while a request is served: services keep
/// the error type of the service that they wrap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    field: Box<str>,
    problem: Box<str>,
}

impl ConfigError {
    /// Hidden: the simulator reports its own wrong settings with it.
    #[doc(hidden)]
    pub fn new(field: impl Into<Box<str>>, problem: impl Into<Box<str>>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }

    /// The same problem, attributed to a part of `whole`.
    pub(crate) fn of(self, whole: &str) -> Self {
        Self { field: format!("{whole}: {}", self.field).into(), problem: self.problem }
    }

    /// The field that is wrong, for example ``backend `eastus`: api_key``.
    pub fn field(&self) -> &str {
        &self.field
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl Error for ConfigError {}
