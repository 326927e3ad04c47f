//! Errors in the configuration of an identity.

use std::{error::Error, fmt};

/// Why an identity cannot be used.
#[derive(Debug)]
pub(crate) struct EntraError(String);

impl EntraError {
    pub(super) fn new(reason: impl fmt::Display) -> Self {
        Self(reason.to_string())
    }
}

impl fmt::Display for EntraError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[entra] {}", self.0)
    }
}

impl Error for EntraError {}
