//! Keeps the keys of an issuer: one fetch for all who wait, and no more than one in a while.

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

/// The keys of one issuer, which are fetched when they are first needed, again when they are old,
/// and when a token names one that is not among them. When the issuer cannot be reached, the last
/// ones stay.
pub(super) struct KeyCache {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    settings: Arc<Tokens>,
    state: Mutex<State>,
    /// Of the tokens that wait for a fetch.
    waiters: Semaphore,
}

#[derive(Default)]
struct State {
    /// `None` before any were fetched.
    keys: Option<Keys>,
    fetched: Option<Instant>,
    /// When the last fetch ended, however it did.
    ended: Option<Instant>,
    fetch: Option<Fetch>,
}

/// Ends when the state has changed, whether or not it is still waited for.
type Fetch = Shared<BoxFuture<'static, ()>>;

/// The key is not there yet, and may be later.
#[derive(Debug)]
pub(super) struct NoKeys;

impl KeyCache {
    pub(super) fn new(settings: Arc<Tokens>) -> Result<Self, BoxError> {
        let waiters = Semaphore::new(MOST_WAITERS);
        let inner = Inner { client: Client::new()?, settings, state: Mutex::default(), waiters };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The key with this id, if there is one.
    pub(super) async fn get(&self, id: &str) -> Result<Option<Key>, NoKeys> {
        let fetch = {
            let now = now();
            let mut state = self.inner.lock();
            let known = state.keys.as_ref().and_then(|keys| keys.get(id)).cloned();
            let is_old = state.fetched.is_none_or(|at| now >= at + LONGEST_AGE);
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
            // Whose tokens they are is not known yet: no limit of a client holds for them.
            let _waiter = self.inner.waiters.try_acquire().map_err(|_| NoKeys)?;
            fetch.await;
        }
        let state = self.inner.lock();
        let keys = state.keys.as_ref().ok_or(NoKeys)?;
        Ok(keys.get(id).cloned())
    }

    /// On a task of its own: it is for all, so it goes on when the request that began it is gone.
    fn fetch(&self, state: &mut State) -> Fetch {
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move { inner.refresh().await });
        let fetch = task.map(drop).boxed().shared();
        state.fetch = Some(fetch.clone());
        fetch
    }
}

impl State {
    /// Between two fetches.
    const fn pause(&self) -> Duration {
        if self.keys.is_none() { WITHOUT_KEYS } else { BETWEEN_FETCHES }
    }
}

impl Inner {
    async fn refresh(&self) {
        #[expect(clippy::disallowed_methods, reason = "requests wait for it")]
        let fetched =
            tokio::time::timeout(LONGEST_FETCH, document::fetch(&self.client, &self.settings))
                .await;
        let fetched = fetched
            .unwrap_or_else(|_| Err(format!("no keys within {} s", LONGEST_FETCH.as_secs())));
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
const LONGEST_AGE: Duration = Duration::from_secs(3_600);
/// Anybody can make up ids of keys.
const BETWEEN_FETCHES: Duration = Duration::from_secs(30);
const WITHOUT_KEYS: Duration = Duration::from_secs(2);
const LONGEST_FETCH: Duration = Duration::from_secs(10);
/// Each is a request of somebody unknown, with a token of up to 32 KiB.
const MOST_WAITERS: usize = 100;
