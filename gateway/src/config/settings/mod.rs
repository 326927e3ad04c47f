//! The settings of the gateway, for all other modules.

mod cors;
mod identity;
mod policy;

use std::{collections::BTreeMap, fmt, net::SocketAddr, time::Duration};

use http::{HeaderName, Method};
use tower_spillover::{classify::Provider, first_token::Limit};

use super::Problem;
use crate::dial::{OwnProxy, Place};

pub use self::{
    cors::{Cors, Origins},
    identity::{CertificateName, Identities, Issuer, Tokens},
    policy::{
        Failure, Failures, FirstToken, Inspection, MoveBudget, Steering, Stickiness, StickySettings,
    },
};

/// A validated configuration.
#[derive(Debug)]
pub struct Config {
    pub listen: Listen,
    pub limits: Limits,
    pub upstream: Upstream,
    /// Operations that are forwarded in addition to the API's.
    pub operations: Vec<AllowedOperation>,
    pub sticky: StickySettings,
    /// By the name that clients use: the deployment of a classic path, or `model` in a v1 body.
    pub models: BTreeMap<String, Model>,
    /// The model that serves unknown names, if any.
    pub default_model: Option<String>,
    pub clients: Clients,
    /// The tokens that clients may send instead of a key.
    pub tokens: Option<Tokens>,
    pub entra: Option<Entra>,
    /// What replicas share, if they do.
    pub fleet: Option<FleetSettings>,
    pub telemetry: TelemetrySettings,
    /// Settings without effect, in file order.
    pub idle: Vec<Problem>,
}

#[derive(Clone, Debug)]
pub struct Listen {
    /// Defaults to `127.0.0.1:8080`: access from other machines has to be configured.
    pub address: SocketAddr,
    /// Plain HTTP if omitted.
    pub tls: Option<Tls>,
    /// Where `/metrics`, `/-/status` and `/-/requests` are served without a key, and `/healthz` and
    /// `/readyz` too. At `address` the first three require a client that may `operate`.
    pub admin: Option<SocketAddr>,
    /// How long streams may go on after a signal to stop. Defaults to 30 s, Kubernetes' grace
    /// period.
    pub drain: Duration,
    /// `None`: browsers do not let pages of other origins read answers.
    pub cors: Option<Cors>,
}

/// PEM, read and parsed during validation.
#[derive(Clone)]
pub struct Tls {
    pub certificates: Vec<u8>,
    pub key: Secret,
    pub client: Option<ClientTls>,
}

/// Which certificates clients may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// The authorities that issue them, as PEM.
    pub authorities: Vec<u8>,
    /// Revocation lists, as PEM. If there are any, each authority needs one.
    pub revoked: Option<Vec<u8>>,
    /// Whether the handshake refuses clients without one. Defaults to no.
    pub is_required: bool,
}

/// The limits on clients. Each has its own status code.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Maximum bytes of a request body (else 413). Defaults to 32 MiB: audio for transcription may
    /// have 25 MB.
    pub body: u64,
    /// Maximum bytes of a request body that is kept for another attempt. A longer body gets one
    /// attempt, unless it has to be read completely to find its model. Defaults to 4 MiB: a
    /// conversation with pictures.
    pub replay: usize,
    /// Maximum bytes of all kept request bodies. A request that exceeds it gets one attempt, and is
    /// refused (503) if its first 64 KiB do not name its model. Defaults to 128 MiB, a quarter of
    /// the Kubernetes manifest's limit: 10,000 streams take up to 300 MiB.
    pub replay_total: usize,
    /// Maximum header lines of a request (else 431). Defaults to 100, as in hyper.
    pub headers: usize,
    /// Maximum bytes of a request head (else 431). Defaults to 64 KiB: room for Entra ID tokens
    /// with many groups.
    pub head: usize,
    /// Maximum concurrent requests (else 503). Defaults to 20,000: twice the 10,000 streams that it
    /// is built for.
    pub concurrency: usize,
    /// The share of these that one client may use while no other client uses any (else 503); if no
    /// key is required, one address. Two clients that take as many as they can get have less each,
    /// so that there is always room for another. A client that is alone in the configuration may
    /// use all. Defaults to 0.5: 10,000 streams.
    pub client_share: f64,
    /// How long a client may take to send a request's head. Defaults to 30 s, as in hyper.
    pub head_timeout: Duration,
    /// How long a connection may be idle, and a request may wait for its client, to send more of
    /// its body or to accept its answer. In total, a request waits for its client four times as
    /// long, beyond the time that the bytes take at 1 KiB/s. Defaults to 5 min, longer than the 4
    /// min of Azure's load balancer, so that the client's side closes first.
    pub idle_timeout: Duration,
}

/// When to use HTTP/2 for backends; one connection carries a hundred streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Http2 {
    /// If negotiated in TLS; the default. Azure offers it.
    #[default]
    Auto,
    /// Without negotiation, on plain connections too (h2c with prior knowledge, RFC 9113 section
    /// 3.3).
    Always,
    Never,
}

/// How backends are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Limits everything until a request can be sent: name resolution, the connection, and TLS. A
    /// backend that takes longer counts as unreachable. Defaults to 5 s: a handshake across an
    /// ocean takes under 1 s, and a lost SYN is sent again after 1 s and 3 s.
    pub connect_timeout: Duration,
    /// From the end of the request until the head of the answer (else 504), not counting the time
    /// that the client takes to send the request.
    pub head_timeout: HeadTimeout,
    /// Between two frames of an answer's body. Defaults to 2 min.
    pub idle_timeout: Duration,
    /// How long an unused connection is kept. Defaults to 90 s: Azure's front ends close theirs
    /// after four minutes, and a request on a closed connection costs its second attempt.
    pub idle_connection_timeout: Duration,
    /// Idle connections per backend. Defaults to 256.
    pub idle_connections: usize,
    pub http2: Http2,
    /// How long a client's connections accept new requests. Defaults to 10 min: host names resolve
    /// to other addresses after a failover, which a busy connection would never notice.
    pub connection_age: Duration,
    /// Certificates to trust in addition to the public ones, as PEM.
    pub trust: Vec<u8>,
    /// Proxies by server, if its backends set one, instead of the environment's.
    pub proxies: BTreeMap<Place, OwnProxy>,
    /// Request headers to forward in addition to those of Azure's and OpenAI's clients.
    pub headers: Vec<HeaderName>,
}

/// An operation that the gateway does not know, but forwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedOperation {
    pub method: Method,
    /// A complete path, in which a segment in braces matches any segment.
    pub path: String,
}

/// How long the head of an answer may take. A configured time applies to both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadTimeout {
    /// For a stream. Defaults to 2 min: the service sends the head, with its prompt filter results,
    /// before the model begins, and users do not wait longer for an empty window.
    pub stream: Duration,
    /// For a complete answer, whose head follows its last token. Defaults to 10 min, the timeout of
    /// OpenAI's own clients: 32,768 tokens take that long, and a reasoning model is silent for
    /// minutes.
    pub whole: Duration,
}

impl Default for HeadTimeout {
    fn default() -> Self {
        Self { stream: Duration::from_secs(120), whole: Duration::from_secs(600) }
    }
}

impl From<Duration> for HeadTimeout {
    fn from(longest: Duration) -> Self {
        Self { stream: longest, whole: longest }
    }
}

/// A model: a PTU tier, a Standard tier, or both.
#[derive(Debug)]
pub struct Model {
    pub ptu: Vec<Backend>,
    pub standard: Vec<Backend>,
    /// The longest wait for the PTU. Defaults to 4 s, as in the reference script.
    pub max_wait: Duration,
    /// The longest cooldown, whatever a backend asks for. Defaults to 60 s: no window of Azure is
    /// longer.
    pub longest_cooldown: Duration,
    /// Overrides `upstream`'s.
    pub head_timeout: Option<HeadTimeout>,
    pub gate: GateSettings,
    pub spill_budget: Option<Budget>,
    /// Its other names.
    pub aliases: Vec<String>,
    pub steering: Steering,
    /// The classes of its requests, by name.
    pub classes: BTreeMap<String, Class>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Unique in its model, over both tiers.
    pub name: String,
    /// In the form of `tower_spillover::Backend::new`. `http://` only to this machine, or with
    /// `allow_http = true`.
    pub endpoint: String,
    /// The provider of its API. Defaults to Azure.
    pub provider: Option<Provider>,
    pub auth: Auth,
    /// Defaults to the client's name for the model. With other providers, a model's name.
    pub deployment: Option<String>,
    /// For classic paths. Defaults to the client's.
    pub api_version: Option<String>,
    pub region: Option<String>,
    /// The quota that it shares with other backends of its tier: those with the same name cool down
    /// together.
    pub quota: Option<String>,
    /// Replaces a request's `x-ms-oai-image-generation-deployment`.
    pub image_deployment: Option<String>,
    /// 1, the default, is tried first, as in API Management.
    pub priority: u32,
    /// The share among backends of one priority, at least 1, which is the default.
    pub weight: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    Key(Secret),
    /// A token, as configured in `[entra]`.
    Entra,
    /// No credential: the network authenticates.
    None,
}

#[derive(Clone, Debug, PartialEq)]
pub struct GateSettings {
    /// Defaults to `adaptive`.
    pub mode: tower_spillover::gate::Mode,
    /// Defaults to `yield`, the gate's own default.
    pub contention: tower_spillover::gate::Contention,
    /// `None`: a standing queue is never cut. Defaults to 60 s, the gate's own default.
    pub patience: Option<Duration>,
    /// The weight of an output token relative to an input token. Defaults to 3, that of gpt-4o.
    pub output_weight: f64,
    /// The output tokens that the service assumes for a request without `max_tokens`. Defaults to
    /// 256, the library's own default.
    pub unstated_output: f64,
}

impl Default for GateSettings {
    fn default() -> Self {
        Self {
            mode: tower_spillover::gate::Mode::default(),
            contention: tower_spillover::gate::Contention::default(),
            patience: Some(Duration::from_secs(60)),
            output_weight: 3.0,
            unstated_output: 256.0,
        }
    }
}

/// The limit on spilling: exactly one of `requests` and `tokens` is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    pub requests: Option<u32>,
    pub tokens: Option<u64>,
    /// Defaults to 1 min, the window of Azure's own quota.
    pub window: Duration,
    /// Defaults to no: the client gets the refusal with its hint.
    pub waits_when_spent: bool,
}

#[derive(Clone, Debug)]
pub struct Class {
    /// Lower ranks go first. Defaults to 0.
    pub rank: u8,
    /// Overrides the model's.
    pub max_wait: Option<Duration>,
    /// Defaults to yes.
    pub spills: bool,
    /// Overrides the model's; `Some(None)`: no limit.
    pub first_token: Option<Option<Limit>>,
}

/// Who may use the gateway.
#[derive(Debug)]
pub enum Clients {
    /// No key is required, which the file has to state explicitly (`open = true`).
    Open,
    Keyed(Vec<Client>),
}

#[derive(Clone, Debug)]
pub struct Client {
    /// For logs and metrics.
    pub name: String,
    /// SHA-256 of each of its keys.
    pub keys: Vec<[u8; 32]>,
    pub identities: Identities,
    /// By configured name, aliases resolved. `None`: all of them.
    pub models: Option<Vec<String>>,
    /// Clients of one group share stored objects. `None`: it shares them with no other client.
    pub group: Option<String>,
    /// The class of its requests, which is configured. `None`: no class.
    pub class: Option<String>,
    /// `None`: unlimited.
    pub requests_per_second: Option<f64>,
    /// Maximum concurrent requests. `None`: the share in `limits`.
    pub concurrency: Option<usize>,
    /// The options it may set by header, and whether it may see the operators' pages.
    pub may: Permissions,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    pub max_wait: bool,
    pub class: bool,
    pub no_spill: bool,
    pub trace: bool,
    pub backend: bool,
    /// Whether it may see `/metrics`, `/-/status` and `/-/requests`.
    pub operate: bool,
}

impl Client {
    /// The owner's name of the objects that it stores.
    pub fn owner(&self) -> &str {
        self.group.as_deref().unwrap_or(&self.name)
    }
}

/// The state that replicas share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetSettings {
    /// Replicas with the same name and store share their state.
    pub name: String,
    /// The URL of a Redis or Valkey server, or those of its sentinels or of servers of a cluster, without
    /// credentials.
    pub store: Vec<String>,
    /// The sentinels' name for the server.
    pub sentinel: Option<String>,
    /// Whether the servers are of a Redis Cluster.
    pub cluster: bool,
    pub user: Option<String>,
    pub password: Option<Secret>,
    /// Tokens of this identity are the passwords.
    pub entra: Option<Entra>,
    /// Certificates to trust instead of the public ones, as PEM.
    pub trust: Option<Vec<u8>>,
    /// How long a request may wait for the store. Defaults to 50 ms, the library's default.
    pub timeout: Duration,
    pub share: Share,
    /// Ids are hashed under it.
    pub secret: Option<Secret>,
    /// How long the store keeps an unused id. Defaults to 7 days.
    pub sticky_age: Duration,
}

/// What replicas share. Defaults to everything, ids only if there is a secret to hash them under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Gates of PTUs in the adaptive mode: one queue and one model.
    pub gates: bool,
    pub budgets: bool,
    /// Cooldowns of Standard backends; those of PTUs are the gate's.
    pub cooldowns: bool,
    pub rates: bool,
    /// Which resource holds which object.
    pub sticky: bool,
}

impl Default for Share {
    fn default() -> Self {
        Self { gates: true, budgets: true, cooldowns: true, rates: true, sticky: false }
    }
}

/// How to get tokens for `auth = "entra"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entra {
    pub kind: EntraKind,
    /// Defaults to `https://cognitiveservices.azure.com/.default`, which every Azure OpenAI
    /// resource accepts.
    pub scope: String,
    /// Overrides the public authority, for tests and national clouds.
    pub authority: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntraKind {
    Workload,
    Managed { client_id: Option<String> },
    ClientSecret { tenant: String, client_id: String, secret: Secret },
}

#[derive(Clone, Debug)]
pub struct TelemetrySettings {
    /// A filter in the syntax of `RUST_LOG`. Defaults to `info`.
    pub log: String,
    /// Defaults to yes, because logs are mostly read by collectors. Otherwise lines are logfmt.
    pub json: bool,
    /// The endpoint of an OTLP collector (HTTP, protobuf).
    pub otlp: Option<String>,
    /// Defaults to `spillover`.
    pub service_name: String,
    /// How many of the last requests `/-/requests` shows; 0 for none. Defaults to 1,000: a quarter
    /// of a minute at full load, hours of a small team, and half a megabyte.
    pub recent_requests: usize,
}

/// A value that is never printed.
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
