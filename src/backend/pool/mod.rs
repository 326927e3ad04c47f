//! A pool of backends and their state; the handle behind `RegionRotateLayer`.

mod alias;
mod by_resource;
mod choice;
mod faults;
mod fleet;
mod origin;
mod own_headers;
mod peers;
mod prepared_backend;
mod ring;
mod tried_set;

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use self::{choice::Choice, faults::Faults, fleet::FleetCooldowns, peers::Peers};
pub(crate) use self::{prepared_backend::PreparedBackend, tried_set::TriedSet};
use super::{Backend, field, resource::Residents};
use crate::{
    ConfigError,
    classify::Scope,
    clock,
    cooldown::{Closed, CooldownReason, Cooldowns, Failure, Load, NextOpen},
};

/// A pool of backends, with the cooldowns and failures of each.
///
/// Clones share that state. Make a pool once and give it to every layer that should share it: a layer
/// that is applied again, once per route or per connection, continues with the same state.
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
/// assert!(pool.cooldowns().all(|(_, cooldown)| cooldown.is_none()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct BackendPool {
    shared: Arc<PoolShared>,
}

struct PoolShared {
    /// Sorted by priority; backends of the same priority keep their given order.
    members: Box<[PreparedBackend]>,
    choice: Choice,
    cooldowns: Cooldowns,
    residents: Residents,
    peers: Peers,
    faults: Faults,
    /// If processes share the cooldowns.
    fleet: OnceLock<FleetCooldowns>,
    /// An index into `members`, or [`NOT_FORCED`].
    start: AtomicUsize,
}

const NOT_FORCED: usize = usize::MAX;

impl BackendPool {
    /// A pool of `backends`, all open.
    ///
    /// # Errors
    ///
    /// If there are no backends, two share a name, or one has no credential, an unusable key,
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
        let mut members: Box<[PreparedBackend]> =
            backends.into_iter().map(PreparedBackend::new).collect::<Result<_, _>>()?;
        PreparedBackend::share_paths(&mut members);
        let resident = |m: &PreparedBackend| (Arc::clone(m.name()), Arc::clone(m.resource()));
        Ok(Self {
            shared: Arc::new(PoolShared {
                residents: Residents::new(members.iter().map(resident)),
                peers: Peers::new(&members),
                choice: Choice::new(&shares),
                cooldowns: Cooldowns::new(members.len(), clock::now()),
                faults: Faults::new(members.len()),
                fleet: OnceLock::new(),
                start: AtomicUsize::new(NOT_FORCED),
                members,
            }),
        })
    }

    /// Identifies this pool among all pools.
    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.shared).addr()
    }

    /// The names of the backends, first priority first.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.shared.members.iter().map(|member| &**member.name())
    }

    /// Every backend's name with the remaining time of its longest cooldown, even if that concerns
    /// one kind of traffic or heavy requests only; `None` without one. A failing backend has no
    /// cooldown; see [`deferred`](Self::deferred).
    pub fn cooldowns(&self) -> impl ExactSizeIterator<Item = (&str, Option<Duration>)> {
        self.cooldowns_at(clock::now())
    }

    /// Every backend's name with the name of the quota that it shares with others; `None` if it has
    /// its own.
    pub fn quotas(&self) -> impl ExactSizeIterator<Item = (&str, Option<&str>)> {
        self.shared.members.iter().map(|member| (&**member.name(), member.quota()))
    }

    /// Every backend's name with the number of times in a row that it was found to fail; 0 after any
    /// answer, refusals included. An outage of a second counts once, one that the first probe still
    /// met counts twice, and so on; a few failures among answers do not count.
    pub fn failures(&self) -> impl ExactSizeIterator<Item = (&str, u32)> {
        let now = clock::now();
        let failures = move |index| self.shared.cooldowns.failures(index, now);
        self.names().enumerate().map(move |(index, name)| (name, failures(index)))
    }

    /// Every backend's name with the remaining time for which it is deferred, that is, called only
    /// after the others, because it fails; `None` if it is not. It is called nevertheless when all
    /// others refuse or fail.
    pub fn deferred(&self) -> impl ExactSizeIterator<Item = (&str, Option<Duration>)> {
        let now = clock::now();
        let deferred = move |index| self.shared.cooldowns.deferred(index, now);
        self.names().enumerate().map(move |(index, name)| (name, deferred(index)))
    }

    /// Makes every request of every clone start with the backend called `name` while it is open;
    /// `None` lifts that.
    ///
    /// A test aid: it shows that requests move on from a refusing region, like uncommenting `urlId`
    /// in the API Management policy that this crate is modelled on.
    ///
    /// # Errors
    ///
    /// If no backend has that name.
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

    pub(crate) fn cooldowns_at(
        &self,
        now: Instant,
    ) -> impl ExactSizeIterator<Item = (&str, Option<Duration>)> {
        let remaining = move |index| self.shared.cooldowns.remaining(index, now);
        self.names().enumerate().map(move |(index, name)| (name, remaining(index)))
    }

    /// An open, untried backend; for a first attempt the forced one, if any.
    pub(crate) fn choose(
        &self,
        tried: &TriedSet,
        now: Instant,
        draw: u64,
        load: &dyn Load,
    ) -> Option<usize> {
        let PoolShared { choice, cooldowns, .. } = &*self.shared;
        let start = self.forced();
        if start != NOT_FORCED && tried.len() == 0 && cooldowns.is_open(start, now, load) {
            return Some(start);
        }
        choice.choose(cooldowns, tried, now, draw, load)
    }

    /// If none is open, an untried backend that fails but does not refuse.
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

    /// The untried backend that reopens first.
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

    /// Closes what a refusal is about for the first of `times`; the second is the service's own hint.
    pub(crate) fn close(
        &self,
        index: usize,
        closed: Closed,
        now: Instant,
        times: (Duration, Duration),
        why: CooldownReason,
    ) {
        self.shared.cooldowns.close(index, closed, now, times, why);
        if let Some(fleet) = self.shared.fleet.get() {
            fleet.close(index, closed, times, why);
        }
    }

    /// A backend without a recent failure failed; for one with a failure, see
    /// [`Watch::failed`](crate::cooldown::Watch::failed).
    pub(crate) fn fail(
        &self,
        index: usize,
        failure: Failure,
        now: Instant,
        rest: impl FnOnce(u32) -> Duration,
    ) {
        self.shared.cooldowns.fail(index, None, failure, now, rest);
    }

    /// How many times in a row the backend was found to fail.
    pub(crate) fn was_found_failing(&self, index: usize, now: Instant) -> u32 {
        self.shared.cooldowns.failures(index, now)
    }

    /// The other backends that a refusal of this one applies to.
    pub(crate) fn quota_peers(&self, index: usize, scope: Scope) -> impl Iterator<Item = usize> {
        self.shared.peers.of(index, scope)
    }

    /// The backends of `range` without many that are closed to `load`.
    fn perhaps_open(
        &self,
        range: Range<usize>,
        now: Instant,
        load: &dyn Load,
    ) -> impl Iterator<Item = usize> {
        self.shared.cooldowns.perhaps_open(range, now, load)
    }

    /// When the first backend accepts `load` again.
    pub(crate) fn next_open_of_all(&self, now: Instant, load: &dyn Load) -> NextOpen {
        self.shared.cooldowns.next_open_of_all(now, load)
    }

    /// When the first of `indices` accepts `load` again.
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
