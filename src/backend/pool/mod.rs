//! A pool of backends and what is known of them; the handle behind `RegionRotateLayer`.

mod alias;
mod by_resource;
mod choice;
mod prepared_backend;
mod probe;
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

use self::choice::Choice;
pub(crate) use self::{prepared_backend::PreparedBackend, probe::Probe, tried_set::TriedSet};
use super::{Backend, field, resource::Residents};
use crate::{
    ConfigError,
    classify::Scope,
    clock,
    cooldown::{CooldownReason, Cooldowns, NextOpen},
};

/// A pool of backends, and until when each of them is known to refuse.
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
                start: AtomicUsize::new(NOT_FORCED),
                members,
            }),
        })
    }

    /// The names of the backends, first priority first.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.shared.members.iter().map(|member| &**member.name())
    }

    /// Every backend's name with how long it will go on resting; `None` while it is open.
    pub fn cooldowns(&self) -> impl ExactSizeIterator<Item = (&str, Option<Duration>)> {
        self.resting(clock::now())
    }

    /// Every backend's name with that of the quota that it shares with others; `None` for one with a
    /// quota of its own.
    pub fn quotas(&self) -> impl ExactSizeIterator<Item = (&str, Option<&str>)> {
        self.shared.members.iter().map(|member| (&**member.name(), member.quota()))
    }

    /// Every backend's name with how often it failed in a row; 0 for one that answered last, whether
    /// or not it refused.
    pub fn failures(&self) -> impl ExactSizeIterator<Item = (&str, u32)> {
        let failures = |index| self.shared.cooldowns.failures(index);
        self.names().enumerate().map(move |(index, name)| (name, failures(index)))
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
    pub(crate) fn choose(&self, tried: &TriedSet, now: Instant, draw: u64) -> Option<usize> {
        let Shared { choice, cooldowns, .. } = &*self.shared;
        let start = self.forced();
        if start != NOT_FORCED && tried.len() == 0 && cooldowns.is_open(start, now) {
            return Some(start);
        }
        choice.choose(cooldowns, tried, now, draw)
    }

    /// The index of the forced start, or [`NOT_FORCED`].
    fn forced(&self) -> usize {
        self.shared.start.load(Ordering::Relaxed)
    }

    /// The backend that reopens first among those not tried, of those that refused.
    pub(crate) fn first_to_open(&self, tried: &TriedSet, now: Instant) -> Option<usize> {
        let others = (0..self.len()).filter(|&index| !tried.contains(index));
        self.shared.cooldowns.first_to_open(others, now)
    }

    pub(crate) fn member(&self, index: usize) -> &PreparedBackend {
        &self.shared.members[index]
    }

    pub(crate) fn len(&self) -> usize {
        self.shared.members.len()
    }

    pub(crate) fn is_open(&self, index: usize, now: Instant) -> bool {
        self.shared.cooldowns.is_open(index, now)
    }

    pub(crate) fn cool_down_for(
        &self,
        index: usize,
        now: Instant,
        rest: Duration,
        why: CooldownReason,
    ) {
        self.shared.cooldowns.cool_down_for(index, now, rest, why);
    }

    /// The backend failed. What it did before says how long it rests.
    pub(crate) fn fail(&self, index: usize, now: Instant, rest: impl Fn(u32) -> Duration) {
        self.shared.cooldowns.fail(index, now, rest);
    }

    /// The other backends that a refusal of this one concerns.
    pub(crate) fn quota_peers(&self, index: usize, scope: Scope) -> impl Iterator<Item = usize> {
        let own = self.member(index);
        let others = (0..self.len()).filter(move |&other| other != index);
        others.filter(move |&other| own.shares(scope, self.member(other)))
    }

    /// When the first backend is open.
    pub(crate) fn next_open(&self, now: Instant) -> NextOpen {
        self.shared.cooldowns.next_open(now)
    }

    /// How long this backend goes on refusing, where it is worth waiting for.
    pub(crate) fn refuses_for(&self, index: usize, now: Instant) -> Option<Duration> {
        let NextOpen { left, why } =
            self.shared.cooldowns.next_open_of(std::iter::once(index), now);
        (why == Some(CooldownReason::Refused)).then_some(left)
    }
}

impl fmt::Debug for BackendPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendPool").field("members", &self.shared.members).finish_non_exhaustive()
    }
}
