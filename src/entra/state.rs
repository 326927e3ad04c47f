//! What is known of a token: whether it serves, and when another one is worth a fetch. It takes `now`
//! as an argument, and neither locks nor waits.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::backend::AccessToken;

/// The token that is held, and how the last fetch ended.
#[derive(Default)]
pub(super) struct State {
    held: Option<Held>,
    /// When the last token was given up that a resource rejected.
    rejected: Option<Instant>,
    /// Until when a failed fetch answers for the next one, and why it failed.
    failed: Option<(Instant, Arc<str>)>,
}

struct Held {
    token: AccessToken,
    refresh_at: Instant,
    ends_at: Instant,
}

/// What a request that asks for a token gets.
pub(super) enum Ask {
    Held(AccessToken),
    /// This token, while another one is fetched.
    Refresh(AccessToken),
    /// Nothing before a fetch has ended.
    Fetch,
    /// The reason for which the last fetch failed, just now.
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

    /// Whether `token`, which a resource rejected, is to be given up for that. One that was replaced
    /// meanwhile says nothing about the next, and roles that are missing are not mended by tokens.
    pub(super) fn is_worth_rejecting(&self, token: &AccessToken, now: Instant) -> bool {
        let is_held = self.held.as_ref().is_some_and(|held| held.token == *token);
        let is_early = self
            .rejected
            .is_some_and(|at| now.saturating_duration_since(at) < MIN_TIME_BETWEEN_REJECTIONS);
        is_held && !is_early
    }

    /// Gives up the token that is held.
    pub(super) fn reject(&mut self, now: Instant) {
        (self.held, self.rejected) = (None, Some(now));
    }

    /// A fetch brought `token`, which serves for `lifetime` from `now`.
    pub(super) fn fetched(&mut self, token: AccessToken, lifetime: Duration, now: Instant) {
        let lifetime = lifetime.min(MAX_LIFETIME);
        let refresh_at = now + (lifetime - (lifetime / 10).min(REFRESH_AHEAD));
        self.held = Some(Held { token, refresh_at, ends_at: now + lifetime });
        self.failed = None;
    }

    pub(super) fn failed(&mut self, reason: Arc<str>, now: Instant) {
        self.failed = Some((now + FAILURE_ANSWERS_FOR, reason));
    }
}

/// The SDK gives out the token that it holds until five minutes before its end, so that asking it
/// earlier refreshes nothing.
const REFRESH_AHEAD: Duration = Duration::from_secs(300);
/// How long a failure answers for the next fetch.
const FAILURE_ANSWERS_FOR: Duration = Duration::from_secs(1);
const MIN_TIME_BETWEEN_REJECTIONS: Duration = Duration::from_secs(60);
/// Entra's tokens live for 24 hours at most; an authority that says more is not believed.
const MAX_LIFETIME: Duration = Duration::from_secs(2 * 86_400);
