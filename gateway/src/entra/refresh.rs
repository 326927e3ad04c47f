//! Keeps a token fresh: one fetch for all who wait, ahead of the token's expiry.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use azure_core::{credentials::TokenCredential, time::OffsetDateTime};
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::time::Instant;
use tower_spillover::backend::{AccessToken, TokenError, TokenFuture, TokenSource};

use super::error::EntraError;
use crate::{config::Secret, http_client::chain};

/// A credential with a cached token.
#[derive(Clone)]
pub(super) struct Refreshed {
    inner: Arc<Inner>,
}

struct Inner {
    /// The SDK's credential, which keeps its tokens until they end.
    credential: Mutex<Arc<dyn TokenCredential>>,
    /// Makes another one, without any token.
    open: Open,
    scope: String,
    /// What no error may show.
    secret: Option<Secret>,
    state: Mutex<State>,
}

type Open = Box<dyn Fn() -> Result<Arc<dyn TokenCredential>, EntraError> + Send + Sync>;

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// When the last token was dropped that a resource rejected.
    rejected: Option<Instant>,
    fetch: Option<Fetch>,
    failed: Option<(Instant, Arc<str>)>,
}

#[derive(Clone)]
struct Held {
    token: AccessToken,
    refresh_at: Instant,
    expires_at: Instant,
}

/// Ends when the fetch has changed the state, whether or not it is still waited for.
type Fetch = Shared<BoxFuture<'static, Result<AccessToken, Arc<str>>>>;

impl Refreshed {
    /// Asks credentials that `open` makes for tokens.
    ///
    /// # Errors
    ///
    /// When the first one cannot be made.
    pub(super) fn new(
        open: impl Fn() -> Result<Arc<dyn TokenCredential>, EntraError> + Send + Sync + 'static,
        scope: String,
        secret: Option<Secret>,
    ) -> Result<Self, EntraError> {
        let (credential, state) = (Mutex::new(open()?), Mutex::default());
        let open = Box::new(open);
        Ok(Self { inner: Arc::new(Inner { credential, open, scope, secret, state }) })
    }

    /// The fetch under way, or a new one, on a task of its own: it is for all, so it goes on when
    /// the request that started it is gone.
    fn fetch(&self, state: &mut State) -> Fetch {
        if let Some(fetch) = &state.fetch {
            return fetch.clone();
        }
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move { inner.refresh().await });
        let fetch = task
            .map(|end| end.unwrap_or_else(|_| Err("the fetch was cut off".into())))
            .boxed()
            .shared();
        state.fetch = Some(fetch.clone());
        fetch
    }
}

impl TokenSource for Refreshed {
    fn token(&self) -> TokenFuture {
        let now = now();
        let mut state = self.inner.lock();
        let failed = state.failed.as_ref().filter(|(until, _)| now < *until);
        let failed = failed.map(|(_, reason)| Arc::clone(reason));
        if let Some(held) = state.held.clone().filter(|held| now < held.expires_at) {
            if now >= held.refresh_at && failed.is_none() {
                drop(self.fetch(&mut state));
            }
            return TokenFuture::ready(held.token);
        }
        if let Some(reason) = failed {
            return TokenFuture::fetching(async move { Err(error(&reason)) });
        }
        let fetch = self.fetch(&mut state);
        TokenFuture::fetching(async move { fetch.await.map_err(|reason| error(&reason)) })
    }

    /// Many requests may have been sent with the token: the first that says so drops it, and the fetch that
    /// follows is for all. What rejects the next one as well is no matter of tokens.
    fn rejected(&self, token: &AccessToken) {
        let now = now();
        let mut state = self.inner.lock();
        let is_held = state.held.as_ref().is_some_and(|held| held.token == *token);
        let is_early = state.rejected.is_some_and(|at| now < at + BETWEEN_REJECTIONS);
        if !is_held || is_early {
            return;
        }
        let credential = (self.inner.open)();
        if let Ok(credential) = credential {
            *self.inner.credential.lock().unwrap_or_else(PoisonError::into_inner) = credential;
            (state.held, state.rejected) = (None, Some(now));
            tracing::warn!(scope = &*self.inner.scope, "a resource rejected the access token");
        }
    }
}

impl fmt::Debug for Refreshed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refreshed").field("scope", &self.inner.scope).finish_non_exhaustive()
    }
}

impl Inner {
    async fn refresh(&self) -> Result<AccessToken, Arc<str>> {
        let scopes = [&*self.scope];
        let credential = self.credential.lock().unwrap_or_else(PoisonError::into_inner).clone();
        #[expect(clippy::disallowed_methods, reason = "the SDK obeys any retry-after")]
        let fetched =
            tokio::time::timeout(LONGEST_FETCH, credential.get_token(&scopes, None)).await;
        let fetched = match fetched {
            Ok(Ok(token)) => held(&token).map_err(|error| error.to_string()),
            Ok(Err(error)) => Err(self.scrub(chain(&error))),
            Err(_) => Err(format!("none came within {} s", LONGEST_FETCH.as_secs())),
        };
        let mut state = self.lock();
        state.fetch = None;
        match fetched {
            Ok(held) => {
                state.failed = None;
                state.held = Some(held.clone());
                Ok(held.token)
            }
            Err(reason) => {
                let reason: Arc<str> = reason.into();
                tracing::warn!(scope = &*self.scope, reason = &*reason, "no access token");
                state.failed = Some((now() + REMEMBERED, Arc::clone(&reason)));
                Err(reason)
            }
        }
    }

    /// An authority may repeat what it was sent.
    fn scrub(&self, mut text: String) -> String {
        if let Some(secret) = self.secret.as_ref().map(Secret::expose).filter(|s| !s.is_empty()) {
            text = text.replace(secret, "(secret)");
        }
        if let Some((end, _)) = text.char_indices().nth(LONGEST_REASON) {
            text.truncate(end);
        }
        text
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn held(token: &azure_core::credentials::AccessToken) -> Result<Held, TokenError> {
    let lifetime = token.expires_on - OffsetDateTime::now_utc();
    let lifetime = Duration::try_from(lifetime).unwrap_or_default().min(LONGEST_LIFE);
    let now = now();
    Ok(Held {
        token: AccessToken::new(token.token.secret())?,
        refresh_at: now + (lifetime - (lifetime / 10).min(AHEAD)),
        expires_at: now + lifetime,
    })
}

fn error(reason: &str) -> TokenError {
    TokenError::new(reason.to_owned())
}

#[expect(clippy::disallowed_methods, reason = "the one clock read of this part")]
fn now() -> Instant {
    Instant::now()
}

/// The SDK gives out the token that it holds until five minutes before its end, so that asking it
/// earlier refreshes nothing.
const AHEAD: Duration = Duration::from_secs(300);
/// How long a failure answers for the next fetch.
const REMEMBERED: Duration = Duration::from_secs(1);
/// How often a rejected token is dropped at most. Roles that are missing are not mended by tokens.
const BETWEEN_REJECTIONS: Duration = Duration::from_secs(60);
/// Requests wait for it, and it has two retries.
const LONGEST_FETCH: Duration = Duration::from_secs(25);
/// Entra's tokens live for 24 hours at most; an authority that says more is not believed.
const LONGEST_LIFE: Duration = Duration::from_secs(2 * 86_400);
const LONGEST_REASON: usize = 600;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use azure_core::credentials::{AccessToken as SdkToken, TokenRequestOptions};
    use futures::future::join_all;

    use super::*;

    /// Each of its tokens lives for `lifetime`; the fetches numbered in `failing` fail.
    #[derive(Debug)]
    struct Authority {
        lifetime: Duration,
        failing: Vec<usize>,
        fetches: AtomicUsize,
    }

    #[async_trait]
    impl TokenCredential for Authority {
        async fn get_token(
            &self,
            scopes: &[&str],
            _: Option<TokenRequestOptions<'_>>,
        ) -> azure_core::Result<SdkToken> {
            assert_eq!(scopes, ["scope"]);
            let number = self.fetches.fetch_add(1, Ordering::Relaxed) + 1;
            rest(Duration::from_millis(100)).await;
            if self.failing.contains(&number) {
                let kind = azure_core::error::ErrorKind::Credential;
                return Err(azure_core::Error::with_message(kind, "wrong secret canary-1"));
            }
            let expires_on = OffsetDateTime::now_utc() + self.lifetime;
            Ok(SdkToken::new(format!("token-{number}"), expires_on))
        }
    }

    fn refreshed(lifetime: u64, failing: &[usize]) -> (Refreshed, Arc<Authority>) {
        let authority = Arc::new(Authority {
            lifetime: Duration::from_secs(lifetime),
            failing: failing.to_vec(),
            fetches: AtomicUsize::new(0),
        });
        let secret = Secret::new("canary-1".to_owned());
        let opened = Arc::clone(&authority);
        let open = move || Ok(Arc::clone(&opened) as Arc<dyn TokenCredential>);
        (Refreshed::new(open, "scope".to_owned(), Some(secret)).expect("it opens"), authority)
    }

    #[expect(clippy::disallowed_methods, reason = "virtual time passes")]
    async fn rest(duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn fetches(authority: &Authority) -> usize {
        authority.fetches.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_waiters_share_one_fetch_and_later_ones_make_none() {
        let (source, authority) = refreshed(3_600, &[]);
        let tokens = join_all((0..100).map(|_| source.token())).await;
        assert!(tokens.iter().all(Result::is_ok));
        source.token().await.expect("it is held");
        assert_eq!(fetches(&authority), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_goes_away_does_not_cut_off_the_others() {
        let (source, authority) = refreshed(3_600, &[]);
        let first = source.token();
        let second = source.token();
        drop(first);
        second.await.expect("the fetch goes on");
        assert_eq!(fetches(&authority), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_refreshed_ahead_of_its_expiry_and_serves_meanwhile() {
        let (source, authority) = refreshed(3_600, &[]);
        source.token().await.expect("a token");
        rest(Duration::from_secs(3_290)).await;
        source.token().await.expect("a token");
        assert_eq!(fetches(&authority), 1, "more than five minutes are left");
        rest(Duration::from_secs(20)).await;
        for _ in 0..10 {
            let served = source.token().now_or_never();
            assert!(served.expect("nobody waits for a refresh").is_ok());
        }
        rest(Duration::from_secs(1)).await;
        assert_eq!(fetches(&authority), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_lived_token_is_refreshed_in_its_last_tenth() {
        let (source, authority) = refreshed(100, &[]);
        source.token().await.expect("a token");
        rest(Duration::from_secs(88)).await;
        source.token().await.expect("a token");
        rest(Duration::from_secs(3)).await;
        source.token().await.expect("a token");
        rest(Duration::from_secs(1)).await;
        assert_eq!(fetches(&authority), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_refresh_leaves_the_valid_token_and_is_tried_again_a_second_later() {
        let (source, authority) = refreshed(100, &[2]);
        source.token().await.expect("a token");
        rest(Duration::from_secs(91)).await;
        for (after, expected) in [(0, 2), (200, 2), (500, 2), (900, 3)] {
            rest(Duration::from_millis(after)).await;
            let served = source.token().now_or_never();
            assert!(served.expect("the token is still valid").is_ok());
            rest(Duration::from_millis(1)).await;
            assert_eq!(fetches(&authority), expected, "after {after} ms more");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_token_is_never_given_out() {
        let (source, authority) = refreshed(100, &[2]);
        source.token().await.expect("a token");
        rest(Duration::from_secs(101)).await;
        source.token().await.map(drop).expect_err("the second fetch fails");
        rest(Duration::from_secs(2)).await;
        source.token().await.expect("the third does not");
        assert_eq!(fetches(&authority), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_of_rejections_is_one_fetch_and_a_token_that_was_replaced_stays() {
        let (source, authority) = refreshed(3_600, &[]);
        let first = source.token().await.expect("a token");
        let again = join_all((0..100).map(|_| {
            source.rejected(&first);
            source.token()
        }));
        let second = again.await.pop().expect("a hundred").expect("a token");
        assert!(second != first);
        source.rejected(&first);
        assert!(source.token().now_or_never().is_some(), "the second one is held");
        assert_eq!(fetches(&authority), 2);

        source.rejected(&second);
        source.token().await.expect("a token");
        assert_eq!(fetches(&authority), 2, "no token helps, it seems");
        rest(Duration::from_secs(60)).await;
        source.rejected(&second);
        source.token().await.expect("a token");
        assert_eq!(fetches(&authority), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_answers_for_a_second_and_does_not_show_the_secret() {
        let (source, authority) = refreshed(100, &[1, 2]);
        for expected in [1, 1, 1] {
            let error = source.token().await.map(drop).expect_err("it fails");
            assert_eq!(error.to_string(), "no access token: wrong secret (secret)");
            assert_eq!(fetches(&authority), expected);
        }
        rest(Duration::from_millis(1_001)).await;
        source.token().await.map(drop).expect_err("it fails once more");
        assert_eq!(fetches(&authority), 2);
    }
}
