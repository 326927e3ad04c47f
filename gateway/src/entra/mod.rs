//! Microsoft Entra ID tokens for backends with `auth = "entra"`.

mod credential;
mod error;
mod transport;

#[cfg(test)]
mod tests;

use std::env;

use tower_spillover::entra::{EntraTokens, TokenEvent};

use self::error::EntraError;
use crate::config::{Entra, EntraKind};

/// [`tokens`] whose failures are logged.
///
/// # Errors
///
/// As [`tokens`].
pub(crate) fn source(entra: &Entra) -> Result<EntraTokens, EntraError> {
    let scope = entra.scope.clone();
    Ok(tokens(entra)?.on_event(move |event| match event {
        TokenEvent::Rejected => {
            tracing::warn!(scope, "a resource rejected the access token");
        }
        TokenEvent::Failed(reason) => tracing::warn!(scope, reason, "no access token"),
        event => tracing::warn!(scope, "{event:?}"),
    }))
}

/// A token source for the scope of `entra`, with the identity that it describes. Clones share the
/// token.
///
/// A workload identity uses the environment variables of its webhook: `AZURE_TENANT_ID`,
/// `AZURE_CLIENT_ID`, `AZURE_FEDERATED_TOKEN_FILE`. A managed identity uses `IDENTITY_ENDPOINT`
/// (App Service, Container Apps), else the instance metadata service.
///
/// # Errors
///
/// If part of the description is missing or invalid. Fetches nothing yet.
pub(crate) fn tokens(entra: &Entra) -> Result<EntraTokens, EntraError> {
    let description = entra.clone();
    let open = move || credential::open(&description, |name| env::var(name).ok());
    let tokens = EntraTokens::opened_by(open)?.scope(&*entra.scope);
    Ok(match &entra.kind {
        EntraKind::ClientSecret { secret, .. } => tokens.secret(secret.expose()),
        EntraKind::Workload | EntraKind::Managed { .. } => tokens,
    })
}
