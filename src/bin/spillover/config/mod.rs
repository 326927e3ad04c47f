//! What the gateway is told to do, checked: the file is parsed in `file`, and turned into this.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

/// A configuration in which nothing can be wrong any more.
#[derive(Debug)]
pub struct Config {
    pub listen: Listen,
    pub limits: Limits,
    pub upstream: Upstream,
    /// By the name that clients use: the deployment of a classic path, or `model` in a v1 body.
    pub models: BTreeMap<String, Model>,
    /// The model that serves names nobody configured, if any.
    pub default_model: Option<String>,
    pub clients: Clients,
    pub entra: Option<Entra>,
    pub telemetry: Telemetry,
}

#[derive(Clone, Debug)]
pub struct Listen {
    pub address: SocketAddr,
    pub tls: Option<Tls>,
    /// Where `/metrics`, `/-/status`, `/healthz` and `/readyz` are served besides `address`; when
    /// it is set, the first two are served nowhere else.
    pub admin: Option<SocketAddr>,
    /// How long streams may go on after a signal to stop.
    pub drain: Duration,
}

/// PEM, read and parsed when the configuration was checked.
#[derive(Clone)]
pub struct Tls {
    pub certificates: Vec<u8>,
    pub key: Secret,
}

/// What a client may ask of the gateway. Every limit has a status of its own.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request body (413 beyond).
    pub body: u64,
    /// Bytes of a request body that are kept for another attempt; a longer one gets one attempt.
    pub replay: usize,
    /// Header lines of a request (431 beyond).
    pub headers: usize,
    /// Bytes of a request head (431 beyond).
    pub head: usize,
    /// Requests at the same time (503 beyond).
    pub concurrency: usize,
    /// How long a client may take over its request head.
    pub head_timeout: Duration,
    /// How long a connection may be idle.
    pub idle_timeout: Duration,
}

/// How backends are reached.
#[derive(Clone, Debug)]
pub struct Upstream {
    pub connect_timeout: Duration,
    /// From the request until the head of the answer (504 beyond).
    pub head_timeout: Duration,
    /// Between two frames of an answer's body.
    pub idle_timeout: Duration,
    pub idle_connections: usize,
    /// More certificates to trust than the public ones, as PEM.
    pub trust: Vec<u8>,
}

/// A model: a PTU tier, a Standard tier, or both.
#[derive(Debug)]
pub struct Model {
    pub ptu: Vec<Backend>,
    pub standard: Vec<Backend>,
    pub max_wait: Duration,
    pub longest_cooldown: Duration,
    pub gate: GateSettings,
    pub spill_budget: Option<Budget>,
    /// Other names of it.
    pub aliases: Vec<String>,
    /// Whether 500, 502, 503 and 504 move on to the next backend of a tier.
    pub rotate_on_failure: bool,
    /// The classes of its requests, by name.
    pub classes: BTreeMap<String, Class>,
}

#[derive(Clone, Debug)]
pub struct Backend {
    pub name: String,
    pub endpoint: String,
    pub auth: Auth,
    pub deployment: Option<String>,
    pub api_version: Option<String>,
    pub region: Option<String>,
    /// What replaces `x-ms-oai-image-generation-deployment` of a request here.
    pub image_deployment: Option<String>,
    pub priority: u32,
    pub weight: u32,
}

#[derive(Clone, Debug)]
pub enum Auth {
    Key(Secret),
    /// By the `[entra]` section.
    Entra,
}

#[derive(Clone, Debug)]
pub struct GateSettings {
    pub mode: tower_spillover::gate::Mode,
    /// `None`: a standing queue is never cut.
    pub patience: Option<Duration>,
    /// How many input tokens one output token costs.
    pub output_weight: f64,
}

#[derive(Clone, Debug)]
pub struct Budget {
    pub requests: Option<u32>,
    pub tokens: Option<u64>,
    pub window: Duration,
    pub waits_when_spent: bool,
}

#[derive(Clone, Debug)]
pub struct Class {
    pub rank: u8,
    pub max_wait: Option<Duration>,
    pub spills: bool,
}

/// Who may use the gateway.
#[derive(Debug)]
pub enum Clients {
    /// Anybody, which the file has to say in so many words (`open = true`).
    Open,
    Keyed(Vec<Client>),
}

#[derive(Clone, Debug)]
pub struct Client {
    pub name: String,
    /// SHA-256 of each of its keys.
    pub keys: Vec<[u8; 32]>,
    /// `None`: all of them.
    pub models: Option<Vec<String>>,
    pub class: Option<String>,
    pub requests_per_second: Option<f64>,
    /// What it may ask for by header.
    pub may: Permissions,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    pub max_wait: bool,
    pub class: bool,
    pub no_spill: bool,
    pub trace: bool,
}

/// How tokens for `auth = "entra"` are got.
#[derive(Clone, Debug)]
pub struct Entra {
    pub kind: EntraKind,
    pub scope: String,
    /// Instead of the public authority, for tests and national clouds.
    pub authority: Option<String>,
}

#[derive(Clone, Debug)]
pub enum EntraKind {
    Workload,
    Managed { client_id: Option<String> },
    ClientSecret { tenant: String, client_id: String, secret: Secret },
}

#[derive(Clone, Debug)]
pub struct Telemetry {
    /// A filter as `RUST_LOG` takes it.
    pub log: String,
    pub json: bool,
    /// The endpoint of an OTLP collector (HTTP, protobuf).
    pub otlp: Option<String>,
    pub service_name: String,
}

/// Something that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(secret: String) -> Self {
        Self(secret)
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// `spillover check`.
pub fn check(_file: &Path) -> ExitCode {
    ExitCode::FAILURE
}

/// What is wrong with a configuration.
#[derive(Debug)]
pub struct Problems(String);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads and checks a configuration.
pub fn load(_file: &Path) -> Result<Config, Problems> {
    Err(Problems("configuration files cannot be read yet".to_owned()))
}

/// Gives `apply` the configuration whenever it has become another.
pub async fn watch(path: PathBuf, mut apply: impl FnMut(Result<Config, Problems>) + Send) {
    apply(load(&path));
    std::future::pending().await
}
