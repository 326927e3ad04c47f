//! The body of a request that came as reqwest's.

use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tower_spillover::TryCloneBody;

use super::reqwest;

/// The body of a request that came as reqwest's: in memory, and then sent as often as it takes, or a
/// stream, which gets a single attempt.
///
/// A [`ReplayLayer`](tower_spillover::ReplayLayer) outside of the other layers keeps streams, multipart
/// forms with files for example, so that they are sent again too.
pub struct RequestBody(Kind);

enum Kind {
    Whole(Bytes),
    Stream(reqwest::Body),
}

impl From<reqwest::Body> for RequestBody {
    fn from(mut body: reqwest::Body) -> Self {
        let Some(length) = body.as_bytes().map(<[u8]>::len) else {
            return Self(Kind::Stream(body));
        };
        // A body in memory gives all that it has at once, today in one frame, which is not copied.
        let mut cx = Context::from_waker(Waker::noop());
        let mut data = Bytes::new();
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut cx) {
            let more = frame.into_data().unwrap_or_default();
            data = if data.is_empty() { more } else { [data, more].concat().into() };
        }
        debug_assert_eq!(data.len(), length, "a body in memory is never waited for");
        Self(Kind::Whole(data))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        match &mut self.get_mut().0 {
            Kind::Whole(data) if data.is_empty() => Poll::Ready(None),
            Kind::Whole(data) => Poll::Ready(Some(Ok(Frame::data(mem::take(data))))),
            Kind::Stream(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(data) => data.is_empty(),
            Kind::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(data) => SizeHint::with_exact(data.len() as u64),
            Kind::Stream(body) => body.size_hint(),
        }
    }
}

impl TryCloneBody for RequestBody {
    fn try_clone(&self) -> Option<Self> {
        self.content().map(|data| Self(Kind::Whole(data)))
    }

    fn content(&self) -> Option<Bytes> {
        match &self.0 {
            Kind::Whole(data) => Some(data.clone()),
            Kind::Stream(_) => None,
        }
    }

    fn replace_content(&mut self, content: Bytes) {
        self.0 = Kind::Whole(content);
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Prompts are not for logs; their size is.
        match &self.0 {
            Kind::Whole(data) => f.debug_struct("Whole").field("bytes", &data.len()).finish(),
            Kind::Stream(_) => f.write_str("Stream"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_in_memory_is_taken_over_without_a_copy_and_cloned() {
        let text = Bytes::from(vec![b'a'; 4096]);
        let body = RequestBody::from(reqwest::Body::from(text.clone()));
        let content = body.content().expect("it is in memory");
        assert_eq!(content.as_ptr(), text.as_ptr());
        let again = body.try_clone().and_then(|body| body.content()).expect("a copy");
        assert_eq!(again.as_ptr(), text.as_ptr());
        assert_eq!(body.size_hint().exact(), Some(4096));
    }

    #[test]
    fn an_empty_body_is_one_in_memory() {
        let body = RequestBody::from(reqwest::Body::default());
        assert_eq!((body.content(), body.is_end_stream()), (Some(Bytes::new()), true));
    }

    #[test]
    fn a_stream_is_no_body_to_send_twice() {
        let body = RequestBody::from(reqwest::Body::wrap(String::from("prompt")));
        assert!(body.try_clone().is_none() && body.content().is_none());
        assert_eq!(body.size_hint().exact(), Some(6));
    }
}
