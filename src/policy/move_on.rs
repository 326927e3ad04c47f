//! Which failures and errors send a request on, and whether its length does: one set for a layer.

use std::{fmt, time::SystemTime};

use http::{HeaderMap, Response, StatusCode};

use super::{ClassifyError, ErrorKind, RetryBudget, ReturnErrors, status_set::StatusSet};
use crate::classify::{Outcome, should_retry};

/// What sends a request on beside a refusal, to the next backend or to the other tier: failed
/// answers, transport errors, and its length. One whose service tier a deployment does not offer moves on
/// in any case.
///
/// A 429 was not executed. A failure may have been, and a completion that is asked for twice is
/// billed twice. So the [default](Self::new) is what Azure's own spillover takes upon itself, and what
/// cannot have reached a model; timeouts and resets are switched on by those who would rather pay twice.
/// `x-should-retry` of the service has the last word on kinds that were: with
/// `false` the answer is the caller's, and with `true` any 5xx moves on as soon as one status is
/// switched on.
///
/// Every move takes one from a [`RetryBudget`], so that an outage does not double the load on what
/// is left. A backend that goes on failing is asked after the others, twice as long each time, and by one
/// request at a time until it answers; see [`CooldownPolicy::failed`](super::CooldownPolicy::failed).
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
    /// A bit for each kind of error.
    errors: u8,
    /// Where it was not said, the layer's default.
    context_length: Option<bool>,
    budget: Option<RetryBudget>,
    classify: X,
}

impl MoveOn {
    /// The default of all layers: 500, 502, 503 without a hint, and errors of connecting, where
    /// [`errors`](Self::errors) says which those are; with a budget of 500 moves and one more in five
    /// successes.
    ///
    /// 500 and 503 spill in Azure's own spillover, beside 429 and a request that is
    /// [too long](Self::context_length): such a request has failed or was not begun, and its caller would
    /// ask again. A 502 is a gateway's 503, and without a connection nothing was sent. A 504, a timeout and a
    /// connection that breaks leave a model at work that is paid for when it ends, so that they are not in
    /// it.
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

    /// The [default](Self::new) and 504, for whom an answer late counts more than one billed twice.
    pub fn of_servers() -> Self {
        Self::new().gateway_timeout()
    }
}

impl<X> MoveOn<X> {
    /// 408: the service gave up reading the request. It was not executed, but whatever kept the
    /// request from arriving may do so on the way to another backend too.
    #[must_use]
    pub const fn request_timeout(self) -> Self {
        self.status(StatusCode::REQUEST_TIMEOUT)
    }

    /// 409: the request met another one on the same object. OpenAI's own clients try again; another
    /// resource does not have the object, so that this helps where requests have none.
    #[must_use]
    pub const fn conflict(self) -> Self {
        self.status(StatusCode::CONFLICT)
    }

    /// 500: it went wrong while it was executed, and may be billed.
    #[must_use]
    pub const fn internal_error(self) -> Self {
        self.status(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// 502: something between here and the model failed, maybe after the model had begun.
    #[must_use]
    pub const fn bad_gateway(self) -> Self {
        self.status(StatusCode::BAD_GATEWAY)
    }

    /// 503 without a hint, and gRPC `UNAVAILABLE`: mostly refused before it was executed. With a hint
    /// it is a refusal, and moves on in any case.
    #[must_use]
    pub const fn unavailable(self) -> Self {
        self.status(StatusCode::SERVICE_UNAVAILABLE)
    }

    /// 504: it took too long. The model may be busy with it still, and it is billed when it ends; a
    /// request that is slow by nature is slow everywhere.
    #[must_use]
    pub const fn gateway_timeout(self) -> Self {
        self.status(StatusCode::GATEWAY_TIMEOUT)
    }

    /// Any other status from 400 to 599: 424 of a tool that failed, 431 of more than the ten headers of
    /// its own that Azure takes, 499 of a proxy that was left, 524 of one that gave up.
    ///
    /// What has a meaning of its own keeps it, whatever is said here: 400 and 413 (the request, or its
    /// [length](Self::context_length)), 401, 402, 403, 404 and 410 (the backend's configuration), 429 and
    /// 529 (refusals).
    #[must_use]
    pub const fn status(mut self, status: StatusCode) -> Self {
        self.statuses.insert(status.as_u16());
        self
    }

    /// Has `kind` say what the errors of the client are, so that [`connect`](Self::connect),
    /// [`reset`](Self::reset), [`timeout`](Self::timeout) and [`other`](Self::other) can be switched
    /// on. By default every error is the caller's.
    #[must_use]
    pub fn errors<E, F: Fn(&E) -> ErrorKind>(self, kind: F) -> MoveOn<F> {
        let Self { statuses, errors, context_length, budget, .. } = self;
        MoveOn { statuses, errors, context_length, budget, classify: kind }
    }

    /// Errors of [`ErrorKind::Connect`], and [`ErrorKind::Unprocessed`] once it was sent again: nothing
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

    /// Whether a request moves on that is too long for the deployment that was asked: a 400 or 413 that a
    /// layer inside, which reads bodies, found to be about nothing else. It counts as no failure, and
    /// takes nothing from the budget.
    ///
    /// On by default in a [`SmartFallbackLayer`](crate::SmartFallbackLayer): a PTU takes less context
    /// than Standard for some models (128 k tokens of gpt-4.1's million), Azure's own spillover does
    /// the same, and a request that is too long for both costs one more refusal, for which nothing is
    /// paid.
    ///
    /// Off by default in a [`RegionRotateLayer`](crate::RegionRotateLayer): the backends of one pool
    /// are to be the same model, which takes the same length everywhere, so that a caller's mistake
    /// would be made once per region.
    #[must_use]
    pub const fn context_length(mut self, moves_on: bool) -> Self {
        self.context_length = Some(moves_on);
        self
    }

    /// The budget that all requests of this layer and its clones draw their moves from; `None` for
    /// no budget.
    #[must_use]
    pub fn budget(mut self, budget: impl Into<Option<RetryBudget>>) -> Self {
        self.budget = budget.into();
        self
    }

    const fn error(mut self, kind: ErrorKind) -> Self {
        self.errors |= bit(kind);
        self
    }

    /// The set, with `context_length` where it was not said, and what finds the kind of an error.
    pub(crate) fn split(self, context_length: bool) -> (MoveOn, X) {
        let context_length = Some(self.context_length.unwrap_or(context_length));
        let Self { statuses, errors, budget, classify, .. } = self;
        // Without anything to move for there is nothing to put aside.
        let budget = budget.filter(|_| errors != 0 || !statuses.is_empty());
        (MoveOn { statuses, errors, context_length, budget, classify: ReturnErrors }, classify)
    }
}

impl MoveOn {
    /// What the result of an attempt means for a layer with this set: all but
    /// [`Outcome::Answered`] move the request.
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

    /// Whether an answer that was no refusal is a failure to move on from.
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

    /// Puts a move back that was not made after all.
    pub(crate) fn give_back(&self) {
        if let Some(budget) = &self.budget {
            budget.give_back();
        }
    }

    /// Takes a move out of the budget; whether there was one.
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
        assert_eq!(statuses(&MoveOn::of_servers(), None), [500, 502, 503, 504]);
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
