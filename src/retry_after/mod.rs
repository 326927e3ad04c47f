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

/// Sends a refused request again, to the same service, when the refusal says when to return.
///
/// For a single backend with no fallback, and around the other layers, whose refusals say when the
/// whole stack reopens. A hint is obeyed to the millisecond; jitter is added to it, never subtracted.
/// A hint longer than [`longest_wait`](Self::longest_wait) is not shortened: the refusal is returned
/// to the caller.
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
/// # Limitations
///
/// Only refusals are retried, not failures: a server error may have been executed and billed.
/// Refusals that waiting cannot fix are returned to the caller: a used-up quota ([`Reason::Quota`],
/// if a layer reads bodies), and `x-should-retry: false` from the service.
///
/// # Cost
///
/// One clone of the request's head for every attempt but the last permitted one, and one clock read
/// per request. While the retry budget is full, a success is one atomic load.
#[derive(Clone, Debug)]
pub struct RetryAfterPolicy {
    limits: Arc<RetryLimits>,
    rules: Rules,
    retries: u32,
    /// When the request has waited long enough; `None` before its first attempt, or without a limit.
    until: Option<Instant>,
}

impl RetryAfterPolicy {
    /// At most 5 retries within 60 s; no single wait above 120 s, which is what OpenAI's own clients
    /// refuse; 0.5 s, doubling up to 8 s, after a refusal without a hint; and the default
    /// [`RetryBudget`].
    pub fn new() -> Self {
        Self::with(RetryLimits::default())
    }

    /// The waits of API Management's `retry` policy in the reference region chain:
    /// `count="30" interval="4" delta="2" max-interval="20" first-fast-retry="true"`. After refusals
    /// without a hint, that is 0, 4, 6, 10, 18, 20, 20, ... seconds within its jitter.
    ///
    /// Unlike the reference, which ignores `Retry-After`, it obeys a hint if there is one.
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

    /// The waits of the reference script: exactly the hint, any number of times, as long as
    /// `elapsed + hint` is at most 4 s. A refusal that does not fit is returned to the caller, for a
    /// fallback to handle.
    ///
    /// Unlike the script, which crashes without a hint and spins on a hint of zero, it then waits
    /// 100 ms, doubling up to 8 s, as [`WaitThenSpill`](crate::policy::WaitThenSpill) does.
    pub fn smart_retry() -> Self {
        Self::with(RetryLimits {
            max_retries: u32::MAX,
            max_wait: Duration::from_millis(4_000),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_millis(100))
                .longest(Duration::from_secs(8)),
            jitter: 0.0,
            ..RetryLimits::default()
        })
    }

    /// The most retries of one request; attempts are one more.
    #[must_use]
    pub fn max_retries(self, max_retries: u32) -> Self {
        self.limit(|limits| limits.max_retries = max_retries)
    }

    /// The longest total wait of a request, counted from its arrival: a wait that would end later is
    /// not started.
    #[must_use]
    pub fn max_wait(self, max_wait: Duration) -> Self {
        self.limit(|limits| limits.max_wait = max_wait)
    }

    /// The longest single wait. A refusal with a longer hint is returned, not retried earlier: an
    /// early retry would only be refused again.
    #[must_use]
    pub fn longest_wait(self, longest_wait: Duration) -> Self {
        self.limit(|limits| limits.longest_wait = longest_wait)
    }

    /// The waits after refusals without a hint, with their own longest wait.
    #[must_use]
    pub fn backoff(self, backoff: Backoff) -> Self {
        self.limit(|limits| limits.backoff = backoff)
    }

    /// How much later than a hint a request may return, as a share of the hint. Each request draws
    /// its own delay, so that requests refused together do not return together. Defaults to 0.1; 0
    /// obeys hints exactly.
    #[must_use]
    pub fn jitter(self, share: f64) -> Self {
        let share = if share.is_finite() { share.max(0.0) } else { 0.0 };
        self.limit(|limits| limits.jitter = share)
    }

    /// The rules that classify the service's refusals. Defaults to Azure's. They do not apply to
    /// answers of a layer of this crate that makes attempts itself.
    #[must_use]
    pub fn classify(mut self, rules: impl Classify) -> Self {
        self.rules = Rules::new(rules);
        self
    }

    /// The budget that all requests of this policy and its clones draw retries from; `None` for no
    /// budget.
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
            // The first attempt was sent unchanged; an inner layer may have counted it.
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
        // tower's `Retry` starts every request with its own policy, which outlives the request, and
        // continues with a copy of it: values left by an earlier request are overwritten.
        if self.retries == 0 {
            let until = clock::now().checked_add(self.limits.max_wait);
            let deadline = request.extensions().get().map(|&Deadline(deadline)| deadline);
            self.until = until.into_iter().chain(deadline).min();
        }
        // The last permitted attempt takes the request itself.
        if self.retries < self.limits.max_retries { request_copy::try_clone(request) } else { None }
    }
}

/// Whether a refusal is returned to the caller, whatever wait it asks for.
fn is_final<R>(response: &Response<R>) -> bool {
    let quota = Refusal::of(response).is_some_and(|it| it.reason() == Reason::Quota);
    quota || Refusal::forbids_retry(response, Served::is_on(response))
}
