//! Which failures and errors move a request on, and whether its length does: one set per layer.

use std::{fmt, time::SystemTime};

use http::{HeaderMap, Response, StatusCode};

use super::{ClassifyError, ErrorKind, RetryBudget, ReturnErrors, status_set::StatusSet};
use crate::classify::{Outcome, should_retry};

/// What moves a request on, besides a refusal, to the next backend or to the other tier: failed
/// answers, transport errors, and its length. A request for a service tier that a deployment does not
/// offer always moves on.
///
/// A 429 was not executed. A failure may have been, and a completion that is requested twice is
/// billed twice. So the [default](Self::new) is what Azure's own spillover does, plus errors that
/// cannot have reached a model; enable timeouts and resets if paying twice is preferable. The
/// service's `x-should-retry` decides about kinds that were enabled: with `false` the answer is
/// returned to the caller, and with `true` any 5xx moves on as soon as one status is enabled.
///
/// Every move takes one from a [`RetryBudget`], so that an outage does not double the load on the
/// remaining backends. A backend that keeps failing is deferred, twice as long each time, and probed
/// by one request at a time until it answers; see
/// [`CooldownPolicy::failed`](super::CooldownPolicy::failed).
///
/// ```
/// use hyper_util::client::legacy::Error;
/// use tower_spillover::policy::{ErrorKind, MoveOn, RetryBudget};
///
/// fn kind(error: &Error) -> ErrorKind {
///     if error.is_connect() { ErrorKind::Connect } else { ErrorKind::Other }
/// }
/// let move_on = MoveOn::new()
///     .gateway_timeout()
///     .errors(kind)
///     .budget(RetryBudget::new(50, 0.1));
/// # drop(move_on);
/// ```
#[derive(Clone)]
pub struct MoveOn<X = ReturnErrors> {
    statuses: StatusSet,
    /// One bit per kind of error.
    errors: u8,
    /// `None` for the layer's default.
    context_length: Option<bool>,
    budget: Option<RetryBudget>,
    classify: X,
}

impl MoveOn {
    /// The default of all layers: 500, 502, 503 without a hint, and connection errors, if
    /// [`errors`](Self::errors) identifies those; with a budget of 500 moves and one more per five
    /// successes.
    ///
    /// Azure's own spillover moves on 500 and 503, besides 429 and a request that is [too
    /// long](Self::context_length): such a request has failed or was not started, and its caller
    /// would retry. A 502 is a gateway's 503, and without a connection nothing was sent. A 504, a
    /// timeout and a broken connection leave a model working on a request that is billed when it
    /// ends, so they are not included.
    ///
    /// Source: Microsoft Learn, "Manage traffic with spillover for provisioned deployments".
    pub fn new() -> Self {
        Self::none().internal_error().bad_gateway().unavailable().connect()
    }

    /// No failure, with the same budget.
    pub fn none() -> Self {
        Self {
            statuses: StatusSet::NONE,
            errors: 0,
            context_length: None,
            budget: Some(RetryBudget::default()),
            classify: ReturnErrors,
        }
    }
}

impl<X> MoveOn<X> {
    /// 408: the service gave up reading the request. It was not executed, but whatever kept the
    /// request from arriving may affect another backend, too.
    #[must_use]
    pub const fn request_timeout(self) -> Self {
        self.status(StatusCode::REQUEST_TIMEOUT)
    }

    /// 409: the request conflicts with another one on the same object. OpenAI's own clients retry it.
    /// Another resource does not have the object, so this helps only requests without one.
    #[must_use]
    pub const fn conflict(self) -> Self {
        self.status(StatusCode::CONFLICT)
    }

    /// 500: it failed while it was executed, and may be billed.
    #[must_use]
    pub const fn internal_error(self) -> Self {
        self.status(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// 502: something between here and the model failed, possibly after the model had started.
    #[must_use]
    pub const fn bad_gateway(self) -> Self {
        self.status(StatusCode::BAD_GATEWAY)
    }

    /// 503 without a hint, and gRPC `UNAVAILABLE`: usually refused before execution. With a hint it
    /// is a refusal, and always moves on.
    #[must_use]
    pub const fn unavailable(self) -> Self {
        self.status(StatusCode::SERVICE_UNAVAILABLE)
    }

    /// 504: it took too long. The model may still be working on it, and it is billed when it ends; a
    /// request that is slow by nature is slow everywhere.
    #[must_use]
    pub const fn gateway_timeout(self) -> Self {
        self.status(StatusCode::GATEWAY_TIMEOUT)
    }

    /// Any other status from 400 to 599: 424 of a failed tool, 431 for more than the ten custom
    /// headers that Azure accepts, 499 of a proxy whose client left, 524 of one that gave up.
    ///
    /// Statuses with a meaning of their own keep it in any case: 400 and 413 (the request, or its
    /// [length](Self::context_length)), 401, 402, 403, 404 and 410 (the backend's configuration), 429
    /// and 529 (refusals).
    #[must_use]
    pub const fn status(mut self, status: StatusCode) -> Self {
        self.statuses.insert(status.as_u16());
        self
    }

    /// Maps the errors of the client to kinds, so that [`connect`](Self::connect),
    /// [`reset`](Self::reset), [`timeout`](Self::timeout) and [`other`](Self::other) can be enabled.
    /// By default every error is returned to the caller.
    #[must_use]
    pub fn errors<E, F: Fn(&E) -> ErrorKind>(self, kind: F) -> MoveOn<F> {
        let Self { statuses, errors, context_length, budget, .. } = self;
        MoveOn { statuses, errors, context_length, budget, classify: kind }
    }

    /// Errors of [`ErrorKind::Connect`], and of [`ErrorKind::Unprocessed`] after one re-send: nothing
    /// was executed.
    #[must_use]
    pub const fn connect(self) -> Self {
        self.error(ErrorKind::Connect)
    }

    /// Errors of [`ErrorKind::Reset`].
    #[must_use]
    pub const fn reset(self) -> Self {
        self.error(ErrorKind::Reset)
    }

    /// Errors of [`ErrorKind::Timeout`].
    #[must_use]
    pub const fn timeout(self) -> Self {
        self.error(ErrorKind::Timeout)
    }

    /// Errors of [`ErrorKind::Other`].
    #[must_use]
    pub const fn other(self) -> Self {
        self.error(ErrorKind::Other)
    }

    /// Whether a request moves on if it is too long for the deployment: a 400 or 413 that an inner
    /// layer, which reads bodies, found to be about nothing else. It does not count as a failure, and
    /// takes nothing from the budget.
    ///
    /// On by default in a [`SmartFallbackLayer`](crate::SmartFallbackLayer): a PTU accepts less
    /// context than Standard for some models (128 k tokens of gpt-4.1's million), Azure's own
    /// spillover does the same, and a request that is too long for both costs one more refusal, which
    /// is not billed.
    ///
    /// Off by default in a [`RegionRotateLayer`](crate::RegionRotateLayer): the backends of one pool
    /// should be the same model, with the same limit everywhere, so a caller's mistake would be
    /// repeated once per region.
    #[must_use]
    pub const fn context_length(mut self, moves_on: bool) -> Self {
        self.context_length = Some(moves_on);
        self
    }

    /// The budget that all requests of this layer and its clones draw their moves from; `None` for no
    /// budget.
    #[must_use]
    pub fn budget(mut self, budget: impl Into<Option<RetryBudget>>) -> Self {
        self.budget = budget.into();
        self
    }

    const fn error(mut self, kind: ErrorKind) -> Self {
        self.errors |= bit(kind);
        self
    }

    /// Splits it into the set, with the layer's default for `context_length` if that is unset, and
    /// the classifier of errors.
    pub(crate) fn split(self, context_length: bool) -> (MoveOn, X) {
        let context_length = Some(self.context_length.unwrap_or(context_length));
        let Self { statuses, errors, budget, classify, .. } = self;
        // Without a reason to move, no budget is needed.
        let budget = budget.filter(|_| errors != 0 || !statuses.is_empty());
        (MoveOn { statuses, errors, context_length, budget, classify: ReturnErrors }, classify)
    }
}

impl MoveOn {
    /// The meaning of an attempt's result for a layer with this set: everything but
    /// [`Outcome::Answered`] moves the request on.
    #[inline]
    pub(crate) fn classify<R, E>(
        &self,
        result: &Result<Response<R>, E>,
        errors: &impl ClassifyError<E>,
        now: impl FnOnce() -> SystemTime,
    ) -> Outcome {
        match result {
            Ok(response) if Outcome::is_plain_success(response) => Outcome::Answered,
            Ok(response) => self.classify_other(response, now),
            Err(error) if errors.kind(error).is_some_and(|kind| self.errors & bit(kind) != 0) => {
                Outcome::Failed
            }
            Err(_) => Outcome::Answered,
        }
    }

    #[inline(never)]
    fn classify_other<R>(
        &self,
        response: &Response<R>,
        now: impl FnOnce() -> SystemTime,
    ) -> Outcome {
        match Outcome::of_response(response, now) {
            moving @ (Outcome::Throttled(_) | Outcome::TierNotOffered) => moving,
            Outcome::ContextTooLong if self.context_length == Some(true) => Outcome::ContextTooLong,
            Outcome::Misconfigured => Outcome::Misconfigured,
            outcome if self.includes(outcome, response.status(), response.headers()) => {
                Outcome::Failed
            }
            _ => Outcome::Answered,
        }
    }

    /// Whether an answer other than a refusal is a failure to move on from.
    fn includes(&self, outcome: Outcome, status: StatusCode, headers: &HeaderMap) -> bool {
        let status = match outcome {
            Outcome::Failed if !status.is_server_error() => StatusCode::SERVICE_UNAVAILABLE,
            _ => status,
        };
        match should_retry(headers) {
            Some(false) => false,
            Some(true) if status.is_server_error() => !self.statuses.is_empty(),
            _ => self.statuses.contains(status.as_u16()),
        }
    }

    /// A request was served.
    #[inline]
    pub(crate) fn deposit(&self) {
        if let Some(budget) = &self.budget {
            budget.deposit();
        }
    }

    /// Returns a move that was not made.
    pub(crate) fn give_back(&self) {
        if let Some(budget) = &self.budget {
            budget.give_back();
        }
    }

    /// Takes a move from the budget; returns whether there was one.
    pub(crate) fn withdraw(&self) -> bool {
        self.budget.as_ref().is_none_or(RetryBudget::withdraw)
    }
}

impl Default for MoveOn {
    fn default() -> Self {
        Self::new()
    }
}

impl<X> fmt::Debug for MoveOn<X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MoveOn")
            .field("statuses", &self.statuses)
            .field("errors", &format_args!("{:#b}", self.errors))
            .field("context_length", &self.context_length)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

const fn bit(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Unprocessed => bit(ErrorKind::Connect),
        ErrorKind::ClosedOnReuse => bit(ErrorKind::Reset),
        kind => 1 << kind as u8,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::classify::{Hint, Reason, Refusal};

    fn statuses(failures: &MoveOn, word: Option<&'static str>) -> Vec<u16> {
        let mut headers = HeaderMap::new();
        if let Some(word) = word {
            headers.insert("x-should-retry", HeaderValue::from_static(word));
        }
        let is_included = |status: &u16| {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::from_u16(*status).expect("a status");
            *response.headers_mut() = headers.clone();
            let outcome = Outcome::of(response.status(), &headers, || unreachable!());
            failures.includes(outcome, response.status(), &headers)
        };
        (100..600).filter(is_included).collect()
    }

    #[test]
    fn the_default_is_what_native_spillover_takes_upon_itself_and_what_was_not_sent() {
        assert_eq!(statuses(&MoveOn::new(), None), [500, 502, 503]);
        assert_eq!(MoveOn::new().errors, bit(ErrorKind::Connect));
    }

    #[test]
    fn each_kind_is_switched_on_by_itself() {
        assert!(statuses(&MoveOn::none(), None).is_empty());
        for status in (100..=999).map(|status| StatusCode::from_u16(status).expect("a status")) {
            let has_another_meaning = matches!(status.as_u16(), 400..=404 | 410 | 413 | 429 | 529);
            let is_named = (400..600).contains(&status.as_u16()) && !has_another_meaning;
            let named: &[u16] = if is_named { &[status.as_u16()] } else { &[] };
            assert_eq!(statuses(&MoveOn::none().status(status), None), named);
        }
        for (failures, status) in [
            (MoveOn::none().request_timeout(), 408),
            (MoveOn::none().conflict(), 409),
            (MoveOn::none().internal_error(), 500),
            (MoveOn::none().bad_gateway(), 502),
            (MoveOn::none().unavailable(), 503),
            (MoveOn::none().gateway_timeout(), 504),
        ] {
            assert_eq!(statuses(&failures, None), [status]);
        }
    }

    #[test]
    fn the_service_has_the_last_word_on_what_is_switched_on() {
        let one = MoveOn::none().unavailable();
        assert!(statuses(&one, Some("false")).is_empty());
        assert_eq!(statuses(&one, Some("true")), (500..600).collect::<Vec<_>>());
        assert!(statuses(&MoveOn::none(), Some("true")).is_empty());
    }

    #[test]
    fn errors_move_on_by_their_kind_where_it_is_switched_on() {
        const KINDS: [ErrorKind; 4] =
            [ErrorKind::Connect, ErrorKind::Reset, ErrorKind::Timeout, ErrorKind::Other];
        let moving = |set: MoveOn<fn(&ErrorKind) -> ErrorKind>| {
            let (set, errors) = set.split(false);
            let outcome =
                |kind| set.classify(&Err::<Response<()>, _>(kind), &errors, || unreachable!());
            KINDS.map(|kind| outcome(kind) == Outcome::Failed)
        };
        let none = MoveOn::none().errors((|kind| *kind) as fn(&ErrorKind) -> ErrorKind);
        assert_eq!(moving(none.clone()), [false; 4]);
        assert_eq!(moving(none.clone().connect()), [true, false, false, false]);
        assert_eq!(moving(none.clone().reset()), [false, true, false, false]);
        assert_eq!(moving(none.clone().timeout()), [false, false, true, false]);
        assert_eq!(moving(none.other()), [false, false, false, true]);
        let (unknown, errors) = MoveOn::none().connect().other().split(false);
        let result = Err::<Response<()>, _>(());
        assert_eq!(unknown.classify(&result, &errors, || unreachable!()), Outcome::Answered);
    }

    #[test]
    fn a_word_on_statuses_does_not_switch_errors_on_nor_the_other_way_round() {
        let errors = MoveOn::none().connect().reset().timeout().other();
        assert!(statuses(&errors, None).is_empty() && statuses(&errors, Some("true")).is_empty());
    }

    #[test]
    fn the_length_of_a_request_moves_it_by_the_layers_default_until_it_is_said() {
        for (said, default, moves) in [
            (None, true, true),
            (None, false, false),
            (Some(false), true, false),
            (Some(true), false, true),
        ] {
            let set = MoveOn::none();
            let set = said.map_or_else(|| set.clone(), |said| set.clone().context_length(said));
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::BAD_REQUEST;
            response.extensions_mut().insert(Refusal::new(Reason::ContextLength, Hint::None));
            let (set, errors) = set.split(default);
            let outcome = set.classify(&Ok::<_, ()>(response), &errors, || unreachable!());
            assert_eq!(outcome == Outcome::ContextTooLong, moves, "{said:?} {default}");
        }
    }
}
