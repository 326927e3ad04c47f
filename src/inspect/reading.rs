//! Reads the body of a response as far as needed to judge it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Response, StatusCode, header, response::Parts};
use http_body::{Body, Frame};
use tokio::time::Sleep;

use super::{
    answer::Status,
    body::{self, BodyVerdict},
    drain::Drain,
    layer::Limits,
    request_kind::RequestKind,
    stream::{HiddenRefusal, Preamble, StreamVerdict},
};
use crate::{
    ResponseBody,
    azure::ContentKind,
    body::ReadAhead,
    classify::{Hint, Outcome, Reason, Refusal, write_wait},
    clock,
};

/// A response that is being read.
pub(super) struct Reading<R> {
    head: Parts,
    body: R,
    ahead: ReadAhead<R>,
    subject: ReadSubject,
    /// The refusal found in the response, and the drain of the rest of its body.
    refused: Option<(HiddenRefusal, Drain)>,
    /// The limits on bytes and time.
    limit: usize,
    time: Duration,
    /// Created when the body is first pending.
    timer: Option<Pin<Box<Sleep>>>,
}

/// What is being read.
enum ReadSubject {
    /// The body of a refusal, judged at its end.
    Refusal,
    Stream(Preamble),
    Json(Status),
}

/// The progress of reading a response.
pub(super) enum ReadProgress<R> {
    Answered(Response<ResponseBody<R>>),
    Pending(Box<Reading<R>>),
}

/// The verdict on a response.
enum ReadDecision {
    /// Return it as it came.
    Pass,
    /// Return it as it came, with the findings of its body in the head.
    Judge,
    Refuse(HiddenRefusal),
}

impl<R> Reading<R>
where
    R: Body + Unpin,
    R::Data: From<Bytes>,
    R::Error: Send + Sync + 'static,
{
    /// Starts reading `response`, if its body may reveal a refusal.
    #[cold]
    #[inline(never)]
    pub(super) fn begin(
        response: Response<R>,
        asked: RequestKind,
        limits: Limits,
        cx: &mut Context<'_>,
    ) -> ReadProgress<R> {
        let (subject, refused) = match subject(&response, asked) {
            Ok(None) => return ReadProgress::Answered(response.map(ResponseBody::upstream)),
            Ok(Some(subject)) => (subject, None),
            Err(refused) => {
                let drain = Drain::of(response.version());
                (ReadSubject::Stream(Preamble::default()), Some((refused, drain)))
            }
        };
        let (limit, time) = match subject {
            ReadSubject::Refusal => (MAX_REFUSAL_BYTES, limits.body_time()),
            _ => (limits.preamble_bytes(), limits.preamble_time()),
        };
        let (head, body) = response.into_parts();
        let ahead = ReadAhead::default();
        Box::new(Self { head, body, ahead, subject, refused, limit, time, timer: None }).go_on(cx)
    }

    /// Continues reading. Takes `self` by value, so that the future that holds it can keep it in
    /// registers while there is none.
    #[cold]
    #[inline(never)]
    pub(super) fn go_on(mut self: Box<Self>, cx: &mut Context<'_>) -> ReadProgress<R> {
        match self.poll(cx) {
            Poll::Ready(decision) => ReadProgress::Answered(self.answer(decision)),
            Poll::Pending => ReadProgress::Pending(self),
        }
    }

    /// Reads until there is a verdict, and until the connection of a refusal is free.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ReadDecision> {
        loop {
            if let Some((refused, drain)) = &mut self.refused {
                ready!(drain.poll(&mut self.body, cx));
                return Poll::Ready(ReadDecision::Refuse(refused.clone()));
            }
            let decision = match self.poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => self.read(frame),
                Poll::Ready(Some(Err(error))) => {
                    self.ahead.fail(error);
                    Some(self.give_up())
                }
                Poll::Ready(None) => {
                    self.ahead.end();
                    Some(self.finish())
                }
                Poll::Pending => {
                    ready!(self.poll_timer(cx));
                    Some(self.give_up())
                }
            };
            if let Some(decision) = decision {
                return Poll::Ready(decision);
            }
        }
    }

    /// The response, given the verdict.
    fn answer(mut self, decision: ReadDecision) -> Response<ResponseBody<R>> {
        match decision {
            ReadDecision::Refuse(refused) => return refuse(self.head, refused),
            ReadDecision::Judge => {
                if let Some(verdict) = body::judge(self.head.status, &self.ahead.text()) {
                    apply(&mut self.head, verdict);
                }
            }
            ReadDecision::Pass => {}
        }
        let Self { head, body, ahead, .. } = self;
        Response::from_parts(head, ResponseBody::read(body, ahead))
    }

    /// Do not poll after end of stream.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Polled<R> {
        if self.body.is_end_stream() {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn read(&mut self, frame: Frame<R::Data>) -> Option<ReadDecision> {
        let mut beginning = StreamVerdict::Undecided;
        match frame.into_data() {
            Ok(mut data) => {
                let data = data.copy_to_bytes(data.remaining());
                beginning = match &mut self.subject {
                    ReadSubject::Refusal => StreamVerdict::Undecided,
                    ReadSubject::Stream(preamble) => preamble.push(&data),
                    ReadSubject::Json(status) => status.push(&data),
                };
                self.ahead.push_data(data);
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    self.ahead.push_trailers(trailers);
                }
            }
        }
        match beginning {
            StreamVerdict::Answer => Some(ReadDecision::Pass),
            StreamVerdict::Refused(refused) => {
                self.ahead = ReadAhead::default();
                self.refused = Some((refused, Drain::of(self.head.version)));
                None
            }
            StreamVerdict::Undecided => (self.ahead.weight() > self.limit).then(|| self.give_up()),
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let time = self.time;
        let timer = self.timer.get_or_insert_with(|| clock::sleep_until(clock::now() + time));
        timer.as_mut().poll(cx)
    }

    /// The body has ended.
    fn finish(&mut self) -> ReadDecision {
        let beginning = match &mut self.subject {
            ReadSubject::Refusal => return ReadDecision::Judge,
            ReadSubject::Stream(preamble) => std::mem::take(preamble).finish(),
            ReadSubject::Json(status) => status.finish(&self.ahead.text()),
        };
        match beginning {
            StreamVerdict::Refused(refused) => ReadDecision::Refuse(refused),
            StreamVerdict::Answer | StreamVerdict::Undecided => ReadDecision::Pass,
        }
    }

    /// Reading stops early: a refusal is judged by what has arrived.
    fn give_up(&self) -> ReadDecision {
        match self.subject {
            ReadSubject::Refusal => ReadDecision::Judge,
            ReadSubject::Stream(_) | ReadSubject::Json(_) => ReadDecision::Pass,
        }
    }
}

type Polled<R> = Poll<Option<Result<Frame<<R as Body>::Data>, <R as Body>::Error>>>;

/// What to read of `response`; `Err` if its head is a refusal already, though its status is not.
fn subject<R>(
    response: &Response<R>,
    asked: RequestKind,
) -> Result<Option<ReadSubject>, HiddenRefusal> {
    let headers = response.headers();
    let status = response.status().as_u16();
    let kind = match status {
        200 if asked == RequestKind::Stored => return Ok(None),
        // A stored object may be gone, which is no fault of the backend.
        404 if asked == RequestKind::Stored => return Ok(None),
        200 | 400 | 403 | 413 => ContentKind::of(headers),
        404 | 429 | 503 | 529 => ContentKind::Other,
        _ => return Ok(None),
    };
    let subject = match (status, kind) {
        (200, ContentKind::EventStream) => {
            // `retry-after: 0` was never observed on a refused stream; let the events decide.
            if asked == RequestKind::Response && Hint::asked(headers, clock::wall) > Hint::Zero {
                return Err(HiddenRefusal::by_head());
            }
            ReadSubject::Stream(Preamble::default())
        }
        (200, ContentKind::Json) if asked == RequestKind::Response => {
            ReadSubject::Json(Status::default())
        }
        (400 | 403 | 413, ContentKind::Json) | (404 | 429 | 503 | 529, _) => ReadSubject::Refusal,
        _ => return Ok(None),
    };
    Ok((!is_encoded(headers)).then_some(subject))
}

fn is_encoded(headers: &HeaderMap) -> bool {
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    encodings.any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Writes the findings of a refusal's body into its head.
fn apply(head: &mut Parts, verdict: BodyVerdict) {
    if is_lasting(verdict.reason) {
        Refusal::set_in(&mut head.extensions, verdict.reason, None, Hint::None);
        return;
    }
    let is_throttled =
        matches!(Outcome::of(head.status, &head.headers, clock::wall), Outcome::Throttled(_));
    if !is_throttled {
        head.status = StatusCode::TOO_MANY_REQUESTS;
    }
    throttle(head, verdict);
}

/// Whether the reason is the request itself or the backend's configuration, which waiting cannot fix.
const fn is_lasting(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ContextLength | Reason::ServiceTier | Reason::Content | Reason::Misconfigured
    )
}

/// Completes the head of a throttled response.
fn throttle(head: &mut Parts, verdict: BodyVerdict) {
    let BodyVerdict { reason, limit, wait } = verdict;
    // The reset time of a limit is an estimate; the wait in the message is meant for this refusal.
    let asked = Hint::asked(&head.headers, clock::wall);
    if let (Hint::None | Hint::Zero, Some(wait)) = (asked, wait) {
        // Only the service may forbid retrying.
        write_wait(&mut head.headers, wait);
    }
    let found = match Outcome::of(head.status, &head.headers, clock::wall) {
        Outcome::Throttled(hint) => hint,
        _ => Hint::None,
    };
    Refusal::set_in(&mut head.extensions, reason, limit, found);
}

/// Replaces a response with this head by an ordinary refusal.
fn refuse<R>(mut head: Parts, refused: HiddenRefusal) -> Response<ResponseBody<R>> {
    let HiddenRefusal { verdict, body } = refused;
    for stale in [header::TRANSFER_ENCODING, header::CONTENT_ENCODING, header::TRAILER] {
        head.headers.remove(stale);
    }
    let json = header::HeaderValue::from_static("application/json");
    head.headers.insert(header::CONTENT_TYPE, json);
    head.headers.insert(header::CONTENT_LENGTH, body.len().into());
    if is_lasting(verdict.reason) {
        head.status = StatusCode::BAD_REQUEST;
        Refusal::set_in(&mut head.extensions, verdict.reason, None, Hint::None);
    } else {
        head.status = StatusCode::TOO_MANY_REQUESTS;
        throttle(&mut head, verdict);
    }
    Response::from_parts(head, ResponseBody::own(body))
}

/// Errors of the service have a few hundred bytes.
const MAX_REFUSAL_BYTES: usize = 64 << 10;
