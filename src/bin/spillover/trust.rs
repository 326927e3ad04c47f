//! Which certificates are trusted of servers that the gateway and its tools call.

use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt;
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

/// TLS to servers of the public authorities, or of those in `pem` alone.
///
/// # Errors
///
/// What is wrong with `pem`.
pub(crate) fn tls(pem: Option<&[u8]>) -> Result<ClientConfig, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let Some(pem) = pem else { return Ok(config.with_webpki_roots().with_no_client_auth()) };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("no certificate in PEM".to_owned());
    }
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
