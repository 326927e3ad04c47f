//! The future of `Inspect`: the attempt, then the reading of its response.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Response, StatusCode, response::Parts};
use http_body::Body;
use pin_project_lite::pin_project;

use super::{
    layer::Limits,
    reading::{ReadProgress, Reading},
    request_kind::RequestKind,
};
use crate::{ResponseBody, Served, classify::Rules, clock};

pin_project! {
    /// The response future of [`Inspect`](super::Inspect).
    pub struct ResponseFuture<F, R> {
        // The request in flight. Dropped while its response is read, with everything it held.
        #[pin]
        sent: Option<F>,
        asked: RequestKind,
        limits: Limits,
        rules: Rules,
        // Boxed, so that a response that is not read carries nothing for it.
        reading: Option<Box<Reading<R>>>,
    }
}

impl<F, R> ResponseFuture<F, R> {
    pub(super) const fn new(future: F, asked: RequestKind, limits: Limits, rules: Rules) -> Self {
        Self { sent: Some(future), asked, limits, rules, reading: None }
    }
}

impl<F, R, E> Future for ResponseFuture<F, R>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body + Unpin,
    R::Data: From<Bytes>,
    R::Error: Send + Sync + 'static,
{
    type Output = Result<Response<ResponseBody<R>>, E>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.as_mut().project();
        let Some(sent) = this.sent.as_pin_mut() else {
            return self.go_on(cx).map(Ok);
        };
        let response = ready!(sent.poll(cx))?;
        // The service streams without a length; a response with one is chat's JSON.
        if response.status() == StatusCode::OK
            && *this.asked != RequestKind::Response
            && response.body().size_hint().exact().is_some()
        {
            return Poll::Ready(Ok(response.map(ResponseBody::upstream)));
        }
        let (head, body) = response.into_parts();
        self.begin(head, body, cx).map(Ok)
    }
}

impl<F, R> ResponseFuture<F, R>
where
    R: Body + Unpin,
    R::Data: From<Bytes>,
    R::Error: Send + Sync + 'static,
{
    /// Starts reading a response, if its body may reveal a refusal. A separate function, so that the
    /// head of one that is not read need not move.
    #[cold]
    #[inline(never)]
    fn begin(
        self: Pin<&mut Self>,
        head: Parts,
        body: R,
        cx: &mut Context<'_>,
    ) -> Poll<Response<ResponseBody<R>>> {
        let mut this = self.project();
        this.sent.set(None);
        let mut response = Response::from_parts(head, body);
        this.rules.apply(&mut response, Served::is_on, clock::wall);
        follow(this.reading, Reading::begin(response, *this.asked, *this.limits, cx))
    }

    #[cold]
    #[inline(never)]
    fn go_on(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<ResponseBody<R>>> {
        let this = self.project();
        let reading = this.reading.take().expect("a finished future is not polled again");
        follow(this.reading, reading.go_on(cx))
    }
}

fn follow<R>(
    reading: &mut Option<Box<Reading<R>>>,
    read: ReadProgress<R>,
) -> Poll<Response<ResponseBody<R>>> {
    match read {
        ReadProgress::Answered(response) => Poll::Ready(response),
        ReadProgress::Pending(still) => {
            *reading = Some(still);
            Poll::Pending
        }
    }
}

impl<F, R> fmt::Debug for ResponseFuture<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
