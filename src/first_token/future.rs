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
    watch::{Second, Sending, Watch},
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
        // Nothing once it has ended or was given up.
        #[pin]
        first: Option<S::Future>,
        // Boxed, so that a request whose first token is not awaited carries nothing for it.
        watch: Option<Box<Watch<S, B>>>,
    }
}

impl<S: Service<Request<B>>, B> ResponseFuture<S, B> {
    /// That of a request which may take its time.
    pub(super) const fn plain(first: S::Future) -> Self {
        Self { first: Some(first), watch: None }
    }

    /// The future of a call of `inner`, which was polled ready.
    pub(super) fn watched(
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
                let watch = Watch::new(inner, config, limit, copy, &twin, now);
                Self { first, watch: Some(Box::new(watch)) }
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
        let Some(watch) = this.watch else {
            return this.first.as_pin_mut().expect("it is never dropped").poll(cx);
        };
        if let Some(first) = this.first.as_mut().as_pin_mut()
            && let Poll::Ready(result) = first.poll(cx)
        {
            this.first.set(None);
            if let Some(result) = watch.ended(Sending::First, result, false) {
                return Poll::Ready(result);
            }
        }
        loop {
            match &mut watch.second {
                // NotYet => Readying | Never
                Second::NotYet => {
                    ready!(watch.poll_late(cx));
                    watch.begin(clock::now());
                }
                // Readying => UnderWay | Never
                Second::Readying => match ready!(watch.inner.poll_ready(cx)) {
                    Ok(()) => watch.send(clock::now()),
                    Err(error) => {
                        let is_first_left = this.first.is_some();
                        let ended = watch.ended(Sending::Second, Err(error), is_first_left);
                        if let Some(result) = ended {
                            return Poll::Ready(result);
                        }
                    }
                },
                // UnderWay => UnderWay | NotYet | Never
                Second::UnderWay(second) => match second.as_mut().poll(cx) {
                    Poll::Ready(result) => {
                        let is_first_left = this.first.is_some();
                        if let Some(result) = watch.ended(Sending::Second, result, is_first_left) {
                            return Poll::Ready(result);
                        }
                    }
                    Poll::Pending => {
                        if this.first.is_some() && watch.poll_moved_on(cx).is_ready() {
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
