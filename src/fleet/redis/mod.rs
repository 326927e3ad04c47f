//! A store in Redis or Valkey.

mod breaker;
mod closings;
mod cluster;
mod connection;
mod courier;
mod gate;
mod ids;
mod keys;
mod password;
mod store;

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use futures_core::future::BoxFuture;
use redis::{Script, Value};
use tokio::sync::oneshot;

pub use self::courier::StoreStatus;
pub(crate) use self::password::PasswordSource;
use self::{
    closings::Listeners,
    connection::Address,
    courier::{Courier, Health, Link},
    gate::GateListeners,
    ids::IdSecret,
};
use super::Unreachable;
use crate::{ConfigError, random};

/// A [`Store`](super::Store) in Redis (from 7.0) or Valkey. Clones share one connection.
///
/// ```no_run
/// use tower_spillover::fleet::{Fleet, RedisStore};
///
/// # let password = "";
/// let store = RedisStore::new("rediss://redis.contoso.internal:6380")?;
/// let fleet = Fleet::new("prod", store.user("spillover").password(password))?;
/// # Ok::<(), tower_spillover::ConfigError>(())
/// ```
///
/// It connects when it joins its first fleet, on a thread of its own, and again whenever the
/// connection fails: after 100 ms, 200 ms, and every 250 ms from then on. An error, or three calls in a
/// row that are not answered within the fleet's [timeout](super::Fleet::timeout), end the connection;
/// until there is another one that works, no request waits for the store.
///
/// Its keys begin with `sp1:` and contain hashes of names, no names.
///
/// With `rediss://` it uses `ring`, unless the process has installed another provider for rustls.
#[derive(Clone)]
pub struct RedisStore {
    settings: Settings,
    shared: Arc<Shared>,
}

#[derive(Clone)]
struct Settings {
    address: Address,
    /// Ids are hashed under it. Without one, none is kept.
    secret: Option<IdSecret>,
    observer: Option<Observer>,
}

type Observer = Arc<dyn Fn(&StoreStatus) + Send + Sync>;

/// What clones share.
struct Shared {
    /// The id of this process among the replicas.
    id: Box<str>,
    /// Set when it joins its first fleet.
    courier: OnceLock<(Courier, Arc<Health>)>,
    fleets: Mutex<HashMap<Box<str>, Arc<Membership>>>,
    listeners: Listeners,
    gate_listeners: GateListeners,
}

#[derive(Debug, Default)]
struct Membership {
    handles: AtomicU32,
    replicas: AtomicU32,
    beats: AtomicU32,
}

impl RedisStore {
    /// A store at `url`: `redis://host:port`, or `rediss://host:port` with TLS. It is not connected
    /// before a fleet uses it.
    ///
    /// # Errors
    ///
    /// If the URL is not one of a store.
    pub fn new(url: &str) -> Result<Self, ConfigError> {
        Self::at(Address::new(url)?)
    }

    /// A store that Sentinel knows as `master`, by the `urls` of its sentinels, which are asked in this
    /// order at every new connection. [`user`](Self::user) and [`password`](Self::password) are for
    /// the store; the sentinels need none. With `rediss://` the sentinels and the store use TLS.
    ///
    /// # Errors
    ///
    /// If there is no URL, or one of them is not one of a sentinel.
    pub fn of_sentinels<'a>(
        master: &str,
        urls: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, ConfigError> {
        Self::at(Address::of_sentinels(master, urls)?)
    }

    /// A store in a Redis Cluster, by the `urls` of some of its servers, from which the others are
    /// found at every new connection. All keys of a call are in one slot.
    ///
    /// It is in use while all primaries are: a failure of one of them, or a slot that moves, ends the
    /// connection, and the next one, after 100 ms, begins with the slots as they are then. Fleets and
    /// gates are spread over the primaries by their names.
    ///
    /// With `rediss://` the servers have to announce names that their certificates are valid for
    /// (`cluster-preferred-endpoint-type hostname`).
    ///
    /// # Errors
    ///
    /// If there is no URL, or one of them is not one of a server.
    pub fn of_cluster<'a>(urls: impl IntoIterator<Item = &'a str>) -> Result<Self, ConfigError> {
        Self::at(Address::of_cluster(urls)?)
    }

    fn at(address: Address) -> Result<Self, ConfigError> {
        let settings = Settings { address, secret: None, observer: None };
        settings.address.connector(|_| {})?;
        let shared = Shared {
            id: format!("{:016x}", random::draw()).into(),
            courier: OnceLock::new(),
            fleets: Mutex::default(),
            listeners: Listeners::default(),
            gate_listeners: GateListeners::default(),
        };
        Ok(Self { settings, shared: Arc::new(shared) })
    }

    /// The user of an access control list. By default the store's `default` user.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.settings.address.set_user(user);
        self
    }

    /// The password, of the default user or of [`user`](Self::user). It is never printed.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.settings.address.set_password(password);
        self
    }

    /// Passwords from a source, instead of one that does not end.
    pub(crate) fn passwords(mut self, source: Arc<dyn PasswordSource>) -> Self {
        self.settings.address.set_passwords(source);
        self
    }

    /// The authorities, as PEM, that the store's certificate has to be from, instead of the public
    /// ones.
    ///
    /// # Errors
    ///
    /// If the text contains no certificate.
    pub fn trust(mut self, pem: &[u8]) -> Result<Self, ConfigError> {
        self.settings.address.set_trust(pem);
        self.settings.address.connector(|_| {})?;
        Ok(self)
    }

    /// The secret that ids are hashed under, so that those who can read the store learn none; see
    /// [`Sticky::fleet`](crate::Sticky::fleet). All processes of a fleet need the same one: with
    /// another, they do not find each other's ids. It is never printed.
    ///
    /// # Errors
    ///
    /// If it is shorter than 16 bytes.
    pub fn secret(mut self, secret: &str) -> Result<Self, ConfigError> {
        self.settings.secret = Some(IdSecret::new(secret)?);
        Ok(self)
    }

    /// Calls `observer` when the store goes up or down, on the store's thread.
    #[must_use]
    pub fn on_change(mut self, observer: impl Fn(&StoreStatus) + Send + Sync + 'static) -> Self {
        self.settings.observer = Some(Arc::new(observer));
        self
    }

    /// Whether the store answers, since when, and why not. `None` before a fleet uses it.
    pub fn status(&self) -> Option<StoreStatus> {
        self.shared.courier.get().map(|(_, health)| health.status())
    }

    /// The host and the port, or those of the sentinels or of the servers of a cluster.
    pub fn address(&self) -> String {
        self.settings.address.to_string()
    }

    fn courier(&self) -> Option<&Courier> {
        self.shared.courier.get().map(|(courier, _)| courier)
    }

    /// Runs `job`, whose result is the answer, unless the request has decided without it by then. `undo`
    /// takes back a result that comes too late.
    fn ask<T, F, U>(
        &self,
        job: impl FnOnce(Link) -> F + Send + 'static,
        undo: impl FnOnce(Link, T) -> U + Send + 'static,
    ) -> BoxFuture<'static, Result<T, Unreachable>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Unreachable>> + Send + 'static,
        U: Future<Output = ()> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.tell(move |link| async move {
            if !reply.is_closed()
                && let Ok(result) = job(link.clone()).await
                && let Err(undelivered) = reply.send(result)
            {
                undo(link, undelivered).await;
            }
        });
        // A job that does not run, or fails, drops the sender.
        Box::pin(async move { answer.await.map_err(|_| Unreachable) })
    }

    /// Runs `job` in the background, if the store is up.
    fn tell<F: Future<Output = ()> + Send + 'static>(
        &self,
        job: impl FnOnce(Link) -> F + Send + 'static,
    ) {
        if let Some(courier) = self.courier() {
            courier.run(job);
        }
    }

    fn start(&self) -> (Courier, Arc<Health>) {
        let observer = self.settings.observer.clone();
        let health = Health::new(Box::new(move |status| {
            if let Some(observer) = &observer {
                observer(status);
            }
        }));
        let health = Arc::new(health);
        // The thread must not keep the store alive, whose end ends it.
        let (check, beat) = (Arc::downgrade(&self.shared), Arc::downgrade(&self.shared));
        let on_link = move |link: Link| -> BoxFuture<'static, Result<(), redis::RedisError>> {
            let shared = check.upgrade();
            Box::pin(async move {
                let Some(shared) = shared else { return Ok(()) };
                // It writes: a store that is full or read-only answers everything else.
                for (fleet, membership) in shared.memberships() {
                    let key = keys::replicas(&fleet);
                    let arguments = [shared.id.as_bytes(), REPORT_AGE_US.as_bytes()];
                    let count = link.unchecked(&BEAT, &[&key], &arguments).await?;
                    membership.count(&count);
                    if !shared.listeners.is_empty() {
                        shared.listen(&link, &fleet).await?;
                    }
                }
                for channel in shared.gate_listeners.channels() {
                    // Without news, more requests meet a refusal of their own, and that is all.
                    let _ = link.subscribe(&channel).await;
                }
                for key in link.keys(keys::PROBE) {
                    link.unchecked(&PROBE, &[&key], &[PROBE_AGE_MS.as_bytes()]).await?;
                }
                Ok(())
            })
        };
        let each_beat = move |link: Link| -> BoxFuture<'static, ()> {
            let shared = beat.upgrade();
            Box::pin(async move {
                let Some(shared) = shared else { return };
                // A primary whose keys nothing uses now may fail unnoticed otherwise.
                for key in link.keys(keys::PROBE) {
                    let _ = link.script(&PROBE, &[&key], &[PROBE_AGE_MS.as_bytes()]).await;
                }
                for (fleet, membership) in shared.memberships() {
                    let key = keys::replicas(&fleet);
                    let arguments = [shared.id.as_bytes(), REPORT_AGE_US.as_bytes()];
                    if let Ok(count) = link.script(&BEAT, &[&key], &arguments).await {
                        membership.count(&count);
                    }
                    // A message may be lost.
                    let beats = membership.beats.fetch_add(1, Ordering::Relaxed);
                    if beats % BEATS_PER_READ == 0 && !shared.listeners.is_empty() {
                        let key = keys::closings(&fleet);
                        if let Ok(all) = link.script(&CLOSED, &[&key], &[]).await {
                            shared.listeners.on_all(&all);
                        }
                    }
                }
            })
        };
        let hears = Arc::downgrade(&self.shared);
        let on_push = move |push: &redis::PushInfo| {
            if let Some(shared) = hears.upgrade() {
                shared.listeners.on_push(push);
                shared.gate_listeners.on_push(push);
            }
        };
        let connector = self.settings.address.connector(on_push).expect("it was tried before");
        (Courier::start(connector, Arc::clone(&health), on_link, each_beat), health)
    }
}

impl Shared {
    fn fleets(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<Membership>>> {
        self.fleets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fleets that are in use.
    fn memberships(&self) -> Vec<(Box<str>, Arc<Membership>)> {
        let fleets = self.fleets();
        let used = fleets.iter().filter(|(_, it)| it.handles.load(Ordering::Relaxed) > 0);
        used.map(|(fleet, membership)| (fleet.clone(), Arc::clone(membership))).collect()
    }

    /// Hears of closings of the fleet's backends from now on, and of those before.
    async fn listen(&self, link: &Link, fleet: &str) -> Result<(), redis::RedisError> {
        link.subscribe(&keys::channel(fleet)).await?;
        let all = link.unchecked(&CLOSED, &[&keys::closings(fleet)], &[]).await?;
        self.listeners.on_all(&all);
        Ok(())
    }
}

impl Membership {
    /// A beat was answered.
    fn count(&self, answer: &Value) {
        if let Value::Int(replicas) = answer {
            let replicas = u32::try_from(*replicas).unwrap_or(1);
            self.replicas.store(replicas.clamp(1, MAX_REPLICAS), Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status();
        f.debug_struct("RedisStore")
            .field("address", &format_args!("{}", self.settings.address))
            .field("status", &status)
            .finish_non_exhaustive()
    }
}

static BEAT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("beat.lua")));
static CLOSED: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("closed.lua")));
/// Writes, as everything else does.
static PROBE: LazyLock<Script> =
    LazyLock::new(|| Script::new("return redis.call('SET', KEYS[1], '', 'PX', ARGV[1])"));

/// Reads an answer as everything that a store may be asked, for the fuzzer; `None` if it is none.
#[cfg(fuzzing)]
pub(crate) fn read_answer(answer: &[u8]) -> Option<ReadAnswer> {
    use redis::FromRedisValue;

    use self::store::{leased, taken};
    use super::{Leased, Taken};

    let value = redis::parse_redis_value(answer).ok()?.extract_error().ok()?;
    let budget = match (taken(&value), leased(&value)) {
        (Ok(Taken::Granted { closes_in: time, .. } | Taken::Spent { opens_in: time }), _)
        | (_, Ok(Leased::Spent { opens_in: time })) => Some(time),
        _ => None,
    };
    let membership = Membership::default();
    membership.count(&Value::Int(1));
    membership.count(&value);
    let messages = Vec::<String>::from_redis_value_ref(&value).unwrap_or_default();
    for message in &messages {
        let _ = closings::read(message);
    }
    let secret = ids::IdSecret::new(&"of the fuzzer ".repeat(4)).ok()?;
    let asked: Vec<&[u8]> = vec![b"resp_1"; messages.len().max(1)];
    let holders = ids::read(&secret, asked.into_iter(), &value).unwrap_or_default();
    let holders = holders.into_iter().flatten().count();
    let servers = cluster::Slots::read(&value, "seed").ok().map(|slots| slots.check());
    let replicas = membership.replicas.load(Ordering::Relaxed);
    Some((budget, gate::longest_time(&value), replicas, holders, servers))
}

#[cfg(fuzzing)]
type Time = std::time::Duration;
/// The fields of `fuzzing::StoreAnswer`.
#[cfg(fuzzing)]
pub(crate) type ReadAnswer = (Option<Time>, Option<Time>, u32, usize, Option<usize>);

/// Closings are read every ten seconds, beside the messages about them.
const BEATS_PER_READ: u32 = 5;
/// For how long a report counts: two more may be lost.
const REPORT_AGE_US: &str = "6000000";
const PROBE_AGE_MS: &str = "1000";
const MAX_REPLICAS: u32 = 100_000;
