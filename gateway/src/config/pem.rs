//! Reads certificates and private keys, and validates them by trying them out.

use std::sync::Arc;

use tokio_rustls::rustls::{
    Error, RootCertStore, ServerConfig, crypto,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};

use super::{
    ClientTls, Secret, Tls,
    toml::{Section, Value},
};
use crate::tls_roots;

/// A certificate chain and its matching key.
pub(super) fn tls(mut section: Section<'_>) -> Option<Tls> {
    let chain = section
        .required("certificates", "name a PEM file with the chain, the server's own first")
        .and_then(|value| Some((value.clone(), value.file()?)))
        .and_then(|(value, bytes)| Some((certificates(&value, &bytes)?, bytes)));
    let key = section
        .required("key", "name a PEM file with the private key, as file:PATH")
        .and_then(|value| Some((value.secret()?, value)))
        .and_then(|(secret, value)| Some((private_key(&value, &secret)?, secret, value)));
    let client = client(&mut section);
    section.finish();
    let (chain, certificates) = chain?;
    let (der, key, value) = key?;
    match serve_with(chain, der) {
        Ok(()) => Some(Tls { certificates, key, client }),
        Err(Error::InconsistentKeys(_)) => {
            value.report("is not the key of the first certificate; use the one it was issued for");
            None
        }
        Err(_) => {
            value.report("cannot be used; use an RSA, ECDSA or Ed25519 key");
            None
        }
    }
}

/// The authorities of client certificates, and their revocation lists.
fn client(section: &mut Section<'_>) -> Option<ClientTls> {
    let authorities = section.get("client_ca");
    let revoked = section.get("client_crl");
    let required = section.get("client_required");
    let Some(authorities) = authorities else {
        for value in revoked.iter().chain(&required) {
            value.report("has no effect without client_ca; add it, or remove this");
        }
        return None;
    };
    let client = ClientTls {
        authorities: trust(&authorities)?,
        revoked: match &revoked {
            Some(value) => Some(value.file()?),
            None => None,
        },
        is_required: required.and_then(|value| value.flag()).unwrap_or_default(),
    };
    if let Err(error) = tls_roots::clients(&client) {
        let value = revoked.as_ref().unwrap_or(&authorities);
        value.report(format!("cannot be used ({error}); write it as PEM"));
    }
    Some(client)
}

/// Certificates to trust.
pub(super) fn trust(value: &Value<'_>) -> Option<Vec<u8>> {
    let bytes = value.file()?;
    let mut store = RootCertStore::empty();
    for certificate in certificates(value, &bytes)? {
        if store.add(certificate).is_err() {
            value.report("contains a certificate that cannot be trusted; use X.509 certificates");
            return None;
        }
    }
    Some(bytes)
}

fn certificates(value: &Value<'_>, bytes: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    match CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, pem::Error>>() {
        Ok(chain) if !chain.is_empty() => Some(chain),
        Ok(_) => {
            value.report("contains no certificate; write it as PEM, with BEGIN CERTIFICATE");
            None
        }
        Err(_) => {
            value.report("is not valid PEM; export the certificates again");
            None
        }
    }
}

fn private_key(value: &Value<'_>, secret: &Secret) -> Option<PrivateKeyDer<'static>> {
    let key = PrivateKeyDer::from_pem_slice(secret.expose().as_bytes());
    if key.is_err() {
        value.report(
            "contains no private key; write it as PEM, unencrypted, in PKCS #8, PKCS #1 or SEC1",
        );
    }
    key.ok()
}

fn serve_with(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<(), Error> {
    ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map(drop)
}
