//! Builds the pool of a tier: its backends, with their credentials.

use std::sync::Arc;

use tower_spillover::{
    Backend, BackendPool, RegionRotateLayer,
    backend::{AccessToken, Credential, TokenFuture, TokenSource},
    sticky::{Residents, StickyTier},
};

use crate::{config::Auth, snapshot::RunningModel};

/// The source of access tokens for backends.
pub(crate) type AccessTokens = Arc<dyn TokenSource>;

/// Builds the pool of one tier's backends.
///
/// # Errors
///
/// If a backend is invalid.
pub(crate) fn pool(
    name: &str,
    backends: &[crate::config::Backend],
    tokens: Option<&AccessTokens>,
) -> Result<Option<BackendPool>, String> {
    if backends.is_empty() {
        return Ok(None);
    }
    let members = backends.iter().map(|backend| {
        let mut member = Backend::new(&*backend.name, &backend.endpoint)
            .map_err(|error| error.to_string())?
            // Otherwise the caller's name for the model would be used: an alias, or any name that
            // the default model serves.
            .deployment(backend.deployment.as_deref().unwrap_or(name))
            .weight(backend.weight)
            .priority(backend.priority);
        if let Some(provider) = backend.provider {
            member = member.provider(provider);
        }
        if let Some(version) = &backend.api_version {
            member = member.api_version(version);
        }
        if let Some(region) = &backend.region {
            member = member.region(&**region);
        }
        if let Some(quota) = &backend.quota {
            member = member.quota(&**quota);
        }
        if let Some(deployment) = &backend.image_deployment {
            member = member.image_deployment(deployment);
        }
        match &backend.auth {
            Auth::Key(key) => Ok(member.api_key(key.expose())),
            Auth::None => Ok(member.credential(Credential::none())),
            Auth::Entra => match tokens {
                Some(tokens) => Ok(member.bearer(Shared(Arc::clone(tokens)))),
                None => Err(format!("backend `{}`: auth: needs [entra]", backend.name)),
            },
        }
    });
    let members = members.collect::<Result<Vec<_>, _>>()?;
    let pool = BackendPool::new(members).map_err(|error| error.to_string())?;
    let model = name.to_owned();
    pool.on_misconfigured(move |backend, status| {
        tracing::error!(
            model,
            backend,
            "misconfigured: {status}; it is asked last until it serves"
        );
    });
    Ok(Some(pool))
}

/// The backends of a model's tiers, in order of preference.
pub(crate) fn residents(running: &RunningModel) -> Residents {
    let pools = running.ptu.iter().chain(&running.standard);
    let residents = pools.map(|pool| RegionRotateLayer::new(pool.clone()).residents());
    residents.reduce(Residents::and).unwrap_or_default()
}

/// One source for many backends.
struct Shared(AccessTokens);

impl TokenSource for Shared {
    fn token(&self) -> TokenFuture {
        self.0.token()
    }

    fn rejected(&self, token: &AccessToken) {
        self.0.rejected(token);
    }
}
