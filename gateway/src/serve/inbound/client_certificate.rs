//! The names in the certificate of a client.

use std::sync::Arc;

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

/// The names of the client at the other end of a connection, which the handshake has verified, as
/// `certificates` of a client has them.
#[derive(Clone, Debug)]
pub(crate) struct CertificateNames(Arc<[Box<str>]>);

impl CertificateNames {
    /// `None` where there is none to know it by. A common name is one beside the others, marked.
    pub(crate) fn of(chain: Option<&[CertificateDer<'_>]>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(chain?.first()?).ok()?;
        let alternative = certificate.subject_alternative_name().ok().flatten();
        let alternative = alternative.iter().flat_map(|names| &names.value.general_names);
        let mut names: Vec<Box<str>> = alternative
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some((*uri).into()),
                GeneralName::DNSName(name) => Some(name.to_ascii_lowercase().into()),
                _ => None,
            })
            .collect();
        for name in certificate.subject().iter_common_name() {
            names.extend(name.as_str().ok().map(|name| format!("CN={name}").into()));
        }
        Some(Self(names.into())).filter(|names| !names.0.is_empty())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }
}
