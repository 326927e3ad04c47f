//! A body that only its owner touches, so that it need not be `Sync`.

use std::{
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};

/// A body that is `Sync` whether or not `B` is, as axum's is not: reqwest boxes bodies that are.
///
/// What is asked of a shared reference is kept beside the body, so that the mutex is never locked.
pub(crate) struct Exclusive<B> {
    body: Mutex<B>,
    size_hint: SizeHint,
    is_end_stream: bool,
}

impl<B: Body> Exclusive<B> {
    pub(crate) fn new(body: B) -> Self {
        let (size_hint, is_end_stream) = (body.size_hint(), body.is_end_stream());
        Self { body: Mutex::new(body), size_hint, is_end_stream }
    }
}

impl<B: Body + Unpin> Body for Exclusive<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Self { body, size_hint, is_end_stream } = self.get_mut();
        let body = body.get_mut().unwrap_or_else(PoisonError::into_inner);
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        (*size_hint, *is_end_stream) = (body.size_hint(), body.is_end_stream());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.is_end_stream
    }

    fn size_hint(&self) -> SizeHint {
        self.size_hint
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};

    use super::*;

    fn assert_sync<T: Sync>(_: &T) {}

    #[tokio::test]
    async fn a_body_that_is_not_sync_keeps_its_length_its_frames_and_its_end() {
        let inner: UnsyncBoxBody<Bytes, _> = Full::<Bytes>::from("prompt").boxed_unsync();
        let mut body = Exclusive::new(inner);
        assert_sync(&body);
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(6), false));
        let frame = body.frame().await.expect("a frame").expect("no error");
        assert_eq!(frame.into_data().ok().as_deref(), Some(&b"prompt"[..]));
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(0), true));
        assert!(body.frame().await.is_none());
    }
}
