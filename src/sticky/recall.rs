//! Ids that the processes of a fleet share: written to its store when an answer shows them, and read
//! from it when a request refers to one that is not known here.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use http::Request;
use tokio::time::Sleep;

use super::{
    Home, Sticky,
    binding::{Binding, Search},
    caller, lock,
    memory::WritePolicy,
};
use crate::{
    ConfigError, TryCloneBody,
    backend::Residents,
    clock,
    fleet::{Call, Caller, Fleet, IdHolder},
    hash::fnv1a,
};

/// The store of a fleet that keeps ids.
pub(super) struct IdStore {
    caller: Arc<Caller>,
    age: Duration,
    policy: WritePolicy,
    /// Hashes of ids that were not found, each at its place: such an id is not looked for again
    /// in the same request.
    unknown: [AtomicU64; UNKNOWN_IDS],
}

impl IdStore {
    pub(super) fn new(fleet: &Fleet, age: Duration) -> Result<Self, ConfigError> {
        let caller = Arc::clone(fleet.caller());
        if !caller.keeps_ids() {
            return Err(ConfigError::new(
                "fleet secret",
                "is missing; a store keeps ids as hashes under it: set RedisStore::secret",
            ));
        }
        let policy = WritePolicy { since: clock::now(), interval: MAX_WRITE_INTERVAL.min(age / 4) };
        let unknown = std::array::from_fn(|_| AtomicU64::new(0));
        Ok(Self { caller, age, policy, unknown })
    }

    /// The place of an id among those that were not found, and its hash.
    fn unknown(&self, id: &[u8]) -> (&AtomicU64, u64) {
        let hash = fnv1a([id]);
        (&self.unknown[hash as usize % UNKNOWN_IDS], hash)
    }

    fn was_unknown(&self, id: &[u8]) -> bool {
        let (place, hash) = self.unknown(id);
        place.load(Ordering::Relaxed) == hash
    }

    fn note_unknown(&self, id: &[u8]) {
        let (place, hash) = self.unknown(id);
        place.store(hash, Ordering::Relaxed);
    }

    /// When ids are to be written; `None` while the store is down.
    pub(super) fn policy(&self) -> Option<WritePolicy> {
        self.caller.is_up().then_some(self.policy)
    }
}

/// The ids of a request that are not known here, for the store of a fleet: see [`Sticky::recall`].
#[must_use = "nothing is asked before it is awaited"]
pub struct Recall {
    sticky: Sticky,
    asker: Option<u64>,
    ids: Vec<Box<[u8]>>,
    /// Whether a request refers to them, so that a process probably knows them.
    is_of_request: bool,
}

impl Recall {
    pub(super) const fn new(sticky: Sticky, asker: Option<u64>) -> Self {
        Self { sticky, asker, ids: Vec::new(), is_of_request: false }
    }

    /// Adds the ids that `request` refers to, in its path or its body, unless that was done before. Layers
    /// do not ask for them again.
    pub fn request<B: TryCloneBody>(mut self, request: &mut Request<B>) -> Self {
        if self.sticky.store.is_some() && request.extensions().get::<Recalled>().is_none() {
            self.add(request, &Residents::default());
            request.extensions_mut().insert(Recalled);
        }
        self
    }

    /// Adds an id.
    pub fn id(mut self, id: &str) -> Self {
        let is_missing = || {
            let found = self.sticky.find(id.as_bytes(), self.asker, clock::now());
            found.is_to_be_recalled(self.asker)
        };
        if self.sticky.store.is_some() && is_missing() {
            self.ids.push(id.as_bytes().into());
        }
        self
    }

    /// Whether there are more than 512 ids that are not known here. Only so many are asked for.
    pub fn is_too_long(&mut self) -> bool {
        self.ids.sort_unstable();
        self.ids.dedup();
        self.ids.len() > MAX_RECALLED_IDS
    }

    fn add<B: TryCloneBody>(&mut self, request: &mut Request<B>, residents: &Residents) {
        let mut search = Search::new(&self.sticky, residents, self.asker, clock::now());
        let (missing, scanned) = search.missing(request);
        self.is_of_request |= !missing.is_empty();
        self.ids.extend(missing);
        if let Some(scanned) = scanned {
            request.extensions_mut().insert(scanned);
        }
    }

    fn call(mut self) -> Option<Box<Recalling>> {
        if self.is_too_long() {
            self.ids.truncate(MAX_RECALLED_IDS);
        }
        let Self { sticky, ids, is_of_request, .. } = self;
        let store = sticky.store.as_ref().filter(|_| !ids.is_empty())?;
        let now = clock::now();
        let state = RecallState::Asking(store.caller.recall(ids.clone(), store.age)?);
        let until = now + store.caller.timeout();
        let is_new = is_of_request && ids.iter().any(|id| !store.was_unknown(id));
        let looks = if is_new { LOOKS.map(|after| now + after).to_vec() } else { Vec::new() };
        Some(Box::new(Recalling { sticky, ids, state, until, looks }))
    }
}

impl Sticky {
    /// What the outermost layer waits for before it looks up what `request` refers to; `None` if all
    /// of that is known here or it refers to nothing, and without a store.
    #[inline]
    pub(super) fn recall_of<B: TryCloneBody>(
        &self,
        request: &mut Request<B>,
        residents: &Residents,
    ) -> Option<Box<Recalling>> {
        self.store.as_ref()?;
        self.recall_shared(request, residents)
    }

    #[inline(never)]
    fn recall_shared<B: TryCloneBody>(
        &self,
        request: &mut Request<B>,
        residents: &Residents,
    ) -> Option<Box<Recalling>> {
        let extensions = request.extensions();
        let is_done =
            extensions.get::<Recalled>().is_some() || extensions.get::<Binding>().is_some();
        if is_done || caller::is_named(request) {
            return None;
        }
        let owner = extensions.get().and_then(Home::owner);
        let mut recall = Recall::new(self.clone(), owner);
        recall.add(request, residents);
        recall.call()
    }

    /// Writes who holds these ids. What the store keeps counts here, too: another process may have been
    /// the first to see an id while this one could not ask.
    pub(super) fn write(&self, store: &IdStore, ids: Vec<(Box<[u8]>, IdHolder)>) {
        let memory = Arc::downgrade(&self.memory);
        let names: Vec<_> = ids.iter().map(|(id, _)| id.clone()).collect();
        let on_stored = move |kept: &[IdHolder]| {
            let Some(memory) = memory.upgrade() else { return };
            let (mut memory, now) = (lock(&memory), clock::now());
            names.iter().zip(kept).for_each(|(id, is)| memory.note_stored(id, *is, now));
        };
        store.caller.remember(ids, store.age, Box::new(on_stored));
    }

    /// The store has these holders of `ids`, in this order. Keeps the ids that it does not have.
    fn recalled(&self, ids: &mut Vec<Box<[u8]>>, holders: &[Option<IdHolder>], now: Instant) {
        let mut memory = self.lock();
        let mut holders = holders.iter();
        ids.retain(|id| match holders.next() {
            Some(Some(is)) => {
                memory.learn(id, *is, now);
                memory.note_stored(id, *is, now);
                false
            }
            _ => true,
        });
    }
}

/// Ready when the store has answered, or the fleet's timeout has passed.
pub(crate) struct Recalling {
    sticky: Sticky,
    ids: Vec<Box<[u8]>>,
    state: RecallState,
    until: Instant,
    /// When the store is asked again for what it does not have, the next time last.
    looks: Vec<Instant>,
}

enum RecallState {
    Asking(Call<Vec<Option<IdHolder>>>),
    Waiting(Pin<Box<Sleep>>),
}

impl Future for Recalling {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                RecallState::Asking(call) => {
                    // Without an answer, the ids stay unknown.
                    let Ok(holders) = ready!(Pin::new(call).poll(cx)) else {
                        return Poll::Ready(());
                    };
                    let asked = this.ids.len();
                    this.sticky.recalled(&mut this.ids, &holders, clock::now());
                    let unknown = this.ids.len();
                    let next = this.looks.pop().filter(|at| unknown > 0 && *at < this.until);
                    if let Some(store) = &this.sticky.store {
                        let is_last = next.is_none();
                        store
                            .caller
                            .count_recalled(asked - unknown, if is_last { unknown } else { 0 });
                        if is_last {
                            this.ids.iter().for_each(|id| store.note_unknown(id));
                        }
                    }
                    let Some(at) = next else { return Poll::Ready(()) };
                    this.state = RecallState::Waiting(clock::sleep_until(at));
                }
                RecallState::Waiting(sleep) => {
                    ready!(sleep.as_mut().poll(cx));
                    let store = this.sticky.store.as_ref();
                    let call =
                        store.and_then(|store| store.caller.recall(this.ids.clone(), store.age));
                    let Some(call) = call else { return Poll::Ready(()) };
                    this.state = RecallState::Asking(call.not_after(this.until));
                }
            }
        }
    }
}

/// The future of a [`Recall`].
pub struct RecallFuture(Option<Box<Recalling>>);

impl IntoFuture for Recall {
    type Output = ();
    type IntoFuture = RecallFuture;

    fn into_future(self) -> RecallFuture {
        RecallFuture(self.call())
    }
}

impl Future for RecallFuture {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.get_mut().0 {
            Some(call) => Pin::new(&mut **call).poll(cx),
            None => Poll::Ready(()),
        }
    }
}

/// An extension of a request whose ids were recalled.
#[derive(Clone, Copy)]
struct Recalled;

/// Shows the number of ids, and none of them.
impl fmt::Debug for Recall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recall").field("ids", &self.ids.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for RecallFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecallFuture").finish_non_exhaustive()
    }
}

impl fmt::Debug for IdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdStore").field("age", &self.age).finish_non_exhaustive()
    }
}

/// Another process writes an id when it has read it, and its client may be faster than that write on a
/// busy machine: mostly by less than 2 ms. The first of these times is last.
const LOOKS: [Duration; 3] =
    [Duration::from_millis(30), Duration::from_millis(8), Duration::from_millis(2)];
const UNKNOWN_IDS: usize = 1_024;
/// Redis looks for so many for 2 ms, or 8 ms if it has none of them, and serves nothing else meanwhile. A
/// page of a list has a hundred, and a batch of a vector store's files 500.
const MAX_RECALLED_IDS: usize = 512;
/// Short enough that a store without its data has soon all ids that are in use, long enough that the
/// writes do not count.
const MAX_WRITE_INTERVAL: Duration = Duration::from_secs(3_600);
