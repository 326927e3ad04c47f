//! Keeps requests with the resource that holds what they refer to.

mod affinity;
mod answer;
mod binding;
mod caller;
mod home;
mod id_learner;
mod memory;
mod references;
mod routing;
mod tier;
mod walk;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::Request;

use self::memory::{Found, Memory};
pub use self::{
    affinity::CacheAffinity, binding::Ownership, caller::StickTo, home::Home, tier::StickyTier,
};
#[cfg(fuzzing)]
pub(crate) use self::{
    answer::{AnswerScan, Shown},
    references::{Reference, read},
};
pub(crate) use self::{
    routing::{Routing, RoutingConfig},
    tier::{TierMap, TierScope},
};
use crate::{TryCloneBody, clock};
pub use crate::{backend::Residents, served::StickyMatch};

/// Sends requests that refer to what one resource holds to that resource, and refuses them rather
/// than sends them to another.
///
/// A response that is continued, a file, a thread, a batch or encrypted reasoning is known to the
/// Azure OpenAI resource that made it and to no other: "not found" is what rotation makes of such
/// requests. With this handle a layer learns from the answers that pass by where things are, and
/// keeps to it; every other request rotates as before. Clones share what they learned, so it is
/// made once, like a [`BackendPool`](crate::BackendPool), and given to the outermost of the layers.
///
/// ```
/// use tower::{ServiceBuilder, ServiceExt};
/// use tower_spillover::{Backend, BackendPool, RegionRotateLayer, Served, Sticky, sticky::StickyMatch};
/// # use bytes::Bytes;
/// # use http::Request;
/// # use http_body_util::{BodyExt, Full};
/// # use spillover_emulator::{Deployment, Emulator, Resource, Standard};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let resource = |name| Resource::new(name)
/// #     .deployment(Deployment::standard("gpt-4o", Standard::unlimited()));
/// # let client = Emulator::new(["contoso-east", "contoso-sweden"].map(resource)).service();
/// let pool = BackendPool::new([
///     Backend::new("eastus", "https://contoso-east.openai.azure.com")?.api_key("key-1"),
///     Backend::new("sweden", "https://contoso-sweden.openai.azure.com")?.api_key("key-2"),
/// ])?;
/// let azure = ServiceBuilder::new()
///     .layer(RegionRotateLayer::new(pool).sticky(Sticky::new()))
///     .service(client);
///
/// let ask = |body: String| Request::post("/openai/v1/responses").body(Full::<Bytes>::from(body));
/// let first = azure.clone().oneshot(ask(r#"{"model":"gpt-4o","input":"Hello"}"#.into())?).await?;
/// let made_by = first.extensions().get::<Served>().unwrap().backend().unwrap().to_owned();
/// let answer: serde_json::Value =
///     serde_json::from_slice(&first.into_body().collect().await?.to_bytes())?;
///
/// let next = format!(
///     r#"{{"model":"gpt-4o","input":"And then?","previous_response_id":{}}}"#,
///     answer["id"]
/// );
/// let second = azure.oneshot(ask(next)?).await?;
/// let served = second.extensions().get::<Served>().unwrap();
/// assert_eq!(served.backend(), Some(&*made_by));
/// assert_eq!(served.held(), Some(StickyMatch::ById));
/// # Ok(())
/// # }
/// ```
///
/// # What is held
///
/// Requests with any of these, whether in the classic or in the v1 grammar:
///
/// - an id in the path: `/responses/{id}`, and the like of `conversations`, `files`, `threads`,
///   `assistants`, `batches`, `vector_stores`, `fine_tuning/jobs`, `uploads`, `evals`,
///   `containers`, `skills`, `videos`, `video/generations`, `realtime/calls`, and stored chat
///   completions;
/// - in the body `previous_response_id`, `conversation`, an `item_reference`, reasoning without its
///   content, `assistant_id`, `thread_id`, a stored `prompt`, a video, and wherever they are in tools,
///   messages, variables and sources of data: a file, a vector store, a container, a skill;
/// - `encrypted_content`, which only the resource that encrypted it can read: another answers 400
///   `invalid_encrypted_content`;
/// - a backend that the caller names: in the request extension [`StickTo`], the header
///   `x-spillover-backend: NAME` or the cookie `spillover-backend=NAME`. None of them goes upstream.
///
/// What counts is the *resource*: its other deployments, in this pool or another tier, know the same
/// ids. So a request may still spill from a PTU to a Standard deployment beside it. Two endpoints
/// are one resource when they are hosts of one name in Azure's domains, or one address otherwise.
/// Keys tell no resources apart: those that share the address of a region
/// (`eastus.api.cognitive.microsoft.com`) are taken for one, so their backends need the hosts with
/// their own names.
///
/// A request that is held waits for a gate as others do; where the gate is in front of several
/// resources, it goes by the hints of its own one, as in the reference script. When every backend of its resource is
/// resting, it gets 429 with the time until the first of them opens; when they refuse, their
/// refusal. (The Azure Architecture Center has it so: "consider returning an API response like a
/// 429 to a pinned client instead of redirecting it".)
///
/// An item that a body carries in full, a message with its id, goes where that id is known to be if
/// nothing else in the request is known, and is free when it is not known; so it is with the container
/// that an earlier call of a tool worked in, and with what an earlier answer quoted. Where a request
/// refers to things of two resources, it goes to that of the first which is known, the path before the
/// body: no resource could answer it. Of what only one resource
/// has, and of such items, the first 64 are looked up each. Any other id that is not known, made before this process began or
/// forgotten, leads to the client's home, and [`Served::held`](crate::Served::held) says so.
///
/// # Homes
///
/// A list shows what one resource has, and a vector store takes files from the resource that it is on
/// itself. So what is created without referring to anything, and what lists, goes to one resource for
/// each client: its [`Home`], or the [default backend](Self::default_backend).
///
/// | request | where |
/// |---|---|
/// | `POST` of `files`, `uploads`, `vector_stores`, `batches`, `containers`, `skills`, `evals`, `conversations`, `assistants`, `threads`, `fine_tuning/jobs` | with what it refers to, else the home |
/// | any other method for one of these, or for stored responses, chat completions and videos, without an id in the path: a list | the home |
/// | `POST` of `responses`, `chat/completions`, `videos`, `realtime/calls`, which takes the capacity of a model | with what it refers to, else rotates; what it makes is known by its id |
/// | anything with an id that is not known | the home, as a guess |
/// | embeddings, audio, images, the list of models | rotates |
///
/// A home is chosen by name alone, so it stays the same whatever is refused, fails or is deferred, after
/// a restart, and in every process: several of them need no common memory for files and what is made of
/// them. It is chosen among all resources of all tiers, of these among the ones that most tiers share:
/// there a request can spill that refers to a file. Weights and priorities do not count. A home that is
/// resting answers 429 with its hint, as any resource does to what is held: nothing is created
/// elsewhere.
///
/// # What is learned
///
/// Of successful answers: the `id` of what was made, those of its items, of its conversation, thread
/// or container and of the files that an upload became or a batch or fine-tuning wrote, and the first 128 characters of
/// each `encrypted_content`, as hashes; 128 of them at most. The answer passes untouched and
/// unbuffered; its first MiB is read, or the first 64 KiB of a chat completion. Nothing is learned
/// from answers that are not stored (`store: false`, or a chat completion without `store: true`) but
/// what is encrypted in them.
///
/// # Cost
///
/// Bodies are read when they are in memory, and longer ones as far as they are: what such a body refers
/// to behind that is not seen, and needs a backend that is named. It takes 0.1 microseconds for each KiB of a chat completion, 0.3
/// of a response. What is read of an answer costs 0.6 microseconds for each KiB. Requests about
/// nothing that is stored, such as embeddings, take 0.1 microseconds longer.
#[derive(Clone)]
pub struct Sticky {
    memory: Arc<Mutex<Memory>>,
    default_backend: Option<Arc<str>>,
}

impl Sticky {
    /// A handle that has learned nothing yet.
    pub fn new() -> Self {
        Self {
            memory: Arc::new(Mutex::new(Memory::new(CAPACITY, LONGEST_AGE))),
            default_backend: None,
        }
    }

    /// The most ids that are known at a time, of each client that [owns](Home::owned) its things and of all
    /// others together; beyond them the one goes that was used longest ago. Holds for all clones. Defaults to 65,536, which takes some 10 MiB at most.
    #[must_use]
    pub fn capacity(self, ids: usize) -> Self {
        self.lock().capacity = ids;
        self
    }

    /// For how long an id is known that nobody uses. Holds for all clones. Defaults to 30 days: so
    /// long the service keeps a response (Azure page "Use the Azure OpenAI Responses API").
    #[must_use]
    pub fn longest_age(self, age: Duration) -> Self {
        self.lock().longest_age = age;
        self
    }

    /// The backend whose resource is the home of every client, by its name, and where requests go whose
    /// ids are not known. By default, and where no backend has that name, each client has its
    /// [`Home`]: so they spread over the resources.
    #[must_use]
    pub fn default_backend(mut self, name: impl Into<Arc<str>>) -> Self {
        self.default_backend = Some(name.into());
        self
    }

    /// Those of `residents` that a home may be with: all of them, or those on the resource of the
    /// [default backend](Self::default_backend).
    #[must_use]
    pub fn homes(&self, residents: &Residents) -> Residents {
        residents.beside(self.default_backend.as_deref())
    }

    /// Whether something that `request` refers to, in its path or its body, is known to be with one
    /// of `residents`.
    ///
    /// It is for whoever has several stacks with one memory, one for each model: a request such as
    /// `GET /openai/v1/responses/{id}` does not say which of them it is for. `residents` are those
    /// of a stack's outermost layer; see [`StickyTier`].
    ///
    /// ```
    /// use http::Request;
    /// use http_body_util::Empty;
    /// use tower_spillover::{Backend, BackendPool, RegionRotateLayer, Sticky, sticky::StickyTier};
    /// # use bytes::Bytes;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = BackendPool::new([Backend::new("a", "https://a.example")?.api_key("key")])?;
    ///
    /// let sticky = Sticky::new();
    /// let residents = RegionRotateLayer::new(pool).residents();
    /// let request = Request::get("/openai/v1/responses/resp_1").body(Empty::<Bytes>::new())?;
    /// assert!(!sticky.knows(&request, &residents), "it has learned nothing yet");
    /// # Ok(())
    /// # }
    /// ```
    pub fn knows<B: TryCloneBody>(&self, request: &Request<B>, residents: &Residents) -> bool {
        self.knows_at(request, residents, clock::now())
    }

    /// Whose the things are that `request` refers to, in its path or its body, for the client of `home`,
    /// which [owns](Home::owned) what it makes.
    ///
    /// What is made by requests with such a home is known to be that client's; so is, from then on, what it
    /// is the first to refer to with success. What a list shows is nobody's. It is for a process that keeps
    /// clients apart, and refuses what is another's before a layer is asked: the layers refuse nothing for
    /// it, and only keep what others own from leading a request anywhere. The body has to be in memory.
    ///
    /// ```
    /// use http::Request;
    /// use http_body_util::Empty;
    /// use tower_spillover::{Sticky, sticky::{Home, Ownership}};
    /// # use bytes::Bytes;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///
    /// let request = Request::get("/openai/v1/responses/resp_1").body(Empty::<Bytes>::new())?;
    /// let home = Home::of("team-a").owned();
    /// assert_eq!(Sticky::new().ownership(&request, &home), Ownership::Unknown);
    /// # Ok(())
    /// # }
    /// ```
    pub fn ownership<B: TryCloneBody>(&self, request: &Request<B>, home: &Home) -> Ownership {
        self.ownership_at(request, home, clock::now())
    }

    /// Whose the thing with this id is, for the client of `home`.
    pub fn ownership_of(&self, id: &str, home: &Home) -> Ownership {
        Ownership::of(&self.find(id.as_bytes(), home.owner(), clock::now()))
    }

    /// How many ids are known.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no id is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn learn(&self, id: &[u8], resource: &Arc<str>, owner: Option<u64>, now: Instant) {
        self.lock().learn(id, resource, owner, now);
    }

    fn find(&self, id: &[u8], asker: Option<u64>, now: Instant) -> Found {
        self.lock().find(id, asker, now)
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Sticky {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts ids, and shows none.
impl fmt::Debug for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sticky")
            .field("ids", &self.len())
            .field("default_backend", &self.default_backend)
            .finish_non_exhaustive()
    }
}

const CAPACITY: usize = 1 << 16;
const LONGEST_AGE: Duration = Duration::from_secs(30 * 24 * 3_600);
