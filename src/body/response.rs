//! The response body of a layer that may answer by itself.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::Observer;

pin_project! {
    /// The response body of a layer that may answer by itself: a backend's body, untouched, or
    /// the layer's own short text. Frames, trailers, size hint and error type are those of `B`.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    #[derive(Debug)]
    enum Kind<B> {
        // The observer, while it has not reported.
        Upstream { #[pin] body: B, observer: Option<Box<Observer>> },
        Own { text: Option<Bytes> },
    }
}

impl<B> ResponseBody<B> {
    pub(crate) const fn upstream(body: B) -> Self {
        Self { kind: Kind::Upstream { body, observer: None } }
    }

    /// `observer` sees the frames of `body` pass by, and is dropped with the last of them or with
    /// the body.
    pub(crate) const fn observed(body: B, observer: Box<Observer>) -> Self {
        Self { kind: Kind::Upstream { body, observer: Some(observer) } }
    }

    pub(crate) const fn own(text: Bytes) -> Self {
        Self { kind: Kind::Own { text: Some(text) } }
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body,
    B::Data: From<Bytes>,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.project().kind.project() {
            KindProj::Upstream { mut body, observer } => {
                let next = ready!(body.as_mut().poll_frame(cx));
                if let Some(watching) = observer {
                    match &next {
                        Some(Ok(frame)) => {
                            if let Some(data) = frame.data_ref() {
                                watching.see(data);
                            }
                            // Nobody has to poll a body again that says it is over.
                            if body.is_end_stream() {
                                *observer = None;
                            }
                        }
                        Some(Err(_)) | None => *observer = None,
                    }
                }
                Poll::Ready(next)
            }
            KindProj::Own { text } => {
                Poll::Ready(text.take().map(|text| Ok(Frame::data(text.into()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Upstream { body, .. } => body.is_end_stream(),
            Kind::Own { text } => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Upstream { body, .. } => body.size_hint(),
            Kind::Own { text } => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
        }
    }
}
