//! Which failures send a request to the next backend: the decision of the two layers.

use http::{HeaderMap, Response, StatusCode};

use super::RetryBudget;
use crate::classify::{Outcome, should_retry};

/// Which failed answers send a request to the next backend, or to the other tier. None does by
/// default.
///
/// A 429 was not executed. A failure may have been, and a completion that is asked for twice is
/// billed twice, so each kind is switched on by itself. `x-should-retry` of the service has the last
/// word on kinds that were: with `false` the answer is the caller's, and with `true` any 5xx moves
/// on as soon as one kind is switched on.
///
/// Every move takes one from a [`RetryBudget`], so that an outage does not double the load on what
/// is left. A backend that failed rests, twice as long with every failure in a row, and is then
/// asked by one request at a time until it answers; see [`Rests::failed`](super::Rests::failed).
///
/// ```
/// use tower_spillover::policy::{Failures, RetryBudget};
///
/// let failures = Failures::new().unavailable().bad_gateway().budget(RetryBudget::new(50, 0.1));
/// # drop(failures);
/// ```
#[derive(Clone, Debug)]
pub struct Failures {
    kinds: u8,
    budget: Option<RetryBudget>,
}

impl Failures {
    /// None, with a budget of 500 moves and one more in five successes.
    pub fn new() -> Self {
        Self { kinds: 0, budget: Some(RetryBudget::default()) }
    }

    /// 500, 502, 503 without a hint and 504: the failures that Azure's native spillover and the
    /// Architecture Center's gateways move on, for whom an answer late counts more than one billed
    /// twice.
    pub fn of_servers() -> Self {
        Self::new().internal_error().bad_gateway().unavailable().gateway_timeout()
    }

    /// 408: the service gave up reading the request. It was not executed, but whatever kept the
    /// request from arriving may do so on the way to another backend too.
    #[must_use]
    pub const fn request_timeout(self) -> Self {
        self.with(REQUEST_TIMEOUT)
    }

    /// 409: the request met another one on the same object. OpenAI's own clients try again; another
    /// resource does not have the object, so that this helps where requests have none.
    #[must_use]
    pub const fn conflict(self) -> Self {
        self.with(CONFLICT)
    }

    /// 500: it went wrong while it was executed, and may be billed.
    #[must_use]
    pub const fn internal_error(self) -> Self {
        self.with(INTERNAL_ERROR)
    }

    /// 502: something between here and the model failed, maybe after the model had begun.
    #[must_use]
    pub const fn bad_gateway(self) -> Self {
        self.with(BAD_GATEWAY)
    }

    /// 503 without a hint, and gRPC `UNAVAILABLE`: mostly refused before it was executed. With a hint
    /// it is a refusal, and moves on in any case.
    #[must_use]
    pub const fn unavailable(self) -> Self {
        self.with(UNAVAILABLE)
    }

    /// 504: it took too long. The model may be busy with it still, and it is billed when it ends; a
    /// request that is slow by nature is slow everywhere.
    #[must_use]
    pub const fn gateway_timeout(self) -> Self {
        self.with(GATEWAY_TIMEOUT)
    }

    /// The budget that all requests of this layer and its clones draw their moves from; `None` for
    /// no budget.
    #[must_use]
    pub fn budget(mut self, budget: impl Into<Option<RetryBudget>>) -> Self {
        self.budget = budget.into();
        self
    }

    const fn with(mut self, kind: u8) -> Self {
        self.kinds |= kind;
        self
    }

    /// Whether any kind is switched on.
    pub(crate) const fn are_watched(&self) -> bool {
        self.kinds != 0
    }

    /// Whether an answer that was no refusal is a failure to move on from.
    #[inline]
    pub(crate) fn include_response<R>(&self, outcome: Outcome, response: &Response<R>) -> bool {
        self.are_watched() && self.include(outcome, response.status(), response.headers())
    }

    fn include(&self, outcome: Outcome, status: StatusCode, headers: &HeaderMap) -> bool {
        let kind = match status {
            StatusCode::REQUEST_TIMEOUT => REQUEST_TIMEOUT,
            StatusCode::CONFLICT => CONFLICT,
            StatusCode::INTERNAL_SERVER_ERROR => INTERNAL_ERROR,
            StatusCode::BAD_GATEWAY => BAD_GATEWAY,
            StatusCode::SERVICE_UNAVAILABLE => UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT => GATEWAY_TIMEOUT,
            // That of gRPC.
            _ if outcome == Outcome::Failed => UNAVAILABLE,
            _ if status.is_server_error() => 0,
            _ => return false,
        };
        match should_retry(headers) {
            Some(false) => false,
            Some(true) if status.is_server_error() => true,
            _ => self.kinds & kind != 0,
        }
    }

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

impl Default for Failures {
    fn default() -> Self {
        Self::new()
    }
}

const REQUEST_TIMEOUT: u8 = 1;
const CONFLICT: u8 = 1 << 1;
const INTERNAL_ERROR: u8 = 1 << 2;
const BAD_GATEWAY: u8 = 1 << 3;
const UNAVAILABLE: u8 = 1 << 4;
const GATEWAY_TIMEOUT: u8 = 1 << 5;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn statuses(failures: &Failures, word: Option<&'static str>) -> Vec<u16> {
        let mut headers = HeaderMap::new();
        if let Some(word) = word {
            headers.insert("x-should-retry", HeaderValue::from_static(word));
        }
        let is_included = |status: &u16| {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::from_u16(*status).expect("a status");
            *response.headers_mut() = headers.clone();
            let outcome = Outcome::of(response.status(), &headers, || unreachable!());
            failures.include_response(outcome, &response)
        };
        (100..600).filter(is_included).collect()
    }

    #[test]
    fn each_kind_is_switched_on_by_itself() {
        assert!(statuses(&Failures::new(), None).is_empty());
        for (failures, status) in [
            (Failures::new().request_timeout(), 408),
            (Failures::new().conflict(), 409),
            (Failures::new().internal_error(), 500),
            (Failures::new().bad_gateway(), 502),
            (Failures::new().unavailable(), 503),
            (Failures::new().gateway_timeout(), 504),
        ] {
            assert_eq!(statuses(&failures, None), [status]);
        }
        assert_eq!(statuses(&Failures::of_servers(), None), [500, 502, 503, 504]);
    }

    #[test]
    fn the_service_has_the_last_word_on_what_is_switched_on() {
        let one = Failures::new().unavailable();
        assert!(statuses(&one, Some("false")).is_empty());
        assert_eq!(statuses(&one, Some("true")), (500..600).collect::<Vec<_>>());
        assert!(statuses(&Failures::new(), Some("true")).is_empty());
    }
}
