//! A client's certificate: the names in it, and how long it is valid.

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

/// The certificate of a connection's client, verified by the handshake.
#[derive(Clone, Debug)]
pub(crate) struct ClientCertificate(Arc<Verified>);

#[derive(Debug)]
struct Verified {
    names: Box<[CertificateName]>,
    /// The last instant at which the whole chain that the client presented is valid.
    until: SystemTime,
}

impl ClientCertificate {
    /// Reads the chain that a client presents, its own certificate first.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
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
            // The system clock may be set meanwhile, so sleep in short steps. `until` itself is
            // still valid.
            clock::sleep((left + Duration::from_millis(1)).min(MAX_SLEEP)).await;
        }
    }

    fn left(&self) -> Option<Duration> {
        self.0.until.duration_since(clock::date()).ok()
    }
}

/// Ignores a subject with several common names: the authority may have verified only one of them.
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

/// In seconds: when `own` or one of its issuers in `chain` expires first. The configured
/// authorities, which are self-signed, are trusted regardless of their dates.
fn until(own: &X509Certificate<'_>, chain: &[X509Certificate<'_>]) -> i64 {
    let end = |certificate: &X509Certificate<'_>| certificate.validity().not_after.timestamp();
    let (mut until, mut issued) = (end(own), own);
    for _ in 1..chain.len() {
        let is_issuer = |other: &&X509Certificate<'_>| {
            other.subject() == issued.issuer() && other.subject() != other.issuer()
        };
        // Of several certificates for one name, any may have been verified: use the one that
        // expires last.
        let issuer = chain[1..].iter().filter(is_issuer).max_by_key(|issuer| end(issuer));
        let Some(issuer) = issuer else { break };
        until = until.min(end(issuer));
        issued = issuer;
    }
    until
}

const MAX_SLEEP: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
    };
    use tower_spillover::sticky::Home;

    use super::*;
    use crate::{
        config::Clients,
        serve::{
            inbound::{authentication::authenticate, client_keys::ClientKeys},
            routing::client_home::ClientHome,
        },
    };

    fn named(name: &str, year: i32) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = date_time_ymd(year, 1, 1);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    /// A current certificate whose issuer expires at `issuer`, and whose root expires at `root`.
    fn chain(issuer: i32, root: i32) -> Vec<CertificateDer<'static>> {
        let key = || KeyPair::generate().unwrap();
        let root = CertifiedIssuer::self_signed(named("root", root), key()).unwrap();
        let other = named("other", 2001).signed_by(&key(), &root).unwrap();
        let issuer = CertifiedIssuer::signed_by(named("issuer", issuer), key(), &root).unwrap();
        let own = named("own", 2100).signed_by(&key(), &issuer).unwrap();
        [&own, &other, issuer.as_ref(), root.as_ref()].map(|it| it.der().clone()).to_vec()
    }

    #[test]
    fn it_is_valid_as_long_as_those_that_issued_it() {
        for (issuer, root, is_expired) in
            [(2100, 2100, false), (2001, 2100, true), (2100, 2001, false)]
        {
            let certificate = ClientCertificate::of(&chain(issuer, root)).unwrap();
            assert_eq!(certificate.is_expired(), is_expired, "{issuer}, {root}");
            assert_eq!(certificate.names(), [CertificateName::Common("own".to_owned())]);
        }
    }

    #[tokio::test]
    async fn nobody_is_let_in_with_one_that_has_expired() {
        let home = |name: &str, _: &_| ClientHome { home: Home::of(name), model: None };
        let clients = ClientKeys::new(&Clients::Open, home, None, None);
        for (issuer, is_let_in) in [(2100, true), (2001, false)] {
            let certificate = ClientCertificate::of(&chain(issuer, 2100)).unwrap();
            let caller = authenticate(&clients, None, &HeaderMap::new(), Some(&certificate)).await;
            assert_eq!(caller.is_ok(), is_let_in);
            let status = caller.err().map(|refusal| refusal.into_response().status());
            assert_eq!(status, (!is_let_in).then_some(StatusCode::UNAUTHORIZED));
        }
    }
}
