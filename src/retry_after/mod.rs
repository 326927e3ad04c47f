//! A `tower::retry::Policy` that obeys Azure's hints exactly and refuses absurd ones.

mod backoff;
mod limits;
mod wait;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Request, Response};
use tower::retry::Policy;

use self::limits::RetryLimits;
pub use self::{backoff::Backoff, wait::Wait};
pub use crate::policy::RetryBudget;
use crate::{
    AttemptBudget, Deadline, Served, TryCloneBody,
    classify::{Classify, Outcome, Reason, Refusal, Rules},
    clock, random, request_copy,
};

/// Sends a refused request again, to the same place, when the refusal says it may come back.
///
/// For one backend without an alternative, and around the other layers, whose refusals say when
/// the whole stack is worth asking again. A hint is obeyed to the millisecond and a little jitter
/// is added, never taken away. A hint longer than [`longest_wait`](Self::longest_wait) is not
/// cut short: the refusal is the caller's.
///
/// ```
/// use std::time::Duration;
/// use tower::{ServiceBuilder, retry::RetryLayer};
/// use tower_spillover::RetryAfterPolicy;
///
/// let retry = RetryLayer::new(RetryAfterPolicy::new().max_wait(Duration::from_secs(10)));
/// # let client = tower::service_fn(|_: http::Request<String>| async {
/// #     Ok::<_, std::convert::Infallible>(http::Response::new(()))
/// # });
/// let service = ServiceBuilder::new().layer(retry).service(client);
/// # drop(service);
/// ```
///
/// # What it does not do
///
/// Only refusals are retried, not failures: a server error may have been executed and billed. Of
/// the refusals it leaves those to the caller that time does not mend: a used-up quota
/// ([`Reason::Quota`], which a layer that reads bodies tells), and what the service answers with
/// `x-should-retry: false`.
///
/// # Cost
///
/// A clone of the request's head for every attempt but the last permitted one, and one clock read
/// for every request. While the retry budget is full, a success is one atomic load.
#[derive(Clone, Debug)]
pub struct RetryAfterPolicy {
    limits: Arc<RetryLimits>,
    rules: Rules,
    retries: u32,
    /// When the request has waited long enough; unknown before its first attempt, or endless.
    until: Option<Instant>,
}

impl RetryAfterPolicy {
    /// At most 5 retries within 60 s, none after a wait of more than 120 s at once, which is what
    /// OpenAI's own clients refuse; 0.5 s, doubling up to 8 s, after a refusal without a hint; and
    /// the default [`RetryBudget`].
    pub fn new() -> Self {
        Self::with(RetryLimits::default())
    }

    /// The waits of API Management's `retry` policy in the reference region chain: `count="30"
    /// interval="4" delta="2" max-interval="20" first-fast-retry="true"`. That is, after refusals
    /// without a hint, 0, 4, 6, 10, 18, 20, 20, ... seconds within its jitter.
    ///
    /// Unlike the reference, which ignores `Retry-After`, it obeys a hint where there is one.
    pub fn api_management() -> Self {
        Self::with(RetryLimits {
            max_retries: 30,
            max_wait: Duration::MAX,
            backoff: Backoff::new(Duration::from_secs(4), Duration::from_secs(2)),
            first_at_once: true,
            jitter: 0.0,
            ..RetryLimits::default()
        })
    }

    /// The waits of the reference script: exactly the hint, as often as it takes, as long as
    /// `elapsed + hint` is at most 4 s. The refusal that does not fit is the caller's, to be
    /// answered by a fallback.
    ///
    /// Unlike the script, which crashes without a hint and spins on one of zero, it then waits
    /// 5 ms, doubling up to 640 ms.
    pub fn smart_retry() -> Self {
        Self::with(RetryLimits {
            max_retries: u32::MAX,
            max_wait: Duration::from_millis(4_000),
            backoff: Backoff::new(Duration::from_millis(5), Duration::from_millis(5))
                .longest(Duration::from_millis(640)),
            jitter: 0.0,
            ..RetryLimits::default()
        })
    }

    /// The most retries of one request; attempts are one more.
    #[must_use]
    pub fn max_retries(self, max_retries: u32) -> Self {
        self.limit(|limits| limits.max_retries = max_retries)
    }

    /// The longest that a request may wait in all, counted from its arrival: a wait that would end
    /// later is not begun.
    #[must_use]
    pub fn max_wait(self, max_wait: Duration) -> Self {
        self.limit(|limits| limits.max_wait = max_wait)
    }

    /// The longest single wait. A hint beyond it is refused, not shortened: to ask earlier than a
    /// deployment wants is to be refused again.
    #[must_use]
    pub fn longest_wait(self, longest_wait: Duration) -> Self {
        self.limit(|limits| limits.longest_wait = longest_wait)
    }

    /// The waits after refusals without a hint, with a longest one of its own.
    #[must_use]
    pub fn backoff(self, backoff: Backoff) -> Self {
        self.limit(|limits| limits.backoff = backoff)
    }

    /// How much later than a hint a request returns at most, as a share of the hint. Each request
    /// draws its own part of it, so that those refused together do not return together. Defaults
    /// to 0.1; 0 obeys to the letter.
    #[must_use]
    pub fn jitter(self, share: f64) -> Self {
        let share = if share.is_finite() { share.max(0.0) } else { 0.0 };
        self.limit(|limits| limits.jitter = share)
    }

    /// The rules by which the service's refusals are read. Defaults to Azure's. What a layer of this
    /// crate that sends requests on answers is not read by them.
    #[must_use]
    pub fn classify(mut self, rules: impl Classify) -> Self {
        self.rules = Rules::new(rules);
        self
    }

    /// The budget that all requests of this policy and its clones draw their retries from; `None`
    /// for no budget.
    #[must_use]
    pub fn budget(self, budget: impl Into<Option<RetryBudget>>) -> Self {
        let budget = budget.into();
        self.limit(|limits| limits.budget = budget)
    }

    fn with(limits: RetryLimits) -> Self {
        Self { limits: Arc::new(limits), rules: Rules::AZURE, retries: 0, until: None }
    }

    fn limit(mut self, change: impl FnOnce(&mut RetryLimits)) -> Self {
        change(Arc::make_mut(&mut self.limits));
        self
    }
}

impl Default for RetryAfterPolicy {
    fn default() -> Self {
        Self::new()
    }
}

impl<B: TryCloneBody, R, E> Policy<Request<B>, Response<R>, E> for RetryAfterPolicy {
    type Future = Wait;

    fn retry(
        &mut self,
        request: &mut Request<B>,
        result: &mut Result<Response<R>, E>,
    ) -> Option<Self::Future> {
        let response = result.as_mut().ok()?;
        self.rules.apply(response, Served::is_on, clock::wall);
        let Outcome::Throttled(hint) = Outcome::of_response(response, clock::wall) else {
            if response.status().is_success() {
                self.limits.deposit();
            }
            return None;
        };
        if is_final(response) {
            return None;
        }
        let attempts = request.extensions_mut().get_mut::<AttemptBudget>();
        if let Some(attempts) = &attempts {
            // The first attempt went out as the caller's own; a layer inside may have counted it.
            if self.retries == 0 && !Served::is_on(response) {
                attempts.count_uncounted();
            }
            if !attempts.any_left() {
                return None;
            }
        }
        let now = clock::now();
        let left = match self.until {
            Some(until) => until.checked_duration_since(now)?,
            None => Duration::MAX,
        };
        let wait = self.limits.wait(self.retries, left, hint, random::draw())?;
        let withdrawn = self.limits.withdraw()?;
        if let Some(attempts) = attempts {
            attempts.reserve();
        }
        self.retries += 1;
        Some(Wait::new(now, wait, withdrawn))
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        // tower's `Retry` begins every request with its own policy, which outlives the request, and
        // goes on with a copy of it: what an earlier request left here is overwritten.
        if self.retries == 0 {
            let until = clock::now().checked_add(self.limits.max_wait);
            let deadline = request.extensions().get().map(|&Deadline(deadline)| deadline);
            self.until = until.into_iter().chain(deadline).min();
        }
        // The last permitted attempt takes the request itself.
        if self.retries < self.limits.max_retries { request_copy::try_clone(request) } else { None }
    }
}

/// Whether a refusal is the caller's, whatever it asks to wait.
fn is_final<R>(response: &Response<R>) -> bool {
    let quota = Refusal::of(response).is_some_and(|it| it.reason() == Reason::Quota);
    quota || Refusal::forbids_retry(response, Served::is_on(response))
}
