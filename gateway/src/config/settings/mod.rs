//! The settings of the gateway, as everything else reads them.

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

/// A configuration in which nothing can be wrong any more.
#[derive(Debug)]
pub struct Config {
    pub listen: Listen,
    pub limits: Limits,
    pub upstream: Upstream,
    /// What passes besides the operations of the API.
    pub operations: Vec<AllowedOperation>,
    pub sticky: StickySettings,
    /// By the name that clients use: the deployment of a classic path, or `model` in a v1 body.
    pub models: BTreeMap<String, Model>,
    /// The model that serves names that are not configured, if any.
    pub default_model: Option<String>,
    pub clients: Clients,
    /// The tokens that clients may show instead of a key.
    pub tokens: Option<Tokens>,
    pub entra: Option<Entra>,
    pub telemetry: TelemetrySettings,
    /// What was set and does nothing, in the order of the file.
    pub idle: Vec<Problem>,
}

#[derive(Clone, Debug)]
pub struct Listen {
    /// Defaults to `127.0.0.1:8080`: who wants to be reached from elsewhere says so.
    pub address: SocketAddr,
    /// Plain HTTP without.
    pub tls: Option<Tls>,
    /// Where `/metrics`, `/-/status` and `/-/requests` are served, without a key, and `/healthz` and
    /// `/readyz` too. At `address` the first three are for clients that may `operate`.
    pub admin: Option<SocketAddr>,
    /// How long streams may go on after a signal to stop. Defaults to 30 s, which is what Kubernetes
    /// gives a pod.
    pub drain: Duration,
    /// `None`: browsers keep the pages of other origins from reading any answer.
    pub cors: Option<Cors>,
}

/// PEM, read and parsed when the configuration was checked.
#[derive(Clone)]
pub struct Tls {
    pub certificates: Vec<u8>,
    pub key: Secret,
    pub client: Option<ClientTls>,
}

/// Which certificates clients may show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// The authorities that issue them, as PEM.
    pub authorities: Vec<u8>,
    /// Lists of revoked ones, as PEM. With any, each authority needs one.
    pub revoked: Option<Vec<u8>>,
    /// Whether a client without one is turned away in the handshake. Defaults to no.
    pub is_required: bool,
}

/// What a client may ask of the gateway. Every limit has a status of its own.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request body (413 beyond). Defaults to 32 MiB: audio for transcription may have 25 MB.
    pub body: u64,
    /// Bytes of a request body that are kept for another attempt. A longer one gets one attempt,
    /// except where it is read whole to find its model. Defaults to 4 MiB: a conversation with pictures.
    pub replay: usize,
    /// Bytes of request bodies that are kept at the same time. A request for which there is no room
    /// gets one attempt, and is refused (503) when its first 64 KiB do not name its model. Defaults
    /// to 128 MiB, a quarter of what the Kubernetes manifest allows: 10,000 streams take up to 300 MiB.
    pub replay_total: usize,
    /// Header lines of a request (431 beyond). Defaults to 100, as hyper does.
    pub headers: usize,
    /// Bytes of a request head (431 beyond). Defaults to 64 KiB: room for Entra ID tokens with many
    /// groups.
    pub head: usize,
    /// Requests at the same time (503 beyond). Defaults to 20,000: twice the 10,000 streams that it
    /// is built for.
    pub concurrency: usize,
    /// Of these, what one client may take while nobody else takes any (503 beyond); where no key is
    /// required, what one address may take. Two that take what they can get have less each, so that there
    /// is always room for another. A client that is alone in the configuration may take all. Defaults to
    /// 0.5: 10,000 streams.
    pub client_share: f64,
    /// How long a client may take over its request head. Defaults to 30 s, as hyper does.
    pub head_timeout: Duration,
    /// How long a connection may be idle, and a request may wait for its client: to send more of its
    /// body, or to take its answer. In all, a request waits for its client four times as long, beyond
    /// what 1 KiB a second takes. Defaults to 5 min, longer than the 4 min of Azure's load balancer, so
    /// that the client's side closes first.
    pub idle_timeout: Duration,
}

/// When backends are spoken to in HTTP/2, whose connections carry a hundred streams each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Http2 {
    /// Where TLS agrees on it; the default. Azure offers it.
    #[default]
    Auto,
    /// Without asking, on plain connections too (h2c with prior knowledge, RFC 9113 section 3.3).
    Always,
    Never,
}

/// How backends are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// For everything until a request can be sent: the name, the connection, and TLS. A backend that
    /// takes longer counts as one that cannot be reached. Defaults to 5 s: a handshake across an ocean takes under 1 s, and a lost SYN is sent again
    /// after 1 s and 3 s.
    pub connect_timeout: Duration,
    /// From the end of the request until the head of the answer (504 beyond), what a client takes to
    /// send it not counted.
    pub head_timeout: HeadTimeout,
    /// Between two frames of an answer's body. Defaults to 2 min.
    pub idle_timeout: Duration,
    /// How long an unused connection is kept. Defaults to 90 s: Azure's front ends close theirs
    /// after four minutes, and one that is closed when it is used again costs a request its second attempt.
    pub idle_connection_timeout: Duration,
    /// Kept open to each backend. Defaults to 256.
    pub idle_connections: usize,
    pub http2: Http2,
    /// How long new requests go to the connections of a client. Defaults to 10 min: names lead elsewhere
    /// after a failover, and a busy connection has no reason of its own to notice.
    pub connection_age: Duration,
    /// More certificates to trust than the public ones, as PEM.
    pub trust: Vec<u8>,
    /// Of servers for which backends say so, instead of the environment's.
    pub proxies: BTreeMap<Place, OwnProxy>,
    /// Those of a request that go upstream besides what Azure's and OpenAI's clients send.
    pub headers: Vec<HeaderName>,
}

/// An operation that the gateway does not know, and lets pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedOperation {
    pub method: Method,
    /// A whole path, in which a segment in braces stands for any one.
    pub path: String,
}

/// How long the head of an answer may take. A configured time is for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadTimeout {
    /// Of a stream. Defaults to 2 min: the service sends the head, and what it found in the prompt,
    /// before the model begins, and nobody looks at an empty window for longer.
    pub stream: Duration,
    /// Of an answer that comes whole, with its head after its last token. Defaults to 10 min, the
    /// timeout of OpenAI's own clients: 32,768 tokens take so long, and a reasoning model is silent for
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
    /// The longest that a backend is left alone, whatever it says. Defaults to 60 s: no window of
    /// Azure is longer.
    pub longest_cooldown: Duration,
    /// Instead of that of `upstream`.
    pub head_timeout: Option<HeadTimeout>,
    pub gate: GateSettings,
    pub spill_budget: Option<Budget>,
    /// Other names of it.
    pub aliases: Vec<String>,
    pub steering: Steering,
    /// The classes of its requests, by name.
    pub classes: BTreeMap<String, Class>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Unique in its model, over both tiers.
    pub name: String,
    /// As `tower_spillover::Backend::new` takes it. `http://` only to this machine, or where the file
    /// says `allow_http = true`.
    pub endpoint: String,
    /// Whose API it is; Azure's without.
    pub provider: Option<Provider>,
    pub auth: Auth,
    /// The client's name for the model without. At other providers the name of a model.
    pub deployment: Option<String>,
    /// Of classic paths. The client's without.
    pub api_version: Option<String>,
    pub region: Option<String>,
    /// What it shares with other backends of its tier: those with one name rest together.
    pub quota: Option<String>,
    /// What replaces `x-ms-oai-image-generation-deployment` of a request here.
    pub image_deployment: Option<String>,
    /// From 1, which is asked first and the default, as in API Management.
    pub priority: u32,
    /// The share among backends of one priority, from 1, the default.
    pub weight: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    Key(Secret),
    /// By the `[entra]` section.
    Entra,
    /// The network lets in who may come.
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
    /// How many input tokens one output token costs. Defaults to 3, that of gpt-4o.
    pub output_weight: f64,
    /// How many tokens the service takes a request to generate that states no `max_tokens`. Defaults to
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

/// What may be spilled: exactly one of `requests` and `tokens` is set.
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
    /// Lower ones go first. Defaults to 0.
    pub rank: u8,
    /// Instead of the model's.
    pub max_wait: Option<Duration>,
    /// Defaults to yes.
    pub spills: bool,
    /// Instead of the model's; `Some(None)` for none.
    pub first_token: Option<Option<Limit>>,
}

/// Who may use the gateway.
#[derive(Debug)]
pub enum Clients {
    /// No key is required, which the file has to say in so many words (`open = true`).
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
    /// Those of one group share what they store. `None`: it has that for itself.
    pub group: Option<String>,
    /// The class of its requests, which exists. `None`: none.
    pub class: Option<String>,
    /// `None`: as many as come.
    pub requests_per_second: Option<f64>,
    /// Requests at the same time. `None`: the share of `limits`.
    pub concurrency: Option<usize>,
    /// What it may ask for by header, and whether it may see what is for operators.
    pub may: Permissions,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    pub max_wait: bool,
    pub class: bool,
    pub no_spill: bool,
    pub trace: bool,
    pub backend: bool,
    /// Whether it is shown `/metrics`, `/-/status` and `/-/requests`.
    pub operate: bool,
}

impl Client {
    /// By what name the things that it stores are known.
    pub fn owner(&self) -> &str {
        self.group.as_deref().unwrap_or(&self.name)
    }
}

/// How tokens for `auth = "entra"` are got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entra {
    pub kind: EntraKind,
    /// Defaults to `https://cognitiveservices.azure.com/.default`, which every Azure OpenAI resource
    /// takes.
    pub scope: String,
    /// Instead of the public authority, for tests and national clouds.
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
    /// A filter as `RUST_LOG` takes it. Defaults to `info`.
    pub log: String,
    /// Defaults to yes: logs are read by collectors first. Otherwise lines are logfmt.
    pub json: bool,
    /// The endpoint of an OTLP collector (HTTP, protobuf).
    pub otlp: Option<String>,
    /// Defaults to `spillover`.
    pub service_name: String,
    /// How many of the last requests `/-/requests` shows; none with 0. Defaults to 1,000: a quarter of a
    /// minute at full load, hours of a small team, and half a megabyte.
    pub recent_requests: usize,
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
