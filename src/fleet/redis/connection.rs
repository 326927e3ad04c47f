//! How a store is connected.

use std::{fmt, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue,
    IntoConnectionInfo, ProtocolVersion, PushInfo, RedisError, ServerErrorKind, TlsCertificates,
    Value, aio::MultiplexedConnection, io::tcp::TcpSettings,
};

use super::{
    cluster::{Cluster, Slots},
    password::{Credentials, PasswordSource, Renewal},
};
use crate::ConfigError;

/// Where a store is, and as whom to connect. Prints only hosts and ports.
#[derive(Clone)]
pub(super) struct Address {
    /// The store itself, or servers that know it.
    seeds: Vec<ConnectionInfo>,
    found: Found,
    user: Option<Box<str>>,
    password: Option<Box<str>>,
    /// Where passwords come from, if there is not one for all time.
    passwords: Option<Arc<dyn PasswordSource>>,
    /// Authorities to trust instead of the public ones, as PEM.
    trust: Option<Vec<u8>>,
}

/// How the seeds lead to the store.
#[derive(Clone)]
enum Found {
    /// The only seed is the store.
    There,
    /// They are sentinels, which call it by this name.
    BySentinels(Box<str>),
    /// They are servers of a cluster.
    InCluster,
}

/// Makes connections.
pub(super) struct Connector {
    seeds: Vec<Client>,
    address: Address,
    config: AsyncConnectionConfig,
}

/// A connection. Clones share it.
#[derive(Clone)]
pub(super) enum Connection {
    Server(MultiplexedConnection),
    Cluster(Cluster),
}

impl Address {
    pub(super) fn new(url: &str) -> Result<Self, ConfigError> {
        Ok(Self::at(vec![seed(url)?], Found::There))
    }

    pub(super) fn of_sentinels<'a>(
        master: &str,
        urls: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, ConfigError> {
        let seeds: Vec<_> = urls.into_iter().map(seed).collect::<Result<_, _>>()?;
        if seeds.is_empty() {
            return Err(ConfigError::new("fleet store", "has no sentinel; name at least one"));
        }
        Ok(Self::at(seeds, Found::BySentinels(master.into())))
    }

    pub(super) fn of_cluster<'a>(
        urls: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, ConfigError> {
        let seeds: Vec<_> = urls.into_iter().map(seed).collect::<Result<_, _>>()?;
        if seeds.is_empty() {
            let text = "has no server of the cluster; name at least one";
            return Err(ConfigError::new("fleet store", text));
        }
        Ok(Self::at(seeds, Found::InCluster))
    }

    const fn at(seeds: Vec<ConnectionInfo>, found: Found) -> Self {
        Self { seeds, found, user: None, password: None, passwords: None, trust: None }
    }

    pub(super) fn set_user(&mut self, user: &str) {
        self.user = Some(user.into());
    }

    pub(super) fn set_password(&mut self, password: &str) {
        (self.password, self.passwords) = (Some(password.into()), None);
    }

    pub(super) fn set_passwords(&mut self, source: Arc<dyn PasswordSource>) {
        (self.password, self.passwords) = (None, Some(source));
    }

    pub(super) fn set_trust(&mut self, pem: &[u8]) {
        self.trust = Some(pem.to_vec());
    }

    /// `on_push` is called with the messages of each connection, on the thread that uses it.
    pub(super) fn connector(
        &self,
        on_push: impl Fn(&PushInfo) + Send + Sync + 'static,
    ) -> Result<Connector, ConfigError> {
        let seeds = self.clients()?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_pipeline_buffer_size(PIPELINED_CALLS)
            .set_push_sender(move |push| {
                on_push(&push);
                Ok::<(), redis::aio::SendError>(())
            });
        Ok(Connector { seeds, address: self.clone(), config })
    }

    /// Clients of the seeds.
    fn clients(&self) -> Result<Vec<Client>, ConfigError> {
        // A sentinel has users of its own.
        let is_store = !matches!(self.found, Found::BySentinels(_));
        self.seeds.iter().map(|seed| self.client(seed, is_store)).collect()
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
    /// A connection to the store. Seeds that only know it are asked each time, since another server may
    /// be the master by now; `attempt` number so many begins with another one, which may know better.
    pub(super) async fn connect(
        &self,
        attempt: u32,
    ) -> Result<(Connection, Option<Renewal>), RedisError> {
        let Some(source) = self.address.passwords.clone() else {
            return Ok((self.by_any(attempt).await?, None));
        };
        let credentials = Credentials { user: self.address.user.clone(), source };
        let password = credentials.password().await?;
        let address = Address { password: Some(password.clone()), ..self.address.clone() };
        let seeds = address.clients().map_err(|_| unusable())?;
        let connector = Self { seeds, address, config: self.config.clone() };
        match connector.by_any(attempt).await {
            Ok(connection) => Ok((connection, Some(credentials.renewal(password)))),
            Err(error) => {
                credentials.on_error(&password, &error);
                Err(error)
            }
        }
    }

    /// A connection to the store as the first seed that answers knows it.
    async fn by_any(&self, attempt: u32) -> Result<Connection, RedisError> {
        let mut result = Err((ErrorKind::Io, "no server answers").into());
        for index in 0..self.seeds.len() {
            result = self.by(&self.seeds[(attempt as usize + index) % self.seeds.len()]).await;
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// A connection to the store as `seed` knows it.
    async fn by(&self, seed: &Client) -> Result<Connection, RedisError> {
        let connection = self.open(seed).await?;
        match &self.address.found {
            Found::There => Ok(Connection::Server(connection)),
            Found::BySentinels(name) => {
                let master = self.master(connection, seed, name).await?;
                Ok(Connection::Server(self.open(&master).await?))
            }
            Found::InCluster => self.cluster(connection, seed).await.map(Connection::Cluster),
        }
    }

    async fn open(&self, client: &Client) -> Result<MultiplexedConnection, RedisError> {
        client.get_multiplexed_async_connection_with_config(&self.config).await
    }

    /// A client of the master that a sentinel knows.
    async fn master(
        &self,
        mut connection: MultiplexedConnection,
        sentinel: &Client,
        name: &str,
    ) -> Result<Client, RedisError> {
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let found: Value = command.query_async(&mut connection).await?;
        let (host, port) = master_address(&found)?;
        self.known_by(sentinel, host, port)
    }

    /// Connections to all primaries of a cluster.
    async fn cluster(
        &self,
        mut connection: MultiplexedConnection,
        seed: &Client,
    ) -> Result<Cluster, RedisError> {
        let answer: Value = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await?;
        let host = match seed.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host,
            _ => "",
        };
        let slots = Slots::read(&answer, host)?;
        let mut connections = Vec::with_capacity(slots.primaries.len());
        for (host, port) in &slots.primaries {
            let client = self.known_by(seed, host.clone(), *port)?;
            connections.push(self.open(&client).await?);
        }
        Ok(Cluster::new(connections, slots))
    }

    /// A client of a server of the store, of which `seed` knows the address.
    fn known_by(&self, seed: &Client, host: String, port: u16) -> Result<Client, RedisError> {
        let addr = match seed.get_connection_info().addr().clone() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure, tls_params }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        let info = self.address.seeds[0].clone().set_addr(addr);
        let client = self.address.client(&info, true);
        client.map_err(|_| unusable())
    }

    /// Why the store cannot be used, in words for its operator.
    pub(super) fn reason(&self, error: &RedisError) -> String {
        let is_moved = error.kind() == ErrorKind::Server(ServerErrorKind::Moved);
        if is_moved && !matches!(self.address.found, Found::InCluster) {
            return "it is a server of a Redis Cluster; set `cluster = true`, or use \
                    `RedisStore::of_cluster`"
                .to_owned();
        }
        error.to_string()
    }

    /// How long the first call on a connection may take.
    pub(super) const fn check_timeout(&self) -> Duration {
        CONNECT_TIMEOUT
    }
}

impl Connection {
    /// The connection to the server of `key`, and the server's number.
    pub(super) fn of(&self, key: &str) -> (usize, MultiplexedConnection) {
        match self {
            Self::Server(connection) => (0, connection.clone()),
            Self::Cluster(cluster) => cluster.of(key),
        }
    }

    /// The connections to all servers.
    pub(super) fn servers(&self) -> Vec<MultiplexedConnection> {
        match self {
            Self::Server(connection) => vec![connection.clone()],
            Self::Cluster(cluster) => cluster.servers(),
        }
    }

    /// A key of each server of a cluster, which begins with `prefix`.
    pub(super) fn keys(&self, prefix: &str) -> Vec<String> {
        match self {
            Self::Server(_) => Vec::new(),
            Self::Cluster(cluster) => cluster.keys(prefix),
        }
    }
}

/// Hosts and ports, without credentials.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.found {
            Found::There => {}
            Found::BySentinels(master) => write!(f, "{master} of ")?,
            Found::InCluster => f.write_str("cluster of ")?,
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

/// The host and the port in a sentinel's answer.
fn master_address(answer: &Value) -> Result<(String, u16), RedisError> {
    let found = Option::<(String, String)>::from_redis_value_ref(answer).map_err(|_| ODD)?;
    let Some((host, port)) = found else {
        return Err((ErrorKind::Client, "the sentinel knows no master of this name").into());
    };
    match port.parse() {
        Ok(port) if port > 0 && !host.is_empty() => Ok((host, port)),
        _ => Err(ODD.into()),
    }
}

/// A sentinel may answer anything.
const ODD: (ErrorKind, &str) = (ErrorKind::Client, "the sentinel's answer has no address");

fn unusable() -> RedisError {
    (ErrorKind::InvalidClientConfig, "the server cannot be used").into()
}

/// Longer than a TLS handshake within a region takes; a store that hangs is tried again after it.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);
/// A request has long decided alone. The answer is awaited to return what it grants.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);
const PIPELINED_CALLS: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentinel_s_answer_without_a_usable_address_is_an_error() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let answer = |host: &str, port: Value| Value::Array(vec![text(host), port]);
        let found = master_address(&answer("10.0.0.1", text("65535"))).unwrap();
        assert_eq!(found, ("10.0.0.1".to_owned(), 65_535));
        for odd in [
            answer("10.0.0.1", text("65536")),
            answer("10.0.0.1", Value::Int(65_536 + 6_379)),
            answer("10.0.0.1", text("-1")),
            answer("10.0.0.1", text("0")),
            answer("10.0.0.1", text("")),
            answer("", text("6379")),
            Value::Array(vec![text("10.0.0.1")]),
            Value::Int(6_379),
            Value::Okay,
        ] {
            assert!(master_address(&odd).is_err(), "{odd:?}");
        }
        let none = master_address(&Value::Nil).unwrap_err();
        assert!(none.to_string().contains("knows no master"), "{none}");
    }
}
