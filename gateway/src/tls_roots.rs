//! Which certificates to trust: of servers that the gateway and its tools call, and of its clients.

use std::sync::Arc;

use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use crate::config::ClientTls;

/// TLS that trusts the public authorities (Mozilla's list, compiled in), and those in `pem`.
///
/// # Errors
///
/// The problem with `pem`.
pub(crate) fn tls(pem: Option<&[u8]>) -> Result<ClientConfig, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    Ok(config.with_root_certificates(roots(pem)?).with_no_client_auth())
}

/// Verifies client certificates of the configured authorities.
///
/// # Errors
///
/// The problem with the authorities or the revocation lists.
pub(crate) fn clients(settings: &ClientTls) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&settings.authorities) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    let provider = Arc::new(ring::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if let Some(pem) = &settings.revoked {
        let lists =
            CertificateRevocationListDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        let lists = lists.map_err(|error| error.to_string())?;
        if lists.is_empty() {
            return Err("no list of revoked certificates in PEM".to_owned());
        }
        builder = builder.with_crls(lists);
    }
    if !settings.is_required {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|error| error.to_string())
}

fn roots(pem: Option<&[u8]>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let Some(pem) = pem else { return Ok(roots) };
    let public = roots.len();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.len() == public {
        return Err("no certificate in PEM".to_owned());
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &[u8] = include_bytes!("serve/tests/tls/cert.pem");

    #[test]
    fn an_authority_of_one_s_own_is_trusted_beside_the_public_ones() {
        let public = roots(None).unwrap();
        assert_eq!(public.roots, webpki_roots::TLS_SERVER_ROOTS);
        let both = roots(Some(OWN)).unwrap();
        assert_eq!(both.roots[..public.len()], public.roots);
        let added = CertificateDer::from_pem_slice(OWN).unwrap();
        let mut alone = RootCertStore::empty();
        alone.add(added).unwrap();
        assert_eq!(both.roots[public.len()..], alone.roots);
    }

    #[test]
    fn a_file_without_a_certificate_or_with_a_broken_one_is_refused() {
        assert_eq!(roots(Some(b"# nothing")).unwrap_err(), "no certificate in PEM");
        assert!(
            roots(Some(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----")).is_err()
        );
    }
}
