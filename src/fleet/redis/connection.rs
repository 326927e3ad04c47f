//! How a store is connected.

use std::{fmt, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    Pipeline, ProtocolVersion, PushInfo, RedisError, RedisFuture, TlsCertificates, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    io::tcp::TcpSettings,
};

use crate::ConfigError;

/// Where a store is, and as whom to connect. Prints only hosts and ports.
#[derive(Clone)]
pub(super) struct Address {
    info: ConnectionInfo,
    user: Option<Box<str>>,
    password: Option<Box<str>>,
    /// Authorities to trust instead of the public ones, as PEM.
    trust: Option<Vec<u8>>,
}

/// Makes connections.
pub(super) struct Connector {
    client: Client,
    config: AsyncConnectionConfig,
}

/// A connection. Clones share it.
#[derive(Clone)]
pub(super) struct Connection(MultiplexedConnection);

impl Address {
    pub(super) fn new(url: &str) -> Result<Self, ConfigError> {
        // The client's own messages may repeat the URL, which may have a password.
        let info = url.into_connection_info().map_err(|_| {
            ConfigError::new(
                "fleet store",
                "is not the URL of a store; write it like \"rediss://redis.contoso.internal:6380\"",
            )
        })?;
        Ok(Self { info, user: None, password: None, trust: None })
    }

    pub(super) fn set_user(&mut self, user: &str) {
        self.user = Some(user.into());
    }

    pub(super) fn set_password(&mut self, password: &str) {
        self.password = Some(password.into());
    }

    pub(super) fn set_trust(&mut self, pem: &[u8]) {
        self.trust = Some(pem.to_vec());
    }

    /// `on_push` is called with the messages of each connection, on the thread that uses it.
    pub(super) fn connector(
        &self,
        on_push: impl Fn(&PushInfo) + Send + Sync + 'static,
    ) -> Result<Connector, ConfigError> {
        // Messages come on the connection that calls use.
        let mut redis = self.info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        if let Some(user) = &self.user {
            redis = redis.set_username(user);
        }
        if let Some(password) = &self.password {
            redis = redis.set_password(password);
        }
        // Calls are short, and wait for one another otherwise.
        let tcp = TcpSettings::default().set_nodelay(true);
        let info = self.info.clone().set_redis_settings(redis).set_tcp_settings(tcp);
        let is_tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        let client = if is_tls {
            // The client needs a provider of the process, and there may be several to choose from.
            if rustls::crypto::CryptoProvider::get_default().is_none() {
                drop(rustls::crypto::ring::default_provider().install_default());
            }
            let certificates = TlsCertificates { client_tls: None, root_cert: self.trust.clone() };
            Client::build_with_tls(info, certificates)
        } else {
            Client::open(info)
        };
        let client = client.map_err(|error| {
            ConfigError::new("fleet store", format!("cannot be used: {}", kind_of(&error)))
        })?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_pipeline_buffer_size(PIPELINED_CALLS)
            .set_push_sender(move |push| {
                on_push(&push);
                Ok::<(), redis::aio::SendError>(())
            });
        Ok(Connector { client, config })
    }
}

/// What an error is about, without any text of the settings.
fn kind_of(error: &RedisError) -> String {
    format!("{:?}", error.kind())
}

impl Connector {
    pub(super) async fn connect(&self) -> Result<Connection, RedisError> {
        let connection = self.client.get_multiplexed_async_connection_with_config(&self.config);
        connection.await.map(Connection)
    }

    /// How long the first call on a connection may take.
    pub(super) const fn check_timeout(&self) -> Duration {
        CONNECT_TIMEOUT
    }
}

impl Connection {
    pub(super) async fn subscribe(&self, channel: &str) -> Result<(), RedisError> {
        self.0.clone().subscribe(channel).await
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        self.0.req_packed_command(cmd)
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.0.req_packed_commands(cmd, offset, count)
    }

    fn get_db(&self) -> i64 {
        self.0.get_db()
    }
}

/// A host and port, without credentials.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, port) => write!(f, "{host}:{port}"),
            ConnectionAddr::TcpTls { host, port, .. } => write!(f, "{host}:{port}"),
            other => write!(f, "{other}"),
        }
    }
}

/// Longer than a TLS handshake within a region takes; a store that hangs is tried again after it.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);
/// A request has long decided alone. The answer is awaited to return what it grants.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);
const PIPELINED_CALLS: usize = 1_024;
