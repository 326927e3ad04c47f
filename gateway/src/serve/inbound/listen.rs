//! Listening sockets: accepting, TLS, and shutdown.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use tokio_rustls::TlsAcceptor;

use super::{
    certificate::Certificate, client_certificate::ClientCertificate, client_socket::ClientSocket,
    connection, listener_role::ListenerRole, protocol::Protocol,
};
use crate::{
    config::Tls,
    serve::{clock, workers::Workers},
};

/// A bound socket.
pub(crate) struct Listener {
    tcp: TcpListener,
    tls: Option<Certificate>,
}

impl Listener {
    /// # Errors
    ///
    /// If the address is in use or not local, or a certificate or key is unusable.
    pub(crate) async fn bind(address: SocketAddr, tls: Option<&Tls>) -> Result<Self, String> {
        let tls = tls.map(Certificate::new).transpose();
        let tls = tls.map_err(|error| format!("listen.tls: {error}"))?;
        let tcp = TcpListener::bind(address).await.map_err(|error| {
            format!("cannot listen on {address}: {error}; --listen chooses another address")
        })?;
        Ok(Self { tcp, tls })
    }

    /// The listener's URL, as a client writes it.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let address =
            self.tcp.local_addr().map_or_else(|error| error.to_string(), |it| it.to_string());
        format!("{scheme}://{address}")
    }

    /// The TLS certificate, if there is one.
    pub(crate) fn certificate(&self) -> Option<Certificate> {
        self.tls.clone()
    }

    /// Serves connections until `stop` turns true, then waits for the last of them to finish, but
    /// no longer than the active configuration's drain time.
    pub(crate) async fn serve(
        self,
        role: ListenerRole,
        workers: Arc<Workers>,
        mut stop: watch::Receiver<bool>,
    ) {
        let (open, mut all_closed) = mpsc::channel::<()>(1);
        let mut is_accepting = true;
        let mut warned_at: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                accepted = self.tcp.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    is_accepting = true;
                    let role = role.at(peer.ip());
                    self.connect(role, &workers, stream, stop.clone(), open.clone());
                }
                Err(error) if is_of_one_connection(&error) => {}
                // Out of descriptors or memory: other connections have to end first.
                Err(error) => {
                    // Warn once, however long it lasts and however often connections end in
                    // between.
                    let now = clock::now();
                    let is_first = std::mem::take(&mut is_accepting);
                    let is_due = |at| now.saturating_duration_since(at) >= ACCEPT_WARNING_INTERVAL;
                    if is_first && warned_at.is_none_or(is_due) {
                        warned_at = Some(now);
                        tracing::warn!(target: TARGET, %error, "cannot accept connections");
                    }
                    clock::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop((open, self.tcp));
        let drain = role.gateway.runtime().config().listen.drain;
        if clock::timeout(drain, all_closed.recv()).await.is_err() {
            tracing::warn!(target: TARGET, "connections were still open at the end of the drain time");
        }
    }

    /// Serves a connection in its own task, which is as large as the connection needs.
    fn connect(
        &self,
        role: ListenerRole,
        workers: &Workers,
        stream: TcpStream,
        stop: watch::Receiver<bool>,
        open: mpsc::Sender<()>,
    ) {
        let _ = stream.set_nodelay(true);
        match self.tls.as_ref().map(Certificate::acceptor) {
            Some(tls) => workers.serve(stream, |stream, guard| async move {
                secure(role, stream, tls, stop).await;
                drop((guard, open));
            }),
            None => workers.serve(stream, |stream, guard| async move {
                plain(role, stream, stop).await;
                drop((guard, open));
            }),
        }
    }
}

/// Peeks at the first bytes without consuming them: passing them separately to hyper's reader would
/// double its buffer.
async fn plain(role: ListenerRole, stream: TcpStream, mut stop: watch::Receiver<bool>) {
    let accepted = clock::now();
    let head_timeout = role.gateway.runtime().config().limits.head_timeout;
    let mut first = [0; PREFACE.len()];
    let looked = {
        let mut look = Box::pin(clock::timeout(head_timeout, stream.peek(&mut first)));
        tokio::select! {
            looked = look.as_mut() => looked,
            _ = stop.wait_for(|stop| *stop) => return,
        }
    };
    let Ok(Ok(length @ 1..)) = looked else { return };
    let protocol = match &first[..length] {
        whole if whole == PREFACE => Protocol::Http2,
        part if PREFACE.starts_with(part) => Protocol::Either,
        _ => Protocol::Http1,
    };
    let client = ClientSocket::new(stream);
    connection::serve(role, client.clone(), client, protocol, accepted, stop).await;
}

async fn secure(
    mut role: ListenerRole,
    stream: TcpStream,
    tls: TlsAcceptor,
    mut stop: watch::Receiver<bool>,
) {
    let accepted = clock::now();
    let head_timeout = role.gateway.runtime().config().limits.head_timeout;
    let client = ClientSocket::new(stream);
    // Boxed: only the stream outlives the handshake.
    let mut handshake = Box::pin(clock::timeout(head_timeout, tls.accept(client.clone())));
    let shaken = tokio::select! {
        shaken = handshake.as_mut() => shaken,
        _ = stop.wait_for(|stop| *stop) => return,
    };
    drop(handshake);
    match shaken {
        Ok(Ok(stream)) => {
            let shown = stream.get_ref().1.peer_certificates();
            role.peer = match shown.map(ClientCertificate::of).transpose() {
                Ok(peer) => peer,
                Err(error) => {
                    tracing::debug!(target: TARGET, %error, "client certificate cannot be read");
                    return;
                }
            };
            let protocol = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Protocol::Http2,
                Some(b"http/1.1") => Protocol::Http1,
                _ => Protocol::Either,
            };
            connection::serve(role, stream, client, protocol, accepted, stop).await;
        }
        Ok(Err(error)) => tracing::debug!(target: TARGET, %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(target: TARGET, "TLS handshake took too long"),
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// The HTTP/2 client preface (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// At the limit of descriptors, each connection that ends admits another one, 20 times per second.
const ACCEPT_WARNING_INTERVAL: Duration = Duration::from_secs(10);
/// For log events; part of their format, so it does not change with the module path.
const TARGET: &str = "spillover::serve::listen";
