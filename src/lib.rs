//! Tower middleware that absorbs Azure OpenAI's 429s.
//!
//! Azure OpenAI refuses requests with 429 in two very different ways. A **PTU** deployment is prepaid
//! capacity, and refuses for milliseconds whenever its leaky bucket is full. A **Standard** deployment
//! is paid by the token, and refuses for seconds to a minute, per region and model. The layers of this
//! crate use the prepaid capacity first, wait for it when waiting is cheaper, spill to Standard when it
//! is not, and rotate regions. They do not call a deployment that said it is closed.
//!
//! ```
//! use std::time::Duration;
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_spillover::{
//!     Backend, BackendPool, RegionRotateLayer, ReplayLayer, Served, SmartFallbackLayer,
//! };
//! # use bytes::Bytes;
//! # use http::Request;
//! # use http_body_util::Full;
//! # use spillover_emulator::{Deployment, Emulator, Ptu, Resource, Standard};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (k1, k2, k3) = ("key-1", "key-2", "key-3");
//! # let resource = |name, key| Resource::new(name).key(key)
//! #     .deployment(Deployment::standard("gpt-4o", Standard::unlimited()));
//! # let emulator = Emulator::new([
//! #     resource("contoso-east", k1).deployment(Deployment::ptu("gpt-4o-ptu", Ptu::new(1e3))),
//! #     resource("contoso-sweden", k2),
//! #     resource("contoso-japan", k3),
//! # ]);
//! # let hyper_client = emulator.service();
//! let ptu = BackendPool::new([
//!     Backend::new("ptu-east", "https://contoso-east.openai.azure.com")?
//!         .deployment("gpt-4o-ptu")
//!         .api_key(k1),
//! ])?;
//! let standard = BackendPool::new([
//!     Backend::new("eastus", "https://contoso-east.openai.azure.com")?
//!         .deployment("gpt-4o")
//!         .api_key(k1),
//!     Backend::new("sweden", "https://contoso-sweden.openai.azure.com")?.api_key(k2).weight(2),
//!     Backend::new("japan", "https://contoso-japan.openai.azure.com")?.api_key(k3).priority(2),
//! ])?;
//!
//! let azure = ServiceBuilder::new()
//!     .layer(ReplayLayer::new(4 << 20)) // only if bodies are not in memory already
//!     .layer(
//!         SmartFallbackLayer::new(RegionRotateLayer::new(ptu), RegionRotateLayer::new(standard))
//!             .max_wait(Duration::from_secs(4)),
//!     )
//!     .service(hyper_client);
//!
//! let request = Request::post("/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21")
//!     .body(Full::<Bytes>::from(r#"{"messages":[{"role":"user","content":"Hello"}]}"#))?;
//! let response = azure.oneshot(request).await?; // the error is still hyper's
//! let served: &Served = response.extensions().get().unwrap();
//! assert_eq!(served.backend(), Some("ptu-east"));
//! assert!(!served.spilled());
//! # Ok(())
//! # }
//! ```
//!
//! # The stack
//!
//! ```text
//!   request                                                      response, with `Served`
//!      │                                                                    ▲
//! ┌────▼────────────────────────────────────────────────────────────────────┴───┐
//! │ ReplayLayer           keeps a body that is still arriving                   │
//! │ ┌─────────────────────────────────────────────────────────────────────────┐ │
//! │ │ SmartFallbackLayer  waits for the PTU at its Gate, or spills            │ │
//! │ │ ┌───────────────────────────────┐     ┌───────────────────────────────┐ │ │
//! │ │ │ RegionRotateLayer   (primary) │     │ RegionRotateLayer  (fallback) │ │ │
//! │ │ │ a pool of PTUs                │     │ a pool of Standard regions    │ │ │
//! │ │ │ ┌───────────────────────────┐ │     │ ┌───────────────────────────┐ │ │ │
//! │ │ │ │ InspectLayer, your client │ │     │ │ InspectLayer, your client │ │ │ │
//! │ │ │ └───────────────────────────┘ │     │ └───────────────────────────┘ │ │ │
//! │ │ └───────────────────────────────┘     └───────────────────────────────┘ │ │
//! │ └─────────────────────────────────────────────────────────────────────────┘ │
//! └─────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Every layer is optional, and they work in any order. `SmartFallback` around `RegionRotate` tries every
//! PTU before any Standard deployment; the reverse tries both tiers of one region before the next
//! region.
//!
//! # The rule
//!
//! A request waits for the PTU while
//!
//! ```text
//! elapsed + retry_after <= max_wait
//! ```
//!
//! and spills as soon as that does not hold; an exact fit still waits. `elapsed` counts from the
//! request's arrival, `retry_after` is the PTU's hint or, at the [`Gate`], the predicted wait in the
//! queue, and `max_wait` is a setting of the layer or of the request ([`MaxWait`]). So a request that
//! would wait too long spills immediately, not after `max_wait`.
//!
//! # Which layer when
//!
//! | for | layer |
//! |---|---|
//! | a PTU with Standard behind it | [`SmartFallbackLayer`] over two tiers, or [`SmartFallbackLayer::deployments`] for two deployments of one resource |
//! | two services that are not layers of one client | [`SmartFallback::new`], or [`SmartFallbackLayer::into_service`] with settings |
//! | several regions or resources | [`RegionRotateLayer`] over a [`BackendPool`] |
//! | one backend or pool without a fallback | [`WaitLayer`]; or [`RetryAfterPolicy`], with feature `retry`, which retries failures too |
//! | refusals visible only in the body; below all others | [`InspectLayer`] |
//! | answers that do not start in time; around the layers with the backends | [`FirstTokenLayer`] |
//! | several layers and clients that all retry; outermost | [`LimitAttemptsLayer`] |
//! | continued responses, files, threads, batches | a [`Sticky`] for the outermost of these layers |
//! | streaming request bodies (servers, proxies) | [`ReplayLayer`] around the others |
//!
//! # How they fit together
//!
//! **429 is the interface.** A layer that cannot serve a request answers with a refusal whose
//! `retry-after-ms` and `retry-after` say when to come back, which any client understands. An outer
//! layer of this crate first reads the typed [`Refusal`](classify::Refusal) in the response's
//! extensions; it reads the headers if there is none, or if a custom layer in between changed the wait.
//! It need not know the inner layers. The error type stays that of the wrapped service.
//!
//! **State lives in handles.** What one request learns, later requests use. A [`BackendPool`] knows
//! which backends are cooling down, a [`Gate`] how full the PTU is and which requests wait for it. Their
//! clones share that state, and so do the layers that hold them: make them once, not per route or per
//! connection.
//!
//! **Each layer owns its part of a request** and touches nothing else:
//!
//! | layer | reads | writes |
//! |---|---|---|
//! | [`ReplayLayer`] | body | body type |
//! | [`SmartFallbackLayer`] | response head, [`Refusal`](classify::Refusal), overrides | which tier is called; in a refusal that it returns, the wait and [`Refusal`](classify::Refusal); [`Served`] |
//! | [`RegionRotateLayer`] | response head, [`Refusal`](classify::Refusal); with [`Sticky`], the references in a request and the ids in an answer; with `cache_affinity`, the prompt's key | scheme, authority, `Host`, base path, HTTP version, credentials (headers, and keys in the query), deployment (path segment, or `model` in a v1 body), `api-version`, `x-ms-spillover-deployment`, `x-ms-oai-image-generation-deployment`; in a refusal that it returns, the wait and [`Refusal`](classify::Refusal); [`Served`] |
//! | [`WaitLayer`] | response head, [`Refusal`](classify::Refusal), overrides | [`Served`] |
//! | [`DeploymentLayer`] | | deployment |
//! | [`InspectLayer`] | response head; the body of a refusal, the start of a stream | a hidden refusal's status, headers and body; [`Refusal`](classify::Refusal) |
//! | [`RetryAfterPolicy`] | response head, [`Refusal`](classify::Refusal), overrides | nothing |
//! | [`FirstTokenLayer`] | [`Priority`], [`Deadline`], which attempts are in flight | [`AttemptBudget`], [`MaxWait`] of a second attempt, [`Served`] |
//! | [`LimitAttemptsLayer`] | `x-stainless-retry-count` | [`AttemptBudget`] |
//!
//! Extensions of a request, [`MaxWait`] and [`Deadline`], change its limits; the extension
//! [`Served`] of every response says what was done.
//!
//! # Defaults
//!
//! | setting | default | reason |
//! |---|---|---|
//! | [`SmartFallbackLayer::max_wait`] | 4 s | that of the reference script: most refusals of a PTU are shorter, and a person is still waiting |
//! | [`SmartFallbackLayer::longest_cooldown`] | 60 s | no window of the service's limits is longer |
//! | [`SmartFallbackLayer::move_on`] | 500, 502, 503, connecting, too long for the PTU | the same as Azure's own spillover |
//! | [`SmartFallbackLayer::spill_budget`] | none | the budget for Standard is a business decision |
//! | [`SmartFallbackLayer::sticky`] | none | most requests refer to nothing stored |
//! | [`Gate::mode`] | adaptive | fewer refused attempts for the same share of spilled requests |
//! | [`Gate::contention`] | yield | others on a PTU are mostly replicas that do the same |
//! | [`Gate::standing_queue_interval`] | 60 s | the longest burst to ride out |
//! | [`TokenWeights::output`] | 3 | a PTU of gpt-4o serves 2,500 prompt tokens or 833 output tokens a minute |
//! | [`TokenWeights::unstated_output`] | 256 | the size of an ordinary chat answer |
//! | [`RegionRotateLayer::max_attempts`] | no limit | each backend is tried at most once |
//! | [`RegionRotateLayer::connect_patience`] | 0 s | the next backend is tried instead |
//! | [`RegionRotateLayer::move_on`] | 500, 502, 503, connecting | nothing was executed, or it failed already |
//! | [`RegionRotateLayer::flex_as_default`] | off | the default tier costs twice as much |
//! | [`CooldownPolicy::longest`] | 60 s | no window of the service's limits is longer |
//! | [`CooldownPolicy::unknown`] | 1 s | trying again costs one refused request |
//! | [`CooldownPolicy::failed`] | 1 s | a restart takes less; doubled by each failure in a row |
//! | [`CooldownPolicy::misconfigured`] | 60 s to 1 h | a role assignment takes minutes to take effect |
//! | [`MoveOn::budget`] | 500 moves | an outage must not double the load on the rest |
//! | [`WaitLayer::max_wait`] | 4 s | the same as `SmartFallbackLayer` |
//! | [`InspectLayer::body_time`] | 1 s | a refusal is short, and comes with its head |
//! | [`InspectLayer::preamble_time`] | 30 s | after that, the service itself sends an event into a silent stream |
//! | [`InspectLayer::preamble_limit`] | 1 MiB | it repeats the request's instructions and tools, not its images |
//! | [`FirstTokenLayer::budget`] | 10 attempts | a slow service must not get double the load |
//! | [`Backend::weight`] | 1 | equal shares |
//! | [`Backend::priority`] | 1 | one group |
//! | `RetryAfterPolicy::max_retries` | 5 | with the waits below, about as long as a person waits |
//! | `RetryAfterPolicy::max_wait` | 60 s | a window of the service's limits |
//! | `RetryAfterPolicy::backoff` | 0.5 s, doubled up to 8 s | the same as OpenAI's clients |
//! | [`Fleet::timeout`] | 50 ms | a store in the same region answers within 1 ms |
//!
//! The page of each setting names its source.
//!
//! # What it does not do
//!
//! Without a [`Sticky`] it cannot tell which requests only one resource can answer: those that
//! refer to an earlier response, a file, a thread or a batch. They are forwarded like any other
//! request.
//!
//! It sends no request itself: the wrapped client does, with its own timeouts. That client must not
//! follow redirects, since a redirect to another host would carry the key along: hyper's client does
//! not, `reqwest`'s does by default, and `tower-spillover-adapters` switches that off. A permit of a
//! `ConcurrencyLimit` around these layers is held while a request waits, one of a limit below them is
//! not.
//!
//! Waiting needs a tokio runtime with its timer enabled. Layers that never wait run on any runtime.
//!
//! # Features
//!
//! - `retry`: [`RetryAfterPolicy`], which needs `tower`.
//! - `tracing`: `events::TracingSink` and `events::RequestSpanLayer`, which report to the `tracing` crate.
//! - `metrics`: `events::MetricsSink`, which counts with the `metrics` crate.
//! - `entra`: `Backend::entra`, access tokens of Microsoft Entra ID from the Azure SDK's credentials,
//!   which needs `azure_core`.
//! - `redis`: `fleet::RedisStore`, a store of a fleet in Redis or Valkey.
//!
//! The crate `tower-spillover-adapters` connects the layers to clients other than hyper's (reqwest,
//! async-openai, rig), to axum and to tonic.
//!
//! [`CooldownPolicy::failed`]: policy::CooldownPolicy::failed
//! [`CooldownPolicy::longest`]: policy::CooldownPolicy::longest
//! [`CooldownPolicy::misconfigured`]: policy::CooldownPolicy::misconfigured
//! [`CooldownPolicy::unknown`]: policy::CooldownPolicy::unknown
//! [`DeploymentLayer`]: backend::DeploymentLayer
//! [`MoveOn::budget`]: policy::MoveOn::budget
//! [`TokenWeights::output`]: gate::cost::TokenWeights::output
//! [`TokenWeights::unstated_output`]: gate::cost::TokenWeights::unstated_output
//! [`RetryAfterPolicy`]: #features

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod attempts;
#[doc(hidden)] // Public for the gateway, and not stable; users find `Usage` in `gate::cost`.
pub mod azure;
pub mod backend;
pub mod body;
pub mod classify;
#[cfg(feature = "entra")]
pub mod entra;
pub mod events;
pub mod first_token;
pub mod fleet;
pub mod gate;
pub mod inspect;
pub mod policy;
pub mod region_rotate;
pub mod replay;
#[cfg(feature = "retry")]
pub mod retry_after;
pub mod served;
pub mod smart_fallback;
pub mod sticky;
pub mod wait;

#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;

mod clock;
mod cooldown;
mod error;
mod hash;
mod overrides;
#[doc(hidden)]
pub mod random;
mod request_copy;
mod sync;
mod twin;

#[cfg(feature = "retry")]
#[doc(inline)]
pub use self::retry_after::RetryAfterPolicy;
#[doc(inline)]
pub use self::{
    attempts::{AttemptBudget, LimitAttemptsLayer},
    backend::{Backend, BackendPool, Credential},
    body::{ResponseBody, TryCloneBody},
    error::ConfigError,
    first_token::FirstTokenLayer,
    fleet::Fleet,
    gate::Gate,
    inspect::InspectLayer,
    overrides::{Deadline, MaxWait, Priority},
    region_rotate::RegionRotateLayer,
    replay::ReplayLayer,
    served::Served,
    smart_fallback::{SmartFallback, SmartFallbackLayer},
    sticky::{StickTo, Sticky},
    wait::WaitLayer,
};

/// The usual stack over a client `C`: a PTU first, Standard behind it, several backends in each. A
/// [`SmartFallbackLayer`] over two [`RegionRotateLayer`]s builds it; the alias gives it a name for fields
/// and signatures.
///
/// `X` classifies the client's errors, if [they move a request on](policy::MoveOn::errors); use a
/// `fn(&E) -> ErrorKind`, which has a nameable type.
///
/// ```
/// use hyper_util::client::legacy::{Client, connect::HttpConnector};
/// # use {bytes::Bytes, http_body_util::Full};
/// use tower_spillover::PtuFirst;
///
/// #[derive(Clone)]
/// struct App {
///     azure: PtuFirst<Client<HttpConnector, Full<Bytes>>>,
/// }
/// ```
pub type PtuFirst<C, X = policy::ReturnErrors> =
    SmartFallback<region_rotate::RegionRotate<C, X>, region_rotate::RegionRotate<C, X>, X>;

/// The README's examples, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
