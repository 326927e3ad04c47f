//! How a backend authenticates. A key is never printed.

use std::{fmt, sync::Arc};

use http::HeaderValue;

use super::TokenSource;
use crate::ConfigError;

/// How a backend authenticates.
///
/// Whatever is chosen, the caller's own `api-key`, `Authorization` and cookies, and the keys in its
/// query, leave the request before a backend's are set, except with
/// [`passthrough`](Self::passthrough).
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
    /// The key of the resource, sent as `api-key`: of another
    /// [provider](crate::Backend::provider) than Azure as `Authorization: Bearer`, or as Anthropic's
    /// `x-api-key`.
    ///
    /// # Errors
    ///
    /// When the key is empty or has characters that a header cannot carry; line ends from a file
    /// are the usual ones. The error does not repeat the key.
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

    /// No credential, for a backend that authenticates otherwise: by its network, by mutual TLS, or
    /// behind a sidecar that adds one. The caller's go, as they do for every other.
    pub const fn none() -> Self {
        Self(Kind::None)
    }

    /// A source of Microsoft Entra ID tokens, sent as `Authorization: Bearer`. It is asked for
    /// every attempt, so a token that ran out while a request waited is not sent.
    pub fn bearer(source: impl TokenSource) -> Self {
        Self(Kind::Bearer(Arc::new(source)))
    }

    /// The caller's own `api-key`, `Authorization` and cookies, and the keys in its query, go to
    /// this backend as they came.
    ///
    /// For a pool over one resource, or for callers whose Entra ID token is good for every
    /// resource of the pool. A resource key must not be used this way with more than one
    /// resource: it would be shown to all of them.
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
