//! What connections are encrypted with; it can be renewed while it is in use.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::{NoServerSessionStorage, WebPkiClientVerifier},
    },
};

use crate::{config::Tls, tls_roots};

/// A certificate chain and its key. Clones are renewed together.
#[derive(Clone, Debug)]
pub(crate) struct Certificate(Arc<ArcSwap<ServerConfig>>);

/// One that can take the place of another.
pub(crate) struct Renewal(Arc<ServerConfig>);

impl Certificate {
    /// # Errors
    ///
    /// When the certificate or its key is unusable.
    pub(crate) fn new(tls: &Tls) -> Result<Self, String> {
        let Renewal(config) = Renewal::new(tls)?;
        Ok(Self(Arc::new(ArcSwap::new(config))))
    }

    /// Handshakes from now on see the other one; connections stay as they are.
    pub(crate) fn renew(&self, renewal: Renewal) {
        self.0.store(renewal.0);
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.load_full())
    }
}

impl Renewal {
    /// # Errors
    ///
    /// As of [`Certificate::new`].
    pub(crate) fn new(tls: &Tls) -> Result<Self, String> {
        let chain =
            CertificateDer::pem_slice_iter(&tls.certificates).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| format!("certificates: {error:?}"))?;
        // An error of the parser could repeat what it read.
        let key = PrivateKeyDer::from_pem_slice(tls.key.expose().as_bytes())
            .map_err(|_| "key: not a private key in PEM".to_owned())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = match &tls.client {
            Some(client) => {
                tls_roots::clients(client).map_err(|error| format!("client_ca: {error}"))?
            }
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .map_err(|error| error.to_string())?;
        if tls.client.is_some() {
            // A session that is resumed brings the client's certificate along, as it was verified once.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }
}
