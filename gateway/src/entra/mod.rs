//! Microsoft Entra ID tokens for backends with `auth = "entra"`.

mod credential;
mod error;
mod refresh;
mod transport;

#[cfg(test)]
mod tests;

use std::{env, fmt};

use tower_spillover::backend::TokenSource;

use self::{error::EntraError, refresh::Refreshed};
use crate::config::{Entra, EntraKind};

/// A source of tokens for the scope of `entra`, by the identity that it describes.
///
/// The first request fetches; later ones are served from memory. A token is refreshed in the
/// background before it expires, by the smaller of five minutes and a tenth of its lifetime, and
/// serves until it does, or until a resource rejects it. Clones share the token.
///
/// A workload identity is described by what its webhook puts into the environment:
/// `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_FEDERATED_TOKEN_FILE`. A managed identity is asked
/// at `IDENTITY_ENDPOINT` (App Service, Container Apps) or else at the instance metadata service.
///
/// # Errors
///
/// When something of the description is missing or cannot be used. Nothing is fetched yet.
pub(crate) fn source(
    entra: &Entra,
) -> Result<impl TokenSource + Clone + fmt::Debug + use<>, EntraError> {
    let (description, scope) = (entra.clone(), entra.scope.clone());
    let open = move || credential::open(&description, |name| env::var(name).ok());
    let secret = match &entra.kind {
        EntraKind::ClientSecret { secret, .. } => Some(secret.clone()),
        EntraKind::Workload | EntraKind::Managed { .. } => None,
    };
    Refreshed::new(open, scope, secret)
}
