//! One fetch of a token, shared by everything that waits for it.

use std::{
    error::Error,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use azure_core::time::OffsetDateTime;
use tokio::sync::watch;

use super::{EntraTokens, TokenEvent, failed, lock};
use crate::{
    backend::{AccessToken, TokenError},
    clock,
};

type Fetched = Result<AccessToken, Arc<str>>;

/// A fetch on a separate task, which continues if the request that started it is dropped.
#[derive(Clone)]
pub(super) struct Fetch(watch::Receiver<Option<Fetched>>);

impl Fetch {
    /// Waits for the token.
    pub(super) async fn token(mut self) -> Result<AccessToken, TokenError> {
        match self.0.wait_for(Option::is_some).await {
            Ok(end) => match &*end {
                Some(Ok(token)) => Ok(token.clone()),
                Some(Err(reason)) => Err(failed(reason)),
                None => unreachable!("it was waited for"),
            },
            // The task ended early, with its runtime or by a panic of the credential.
            Err(_) => Err(failed("the fetch was cut off")),
        }
    }

    /// Whether its task is still running.
    fn is_under_way(&self) -> bool {
        self.0.borrow().is_none() && self.0.has_changed().is_ok()
    }
}

impl EntraTokens {
    /// The current fetch, or a new one.
    pub(super) fn fetch(&self, slot: &mut Option<Fetch>) -> Fetch {
        if let Some(fetch) = slot.as_ref().filter(|fetch| fetch.is_under_way()) {
            return fetch.clone();
        }
        let (sender, receiver) = watch::channel(None);
        let fetch = Fetch(receiver);
        *slot = Some(fetch.clone());
        let tokens = self.clone();
        tokio::spawn(async move {
            let fetched = tokens.ask_credential().await;
            // If nothing waits any longer, the state still has the token.
            let _ = sender.send(Some(fetched));
        });
        fetch
    }

    /// Calls the credential, and records the result.
    async fn ask_credential(&self) -> Fetched {
        let credential = Arc::clone(&lock(&self.shared.credential));
        let scopes = [&*self.config.scope];
        let answer = credential.get_token(&scopes, None);
        let fetched = match within(clock::now() + MAX_FETCH, answer).await {
            Some(Ok(token)) => AccessToken::new(token.token.secret())
                .map(|secret| (secret, token.expires_on))
                .map_err(|error| error.reason().to_string()),
            Some(Err(error)) => Err(self.config.scrub(causes(&error))),
            None => Err(format!("none came within {} s", MAX_FETCH.as_secs())),
        };
        let mut tokens = lock(&self.shared.tokens);
        tokens.fetch = None;
        match fetched {
            Ok((token, expires_on)) => {
                let lifetime = expires_on - OffsetDateTime::from(clock::wall());
                let lifetime = Duration::try_from(lifetime).unwrap_or_default();
                tokens.state.fetched(token.clone(), lifetime, clock::now());
                Ok(token)
            }
            Err(reason) => {
                let reason: Arc<str> = reason.into();
                tokens.state.failed(Arc::clone(&reason), clock::now());
                drop(tokens);
                self.config.report(TokenEvent::Failed(&reason));
                Err(reason)
            }
        }
    }
}

impl super::Config {
    fn scrub(&self, mut text: String) -> String {
        if let Some(secret) = &self.secret {
            text = text.replace(&**secret, "(secret)");
        }
        if let Some((end, _)) = text.char_indices().nth(MAX_REASON_CHARS) {
            text.truncate(end);
        }
        text
    }
}

/// The output of `future`, unless `end` comes first. The SDK obeys any `retry-after`, however long.
async fn within<F: Future>(end: Instant, future: F) -> Option<F::Output> {
    let (mut future, mut sleep) = (pin!(future), clock::sleep_until(end));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => sleep.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// An error with those of its causes that its own message does not repeat.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let reason = cause.to_string();
        if !text.contains(&reason) {
            text.push_str(": ");
            text.push_str(&reason);
        }
        source = cause.source();
    }
    text
}

/// Requests wait for a fetch, and the SDK tries up to three times within it.
const MAX_FETCH: Duration = Duration::from_secs(25);
const MAX_REASON_CHARS: usize = 600;
