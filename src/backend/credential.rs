//! How a backend authenticates. Keys are never printed.

use std::{fmt, sync::Arc};

use http::HeaderValue;

use super::TokenSource;
use crate::ConfigError;

/// How a backend authenticates.
///
/// Every variant removes the caller's own `api-key`, `Authorization` and cookies, and the keys in its
/// query, before it sets the backend's, except [`passthrough`](Self::passthrough).
#[derive(Clone)]
pub struct Credential(pub(super) Kind);

#[derive(Clone)]
pub(super) enum Kind {
    ApiKey(HeaderValue),
    Bearer(Arc<dyn TokenSource>),
    Passthrough,
    None,
}

impl Credential {
    /// The key of the resource, sent as `api-key`; for a [provider](crate::Backend::provider) other
    /// than Azure as `Authorization: Bearer`, or as Anthropic's `x-api-key`.
    ///
    /// # Errors
    ///
    /// If the key is empty or has characters that a header cannot carry, such as line ends from a
    /// file. The error does not repeat the key.
    pub fn api_key(key: &str) -> Result<Self, ConfigError> {
        let mut value = HeaderValue::from_str(key)
            .ok()
            .filter(|value| !value.is_empty() && value.to_str().is_ok())
            .ok_or_else(|| {
                ConfigError::new(
                    "api_key",
                    "is empty or has characters that a header cannot carry: trim line ends",
                )
            })?;
        value.set_sensitive(true);
        Ok(Self(Kind::ApiKey(value)))
    }

    /// No credential, for a backend that authenticates by its network, by mutual TLS, or through a
    /// sidecar that adds one. The caller's credentials are removed as for any backend.
    pub const fn none() -> Self {
        Self(Kind::None)
    }

    /// A source of Microsoft Entra ID tokens, sent as `Authorization: Bearer`. It is called for every
    /// attempt, so that a token that expired while a request waited is not sent.
    pub fn bearer(source: impl TokenSource) -> Self {
        Self(Kind::Bearer(Arc::new(source)))
    }

    /// Forwards the caller's own `api-key`, `Authorization` and cookies, and the keys in its query,
    /// unchanged.
    ///
    /// For a pool over one resource, or for callers whose Entra ID token is valid for every resource
    /// of the pool. Do not forward a resource key to more than one resource: all of them would see
    /// it.
    pub const fn passthrough() -> Self {
        Self(Kind::Passthrough)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::ApiKey(_) => "ApiKey(..)",
            Kind::Bearer(_) => "Bearer(..)",
            Kind::Passthrough => "Passthrough",
            Kind::None => "None",
        })
    }
}
