//! Passes the bytes of a response body to taps as they go by.

use std::{fmt, io::IoSlice};

use bytes::Buf;
use http::{HeaderMap, header};

use super::UsageSinks;
use crate::azure::UsageScan;

/// Reads a response body as it passes.
pub(crate) trait ResponseTap: Send + Sync {
    /// Reads the next bytes of the body, the last ones if `is_last` is true; returns whether it wants
    /// more.
    fn read(&mut self, piece: &[u8], is_last: bool) -> bool;

    /// The body ended, failed or was dropped. Called once, unless the tap wanted no more.
    fn end(&mut self);
}

/// The taps on one response body. Dropping it ends them.
pub(crate) struct Observer {
    /// Inline, since it is created before there is a response.
    usage: Option<UsageTap>,
    learner: Option<Box<dyn ResponseTap>>,
}

/// Reports a response's token usage to the subscribers.
struct UsageTap {
    sinks: UsageSinks,
    /// `None` until there is a response, and for a response that can have no usage.
    scan: Option<UsageScan>,
}

impl Observer {
    /// An observer for a response that has not arrived.
    pub(crate) fn new(sinks: Option<UsageSinks>) -> Self {
        Self { usage: sinks.map(|sinks| UsageTap { sinks, scan: None }), learner: None }
    }

    /// The observer of an answer that cost the PTU nothing, so that its gate is called without a
    /// usage; `None` if only the gate subscribed.
    pub(crate) fn without_gate(mut self: Box<Self>) -> Option<Box<Self>> {
        let has_others = self.usage.as_mut().is_some_and(|usage| usage.sinks.dismiss_gate());
        has_others.then_some(self)
    }

    /// Starts on the response with this head. If it is neither JSON nor an event stream, only its end
    /// is reported.
    pub(crate) fn watch(&mut self, headers: &HeaderMap, learner: Option<Box<dyn ResponseTap>>) {
        let scan = UsageScan::new(headers.get(header::CONTENT_TYPE));
        self.learner = learner.filter(|_| scan.is_some());
        if let Some(usage) = &mut self.usage {
            usage.scan = scan;
        }
    }

    /// Reads a frame without consuming it; `is_last` if no data follows.
    pub(super) fn see(&mut self, data: &impl Buf, is_last: bool) {
        let is_counting = self.usage.as_ref().is_some_and(|usage| usage.scan.is_some());
        if !is_counting && self.learner.is_none() {
            return;
        }
        if data.chunk().len() == data.remaining() {
            self.read(data.chunk(), is_last);
            return;
        }
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let filled = data.chunks_vectored(&mut slices);
        let slices = slices.get(..filled).unwrap_or_default();
        if slices.iter().map(|slice| slice.len()).sum::<usize>() == data.remaining() {
            slices.iter().for_each(|slice| self.read(slice, false));
        } else {
            // The frame has more pieces than can be read; what follows cannot be parsed.
            self.usage.iter_mut().for_each(|usage| usage.scan = None);
            self.learner.take().iter_mut().for_each(|learner| learner.end());
        }
    }

    fn read(&mut self, piece: &[u8], is_last: bool) {
        if let Some(usage) = &mut self.usage {
            usage.read(piece, is_last);
        }
        if let Some(learner) = &mut self.learner
            && !learner.read(piece, is_last)
        {
            self.learner = None;
        }
    }
}

impl ResponseTap for UsageTap {
    fn read(&mut self, piece: &[u8], is_last: bool) -> bool {
        match &mut self.scan {
            Some(scan) if is_last => scan.push_last(piece),
            Some(scan) => scan.push(piece),
            None => {}
        }
        self.scan.is_some()
    }

    fn end(&mut self) {
        self.sinks.ended(self.scan.take().and_then(UsageScan::finish));
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        if let Some(usage) = &mut self.usage {
            usage.end();
        }
        if let Some(learner) = &mut self.learner {
            learner.end();
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").finish_non_exhaustive()
    }
}

/// Most pieces of one frame that are read; hyper's frames are one piece.
const MAX_SLICES: usize = 16;

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        pin::{Pin, pin},
        sync::Arc,
        task::{Context, Poll, Waker},
    };

    use bytes::Bytes;
    use http::{Extensions, HeaderMap, HeaderValue};
    use http_body::{Body, Frame, SizeHint};

    use super::*;
    use crate::{ResponseBody, azure::Usage, body::on_usage::tests::RecordingSink};

    /// A body of prepared frames; `None` is a pending poll.
    struct Frames<D>(VecDeque<Option<Result<Frame<D>, &'static str>>>);

    impl<D: Buf + Unpin> Body for Frames<D> {
        type Data = D;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<D>, &'static str>>> {
            match self.0.pop_front() {
                Some(None) => Poll::Pending,
                Some(frame) => Poll::Ready(frame),
                None => Poll::Ready(None),
            }
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(7)
        }
    }

    /// Data in several pieces.
    struct Split(VecDeque<&'static [u8]>);

    impl Buf for Split {
        fn remaining(&self) -> usize {
            self.0.iter().map(|piece| piece.len()).sum()
        }

        fn chunk(&self) -> &[u8] {
            self.0.front().copied().unwrap_or_default()
        }

        fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
            let pairs = slices.iter_mut().zip(&self.0);
            pairs.map(|(slice, piece)| *slice = IoSlice::new(piece)).count()
        }

        fn advance(&mut self, _: usize) {
            unreachable!("a passing frame is not consumed")
        }
    }

    impl From<Bytes> for Split {
        fn from(_: Bytes) -> Self {
            Self(VecDeque::new())
        }
    }

    fn data(text: &'static str) -> Option<Result<Frame<Bytes>, &'static str>> {
        Some(Ok(Frame::data(Bytes::from_static(text.as_bytes()))))
    }

    fn observer(sink: &Arc<RecordingSink>) -> Box<Observer> {
        let mut extensions = Extensions::new();
        extensions.insert(sink.observe());
        Box::new(Observer::new(UsageSinks::take(&mut extensions)))
    }

    fn observed<D>(
        sink: &Arc<RecordingSink>,
        frames: impl IntoIterator<Item = Option<Result<Frame<D>, &'static str>>>,
    ) -> ResponseBody<Frames<D>> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut observer = observer(sink);
        observer.watch(&headers, None);
        ResponseBody::observed(Frames(frames.into_iter().collect()), observer)
    }

    type Polled<D> = Poll<Option<Result<Frame<D>, &'static str>>>;

    fn poll<B: Body<Error = &'static str> + Unpin>(body: &mut B) -> Polled<B::Data> {
        pin!(body).poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    const FIRST: &str = r#"{"usage":{"prompt_tokens":5},"#;
    const FIVE: Option<Usage> = Some(Usage::new(5, 0, 0));

    #[test]
    fn frames_pass_unchanged_and_the_end_is_sink_once() {
        let sink = Arc::<RecordingSink>::default();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let frames =
            [data(FIRST), None, data("\"a\":1}"), Some(Ok(Frame::trailers(trailers.clone())))];
        let mut body = observed(&sink, frames);
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(7), false));
        for expected in [FIRST, "", "\"a\":1}"] {
            match poll(&mut body) {
                Poll::Ready(Some(Ok(frame))) => assert_eq!(frame.into_data().unwrap(), expected),
                other => assert!(expected.is_empty() && other.is_pending()),
            }
            assert!(sink.all().is_empty(), "the body goes on");
        }
        let Poll::Ready(Some(Ok(last))) = poll(&mut body) else { panic!("a frame") };
        assert_eq!(last.into_trailers().unwrap(), trailers);
        assert!(body.is_end_stream());
        assert_eq!(sink.all(), [FIVE], "the end needs no further poll");
        assert!(matches!(poll(&mut body), Poll::Ready(None)));
        drop(body);
        assert_eq!(sink.all(), [FIVE]);
    }

    #[test]
    fn a_dropped_body_reports_what_was_known() {
        let sink = Arc::<RecordingSink>::default();
        drop(observed(&sink, [data(FIRST)]));
        let mut begun = observed(&sink, [data(FIRST), data("}")]);
        assert!(poll(&mut begun).is_ready());
        drop(begun);
        assert_eq!(sink.all(), [None, FIVE]);
    }

    #[test]
    fn a_body_that_fails_reports_at_once() {
        let sink = Arc::<RecordingSink>::default();
        let mut body = observed(&sink, [data(FIRST), Some(Err("reset")), None]);
        assert!(poll(&mut body).is_ready());
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Err("reset")))));
        assert_eq!(sink.all(), [FIVE]);
    }

    #[test]
    fn a_frame_in_pieces_is_read_up_to_a_limit() {
        let sink = Arc::<RecordingSink>::default();
        let pieces: [&[u8]; 3] = [b"{\"usa", b"ge\":{\"prompt_tokens\"", b":5}}"];
        let frame = |pieces: VecDeque<_>| Some(Ok(Frame::data(Split(pieces))));
        let mut body = observed(&sink, [frame(pieces.into())]);
        assert!(poll(&mut body).is_ready());
        let many = pieces.iter().flat_map(|piece| piece.chunks(1)).collect();
        let mut body = observed(&sink, [frame(many)]);
        assert!(poll(&mut body).is_ready());
        assert_eq!(sink.all(), [FIVE, None]);
    }

    #[test]
    fn an_answer_of_another_kind_reports_its_end() {
        let sink = Arc::<RecordingSink>::default();
        let mut observer = observer(&sink);
        observer.watch(&HeaderMap::new(), None);
        let mut body = ResponseBody::observed(Frames([data(FIRST)].into()), observer);
        assert!(sink.all().is_empty());
        assert!(poll(&mut body).is_ready());
        assert_eq!(sink.all(), [None]);
    }

    #[test]
    fn a_body_is_a_pointer_larger_at_most() {
        // The same enum without an observer.
        #[expect(dead_code, reason = "for its size")]
        enum Plain<B> {
            Upstream { body: B },
            Own { text: Option<Bytes> },
        }
        fn growth<B>() -> usize {
            size_of::<ResponseBody<B>>() - size_of::<Plain<B>>()
        }
        let growths = [growth::<[u64; 1]>(), growth::<[u64; 4]>(), growth::<[u64; 9]>()];
        assert!(growths.iter().all(|&growth| growth <= size_of::<usize>()), "{growths:?}");
    }
}
