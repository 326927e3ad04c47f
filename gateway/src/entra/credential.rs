//! Selects and configures one of the SDK's credentials.

use std::{path::PathBuf, sync::Arc};

use azure_core::{
    cloud::{CloudConfiguration, CustomConfiguration},
    credentials::{Secret, TokenCredential},
    http::{ClientOptions, ExponentialRetryOptions, RetryOptions, Transport as SdkTransport},
};
use azure_identity::{
    ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
    WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use http::Uri;

use super::{error::EntraError, transport::Transport};
use crate::{
    config::{Entra, EntraKind},
    http_client::Client,
};

/// The credential that `entra` describes; `variable` reads the environment.
pub(super) fn open(
    entra: &Entra,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Arc<dyn TokenCredential>, EntraError> {
    let client_options = client_options(entra.authority.as_deref())?;
    let needed = |name: &str| {
        let missing = || EntraError::new(format!("kind = \"workload\" needs {name} to be set"));
        variable(name).filter(|value| !value.is_empty()).ok_or_else(missing)
    };
    let credential: azure_core::Result<Arc<dyn TokenCredential>> = match &entra.kind {
        EntraKind::Workload => {
            let options = WorkloadIdentityCredentialOptions {
                credential_options: ClientAssertionCredentialOptions { client_options },
                client_id: Some(needed("AZURE_CLIENT_ID")?),
                tenant_id: Some(needed("AZURE_TENANT_ID")?),
                token_file_path: Some(PathBuf::from(needed("AZURE_FEDERATED_TOKEN_FILE")?)),
            };
            WorkloadIdentityCredential::new(Some(options)).map(|credential| credential as _)
        }
        EntraKind::Managed { client_id } => {
            let user_assigned_id = client_id.clone().map(UserAssignedId::ClientId);
            let options = ManagedIdentityCredentialOptions { user_assigned_id, client_options };
            ManagedIdentityCredential::new(Some(options)).map(|credential| credential as _)
        }
        EntraKind::ClientSecret { tenant, client_id, secret } => {
            let secret = Secret::new(secret.expose().to_owned());
            let options = ClientSecretCredentialOptions { client_options };
            ClientSecretCredential::new(tenant, client_id.clone(), secret, Some(options))
                .map(|credential| credential as _)
        }
    };
    credential.map_err(EntraError::new)
}

fn client_options(authority: Option<&str>) -> Result<ClientOptions, EntraError> {
    let client = Client::new().map_err(EntraError::new)?;
    let (cloud, plain) = match authority {
        Some(authority) => {
            let (host, plain) = authority_host(authority)?;
            let mut custom = CustomConfiguration::default();
            custom.authority_host = host;
            (Some(Arc::new(CloudConfiguration::Custom(custom))), plain)
        }
        None => (None, None),
    };
    Ok(ClientOptions {
        transport: Some(SdkTransport::new(Arc::new(Transport::new(client, plain)))),
        // Requests are waiting, and later ones retry.
        retry: RetryOptions::exponential(ExponentialRetryOptions {
            max_retries: 2,
            ..Default::default()
        }),
        cloud,
        ..Default::default()
    })
}

/// The authority in the SDK's form, and its host and port if it has no TLS, which is only allowed
/// on this machine.
fn authority_host(authority: &str) -> Result<(String, Option<String>), EntraError> {
    let refused = |why: &str| EntraError::new(format!("authority `{authority}` {why}"));
    let uri: Uri = authority.parse().map_err(|_| refused("is not an address"))?;
    let host = uri.host().ok_or_else(|| refused("has no host: use https://HOST"))?;
    match uri.scheme_str() {
        Some("https") => Ok((authority.to_owned(), None)),
        Some("http") if matches!(host, "127.0.0.1" | "localhost" | "[::1]") => {
            let place = uri.authority().map(ToString::to_string);
            Ok((format!("https://{}", place.as_deref().unwrap_or(host)), place))
        }
        _ => Err(refused("would receive the secret without TLS: use https")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_without_tls_has_to_be_on_this_machine() {
        let (host, plain) = authority_host("http://127.0.0.1:4000").expect("a loopback address");
        assert_eq!((&*host, plain.as_deref()), ("https://127.0.0.1:4000", Some("127.0.0.1:4000")));
        let (_, plain) = authority_host("https://login.microsoftonline.us").expect("a cloud");
        assert_eq!(plain, None);
        for other in ["http://login.microsoftonline.com", "ftp://localhost", "/tenant", ""] {
            assert!(authority_host(other).is_err(), "{other}");
        }
    }

    #[test]
    fn a_workload_identity_names_the_variable_that_is_missing() {
        let entra = Entra { kind: EntraKind::Workload, scope: "scope".to_owned(), authority: None };
        let variable = |name: &str| (name == "AZURE_CLIENT_ID").then(|| "client".to_owned());
        let error = open(&entra, variable).map(drop).expect_err("two are missing");
        assert_eq!(
            error.to_string(),
            "[entra] kind = \"workload\" needs AZURE_TENANT_ID to be set"
        );
    }
}
