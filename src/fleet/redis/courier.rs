//! The thread that talks to the store, whatever runtime the requests are on.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use futures_core::future::BoxFuture;
use redis::{RedisError, Script, Value};
use tokio::sync::{Notify, mpsc};

use super::{
    breaker::Breaker,
    connection::{Connection, Connector},
    password::Renewal,
};
use crate::{clock, fleet::Unreachable, random};

/// Work for the thread of the courier.
type Job = Box<dyn FnOnce(Link) -> BoxFuture<'static, ()> + Send>;

/// The requests' side of the thread. The thread ends with it.
pub(super) struct Courier {
    jobs: mpsc::Sender<Job>,
    health: Arc<Health>,
}

/// One connection to the store.
#[derive(Clone)]
pub(super) struct Link {
    connection: Connection,
    /// If its password ends.
    renewal: Option<Arc<Renewal>>,
    /// Which connection of the thread it is: what an earlier one reports does not concern this one.
    number: u64,
    health: Arc<Health>,
}

/// A call that failed. The breaker knows by then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed;

impl From<Failed> for Unreachable {
    fn from(_: Failed) -> Self {
        Self
    }
}

/// Whether the store answers, as all threads see it.
pub(super) struct Health {
    /// A copy of the breaker's state, for requests.
    is_up: AtomicBool,
    timeout_us: AtomicU64,
    started: Instant,
    state: Mutex<State>,
    /// The current connection is not used any more.
    failed: Notify,
    observer: Box<dyn Fn(&StoreStatus) + Send + Sync>,
}

struct State {
    breaker: Breaker,
    connection: u64,
    /// Whether the observer was called.
    is_reported: bool,
    status: StoreStatus,
}

/// Whether a store answers, and since when.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreStatus {
    /// Whether it is called.
    pub is_up: bool,
    /// When that changed last.
    pub since: Instant,
    /// Why it is down, if it is.
    pub reason: Option<Arc<str>>,
}

impl Health {
    pub(super) fn new(observer: Box<dyn Fn(&StoreStatus) + Send + Sync>) -> Self {
        let now = clock::now();
        let status =
            StoreStatus { is_up: false, since: now, reason: Some("it is being connected".into()) };
        Self {
            is_up: AtomicBool::new(false),
            timeout_us: AtomicU64::new(50_000),
            started: now,
            state: Mutex::new(State {
                breaker: Breaker::new(),
                connection: 0,
                is_reported: false,
                status,
            }),
            failed: Notify::new(),
            observer,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    pub(super) fn status(&self) -> StoreStatus {
        self.lock().status.clone()
    }

    pub(super) fn set_timeout(&self, timeout: Duration) {
        let timeout = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
        self.timeout_us.store(timeout, Ordering::Relaxed);
    }

    fn timeout(&self) -> Duration {
        Duration::from_micros(self.timeout_us.load(Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn since_start(&self) -> Duration {
        clock::now().saturating_duration_since(self.started)
    }

    /// The store was reached by connection number `connection`.
    fn connected(&self, connection: u64) {
        let now = self.since_start();
        let mut state = self.lock();
        state.breaker.on_connected(now);
        state.connection = connection;
        self.changed(state, None);
    }

    /// A connection could not be established, or does not work.
    fn unconnected(&self, reason: &str) {
        let mut state = self.lock();
        if state.is_reported {
            // One report per outage; the status has the latest reason.
            state.status.reason = Some(reason.into());
        } else {
            self.changed(state, Some(reason));
        }
    }

    fn on_answer(&self, connection: u64, server: usize) {
        let mut state = self.lock();
        if state.connection == connection {
            state.breaker.on_answer(server);
        }
    }

    fn on_timeout(&self, connection: u64, server: usize) {
        let now = self.since_start();
        let mut state = self.lock();
        if state.connection == connection && state.breaker.on_timeout(now, server) {
            self.changed(state, Some("it does not answer in time"));
            self.failed.notify_one();
        }
    }

    fn on_error(&self, connection: u64, error: &RedisError) {
        let now = self.since_start();
        let mut state = self.lock();
        let is_cut = error.is_connection_dropped() || error.is_io_error();
        if state.connection == connection && state.breaker.on_error(now, is_cut) {
            self.changed(state, Some(&error.to_string()));
            self.failed.notify_one();
        }
    }

    fn changed(&self, mut state: MutexGuard<'_, State>, reason: Option<&str>) {
        let is_up = state.breaker.is_up();
        let status = StoreStatus { is_up, since: clock::now(), reason: reason.map(Into::into) };
        state.status = status.clone();
        state.is_reported = true;
        self.is_up.store(is_up, Ordering::Relaxed);
        drop(state);
        (self.observer)(&status);
    }

    fn delay(&self, attempt: u32) -> Duration {
        self.lock().breaker.delay(attempt, random::share())
    }
}

impl Courier {
    /// Starts the thread. It calls `on_link` with each new connection, which is used if that succeeds,
    /// and `each_beat` every two seconds.
    pub(super) fn start(
        connector: Connector,
        health: Arc<Health>,
        on_link: impl Fn(Link) -> BoxFuture<'static, Result<(), RedisError>> + Send + 'static,
        each_beat: impl Fn(Link) -> BoxFuture<'static, ()> + Send + 'static,
    ) -> Self {
        let (jobs, queue) = mpsc::channel(MAX_QUEUED_JOBS);
        let courier = Self { jobs, health: Arc::clone(&health) };
        let thread = std::thread::Builder::new().name("spillover-fleet".to_owned());
        let started = thread.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => {
                    runtime.block_on(run(connector, &health, queue, on_link, each_beat));
                }
                Err(error) => health.unconnected(&error.to_string()),
            }
        });
        if let Err(error) = started {
            courier.health.unconnected(&error.to_string());
        }
        courier
    }

    /// Runs `job` on the thread, if the store is up and the thread is not overloaded.
    pub(super) fn run<F: Future<Output = ()> + Send + 'static>(
        &self,
        job: impl FnOnce(Link) -> F + Send + 'static,
    ) -> bool {
        self.health.is_up() && self.jobs.try_send(Box::new(|link| Box::pin(job(link)))).is_ok()
    }
}

impl Link {
    /// Runs a script. Fails after the connector's response timeout at the latest; the breaker counts
    /// it as too late after the fleet's timeout.
    pub(super) async fn script(
        &self,
        script: &Script,
        keys: &[&str],
        arguments: &[&[u8]],
    ) -> Result<Value, Failed> {
        let (server, _) = self.connection.of(keys[0]);
        let result = self.unchecked(script, keys, arguments);
        let mut result = pin!(result);
        let until = clock::now() + self.health.timeout();
        let mut sleep = clock::sleep_until(until);
        let mut is_late = false;
        let result = poll_fn(|cx| {
            if let Poll::Ready(result) = result.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            if !is_late && sleep.as_mut().poll(cx).is_ready() {
                is_late = true;
                self.health.on_timeout(self.number, server);
            }
            Poll::Pending
        });
        match result.await {
            Ok(value) => {
                if !is_late {
                    self.health.on_answer(self.number, server);
                }
                Ok(value)
            }
            // The breaker has counted it.
            Err(error) if is_late && error.is_timeout() => Err(Failed),
            Err(error) => {
                self.health.on_error(self.number, &error);
                Err(Failed)
            }
        }
    }

    /// Messages of this channel come from now on, until the connection ends.
    pub(super) async fn subscribe(&self, channel: &str) -> Result<(), RedisError> {
        let (_, mut connection) = self.connection.of(channel);
        connection.subscribe(channel).await
    }

    pub(super) const fn is_cluster(&self) -> bool {
        matches!(self.connection, Connection::Cluster(_))
    }

    /// A key of each server of a cluster, which begins with `prefix`.
    pub(super) fn keys(&self, prefix: &str) -> Vec<String> {
        self.connection.keys(prefix)
    }

    /// Whether the store answers as fast as requests need it.
    async fn is_near(&self) -> Result<(), RedisError> {
        for mut server in self.connection.servers() {
            let until = clock::now() + self.health.timeout();
            let ping = redis::cmd("PING");
            before::<Value>(until, ping.query_async(&mut server)).await?;
        }
        Ok(())
    }

    /// What a call failed with, if not from a script.
    pub(super) fn on_error(&self, error: &RedisError) {
        self.health.on_error(self.number, error);
    }

    /// Runs a script without telling the breaker.
    pub(super) async fn unchecked(
        &self,
        script: &Script,
        keys: &[&str],
        arguments: &[&[u8]],
    ) -> Result<Value, RedisError> {
        let mut invocation = script.prepare_invoke();
        for key in keys {
            invocation.key(*key);
        }
        for argument in arguments {
            invocation.arg(*argument);
        }
        let (_, mut connection) = self.connection.of(keys[0]);
        invocation.invoke_async(&mut connection).await
    }
}

/// Connects, and serves jobs until the connection fails; again and again.
async fn run(
    connector: Connector,
    health: &Arc<Health>,
    mut jobs: mpsc::Receiver<Job>,
    on_link: impl Fn(Link) -> BoxFuture<'static, Result<(), RedisError>>,
    each_beat: impl Fn(Link) -> BoxFuture<'static, ()>,
) {
    let (mut attempt, mut number) = (0, 0);
    loop {
        let link = async {
            let (connection, renewal) = connector.connect(attempt).await?;
            let (renewal, health) = (renewal.map(Arc::new), Arc::clone(health));
            let link = Link { connection, renewal, number: number + 1, health };
            let check = on_link(link.clone());
            before(clock::now() + connector.check_timeout(), check).await?;
            link.is_near().await?;
            Ok::<_, RedisError>(link)
        };
        match link.await {
            Ok(link) => {
                (attempt, number) = (0, number + 1);
                health.connected(number);
                if !serve(&link, health, &mut jobs, &each_beat).await {
                    // The last calls may still be under way.
                    clock::sleep_until(clock::now() + health.timeout()).await;
                    return;
                }
            }
            Err(error) => health.unconnected(&connector.reason(&error)),
        }
        // What was sent in the meantime is answered by its sender's timeout or sooner.
        while let Ok(job) = jobs.try_recv() {
            drop(job);
        }
        if jobs.is_closed() {
            return;
        }
        clock::sleep_until(clock::now() + health.delay(attempt)).await;
        attempt += 1;
    }
}

/// Serves jobs until the connection fails. Returns whether there may be more of them.
async fn serve(
    link: &Link,
    health: &Health,
    jobs: &mut mpsc::Receiver<Job>,
    each_beat: &impl Fn(Link) -> BoxFuture<'static, ()>,
) -> bool {
    let mut failed = pin!(health.failed.notified());
    let mut beat = clock::sleep_until(clock::now() + BEAT_INTERVAL);
    poll_fn(|cx| {
        loop {
            if failed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(true);
            }
            if beat.as_mut().poll(cx).is_ready() {
                clock::reset(beat.as_mut(), clock::now() + BEAT_INTERVAL);
                tokio::spawn(each_beat(link.clone()));
                if let Some(renewal) = link.renewal.clone() {
                    let servers = link.connection.servers();
                    tokio::spawn(async move { renewal.renew(servers).await });
                }
                continue;
            }
            match jobs.poll_recv(cx) {
                Poll::Ready(Some(job)) => drop(tokio::spawn(job(link.clone()))),
                Poll::Ready(None) => return Poll::Ready(false),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// The result of `future`, or an error at `until`.
pub(super) async fn before<T>(
    until: Instant,
    future: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, RedisError> {
    let (mut future, mut sleep) = (pin!(future), clock::sleep_until(until));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Pending => sleep
            .as_mut()
            .poll(cx)
            .map(|()| Err((redis::ErrorKind::Io, "it does not answer in time").into())),
        ready => ready,
    })
    .await
}

/// A job waits for microseconds; more than these are an overload.
const MAX_QUEUED_JOBS: usize = 4_096;
/// How often a process reports that it lives.
const BEAT_INTERVAL: Duration = Duration::from_secs(2);
