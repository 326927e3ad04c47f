//! How a store is connected.

use std::{fmt, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, Pipeline, ProtocolVersion, PushInfo, RedisError, RedisFuture,
    TlsCertificates, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    io::tcp::TcpSettings,
};

use crate::ConfigError;

/// Where a store is, and as whom to connect. Prints only hosts and ports.
#[derive(Clone)]
pub(super) struct Address {
    /// The store itself, or sentinels that know it.
    seeds: Vec<ConnectionInfo>,
    /// The sentinels' name for the store.
    master: Option<Box<str>>,
    user: Option<Box<str>>,
    password: Option<Box<str>>,
    /// Authorities to trust instead of the public ones, as PEM.
    trust: Option<Vec<u8>>,
}

/// Makes connections.
pub(super) struct Connector {
    /// For the store itself, or for its sentinels.
    seeds: Vec<Client>,
    /// For a store that sentinels know.
    of_sentinels: Option<(Box<str>, Address)>,
    config: AsyncConnectionConfig,
}

/// A connection. Clones share it.
#[derive(Clone)]
pub(super) struct Connection(MultiplexedConnection);

impl Address {
    pub(super) fn new(url: &str) -> Result<Self, ConfigError> {
        Ok(Self { seeds: vec![seed(url)?], master: None, user: None, password: None, trust: None })
    }

    pub(super) fn of_sentinels<'a>(
        master: &str,
        urls: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, ConfigError> {
        let seeds: Vec<_> = urls.into_iter().map(seed).collect::<Result<_, _>>()?;
        if seeds.is_empty() {
            return Err(ConfigError::new("fleet store", "has no sentinel; name at least one"));
        }
        let master = Some(master.into());
        Ok(Self { seeds, master, user: None, password: None, trust: None })
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
        // A sentinel has users of its own.
        let is_store = self.master.is_none();
        let seeds = self.seeds.iter().map(|seed| self.client(seed, is_store));
        let seeds = seeds.collect::<Result<_, _>>()?;
        let of_sentinels = self.master.clone().map(|master| (master, self.clone()));
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_pipeline_buffer_size(PIPELINED_CALLS)
            .set_push_sender(move |push| {
                on_push(&push);
                Ok::<(), redis::aio::SendError>(())
            });
        Ok(Connector { seeds, of_sentinels, config })
    }

    /// A client of the store, or of one of its sentinels.
    fn client(&self, seed: &ConnectionInfo, is_store: bool) -> Result<Client, ConfigError> {
        // Messages come on the connection that calls use.
        let mut redis = seed.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        if let Some(user) = self.user.as_ref().filter(|_| is_store) {
            redis = redis.set_username(user);
        }
        if let Some(password) = self.password.as_ref().filter(|_| is_store) {
            redis = redis.set_password(password);
        }
        // Calls are short, and wait for one another otherwise.
        let tcp = TcpSettings::default().set_nodelay(true);
        let info = seed.clone().set_redis_settings(redis).set_tcp_settings(tcp);
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
        client.map_err(|error| {
            ConfigError::new("fleet store", format!("cannot be used: {}", kind_of(&error)))
        })
    }
}

fn seed(url: &str) -> Result<ConnectionInfo, ConfigError> {
    // The client's own messages may repeat the URL, which may have a password.
    url.into_connection_info().map_err(|_| {
        ConfigError::new(
            "fleet store",
            "is not the URL of a store; write it like \"rediss://redis.contoso.internal:6380\"",
        )
    })
}

/// What an error is about, without any text of the settings.
fn kind_of(error: &RedisError) -> String {
    format!("{:?}", error.kind())
}

impl Connector {
    /// A connection to the store. Its sentinels are asked each time, since another server may be the
    /// master by now.
    pub(super) async fn connect(&self) -> Result<Connection, RedisError> {
        let Some((master, address)) = &self.of_sentinels else {
            return self.open(&self.seeds[0]).await;
        };
        let mut result = Err((ErrorKind::Io, "no sentinel answers").into());
        for sentinel in &self.seeds {
            result = match self.master(sentinel, master, address).await {
                Ok(client) => self.open(&client).await,
                Err(error) => Err(error),
            };
            if result.is_ok() {
                break;
            }
        }
        result
    }

    async fn open(&self, client: &Client) -> Result<Connection, RedisError> {
        let connection = client.get_multiplexed_async_connection_with_config(&self.config);
        connection.await.map(Connection)
    }

    /// A client of the master that a sentinel knows.
    async fn master(
        &self,
        sentinel: &Client,
        master: &str,
        address: &Address,
    ) -> Result<Client, RedisError> {
        let mut connection = self.open(sentinel).await?;
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
        let found: Option<(String, u16)> = command.query_async(&mut connection).await?;
        let Some((host, port)) = found else {
            return Err((ErrorKind::Client, "the sentinel knows no master of this name").into());
        };
        let of_sentinel = sentinel.get_connection_info();
        let addr = match of_sentinel.addr().clone() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure, tls_params }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        let client = address.client(&address.seeds[0].clone().set_addr(addr), true);
        client.map_err(|_| (ErrorKind::InvalidClientConfig, "the master cannot be used").into())
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

/// Hosts and ports, without credentials.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(master) = &self.master {
            write!(f, "{master} of ")?;
        }
        for (index, seed) in self.seeds.iter().enumerate() {
            f.write_str(if index > 0 { ", " } else { "" })?;
            match seed.addr() {
                ConnectionAddr::Tcp(host, port) => write!(f, "{host}:{port}")?,
                ConnectionAddr::TcpTls { host, port, .. } => write!(f, "{host}:{port}")?,
                other => write!(f, "{other}")?,
            }
        }
        Ok(())
    }
}

/// Longer than a TLS handshake within a region takes; a store that hangs is tried again after it.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);
/// A request has long decided alone. The answer is awaited to return what it grants.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);
const PIPELINED_CALLS: usize = 1_024;
