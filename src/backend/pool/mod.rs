//! A pool of backends and what is known of them; the handle behind `RegionRotateLayer`.

mod alias;
mod by_resource;
mod choice;
mod faults;
mod origin;
mod prepared_backend;
mod rendezvous;
mod tried_set;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use self::{choice::Choice, faults::Faults};
pub(crate) use self::{prepared_backend::PreparedBackend, tried_set::TriedSet};
use super::{Backend, field, resource::Residents};
use crate::{
    ConfigError,
    classify::Scope,
    clock,
    cooldown::{Closed, CooldownReason, Cooldowns, Failure, Load, NextOpen},
};

/// A pool of backends, until when each of them is known to refuse, and which of them fail.
///
/// Clones share what they learn. The pool is made once and given to every layer that is to know
/// the same: a layer that is applied again, once per route or per connection, goes on with what
/// it knew.
///
/// ```
/// use tower_spillover::{Backend, BackendPool};
///
/// # fn main() -> Result<(), tower_spillover::ConfigError> {
/// let pool = BackendPool::new([
///     Backend::new("eastus", "https://contoso-east.openai.azure.com")?.api_key("key-1"),
///     Backend::new("sweden", "https://contoso-sweden.openai.azure.com")?.api_key("key-2").weight(2),
///     Backend::new("japan", "https://contoso-japan.openai.azure.com")?.api_key("key-3").priority(2),
/// ])?;
/// assert_eq!(pool.names().collect::<Vec<_>>(), ["eastus", "sweden", "japan"]);
/// assert!(pool.cooldowns().all(|(_, resting)| resting.is_none()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct BackendPool {
    shared: Arc<Shared>,
}

struct Shared {
    /// Sorted by priority; backends of one priority keep the order they were given in.
    members: Box<[PreparedBackend]>,
    choice: Choice,
    cooldowns: Cooldowns,
    residents: Residents,
    faults: Faults,
    /// An index into `members`, or [`NOT_FORCED`].
    start: AtomicUsize,
}

const NOT_FORCED: usize = usize::MAX;

impl BackendPool {
    /// A pool of `backends`, all open.
    ///
    /// # Errors
    ///
    /// When there is none, two have one name, or one of them has no credential, an unusable key,
    /// deployment or api-version, or the weight 0. The error names the backend and the field.
    pub fn new(backends: impl IntoIterator<Item = Backend>) -> Result<Self, ConfigError> {
        let mut backends: Vec<Backend> = backends.into_iter().collect();
        if backends.is_empty() {
            return Err(ConfigError::new("backends", "a pool needs at least one"));
        }
        backends.sort_by_key(|backend| backend.priority);
        for (index, backend) in backends.iter().enumerate() {
            if backends[..index].iter().any(|other| other.name == backend.name) {
                return Err(field(&backend.name, "name", "is taken by another: make it unique"));
            }
            if backend.weight == 0 {
                return Err(field(
                    &backend.name,
                    "weight",
                    "is 0, so it would never be asked: leave the backend out, or give it a \
                     later priority",
                ));
            }
        }
        let shares: Vec<_> = backends.iter().map(|b| (b.priority, b.weight)).collect();
        let members: Box<[PreparedBackend]> =
            backends.into_iter().map(PreparedBackend::new).collect::<Result<_, _>>()?;
        let resident = |m: &PreparedBackend| (Arc::clone(m.name()), Arc::clone(m.resource()));
        Ok(Self {
            shared: Arc::new(Shared {
                residents: Residents::new(members.iter().map(resident)),
                choice: Choice::new(&shares),
                cooldowns: Cooldowns::new(members.len(), clock::now()),
                faults: Faults::new(members.len()),
                start: AtomicUsize::new(NOT_FORCED),
                members,
            }),
        })
    }

    /// Tells this pool from all others that there are.
    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.shared).addr()
    }

    /// The names of the backends, first priority first.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.shared.members.iter().map(|member| &**member.name())
    }

    /// Every backend's name with how long it will go on refusing anything, be it one kind of traffic or
    /// what is heavy alone; `None` while it does not. One that fails does not rest; see [`deferred`](Self::deferred).
    pub fn cooldowns(&self) -> impl ExactSizeIterator<Item = (&str, Option<Duration>)> {
        self.resting(clock::now())
    }

    /// Every backend's name with that of the quota that it shares with others; `None` for one with a
    /// quota of its own.
    pub fn quotas(&self) -> impl ExactSizeIterator<Item = (&str, Option<&str>)> {
        self.shared.members.iter().map(|member| (&**member.name(), member.quota()))
    }

    /// Every backend's name with how often in a row it was found to fail; 0 for one that answered
    /// since, whether or not it refused. Once for an outage of a second, twice for one that the first
    /// probe met, and so on; a few failures among answers do not count.
    pub fn failures(&self) -> impl ExactSizeIterator<Item = (&str, u32)> {
        let now = clock::now();
        let failures = move |index| self.shared.cooldowns.failures(index, now);
        self.names().enumerate().map(move |(index, name)| (name, failures(index)))
    }

    /// Every backend's name with how long it goes on being asked after the others, since it fails; `None`
    /// while it does not. It is asked nevertheless when all the others refuse or fail.
    pub fn deferred(&self) -> impl ExactSizeIterator<Item = (&str, Option<Duration>)> {
        let now = clock::now();
        let deferred = move |index| self.shared.cooldowns.deferred(index, now);
        self.names().enumerate().map(move |(index, name)| (name, deferred(index)))
    }

    /// Makes every request of every clone start with the backend called `name` while it is open,
    /// or lifts that again with `None`.
    ///
    /// A test aid: it shows that a refused region is left for the next one, as uncommenting
    /// `urlId` does in the API Management policy that this crate takes after.
    ///
    /// # Errors
    ///
    /// When no backend has that name.
    pub fn force_start<'a>(&self, name: impl Into<Option<&'a str>>) -> Result<(), ConfigError> {
        let start = match name.into() {
            None => NOT_FORCED,
            Some(name) => self.names().position(|other| other == name).ok_or_else(|| {
                let known = self.names().collect::<Vec<_>>().join(", ");
                ConfigError::new(
                    "force_start",
                    format!("no backend is called `{name}`: use one of {known}"),
                )
            })?,
        };
        self.shared.start.store(start, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn resting(
        &self,
        now: Instant,
    ) -> impl ExactSizeIterator<Item = (&str, Option<Duration>)> {
        let remaining = move |index| self.shared.cooldowns.remaining(index, now);
        self.names().enumerate().map(move |(index, name)| (name, remaining(index)))
    }

    /// An open backend that was not tried, for a first attempt the forced one if there is any.
    pub(crate) fn choose(
        &self,
        tried: &TriedSet,
        now: Instant,
        draw: u64,
        load: &dyn Load,
    ) -> Option<usize> {
        let Shared { choice, cooldowns, .. } = &*self.shared;
        let start = self.forced();
        if start != NOT_FORCED && tried.len() == 0 && cooldowns.is_open(start, now, load) {
            return Some(start);
        }
        choice.choose(cooldowns, tried, now, draw, load)
    }

    /// Where none is open, a backend that was not tried, and fails, but does not refuse.
    pub(crate) fn last_resort(
        &self,
        tried: &TriedSet,
        now: Instant,
        draw: u64,
        load: &dyn Load,
    ) -> Option<usize> {
        self.last_resort_on(None, tried, now, draw, load)
    }

    /// The index of the forced start, or [`NOT_FORCED`].
    fn forced(&self) -> usize {
        self.shared.start.load(Ordering::Relaxed)
    }

    /// The backend that reopens first among those not tried.
    pub(crate) fn first_to_open(&self, tried: &TriedSet, load: &dyn Load) -> Option<usize> {
        let others = (0..self.len()).filter(|&index| !tried.contains(index));
        self.shared.cooldowns.first_to_open(others, load)
    }

    pub(crate) fn member(&self, index: usize) -> &PreparedBackend {
        &self.shared.members[index]
    }

    pub(crate) fn len(&self) -> usize {
        self.shared.members.len()
    }

    /// Whether the backend neither refuses `load` nor fails.
    fn is_open(&self, index: usize, now: Instant, load: &dyn Load) -> bool {
        self.shared.cooldowns.is_open(index, now, load)
    }

    pub(crate) fn refuses(&self, index: usize, now: Instant, load: &dyn Load) -> bool {
        self.shared.cooldowns.refuses(index, now, load)
    }

    /// What a refusal is about rests for the first of `times`; for the second, the service said that it
    /// refuses it.
    pub(crate) fn close(
        &self,
        index: usize,
        closed: Closed,
        now: Instant,
        times: (Duration, Duration),
        why: CooldownReason,
    ) {
        self.shared.cooldowns.close(index, closed, now, times, why);
    }

    /// A backend that did not fail lately failed; see [`Watch::failed`](crate::cooldown::Watch::failed) for one that did.
    pub(crate) fn fail(
        &self,
        index: usize,
        failure: Failure,
        now: Instant,
        rest: impl FnOnce(u32) -> Duration,
    ) {
        self.shared.cooldowns.fail(index, None, failure, now, rest);
    }

    /// How often in a row the backend was found to fail.
    pub(crate) fn was_found_failing(&self, index: usize, now: Instant) -> u32 {
        self.shared.cooldowns.failures(index, now)
    }

    /// The other backends that a refusal of this one concerns.
    pub(crate) fn quota_peers(&self, index: usize, scope: Scope) -> impl Iterator<Item = usize> {
        let own = self.member(index);
        let others = (0..self.len()).filter(move |&other| other != index);
        others.filter(move |&other| own.shares(scope, self.member(other)))
    }

    /// When the first of `indices` refuses `load` no longer.
    pub(crate) fn next_open(
        &self,
        indices: impl Iterator<Item = usize>,
        now: Instant,
        load: &dyn Load,
    ) -> NextOpen {
        self.shared.cooldowns.next_open(indices, now, load)
    }
}

impl AsRef<Cooldowns> for BackendPool {
    fn as_ref(&self) -> &Cooldowns {
        &self.shared.cooldowns
    }
}

impl fmt::Debug for BackendPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendPool").field("members", &self.shared.members).finish_non_exhaustive()
    }
}
