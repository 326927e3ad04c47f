//! Sends a request to the same backend again: with another token, or because it was not processed.

use std::time::Instant;

use http::{Response, StatusCode};

use super::Session;
use crate::{
    backend::TokenFuture,
    policy::{ClassifyError, ErrorKind},
};

/// Why a request is sent to the same backend again; once for each reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// The resource rejected the token.
    Token,
    Unprocessed,
    /// The reused connection was closed.
    Closed,
}

impl Session {
    /// Why a request whose attempt ended with `error` is sent to this backend again, for the first
    /// time, if it was not processed, or probably not.
    pub(super) fn was_unprocessed<E>(
        &self,
        error: &E,
        errors: &impl ClassifyError<E>,
    ) -> Option<Again> {
        let why = match errors.kind(error)? {
            ErrorKind::Unprocessed => Again::Unprocessed,
            ErrorKind::ClosedOnReuse => Again::Closed,
            _ => return None,
        };
        self.is_first(why).then_some(why)
    }

    /// Whether the current attempt is the second one after a reused connection closed.
    pub(super) fn is_after_close(&self) -> bool {
        self.cold.as_ref().is_some_and(|cold| cold.again == Some(Again::Closed))
    }

    /// Whether the resource rejected the token, for the first time, so that another one may help.
    /// Reports that to the token's source.
    pub(super) fn reject_token<R>(&self, response: &Response<R>) -> bool {
        let token = self.token.as_ref().and_then(TokenFuture::get_ready);
        let is_rejected = response.status() == StatusCode::UNAUTHORIZED;
        match token.filter(|_| is_rejected && self.is_first(Again::Token)) {
            Some(token) => {
                self.member().reject(token);
                true
            }
            None => false,
        }
    }

    /// Whether the request is sent to the same backend again.
    pub(super) fn goes_again(&mut self, now: Instant) -> bool {
        let (backend, attempts) = (self.backend, self.served.attempts().len());
        let is_allowed = self.may_attempt(attempts);
        let Some(cold) = &mut self.cold else { return false };
        if !is_allowed {
            cold.again = None;
        }
        let Some(why) = cold.again else { return false };
        cold.sent_again[why as usize].insert(backend);
        self.since = now;
        self.token = self.member().token();
        true
    }

    fn is_first(&self, why: Again) -> bool {
        let sent = self.cold.as_ref().map(|cold| &cold.sent_again[why as usize]);
        sent.is_none_or(|sent| !sent.contains(self.backend))
    }
}
