//! The state of a token: whether it is usable, and when to fetch another one. Takes `now` as an
//! argument, and neither locks nor waits.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::backend::AccessToken;

/// The cached token, and the result of the last fetch.
#[derive(Default)]
pub(super) struct State {
    held: Option<Held>,
    /// When the last rejected token was dropped.
    rejected: Option<Instant>,
    /// Until when a failed fetch is not repeated, and why it failed.
    failed: Option<(Instant, Arc<str>)>,
}

struct Held {
    token: AccessToken,
    refresh_at: Instant,
    ends_at: Instant,
}

/// What a request for a token gets.
pub(super) enum Ask {
    Held(AccessToken),
    /// This token, while another one is fetched.
    Refresh(AccessToken),
    /// Nothing until a fetch has ended.
    Fetch,
    /// The reason why the last fetch has just failed.
    Failed(Arc<str>),
}

impl State {
    pub(super) fn ask(&self, now: Instant) -> Ask {
        let failed = self.failed.as_ref().filter(|(until, _)| now < *until);
        let held = self.held.as_ref().filter(|held| now < held.ends_at);
        match (held, failed) {
            (Some(held), None) if now >= held.refresh_at => Ask::Refresh(held.token.clone()),
            (Some(held), _) => Ask::Held(held.token.clone()),
            (None, Some((_, reason))) => Ask::Failed(Arc::clone(reason)),
            (None, None) => Ask::Fetch,
        }
    }

    /// Whether to drop `token`, which a resource rejected. A token that was replaced meanwhile says
    /// nothing about the current one, and another token does not supply missing roles.
    pub(super) fn is_worth_rejecting(&self, token: &AccessToken, now: Instant) -> bool {
        let is_held = self.held.as_ref().is_some_and(|held| held.token == *token);
        let is_early = self
            .rejected
            .is_some_and(|at| now.saturating_duration_since(at) < MIN_TIME_BETWEEN_REJECTIONS);
        is_held && !is_early
    }

    /// Drops the cached token.
    pub(super) fn reject(&mut self, now: Instant) {
        (self.held, self.rejected) = (None, Some(now));
    }

    /// A fetch returned `token`, which is valid for `lifetime` from `now`.
    pub(super) fn fetched(&mut self, token: AccessToken, lifetime: Duration, now: Instant) {
        let lifetime = lifetime.min(MAX_LIFETIME);
        let refresh_at = now + (lifetime - (lifetime / 10).min(REFRESH_AHEAD));
        self.held = Some(Held { token, refresh_at, ends_at: now + lifetime });
        self.failed = None;
    }

    pub(super) fn failed(&mut self, reason: Arc<str>, now: Instant) {
        self.failed = Some((now + MIN_FETCH_INTERVAL, reason));
    }
}

/// The SDK returns its cached token until five minutes before the end, so an earlier refresh has no
/// effect.
const REFRESH_AHEAD: Duration = Duration::from_secs(300);
/// How long a failed fetch is not repeated.
const MIN_FETCH_INTERVAL: Duration = Duration::from_secs(1);
const MIN_TIME_BETWEEN_REJECTIONS: Duration = Duration::from_secs(60);
/// Entra's tokens live for at most 24 hours; a longer lifetime is not believed.
const MAX_LIFETIME: Duration = Duration::from_secs(2 * 86_400);
