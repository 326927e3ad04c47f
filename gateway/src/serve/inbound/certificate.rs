//! The server certificate of TLS connections, which can be renewed in use.

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

/// A certificate chain and its key. A renewal applies to all clones.
#[derive(Clone, Debug)]
pub(crate) struct Certificate(Arc<ArcSwap<ServerConfig>>);

/// A validated replacement.
pub(crate) struct Renewal(Arc<ServerConfig>);

impl Certificate {
    /// # Errors
    ///
    /// If the certificate or its key is unusable.
    pub(crate) fn new(tls: &Tls) -> Result<Self, String> {
        let Renewal(config) = Renewal::new(tls)?;
        Ok(Self(Arc::new(ArcSwap::new(config))))
    }

    /// Uses the replacement in handshakes from now on; open connections keep theirs.
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
    /// As in [`Certificate::new`].
    pub(crate) fn new(tls: &Tls) -> Result<Self, String> {
        let chain =
            CertificateDer::pem_slice_iter(&tls.certificates).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| format!("certificates: {error:?}"))?;
        // The parser's error could contain what it read.
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
            // A resumed session would bring back the client's certificate as it was verified once.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }
}
