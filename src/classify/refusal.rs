//! What is known of a refusal beside its head: the one extension that layers leave on it.

use std::{num::NonZeroU32, time::Duration};

use http::{Extensions, HeaderMap, Response, StatusCode};

use super::{
    Hint, Limit, NativeSpillover, Outcome, RefusedSpills, Verdict, names, should_retry,
    write_retry_after::still_asks,
};

/// What is known of a refusal beside its head: a response extension.
///
/// The head of a refusal says how long to wait, not always why, and some refusals do not look
/// like one at all. A layer that reads the body leaves what it found here, and the layers that send
/// requests on add what a head cannot say. The layers around them steer by it; a refusal without one
/// is what its head says.
///
/// A layer of your own between them changes the wait by the headers: where they do not ask for what
/// this crate's layer wrote, they count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    reason: Reason,
    /// Which limit it names in words, if any.
    limit: Option<Limit>,
    hint: Hint,
    /// Whether the hint is an assumption, which says nothing of how full the backend is.
    pub(crate) is_guess: bool,
    /// Whether a layer that sends requests on wrote it and the head, for all of its backends.
    is_own: bool,
    /// Whether this request is not to come back.
    pub(crate) is_final: bool,
    /// From how many tokens up a layer's backends refuse, where that is all that keeps the request from
    /// them.
    pub(crate) closed_from: Option<NonZeroU32>,
    /// Whether another sending of this request is where this one would have gone, so that no other request is
    /// refused, and there is nothing to wait for.
    pub(crate) is_elsewhere: bool,
    /// Where Azure spilled the request to by itself, and it was refused.
    pub(crate) spills: Option<RefusedSpills>,
    /// What the rules of another provider than Azure took the head for.
    verdict: Option<Outcome>,
}

/// What a backend refuses for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// A rate limit, of requests or tokens: it passes by itself after the hint.
    Rate,
    /// The service has no capacity for this model in this region at the moment (`no_capacity`):
    /// another region helps, a larger quota does not.
    Capacity,
    /// The quota is used up or the account is blocked (`insufficient_quota` and its kin): no wait
    /// that a request can afford helps, another backend may.
    Quota,
    /// The request is longer than this deployment takes, though others may take it. It is no fault
    /// of the backend, which goes on serving.
    ContextLength,
    /// The deployment does not offer the service tier that was asked for, though others may. Nor is
    /// that a fault of the backend.
    ServiceTier,
    /// The backend can serve no request until its configuration is mended: its credential, its
    /// deployment, its account or its network rules. Nothing was executed.
    Misconfigured,
    /// What the request says is refused, by a content filter or a policy, wherever it is sent. It is no
    /// fault of the backend.
    Content,
    /// No layer has read why.
    Unknown,
}

/// Whom a refusal concerns, beside the request that met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// No other request.
    Request,
    /// Every backend that shares the quota: one subscription, region and model.
    Quota,
    /// The model in its region.
    Region,
}

impl Refusal {
    /// A refusal for `reason` that asks to wait for `hint`, as a layer that reads bodies finds it.
    pub const fn new(reason: Reason, hint: Hint) -> Self {
        Self {
            reason,
            limit: None,
            hint,
            is_guess: false,
            is_own: false,
            is_final: false,
            closed_from: None,
            is_elsewhere: false,
            spills: None,
            verdict: None,
        }
    }

    /// Why.
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// Which limit was exceeded, where the words of the refusal name one.
    pub const fn limit(&self) -> Option<Limit> {
        self.limit
    }

    /// The refusal, with the limit that its words name.
    #[must_use]
    pub const fn of_limit(mut self, limit: Limit) -> Self {
        self.limit = Some(limit);
        self
    }

    /// How long to wait: as the backend asked by its headers or, where they are silent, its message;
    /// or until the first of a layer's backends is open.
    pub const fn hint(&self) -> Hint {
        self.hint
    }

    /// Whom it concerns; the reason says so.
    pub(crate) const fn scope(&self) -> Scope {
        match self.reason {
            Reason::Rate | Reason::Quota => Scope::Quota,
            Reason::Capacity => Scope::Region,
            Reason::ContextLength
            | Reason::ServiceTier
            | Reason::Misconfigured
            | Reason::Content
            | Reason::Unknown => Scope::Request,
        }
    }

    /// What a layer inside left on `response`. Looked up once the head says that it refuses.
    pub(crate) fn of<R>(response: &Response<R>) -> Option<&Self> {
        response.extensions().get()
    }

    /// Why, if that is known.
    pub(crate) fn known_reason(&self) -> Option<Reason> {
        (self.reason != Reason::Unknown).then_some(self.reason)
    }

    /// Whether the hint is how long the backend really refuses, and no assumption.
    pub(crate) const fn is_measured(&self) -> bool {
        matches!(self.hint, Hint::After(_)) && !self.is_guess
    }

    /// The hint that a layer which sends requests on wrote, as long as `headers` still ask for it.
    pub(crate) fn hint_of_layer(&self, headers: &HeaderMap) -> Option<Hint> {
        (self.is_own && still_asks(headers, self.hint)).then_some(self.hint)
    }

    /// Whether the rules of a provider have read the head.
    pub(super) const fn has_verdict(&self) -> bool {
        self.verdict.is_some()
    }

    /// What the rules of a provider took the head for, as long as `headers` do not ask for another wait:
    /// then a layer between wrote it, which counts.
    pub(super) fn verdict(
        &self,
        headers: &HeaderMap,
        asked: impl FnOnce() -> Hint,
    ) -> Option<Outcome> {
        match self.verdict? {
            Outcome::Throttled(hint @ Hint::After(_)) if !still_asks(headers, hint) => {
                Some(Outcome::Throttled(asked()))
            }
            Outcome::Throttled(hint @ (Hint::None | Hint::Zero)) => {
                Some(Outcome::Throttled(hint.or_longer(asked)))
            }
            outcome => Some(outcome),
        }
    }

    /// The hint that counts where the head has none. That of a layer which gives no reason was in the
    /// head, so another layer removed it.
    pub(crate) fn hint_beside_head(&self) -> Hint {
        if self.is_own && self.reason == Reason::Unknown { Hint::None } else { self.hint }
    }

    /// What `response`, a refusal that is classified with `hint`, means for a layer that waits for the
    /// service which refused, or sends the request elsewhere. It `is_signed` when it comes from a layer
    /// of this crate that sends requests on.
    pub(crate) fn read<R>(response: &Response<R>, hint: Hint, is_signed: bool) -> Self {
        let known = Self::of(response).cloned();
        let mut refusal = known.unwrap_or(const { Self::new(Reason::Unknown, Hint::None) });
        refusal.hint = hint;
        if is_signed {
            return refusal;
        }
        refusal.is_final = should_retry(response.headers()) == Some(false);
        if refusal.reason == Reason::Quota {
            // What a backend says of its quota is not believed; a pool knows.
            refusal.hint = Hint::TooLong;
        } else if NativeSpillover::of(response.headers()).is_some_and(|it| it.is_of_standard()) {
            // The wait is that of the deployment to which Azure spilled, which every attempt asks.
            (refusal.hint, refusal.is_guess) = (Hint::After(ASSUMED_AFTER_SPILLOVER), true);
        }
        refusal
    }

    /// Whether `response`, a refusal, forbids this request to come back.
    ///
    /// Where it `is_signed`, its `x-should-retry` addresses the client, which has less time than the
    /// layers around the one that signed it.
    pub(crate) fn forbids_retry<R>(response: &Response<R>, is_signed: bool) -> bool {
        match Self::of(response) {
            Some(refusal) if refusal.is_own => refusal.is_final,
            _ => !is_signed && should_retry(response.headers()) == Some(false),
        }
    }

    /// Whether `response`, a refusal that is classified with `hint`, is about requests that are about as
    /// heavy as the one that met it, and not about lighter ones.
    ///
    /// That is so when the limit of tokens was exceeded. Where the limit is not named, it is so when
    /// the service asks for a longer wait than any window of its limits lasts: it does so of requests that
    /// are larger than what is left of a limit. Where Azure spilled by itself, the words are those of the
    /// deployment to which it did, and say nothing of the one that was asked.
    pub(crate) fn is_about_weight<R>(response: &Response<R>, hint: Hint) -> bool {
        let headers = response.headers();
        let known = Self::of(response);
        if let Some(pool) = known.filter(|refusal| refusal.is_own) {
            return pool.closed_from.is_some();
        }
        if let Some(read) = known.filter(|refusal| refusal.has_verdict()) {
            return read.limit == Some(Limit::Tokens);
        }
        if !matches!(known.map_or(Reason::Unknown, Self::reason), Reason::Rate | Reason::Unknown)
            || response.status() != StatusCode::TOO_MANY_REQUESTS
            || NativeSpillover::of(headers).is_some_and(|it| it.is_of_standard())
        {
            return false;
        }
        let in_words = known.and_then(|refusal| refusal.limit);
        match Limit::named(headers).or(in_words).or_else(|| Limit::spent(headers)) {
            Some(limit) => limit == Limit::Tokens,
            None => {
                hint.is_beyond_windows() && !headers.contains_key(&names::GRPC_RETRY_PUSHBACK_MS)
            }
        }
    }

    /// Leaves in the `extensions` of a response what its body says of the refusal. What layers inside
    /// know beside that stays.
    pub(crate) fn set_in(
        extensions: &mut Extensions,
        reason: Reason,
        limit: Option<Limit>,
        hint: Hint,
    ) {
        Self::edit(extensions, true, |refusal| {
            (refusal.reason, refusal.limit, refusal.hint) = (reason, limit, hint);
            let agrees = match refusal.verdict {
                Some(Outcome::Throttled(_)) => true,
                Some(Outcome::Misconfigured) => reason == Reason::Misconfigured,
                _ => false,
            };
            if !agrees {
                refusal.verdict = None;
            }
        });
    }

    /// Leaves in the `extensions` of a response what the rules of a provider found in its head. What its
    /// body said stays.
    pub(super) fn set_verdict(extensions: &mut Extensions, verdict: Verdict) {
        Self::edit(extensions, true, |refusal| {
            refusal.verdict = Some(verdict.outcome);
            refusal.limit = refusal.limit.or(verdict.limit);
            if refusal.reason == Reason::Unknown {
                refusal.reason = verdict.reason;
            }
            if let Outcome::Throttled(hint) = verdict.outcome {
                refusal.hint = hint;
            }
        });
    }

    /// Withdraws that the backend is misconfigured: the credential was the caller's.
    pub(crate) fn absolve(extensions: &mut Extensions) {
        let Some(refusal) = extensions.get_mut::<Self>() else { return };
        if refusal.reason == Reason::Misconfigured {
            refusal.reason = Reason::Unknown;
        }
        if refusal.verdict == Some(Outcome::Misconfigured) {
            refusal.verdict = Some(Outcome::Answered);
        }
    }

    /// Changes what is known of `response` by a layer that has written `hint` into its head for all of
    /// its backends. What is not known yet is added if it `is_more` than the head says.
    pub(crate) fn rewrite<R>(
        response: &mut Response<R>,
        hint: Hint,
        is_more: bool,
        change: impl FnOnce(&mut Self),
    ) {
        Self::edit(response.extensions_mut(), is_more, |refusal| {
            // From here on the head says it all.
            (refusal.hint, refusal.is_own, refusal.verdict) = (hint, true, None);
            change(refusal);
        });
    }

    /// Leaves `spills` for the layers outside, after those that are known already.
    pub(crate) fn add_spills<R>(response: &mut Response<R>, spills: &RefusedSpills) {
        Self::edit(response.extensions_mut(), true, |refusal| {
            let known = refusal.spills.take();
            refusal.spills = Some(known.map_or_else(|| spills.clone(), |it| spills.and(&it)));
        });
    }

    /// Says that it is one of this sending alone: the request is with the backend it would go to.
    pub(crate) fn set_elsewhere<R>(response: &mut Response<R>) {
        Self::edit(response.extensions_mut(), true, |refusal| refusal.is_elsewhere = true);
    }

    pub(crate) const fn set_reason(&mut self, reason: Reason) {
        self.reason = reason;
    }

    fn edit(extensions: &mut Extensions, adds: bool, change: impl FnOnce(&mut Self)) {
        if let Some(refusal) = extensions.get_mut() {
            change(refusal);
        } else if adds {
            let mut refusal = Self::new(Reason::Unknown, Hint::None);
            change(&mut refusal);
            extensions.insert(refusal);
        }
    }
}

/// The cooldown of a backend whose refusal has only the wait of the deployment to which Azure spilled;
/// a pool assumes as much of a backend that gives no time.
const ASSUMED_AFTER_SPILLOVER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::heads::head;

    #[test]
    fn a_layer_s_word_to_clients_does_not_bind_the_layers_around_it() {
        let mut response = Response::new(());
        *response.headers_mut() = head(&[("x-should-retry", "false")]);
        assert!(Refusal::forbids_retry(&response, false));
        assert!(!Refusal::forbids_retry(&response, true));
        Refusal::rewrite(&mut response, Hint::None, true, |refusal| refusal.is_final = true);
        assert!(Refusal::forbids_retry(&response, true));
    }
}
