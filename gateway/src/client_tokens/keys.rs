//! Caches an issuer's keys: concurrent requests share one fetch, and fetches have a minimum
//! interval.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::{sync::Semaphore, time::Instant};

use super::document::{self, Key, Keys};
use crate::{
    config::Tokens,
    http_client::{BoxError, Client},
};

/// The keys of one issuer: fetched when they are first needed, when they are old, and when a token
/// names an unknown one. If the issuer is unreachable, the last ones stay.
pub(super) struct KeyCache {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    settings: Arc<Tokens>,
    state: Mutex<State>,
    /// Limits the tokens that wait for a fetch.
    waiters: Semaphore,
}

#[derive(Default)]
struct State {
    /// `None` before the first fetch succeeded.
    keys: Option<Keys>,
    fetched: Option<Instant>,
    /// When the last fetch ended, whether it succeeded or not.
    ended: Option<Instant>,
    fetch: Option<Fetch>,
}

/// Completes when the state has changed, even if it is no longer awaited.
type Fetch = Shared<BoxFuture<'static, ()>>;

/// The keys have not been fetched yet.
#[derive(Debug)]
pub(super) struct NoKeys;

impl KeyCache {
    pub(super) fn new(settings: Arc<Tokens>) -> Result<Self, BoxError> {
        let waiters = Semaphore::new(MAX_WAITERS);
        let inner = Inner { client: Client::new()?, settings, state: Mutex::default(), waiters };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The key with this id, if there is one.
    pub(super) async fn get(&self, id: &str) -> Result<Option<Key>, NoKeys> {
        let fetch = {
            let now = now();
            let mut state = self.inner.lock();
            let known = state.keys.as_ref().and_then(|keys| keys.get(id)).cloned();
            let is_old = state.fetched.is_none_or(|at| now >= at + MAX_KEY_AGE);
            let is_due = state.ended.is_none_or(|at| now >= at + state.pause());
            let wanted = known.is_none() || is_old;
            let fetch = match &state.fetch {
                Some(fetch) => Some(fetch.clone()),
                None if wanted && is_due => Some(self.fetch(&mut state)),
                None => None,
            };
            if known.is_some() {
                return Ok(known);
            }
            fetch
        };
        if let Some(fetch) = fetch {
            // The owners of these tokens are unknown, so no client's limits apply.
            let _waiter = self.inner.waiters.try_acquire().map_err(|_| NoKeys)?;
            fetch.await;
        }
        let state = self.inner.lock();
        let keys = state.keys.as_ref().ok_or(NoKeys)?;
        Ok(keys.get(id).cloned())
    }

    /// On its own task: a fetch is shared, so it continues if the request that started it is
    /// dropped.
    fn fetch(&self, state: &mut State) -> Fetch {
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move { inner.refresh().await });
        let fetch = task.map(drop).boxed().shared();
        state.fetch = Some(fetch.clone());
        fetch
    }
}

impl State {
    /// The time between two fetches.
    const fn pause(&self) -> Duration {
        if self.keys.is_none() { WITHOUT_KEYS } else { BETWEEN_FETCHES }
    }
}

impl Inner {
    async fn refresh(&self) {
        #[expect(clippy::disallowed_methods, reason = "requests wait for it")]
        let fetched =
            tokio::time::timeout(FETCH_TIMEOUT, document::fetch(&self.client, &self.settings))
                .await;
        let fetched = fetched
            .unwrap_or_else(|_| Err(format!("no keys within {} s", FETCH_TIMEOUT.as_secs())));
        let now = now();
        let mut state = self.lock();
        state.fetch = None;
        state.ended = Some(now);
        match fetched {
            Ok(keys) => (state.keys, state.fetched) = (Some(keys), Some(now)),
            Err(reason) => {
                let issuer = self.settings.issuer.name();
                tracing::warn!(issuer, reason, "the keys of the token issuer were not fetched");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::disallowed_methods, reason = "the one clock read of this part")]
fn now() -> Instant {
    Instant::now()
}

/// Issuers publish a key days before they sign with it.
const MAX_KEY_AGE: Duration = Duration::from_secs(3_600);
/// Anyone can make up key ids.
const BETWEEN_FETCHES: Duration = Duration::from_secs(30);
const WITHOUT_KEYS: Duration = Duration::from_secs(2);
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Each is a request from an unknown client, with a token of up to 32 KiB.
const MAX_WAITERS: usize = 100;
