//! Gives every request its attempt budget.

use std::task::{Context, Poll};

use http::{HeaderMap, HeaderName, Request};
use tower_layer::Layer;
use tower_service::Service;

use super::AttemptBudget;

/// Limits the attempts that the inner layers together make for one request.
///
/// Put it outermost. A request that already has an [`AttemptBudget`] keeps it.
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_spillover::{LimitAttemptsLayer, SmartFallbackLayer};
///
/// # let client = tower::service_fn(|_: http::Request<String>| async {
/// #     Ok::<_, std::convert::Infallible>(http::Response::new(()))
/// # });
/// let service = ServiceBuilder::new()
///     .layer(LimitAttemptsLayer::new(6))
///     .layer(SmartFallbackLayer::deployments("gpt-4o-ptu", "gpt-4o")?)
///     .service(client);
/// # drop(service);
/// # Ok::<(), tower_spillover::ConfigError>(())
/// ```
///
/// # Limitations
///
/// Each retry of a client is a separate request, and nothing here remembers the earlier ones. Only
/// their number is known: OpenAI's clients send it in `x-stainless-retry-count`. It is subtracted as
/// if each had made one attempt, and at least one attempt remains. So the first request may make `N`
/// attempts, the first retry `N - 1`, the next one `N - 2`: 15 in all for `N` = 6 and the two retries
/// that those clients make by default, instead of 18. Clients that do not send it, or send too low a
/// number, get `N` for every request.
///
/// # Cost
///
/// One extension of each request.
#[derive(Clone, Copy, Debug)]
pub struct LimitAttemptsLayer {
    attempts: u32,
}

/// Limits the attempts for one request. Made by [`LimitAttemptsLayer`].
#[derive(Clone, Copy, Debug)]
pub struct LimitAttempts<S> {
    inner: S,
    attempts: u32,
}

impl LimitAttemptsLayer {
    /// At most `attempts` for every request, and at least one.
    #[must_use]
    pub const fn new(attempts: u32) -> Self {
        Self { attempts }
    }
}

impl<S> LimitAttempts<S> {
    /// The wrapped service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Mutable access to the wrapped service.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Unwraps the service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S> Layer<S> for LimitAttemptsLayer {
    type Service = LimitAttempts<S>;

    fn layer(&self, inner: S) -> Self::Service {
        LimitAttempts { inner, attempts: self.attempts }
    }
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for LimitAttempts<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let left = self.attempts.saturating_sub(made(request.headers())).max(1);
        request.extensions_mut().get_or_insert_with(|| AttemptBudget::at_most(left));
        self.inner.call(request)
    }
}

/// The number of attempts that the client reports to have made before this one.
fn made(headers: &HeaderMap) -> u32 {
    let count = headers.get(&RETRY_COUNT).and_then(|value| value.to_str().ok());
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

static RETRY_COUNT: HeaderName = HeaderName::from_static("x-stainless-retry-count");

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tower::{ServiceExt, service_fn};

    use super::*;

    fn left(request: Request<()>) -> u32 {
        let leaf = service_fn(|request: Request<()>| async move {
            let attempts = request.extensions().get::<AttemptBudget>().expect("it has a count");
            Ok::<_, std::convert::Infallible>(attempts.left())
        });
        let answer = LimitAttemptsLayer::new(4).layer(leaf).oneshot(request);
        answer.now_or_never().expect("it does not wait").expect("it does not fail")
    }

    #[test]
    fn the_retries_of_the_client_are_taken_off_and_one_attempt_is_left() {
        let budget = |count: &str| {
            let request = Request::builder().header("x-stainless-retry-count", count);
            left(request.body(()).expect("a request"))
        };
        let counts = ["0", "1", "3", "4", "99999999999", "-1", "two", ""];
        assert_eq!(counts.map(budget), [4, 3, 1, 1, 4, 4, 4, 4]);
        assert_eq!(left(Request::new(())), 4);
    }

    #[test]
    fn a_request_that_has_a_count_keeps_it() {
        let mut request = Request::new(());
        request.extensions_mut().insert(AttemptBudget::at_most(9));
        assert_eq!(left(request), 9);
    }
}
