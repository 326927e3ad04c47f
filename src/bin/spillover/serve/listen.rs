//! Inbound sockets: accepting, TLS, and the end of it all.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use super::{clock, connection, door::Door};
use crate::config::Tls;

/// A socket that is bound.
pub(super) struct Listener {
    tcp: TcpListener,
    tls: Option<TlsAcceptor>,
}

impl Listener {
    /// # Errors
    ///
    /// When the address is taken or not this machine's, or a certificate or key is unusable.
    pub(super) async fn bind(address: SocketAddr, tls: Option<&Tls>) -> Result<Self, String> {
        let tls = tls.map(acceptor).transpose().map_err(|error| format!("listen.tls: {error}"))?;
        let tcp = TcpListener::bind(address).await.map_err(|error| {
            format!("cannot listen on {address}: {error}; --listen chooses another address")
        })?;
        Ok(Self { tcp, tls })
    }

    /// Where it listens, as a client writes it.
    pub(super) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let address =
            self.tcp.local_addr().map_or_else(|error| error.to_string(), |it| it.to_string());
        format!("{scheme}://{address}")
    }

    /// Serves connections until `stop` turns true, then waits until the last of them is done, but
    /// no longer than the configuration at work says.
    pub(super) async fn serve(self, door: Door, mut stop: watch::Receiver<bool>) {
        let (open, mut all_closed) = mpsc::channel::<()>(1);
        loop {
            let accepted = tokio::select! {
                accepted = self.tcp.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (door, stop, open) = (door.clone(), stop.clone(), open.clone());
                    let tls = self.tls.clone();
                    tokio::spawn(async move {
                        connect(door, stream, tls, stop).await;
                        drop(open);
                    });
                }
                Err(error) if is_of_one_connection(&error) => {}
                // No descriptors are left, or no memory: others have to end first.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    clock::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop((open, self.tcp));
        let drain = door.gateway.site().config().listen.drain;
        if clock::timeout(drain, all_closed.recv()).await.is_err() {
            tracing::warn!("connections were still open at the end of the drain time");
        }
    }
}

async fn connect(
    door: Door,
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    stop: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return connection::serve(door, stream, stop).await };
    let head_timeout = door.gateway.site().config().limits.head_timeout;
    match clock::timeout(head_timeout, tls.accept(stream)).await {
        Ok(Ok(stream)) => connection::serve(door, stream, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake took too long"),
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn acceptor(tls: &Tls) -> Result<TlsAcceptor, String> {
    let chain = CertificateDer::pem_slice_iter(&tls.certificates).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| format!("certificates: {error:?}"))?;
    // An error of the parser could repeat what it read.
    let key = PrivateKeyDer::from_pem_slice(tls.key.expose().as_bytes())
        .map_err(|_| "key: not a private key in PEM".to_owned())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
