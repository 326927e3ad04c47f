//! An emulated Azure OpenAI, as a tower service and over a socket.
//!
//! It refuses like the service: a provisioned (PTU) deployment is a leaky bucket whose 429 states
//! to the millisecond when it reopens, a Standard deployment counts tokens per minute and requests
//! per ten seconds. Answers are made-up words; quota, headers, error bodies, both URL grammars,
//! keys and event streams follow the documentation or captures from the service.
//!
//! Use it to test anything between a program and Azure OpenAI. There are two ways in, which share
//! all state:
//!
//! - [`Emulator::service`] is a tower service without sockets, exact under tokio's paused clock;
//! - [`Emulator::serve`] serves one resource on a listener, over HTTP/1.1 and HTTP/2.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, StatusCode};
//! use http_body_util::{BodyExt, Full};
//! use tower::ServiceExt;
//! use spillover_emulator::{Deployment, Emulator, Ptu, Resource, Standard};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let emulator = Emulator::new([Resource::new("contoso-east")
//!     .region("East US")
//!     .key("key-east")
//!     .deployment(Deployment::ptu("gpt-4o-ptu", Ptu::new(1_000.0).bucket_seconds(3.0)))
//!     .deployment(Deployment::standard("gpt-4o", Standard::tokens_per_minute(60_000)))]);
//!
//! // 7,000 tokens enter while the bucket of 3,000 is still empty; the next request is refused.
//! let ask = |deployment: &str| {
//!     Request::post(format!(
//!         "https://contoso-east.openai.azure.com/openai/deployments/{deployment}/chat/completions\
//!          ?api-version=2024-02-01"
//!     ))
//!     .header("api-key", "key-east")
//!     .header("x-emulator-prompt-tokens", "7000")
//!     .header("x-emulator-completion-tokens", "0")
//!     .body(Full::<Bytes>::from(r#"{"messages": [{"role": "user", "content": "Count to 7000"}]}"#))
//! };
//! let first = emulator.service().oneshot(ask("gpt-4o-ptu")?).await?;
//! assert_eq!(first.status(), StatusCode::OK);
//! assert_eq!(first.headers()["x-ms-region"], "East US");
//!
//! let second = emulator.service().oneshot(ask("gpt-4o-ptu")?).await?;
//! assert_eq!(second.status(), StatusCode::TOO_MANY_REQUESTS);
//! let wait: u64 = second.headers()["retry-after-ms"].to_str()?.parse()?;
//! assert!((3_500..=4_001).contains(&wait), "(7000 - 3000) / 1000 tokens a second: {wait}");
//!
//! let third = emulator.service().oneshot(ask("gpt-4o")?).await?;
//! assert_eq!(third.status(), StatusCode::OK);
//! let body = third.into_body().collect().await?.to_bytes();
//! assert_eq!(serde_json::from_slice::<serde_json::Value>(&body)?["usage"]["prompt_tokens"], 7_000);
//!
//! let counts = emulator.stats().of("contoso-east", "gpt-4o-ptu");
//! assert_eq!((counts.attempts, counts.ok, counts.throttled), (2, 1, 1));
//! # Ok(())
//! # }
//! ```
//!
//! # The cost of a request
//!
//! The prompt has one token per four bytes of text, and the completion length is drawn between 1
//! and `max_tokens` ([16](Deployment::default_max_tokens) if omitted) from a generator with a
//! [seed](Emulator::seed). To replay a trace, a request specifies exact counts: in the headers
//! `x-emulator-prompt-tokens`, `x-emulator-completion-tokens` and `x-emulator-cached-tokens`, or as
//! `emulator_prompt_tokens` and so on in the body's `metadata`, as strings or numbers. A stated
//! `max_tokens` still caps the completion.
//!
//! A resource with a [prompt cache](Resource::prompt_cache) determines the cached part of each
//! prompt. Cached tokens are free on a PTU.
//!
//! # Faults
//!
//! | affected | how |
//! |---|---|
//! | the next requests of a deployment | [`Emulator::script`], one [`Fault`] each |
//! | a share of its requests | [`Deployment::fails`] |
//! | one kind of request, everywhere | [`Emulator::poison`] |
//! | connections | [`Resource::outage`]: restarts and refused connections |
//! | large requests | [`Standard::refuses_by_size`], [`Ptu::refuses_above`] |
//! | one service tier | [`Deployment::flex`], [`Deployment::priority`] |
//! | images, sounds and videos | [`Deployment::media_per_minute`] |
//! | stored objects | [`Resource::creations_per_minute`], [`Resource::reads_per_minute`] |
//!
//! A fault is a status, a [`Refusal`] with the service's text, a reset, a cut or a silence. Draws
//! follow the [seed](Emulator::seed).
//!
//! # Stored objects
//!
//! Files, uploads, batches, vector stores, containers, skills, evals, conversations, threads,
//! assistants, prompts, fine-tuning jobs, realtime sessions, videos and responses can be created,
//! listed, read, cancelled and deleted. Their ids are unknown to every other resource, in paths and
//! in bodies.
//!
//! # Realtime
//!
//! Over a socket, `/openai/realtime?deployment=` and `/openai/v1/realtime?model=` open a WebSocket,
//! to which the limits for media apply. A session answers `session.update`,
//! `conversation.item.create` and `response.create` with a few text events.
//!
//! # Limitations
//!
//! No tools; files, images and sounds have no content; one choice, whatever `n` is; every
//! `api-version` is accepted. The depth of a real PTU's bucket, and the text of its 429, are not
//! public.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::net::TcpListener;

pub use crate::{
    body::{EmulatorBody, EmulatorError},
    deployment::Deployment,
    fault::Fault,
    outage::Outage,
    pace::Pace,
    ptu::Ptu,
    refusal::Refusal,
    resource::Resource,
    serve::Serving,
    service::{EmulatorService, ResponseFuture},
    standard::Standard,
    stats::{Counts, Received, Stats},
};
use crate::{registry::Registry, site::Site};

mod answer;
mod ask;
mod body;
mod call;
mod clock;
mod deployment;
mod fault;
mod handler;
mod in_flight;
mod outage;
mod pace;
mod prompt_cache;
mod ptu;
mod realtime;
mod refusal;
mod registry;
mod request_body;
mod resource;
mod routes;
mod serve;
mod service;
mod site;
mod standard;
mod state;
mod stats;
mod tier;

/// Hidden: the simulator and the gateway's `load` replay traces against the emulator, and read the
/// same files.
#[doc(hidden)]
pub mod timestamp;

#[cfg(test)]
mod tests;

/// A handle to emulated resources; clones share them.
///
/// Its clock starts when it is created, so with tokio's paused clock, create it inside the runtime.
#[derive(Clone, Debug)]
pub struct Emulator {
    registry: Arc<Registry>,
}

impl Emulator {
    /// Emulates these resources, with all quota unused.
    ///
    /// # Panics
    ///
    /// If two resources, or two deployments of one resource, have the same name.
    pub fn new(resources: impl IntoIterator<Item = Resource>) -> Self {
        Self { registry: Arc::new(Registry::new(resources.into_iter().collect())) }
    }

    /// Seeds the draws of completion lengths and of request ids. Defaults to 0.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        self.registry.reseed(seed);
        self
    }

    /// Records requests for [`Emulator::received`] from now on (the last 65,536). Off by default,
    /// because it keeps whole bodies.
    #[must_use]
    pub fn record(self) -> Self {
        self.registry.recording.store(true, Relaxed);
        self
    }

    /// Applies `fault` to every request that has `marker` in its body or in a header value, on
    /// every deployment, to simulate requests that fail everywhere because of their content.
    /// Scripted and drawn faults are left for later requests. May be called for several markers.
    #[must_use]
    pub fn poison(self, marker: impl Into<String>, fault: Fault) -> Self {
        self.registry.add_poison(marker.into(), fault);
        self
    }

    /// All resources as one service.
    pub fn service(&self) -> EmulatorService {
        EmulatorService::new(Arc::clone(&self.registry))
    }

    /// Serves one resource on `listener`, whatever the `Host` header, until the returned handle is
    /// dropped.
    ///
    /// # Panics
    ///
    /// If there is no such resource, or outside a tokio runtime.
    pub fn serve(&self, resource: &str, listener: TcpListener) -> Serving {
        let place = self.registry.place_at(resource);
        let place = place.unwrap_or_else(|| panic!("no resource is called {resource}"));
        let service = EmulatorService::listening(Arc::clone(&self.registry), place);
        Serving::start(service, listener)
    }

    /// The counters so far.
    pub fn stats(&self) -> Stats {
        self.registry.stats()
    }

    /// The requests recorded so far, in order of arrival.
    pub fn received(&self) -> Vec<Received> {
        self.registry.received()
    }

    /// The current level of a PTU deployment in tokens; 0 for a Standard deployment.
    ///
    /// # Panics
    ///
    /// If there is no such deployment.
    pub fn level(&self, resource: &str, deployment: &str) -> f64 {
        let site = self.site(resource, deployment);
        site.level(self.registry.clock).unwrap_or(0.0)
    }

    /// Changes the capacity of a PTU deployment from now on, as if units were bought or returned.
    /// The level in tokens stays; a Standard deployment keeps its quota.
    ///
    /// # Panics
    ///
    /// If there is no such deployment.
    pub fn resize(&self, resource: &str, deployment: &str, ptu: Ptu) {
        self.site(resource, deployment).resize(self.registry.clock, ptu);
    }

    /// How long a PTU deployment will refuse, assuming no further admissions or completions; zero
    /// for a Standard deployment.
    ///
    /// Hidden: only the simulator uses it to judge a run; a client of Azure cannot know it.
    #[doc(hidden)]
    pub fn closed_for(&self, resource: &str, deployment: &str) -> Duration {
        self.site(resource, deployment).closed_for(self.registry.clock)
    }

    /// Schedules faults for a deployment's next requests: each request takes one, in this order,
    /// after those scheduled before.
    ///
    /// # Panics
    /// If there is no such deployment.
    /// When there is no such deployment.
    pub fn script(
        &self,
        resource: &str,
        deployment: &str,
        faults: impl IntoIterator<Item = Fault>,
    ) {
        self.site(resource, deployment).script(faults);
    }

    /// How long a Standard deployment has accepted every request; `None` while it refuses.
    ///
    /// Hidden: only the simulator uses it to judge a run; a client of Azure cannot know it.
    #[doc(hidden)]
    pub fn open_for(&self, resource: &str, deployment: &str) -> Option<Duration> {
        self.site(resource, deployment).open_for(self.registry.clock)
    }

    fn site(&self, resource: &str, deployment: &str) -> &Site {
        let site = self.registry.site(resource, deployment);
        site.unwrap_or_else(|| panic!("no deployment is called {resource}/{deployment}"))
    }
}
