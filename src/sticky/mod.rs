//! Keeps requests with the resource that holds the objects they refer to.

mod affinity;
mod answer;
mod binding;
mod caller;
mod home;
mod id_learner;
mod memory;
mod recall;
mod references;
mod routing;
mod tier;
mod walk;
mod whole_answer;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::Request;

pub use self::{
    affinity::CacheAffinity,
    binding::Ownership,
    caller::StickTo,
    home::Home,
    recall::{Recall, RecallFuture},
    tier::StickyTier,
};
#[cfg(fuzzing)]
pub(crate) use self::{
    answer::{AnswerScan, Shown},
    references::{Reference, read},
};
use self::{
    memory::{Found, Memory},
    recall::IdStore,
};
pub(crate) use self::{
    recall::Recalling,
    routing::{Routing, RoutingConfig},
    tier::{TierMap, TierScope},
};
use crate::{
    ConfigError, TryCloneBody, clock,
    fleet::{Fleet, IdHolder},
};
pub use crate::{
    backend::{CommonResources, Residents},
    served::StickyMatch,
};

/// Sends a request that refers to objects of one resource to that resource, and refuses it rather
/// than sending it to another.
///
/// A continued response, a file, a thread, a batch or encrypted reasoning is known only to the Azure
/// OpenAI resource that made it; rotation would turn such requests into "not found". With this handle
/// a layer learns from passing answers where objects are, and keeps to that; every other request
/// rotates as before. Clones share what they learned, so make one handle, like a
/// [`BackendPool`](crate::BackendPool), and give it to the outermost layer.
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
/// # What is pinned
///
/// Requests with any of these, in the classic or the v1 grammar:
///
/// - an id in the path: `/responses/{id}`, and the like of `conversations`, `files`, `threads`,
///   `assistants`, `batches`, `vector_stores`, `fine_tuning/jobs`, `uploads`, `evals`,
///   `containers`, `skills`, `videos`, `video/generations`, `realtime/calls`, and stored chat
///   completions;
/// - in the body: `previous_response_id`, `conversation`, an `item_reference`, reasoning without its
///   content, `assistant_id`, `thread_id`, a stored `prompt`, a video, and, wherever they occur in
///   tools, messages, variables and data sources, a file, a vector store, a container, a skill;
/// - `encrypted_content`, which only the resource that encrypted it can read: others answer 400
///   `invalid_encrypted_content`;
/// - a backend named by the caller: in the request extension [`StickTo`], the header
///   `x-spillover-backend: NAME` or the cookie `spillover-backend=NAME`. None of them is sent
///   upstream.
///   `x-spillover-backend: NAME` or the cookie `spillover-backend=NAME`. None of them goes upstream.
///
/// The *resource* is what counts: its other deployments, in this pool or another tier, know the same
/// ids. So a request may still spill from a PTU to a Standard deployment beside it. Two endpoints are
/// one resource if they are hosts of the same name in Azure's domains, or otherwise the same address.
/// Keys do not distinguish resources: endpoints that share the address of a region
/// (`eastus.api.cognitive.microsoft.com`) count as one, so their backends need the hosts with their
/// own names.
///
/// A pinned request waits for a gate like any other; if the gate is in front of several resources, it
/// follows the hints of its own resource, as in the reference script. When every backend of its
/// resource is cooling down, it gets a 429 with the time until the first one reopens; when they
/// refuse, it gets their refusal. (The Azure Architecture Center recommends the same: "consider
/// returning an API response like a 429 to a pinned client instead of redirecting it".)
///
/// An item that a body carries in full, such as a message with its id, goes where that id is known to
/// be if nothing else in the request is known, and is not pinned if the id is unknown. The same holds
/// for the container that an earlier tool call used, and for what an earlier answer quoted. If a
/// request refers to objects of two resources, no resource could answer it; it goes to the first one
/// known, with the path before the body. At most 64 ids of objects that only one resource holds, and
/// 64 of such items, are looked up. Any other unknown id, made before this process started or
/// forgotten, leads to the client's home, and [`Served::held`](crate::Served::held) says so.
///
/// # Homes
///
/// A list shows what one resource has, and a vector store takes files only from its own resource. So
/// requests that list, or create something without a reference, go to one resource per client: its
/// [`Home`], or the [default backend](Self::default_backend).
///
/// | request | where |
/// |---|---|
/// | `POST` of `files`, `uploads`, `vector_stores`, `batches`, `containers`, `skills`, `evals`, `conversations`, `assistants`, `threads`, `fine_tuning/jobs` | with what it refers to, else the home |
/// | any other method for one of these, or for stored responses, chat completions and videos, without an id in the path: a list | the home |
/// | `POST` of `responses`, `chat/completions`, `videos`, `realtime/calls`, which takes the capacity of a model | with what it refers to, else rotates; what it makes is known by its id |
/// | anything with an id that is not known | the home, as a guess |
/// | embeddings, audio, images, the list of models | rotates |
///
/// A home is chosen by name alone, so it stays the same whatever is refused, fails or is deferred,
/// after a restart, and in every process: several processes need no shared memory for files and what
/// is made of them. It is chosen among the resources of all tiers that most tiers share, where a
/// request that refers to a file can spill. Weights and priorities do not count. A home that is
/// cooling down answers 429 with its hint, as any resource does to pinned requests: nothing is
/// created elsewhere.
///
/// # What is learned
///
/// From successful answers: the `id` of what was made; those of its items, its conversation, thread
/// or container, and of the files that an upload became or that a batch or fine-tuning wrote; and the
/// first 128 characters of each `encrypted_content`. They are kept as hashes, at most 128 per answer.
/// The answer passes unchanged and unbuffered; its first MiB is read, or the first 64 KiB of a chat
/// completion. From answers that are not stored (`store: false`, or a chat completion without
/// `store: true`) only the encrypted content is learned.
///
/// # Cost
///
/// Bodies are read as far as they are in memory: references beyond that are not seen, and need a
/// named backend. Reading takes 0.1 microseconds per KiB of a chat completion, 0.3 of a response.
/// Reading an answer takes 0.6 microseconds per KiB. Requests that concern nothing stored, such as
/// embeddings, take 0.1 microseconds longer.
#[derive(Clone)]
pub struct Sticky {
    memory: Arc<Mutex<Memory>>,
    default_backend: Option<Arc<str>>,
    /// If processes share what they learned.
    store: Option<Arc<IdStore>>,
}

impl Sticky {
    /// A handle that has learned nothing yet.
    pub fn new() -> Self {
        Self {
            memory: Arc::new(Mutex::new(Memory::new(DEFAULT_CAPACITY_IDS, DEFAULT_MAX_AGE))),
            default_backend: None,
            store: None,
        }
    }

    /// The most ids known at a time, for each client that [owns](Home::owned) its objects and for all
    /// other clients together; beyond that, the least recently used id is forgotten. Applies to all
    /// clones. Defaults to 65,536, which takes at most some 10 MiB.
    #[must_use]
    pub fn capacity(self, ids: usize) -> Self {
        self.lock().capacity = ids;
        self
    }

    /// How long an unused id is remembered. Applies to all clones. Defaults to 30 days, as long as
    /// the service keeps a response (Azure page "Use the Azure OpenAI Responses API").
    #[must_use]
    pub fn longest_age(self, age: Duration) -> Self {
        self.lock().longest_age = age;
        self
    }

    /// The name of the backend whose resource is every client's home, and the destination of requests
    /// with unknown ids. By default, and if no backend has that name, each client has its own
    /// [`Home`], which spreads clients over the resources.
    #[must_use]
    pub fn default_backend(mut self, name: impl Into<Arc<str>>) -> Self {
        self.default_backend = Some(name.into());
        self
    }

    /// Shares what is learned with the processes of `fleet`: an id that an answer of one of them showed is
    /// known to all. The store keeps it for `age` after its last use, or up to a quarter longer. Redis needs
    /// about 45 bytes for an id, and a response has about five.
    ///
    /// What an answer shows is written at once, and no request waits for it. A request that refers to
    /// an id that is not known here asks the store before it is sent, for all such ids together, and
    /// waits at most for the fleet's [`timeout`](Fleet::timeout); any other request does not call the
    /// store. If the store does not have an id, it is asked again after 2, 8 and 30 ms: the write of another
    /// process may be on its way. An id that was not found before is asked for once. Without an answer, an id is unknown, as without a fleet. Items that any resource can read
    /// are not asked for.
    ///
    /// Clients that [own](Home::owned) their objects are kept apart in the store, too: the first owner
    /// of an id keeps it, in all processes. If two processes write different resources, the last one
    /// counts.
    ///
    /// A `RedisStore` keeps only keyed hashes. It needs a secret for that.
    ///
    /// # Errors
    ///
    /// If the store of the fleet keeps no ids: a `RedisStore` has no secret.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_spillover::{Sticky, fleet::{Fleet, Local}};
    ///
    /// let fleet = Fleet::new("prod", Local::new())?;
    /// let sticky = Sticky::new().fleet(&fleet, Duration::from_secs(7 * 24 * 3_600))?;
    /// # drop(sticky);
    /// # Ok::<(), tower_spillover::ConfigError>(())
    /// ```
    pub fn fleet(mut self, fleet: &Fleet, age: Duration) -> Result<Self, ConfigError> {
        self.store = Some(Arc::new(IdStore::new(fleet, age)?));
        Ok(self)
    }

    /// Whether it shares what it learned with a [fleet](Self::fleet).
    pub const fn is_shared(&self) -> bool {
        self.store.is_some()
    }

    /// Asks the store of the fleet for ids that are not known here, so that
    /// [`resources_of`](Self::resources_of) and [`ownership`](Self::ownership) know them: those of the
    /// client of `home`. Without a [fleet](Self::fleet) it is ready at once.
    ///
    /// The layers do this themselves. It is for a process that looks at a request before it calls
    /// them.
    ///
    /// ```
    /// use http::Request;
    /// use http_body_util::Empty;
    /// use tower_spillover::{Sticky, sticky::{Home, Ownership}};
    /// # use bytes::Bytes;
    ///
    /// # async fn admit(sticky: &Sticky) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut request = Request::get("/openai/v1/files/file-1").body(Empty::<Bytes>::new())?;
    /// let home = Home::of("team-a").owned();
    /// sticky.recall(&home).request(&mut request).await;
    /// if sticky.ownership(&request, &home) != Ownership::Others {
    ///     request.extensions_mut().insert(home);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn recall(&self, home: &Home) -> Recall {
        Recall::new(self.clone(), home.owner())
    }

    /// The `residents` that may be homes: all of them, or those on the resource of the [default
    /// backend](Self::default_backend).
    #[must_use]
    pub fn homes(&self, residents: &Residents) -> Residents {
        residents.beside(self.default_backend.as_deref())
    }

    /// The hashes of the resources that are known to hold what `request` refers to, in its path or its
    /// body.
    ///
    /// For several stacks (one per model) that share one memory: a request such as
    /// `GET /openai/v1/responses/{id}` does not say which of them it is for. The resources of a stack
    /// are those of the [`Residents::resources`] of its outermost layer; see [`StickyTier`].
    ///
    /// ```
    /// use http::Request;
    /// use http_body_util::Empty;
    /// use tower_spillover::Sticky;
    /// # use bytes::Bytes;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///
    /// let request = Request::get("/openai/v1/responses/resp_1").body(Empty::<Bytes>::new())?;
    /// assert!(Sticky::new().resources_of(&request).is_empty(), "it has learned nothing yet");
    /// # Ok(())
    /// # }
    /// ```
    pub fn resources_of<B: TryCloneBody>(&self, request: &Request<B>) -> Vec<u64> {
        self.resources_at(request, clock::now())
    }

    /// Who owns the objects that `request` refers to, in its path or its body, given the client of
    /// `home`, which [owns](Home::owned) what it makes.
    ///
    /// What a request with such a home makes belongs to that client, and so does what it is the first
    /// to refer to with success. What a list shows belongs to no client. For a process that keeps
    /// clients apart, and refuses access to another client's objects before it calls a layer: the
    /// layers refuse nothing for this reason, and only ignore the ids of other owners for routing.
    /// The body has to be in memory.
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

    /// Who owns the object with this id, given the client of `home`.
    pub fn ownership_of(&self, id: &str, home: &Home) -> Ownership {
        Ownership::of(&self.find(id.as_bytes(), home.owner(), clock::now()))
    }

    /// The number of ids known.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no id is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Learns `id`, unless its hash is among the `learned`. Returns what is to be written to the
    /// fleet's store.
    fn learn_once(
        &self,
        id: &[u8],
        is: IdHolder,
        now: Instant,
        learned: &mut Vec<u64>,
    ) -> Option<IdHolder> {
        let policy = self.store.as_ref().and_then(|store| store.policy());
        let mut memory = self.lock();
        let hash = memory.hash(id);
        if learned.contains(&hash) {
            return None;
        }
        learned.push(hash);
        memory.learn_hashed(hash, is, now);
        memory.unwritten(id, policy?, now)
    }

    #[cfg(test)]
    fn learn(&self, id: &[u8], is: IdHolder, now: Instant) {
        self.learn_once(id, is, now, &mut Vec::new());
    }

    fn find(&self, id: &[u8], asker: Option<u64>, now: Instant) -> Found {
        let Some(store) = &self.store else { return self.lock().find(id, asker, now) };
        let policy = store.policy();
        let mut memory = self.lock();
        let found = memory.find(id, asker, now);
        if let (Found::Own(_) | Found::Unowned(_), Some(policy)) = (&found, policy)
            && let Some(is) = memory.unwritten(id, policy, now)
        {
            drop(memory);
            self.write(store, vec![(id.into(), is)]);
        }
        found
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Sticky {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows the number of ids, and none of them.
impl fmt::Debug for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sticky")
            .field("ids", &self.len())
            .field("default_backend", &self.default_backend)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

const DEFAULT_CAPACITY_IDS: usize = 1 << 16;
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3_600);
