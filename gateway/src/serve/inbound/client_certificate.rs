//! What the certificate of a client says: who it is, and for how long.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate, X509Error},
};

use crate::{config::CertificateName, serve::clock};

/// The certificate of the client at the other end of a connection, which the handshake has verified.
#[derive(Clone, Debug)]
pub(crate) struct ClientCertificate(Arc<Verified>);

#[derive(Debug)]
struct Verified {
    names: Box<[CertificateName]>,
    /// The last instant at which it, and each certificate that the client shows for it, is valid.
    until: SystemTime,
}

impl ClientCertificate {
    /// Of the chain that a client shows, its own first.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub(crate) fn of(chain: &[CertificateDer<'_>]) -> Result<Self, X509Error> {
        let chain = chain.iter().map(|der| Ok(X509Certificate::from_der(der)?.1));
        let chain = chain.collect::<Result<Vec<_>, X509Error>>()?;
        let own = chain.first().ok_or(X509Error::InvalidCertificate)?;
        let names = names(own)?.into();
        let until = Duration::from_secs(u64::try_from(until(own, &chain)).unwrap_or_default());
        let until = SystemTime::UNIX_EPOCH + until;
        Ok(Self(Arc::new(Verified { names, until })))
    }

    pub(crate) fn names(&self) -> &[CertificateName] {
        &self.0.names
    }

    pub(crate) fn is_expired(&self) -> bool {
        self.left().is_none()
    }

    /// Returns when it has expired.
    pub(crate) async fn expired(&self) {
        while let Some(left) = self.left() {
            // The date may be set meanwhile. `until` is still within.
            clock::sleep((left + Duration::from_millis(1)).min(LONGEST_SLEEP)).await;
        }
    }

    fn left(&self) -> Option<Duration> {
        self.0.until.duration_since(clock::date()).ok()
    }
}

/// A subject with several common names has none: which one an authority has looked at is not known.
fn names(certificate: &X509Certificate<'_>) -> Result<Vec<CertificateName>, X509Error> {
    let alternative = certificate.subject_alternative_name()?;
    let alternative = alternative.iter().flat_map(|names| &names.value.general_names);
    let mut names: Vec<_> = alternative
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(CertificateName::Uri((*uri).to_owned())),
            GeneralName::DNSName(name) => Some(CertificateName::Dns(name.to_ascii_lowercase())),
            _ => None,
        })
        .collect();
    let mut common = certificate.subject().iter_common_name();
    if let (Some(name), None) = (common.next(), common.next()) {
        names.extend(name.as_str().ok().map(|name| CertificateName::Common(name.to_owned())));
    }
    Ok(names)
}

/// In seconds: the end of `own`, or of an issuer of it in `chain`. The configured authorities, which
/// sign themselves, are trusted whatever their dates.
fn until(own: &X509Certificate<'_>, chain: &[X509Certificate<'_>]) -> i64 {
    let end = |certificate: &X509Certificate<'_>| certificate.validity().not_after.timestamp();
    let (mut until, mut issued) = (end(own), own);
    for _ in 1..chain.len() {
        let is_issuer = |other: &&X509Certificate<'_>| {
            other.subject() == issued.issuer() && other.subject() != other.issuer()
        };
        // Of several for one name, whichever was verified, the last one to end.
        let issuer = chain[1..].iter().filter(is_issuer).max_by_key(|issuer| end(issuer));
        let Some(issuer) = issuer else { break };
        until = until.min(end(issuer));
        issued = issuer;
    }
    until
}

const LONGEST_SLEEP: Duration = Duration::from_secs(60);
