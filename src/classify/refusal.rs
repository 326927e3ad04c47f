//! Details of a refusal beyond its head: the one extension that layers add to it.

use std::{num::NonZeroU32, time::Duration};

use http::{Extensions, HeaderMap, Response, StatusCode};

use super::{
    Hint, Limit, NativeSpillover, Outcome, RefusedSpills, Verdict, names, should_retry,
    write_retry_after::still_asks,
};

/// Details of a refusal beyond its head: a response extension.
///
/// The head of a refusal says how long to wait, but not always why, and some refusals do not look
/// like one. A layer that reads the body stores its findings here, and layers that make attempts add
/// what a head cannot express. The layers around them act on it; a refusal without this extension is
/// judged by its head.
///
/// A custom layer in between changes the wait through the headers: if they no longer carry the hint
/// that this crate's layer wrote, the headers win.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    reason: Reason,
    /// The limit that its message names, if any.
    limit: Option<Limit>,
    hint: Hint,
    /// Whether the hint is an assumption, which carries no load information.
    pub(crate) is_guess: bool,
    /// Whether a layer that makes attempts wrote it and the head, on behalf of all its backends.
    is_own: bool,
    /// Whether this request must not be retried.
    pub(crate) is_final: bool,
    /// The fewest tokens that a layer's backends refuse, if that is the only obstacle for the
    /// request.
    pub(crate) closed_from: Option<NonZeroU32>,
    /// Whether another sending of this request occupies the only backend left, so that no other
    /// request is refused, and waiting is pointless.
    pub(crate) is_elsewhere: bool,
    /// The deployments to which Azure spilled the request itself, and which refused it.
    pub(crate) spills: Option<RefusedSpills>,
    /// The outcome of the head by the rules of a provider other than Azure.
    verdict: Option<Outcome>,
}

/// The reason of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// A rate limit, of requests or tokens: it passes after the hint.
    Rate,
    /// The service has no capacity for this model in this region (`no_capacity`): another region
    /// helps, a larger quota does not.
    Capacity,
    /// The quota is used up or the account is blocked (`insufficient_quota` and similar): no wait
    /// that a request can afford helps, another backend may.
    Quota,
    /// The request is longer than this deployment accepts, though others may accept it. The backend
    /// is healthy.
    ContextLength,
    /// The deployment does not offer the requested service tier, though others may. The backend is
    /// healthy.
    ServiceTier,
    /// The backend can serve no request until its configuration is fixed: its credential, deployment,
    /// account or network rules. Nothing was executed.
    Misconfigured,
    /// A content filter or a policy refuses the request's content, wherever it is sent. The backend
    /// is healthy.
    Content,
    /// No layer has read the reason.
    Unknown,
}

/// The requests that a refusal applies to, besides the one that met it.
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
    /// A refusal for `reason` with `hint`, as found by a layer that reads bodies.
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

    /// The reason.
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// The limit that was exceeded, if the refusal's message names one.
    pub const fn limit(&self) -> Option<Limit> {
        self.limit
    }

    /// Adds the limit that its message names.
    #[must_use]
    pub const fn of_limit(mut self, limit: Limit) -> Self {
        self.limit = Some(limit);
        self
    }

    /// How long to wait: as stated by the backend's headers or, if they are silent, by its message;
    /// or until the first of a layer's backends reopens.
    pub const fn hint(&self) -> Hint {
        self.hint
    }

    /// The requests that it applies to, according to its reason.
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

    /// The refusal that an inner layer left on `response`. Looked up only if the head is a refusal.
    pub(crate) fn of<R>(response: &Response<R>) -> Option<&Self> {
        response.extensions().get()
    }

    /// The reason, if known.
    pub(crate) fn known_reason(&self) -> Option<Reason> {
        (self.reason != Reason::Unknown).then_some(self.reason)
    }

    /// Whether the hint is the backend's own time, not an assumption.
    pub(crate) const fn is_measured(&self) -> bool {
        matches!(self.hint, Hint::After(_)) && !self.is_guess
    }

    /// The hint written by a layer that makes attempts, as long as `headers` still carry it.
    pub(crate) fn hint_of_layer(&self, headers: &HeaderMap) -> Option<Hint> {
        (self.is_own && still_asks(headers, self.hint)).then_some(self.hint)
    }

    /// Whether a provider's rules have read the head.
    pub(super) const fn has_verdict(&self) -> bool {
        self.verdict.is_some()
    }

    /// The outcome by a provider's rules, as long as `headers` carry no other wait. If they do, a
    /// layer in between wrote it, and it wins.
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

    /// The hint to use if the head has none. If a layer without a reason wrote it, it was in the
    /// head, and another layer removed it.
    pub(crate) fn hint_beside_head(&self) -> Hint {
        if self.is_own && self.reason == Reason::Unknown { Hint::None } else { self.hint }
    }

    /// The meaning of `response`, a refusal classified with `hint`, for a layer that waits for the
    /// service or sends the request elsewhere. It `is_signed` if a layer of this crate that makes
    /// attempts wrote it.
    pub(crate) fn read<R>(response: &Response<R>, hint: Hint, is_signed: bool) -> Self {
        let known = Self::of(response).cloned();
        let mut refusal = known.unwrap_or(const { Self::new(Reason::Unknown, Hint::None) });
        refusal.hint = hint;
        if is_signed {
            return refusal;
        }
        refusal.is_final = should_retry(response.headers()) == Some(false);
        if refusal.reason == Reason::Quota {
            // A backend's hint for a used-up quota is not believed; a pool knows its own.
            refusal.hint = Hint::TooLong;
        } else if NativeSpillover::of(response.headers()).is_some_and(|it| it.is_of_standard()) {
            // The wait is that of the deployment to which Azure spilled, which every attempt would
            // reach.
            (refusal.hint, refusal.is_guess) = (Hint::After(ASSUMED_AFTER_SPILLOVER), true);
        }
        refusal
    }

    /// Whether `response`, a refusal, forbids retrying this request.
    ///
    /// If it `is_signed`, its `x-should-retry` addresses the client: outer layers may wait longer.
    pub(crate) fn forbids_retry<R>(response: &Response<R>, is_signed: bool) -> bool {
        match Self::of(response) {
            Some(refusal) if refusal.is_own => refusal.is_final,
            _ => !is_signed && should_retry(response.headers()) == Some(false),
        }
    }

    /// Whether `response`, a refusal classified with `hint`, applies to requests about as heavy as
    /// the one that met it, but not to lighter ones.
    ///
    /// That is so if the token limit was exceeded. If the limit is not named, it is so when the
    /// service asks for a longer wait than any window of its limits lasts: it does that for requests
    /// larger than the rest of a limit. If Azure spilled itself, the hint is that of the deployment
    /// to which it spilled, and does not apply to the requested one.
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
        // Looking up each of a dozen names takes longer than looking at all that there are.
        let by_head = Limit::is_in(headers).then_some(headers);
        let named = by_head.and_then(Limit::named);
        match named.or(in_words).or_else(|| by_head.and_then(Limit::spent)) {
            Some(limit) => limit == Limit::Tokens,
            None => {
                hint.is_beyond_windows() && !headers.contains_key(&names::GRPC_RETRY_PUSHBACK_MS)
            }
        }
    }

    /// Stores in the `extensions` of a response the findings of its body. Other findings of inner
    /// layers stay.
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

    /// Stores in the `extensions` of a response the verdict of a provider's rules on its head.
    /// Findings of its body stay.
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

    /// Withdraws a misconfiguration: the credential was the caller's.
    pub(crate) fn absolve(extensions: &mut Extensions) {
        let Some(refusal) = extensions.get_mut::<Self>() else { return };
        if refusal.reason == Reason::Misconfigured {
            refusal.reason = Reason::Unknown;
        }
        if refusal.verdict == Some(Outcome::Misconfigured) {
            refusal.verdict = Some(Outcome::Answered);
        }
    }

    /// Updates the refusal on `response` for a layer that has written `hint` into its head on behalf
    /// of all its backends. Adds it if it is missing and `is_more` than the head says.
    pub(crate) fn rewrite<R>(
        response: &mut Response<R>,
        hint: Hint,
        is_more: bool,
        change: impl FnOnce(&mut Self),
    ) {
        Self::edit(response.extensions_mut(), is_more, |refusal| {
            // From here on the head carries everything.
            (refusal.hint, refusal.is_own, refusal.verdict) = (hint, true, None);
            change(refusal);
        });
    }

    /// Appends `spills` for the outer layers.
    pub(crate) fn add_spills<R>(response: &mut Response<R>, spills: &RefusedSpills) {
        Self::edit(response.extensions_mut(), true, |refusal| {
            let known = refusal.spills.take();
            refusal.spills = Some(known.map_or_else(|| spills.clone(), |it| spills.and(&it)));
        });
    }

    /// Marks it as specific to this sending: the request is already with the backend it would go to.
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

/// The cooldown of a backend whose refusal has only the hint of the deployment to which Azure
/// spilled; a pool assumes the same for a refusal without a hint.
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
