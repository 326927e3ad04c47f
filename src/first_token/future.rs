//! The response future of `FirstToken`: the state machine of one request that may be sent twice.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    layer::{Config, Limit},
    sendings::{Second, Sending, Sendings},
};
use crate::{TryCloneBody, clock, request_copy::SavedRequest, twin::Twin};

pin_project! {
    /// The response future of [`FirstToken`](super::FirstToken).
    ///
    /// Dropping it at any point drops both attempts.
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        // `None` once it has ended or was dropped.
        #[pin]
        first: Option<S::Future>,
        // Boxed, so that a request without a first-token limit carries nothing for it.
        sendings: Option<Box<Sendings<S, B>>>,
    }
}

impl<S: Service<Request<B>>, B> ResponseFuture<S, B> {
    /// The future of a request without a limit.
    pub(super) const fn plain(first: S::Future) -> Self {
        Self { first: Some(first), sendings: None }
    }

    /// The future of a call of `inner`, which was polled ready.
    pub(super) fn hurried(
        mut inner: S,
        config: Arc<Config>,
        limit: Limit,
        mut request: Request<B>,
    ) -> Self
    where
        B: TryCloneBody,
    {
        let now = clock::now();
        let twin = Twin::first(now);
        twin.clone().insert_in(request.extensions_mut());
        match SavedRequest::copy_if(true, &request) {
            SavedRequest::Nothing => Self::plain(inner.call(request)),
            copy => {
                let first = Some(inner.call(request));
                let sendings = Sendings::new(inner, config, limit, copy, &twin, now);
                Self { first, sendings: Some(Box::new(sendings)) }
            }
        }
    }
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    B: TryCloneBody,
{
    type Output = Result<Response<R>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(both) = this.sendings else {
            return this.first.as_pin_mut().expect("it is never dropped").poll(cx);
        };
        if let Some(first) = this.first.as_mut().as_pin_mut()
            && let Poll::Ready(result) = first.poll(cx)
        {
            this.first.set(None);
            if let Some(result) = both.ended(Sending::First, result, false) {
                return Poll::Ready(result);
            }
        }
        loop {
            match &mut both.second {
                // NotYet => Readying | Never
                Second::NotYet => {
                    ready!(both.poll_late(cx));
                    both.begin(clock::now());
                }
                // Readying => UnderWay | Never
                Second::Readying => match ready!(both.inner.poll_ready(cx)) {
                    Ok(()) => both.send(clock::now()),
                    Err(error) => {
                        let is_first_left = this.first.is_some();
                        let ended = both.ended(Sending::Second, Err(error), is_first_left);
                        if let Some(result) = ended {
                            return Poll::Ready(result);
                        }
                    }
                },
                // UnderWay => UnderWay | NotYet | Never
                Second::UnderWay(second) => match second.as_mut().poll(cx) {
                    Poll::Ready(result) => {
                        let is_first_left = this.first.is_some();
                        if let Some(result) = both.ended(Sending::Second, result, is_first_left) {
                            return Poll::Ready(result);
                        }
                    }
                    Poll::Pending => {
                        if this.first.is_some() && both.poll_moved_on(cx).is_ready() {
                            this.first.set(None);
                        }
                        return Poll::Pending;
                    }
                },
                Second::Never => return Poll::Pending,
            }
        }
    }
}

impl<S: Service<Request<B>>, B> fmt::Debug for ResponseFuture<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
