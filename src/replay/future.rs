//! Keeps a body while it arrives, then sends the request.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, header, request::Parts};
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{ReplayLayer, body::ReplayBody, chunks::Chunks, total::Room};
use crate::azure::{ApiPath, ModelReader, NameScan, content_length};

pin_project! {
    /// The response future of [`Replay`](super::Replay).
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<ReplayBody<B>>>,
        B: Body,
    {
        #[pin]
        state: State<S, S::Future, B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F, B> {
        // The body is arriving. The service is ready, and is taken when it is called.
        Keeping { inner: S, keeping: Option<Keeping<B>> },
        // The request was sent.
        Sent { #[pin] future: F },
    }
}

struct Keeping<B> {
    head: Parts,
    body: B,
    /// How many bytes are kept, whatever they contain.
    limit: usize,
    chunks: Chunks,
    room: Room,
    lacks_room: bool,
    trailers: Option<HeaderMap>,
    /// Searches for the model beyond the limit, if requested.
    model: Option<Box<ModelReader>>,
    is_searching: bool,
    /// Notes names in the body, if requested.
    names: Option<NameScan>,
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<ReplayBody<B>>>,
    B: Body + Unpin,
{
    pub(super) fn new(mut inner: S, request: Request<B>, layer: &ReplayLayer) -> Self {
        let (head, body) = request.into_parts();
        let expected = expected(&head, &body);
        let model = if layer.until_model && names_model(&head) {
            let reader = ModelReader::of(head.headers.get(header::CONTENT_TYPE));
            Some(Box::new(reader)).filter(|reader| !reader.knows())
        } else {
            None
        };
        let limit = if expected > layer.limit { 0 } else { layer.limit };
        let state = if expected > layer.limit && model.is_none() {
            let body = ReplayBody::arriving(Bytes::new(), body);
            State::Sent { future: inner.call(Request::from_parts(head, body)) }
        } else {
            let keeping = Keeping {
                head,
                body,
                limit,
                chunks: Chunks::default(),
                room: Room::of(layer.total.clone()),
                lacks_room: false,
                trailers: None,
                model,
                is_searching: false,
                names: layer.notes_names.then(NameScan::default),
            };
            State::Keeping { inner, keeping: Some(keeping) }
        };
        Self { state }
    }
}

impl<S, B> Future for ResponseFuture<S, B>
where
    S: Service<Request<ReplayBody<B>>>,
    B: Body + Unpin,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                // Keeping => Sent
                StateProj::Keeping { inner, keeping } => {
                    let arriving = keeping.as_mut().expect("the state changes once it is taken");
                    let end = ready!(arriving.poll_keep(cx));
                    let kept = keeping.take().expect("it was there a line ago");
                    let future = inner.call(kept.into_request(end));
                    state.set(State::Sent { future });
                }
                StateProj::Sent { future } => return future.poll(cx),
            }
        }
    }
}

/// Why keeping a body ended.
enum KeepingEnd<E> {
    Whole,
    Enough,
    Error(E),
}

impl<B: Body + Unpin> Keeping<B> {
    fn poll_keep(&mut self, cx: &mut Context<'_>) -> Poll<KeepingEnd<B::Error>> {
        loop {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                return Poll::Ready(KeepingEnd::Whole);
            };
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) if data.has_remaining() => {
                    let length = data.remaining();
                    self.lacks_room |= !self.room.take(length);
                    self.chunks.push(data);
                    if let Some(names) = &mut self.names {
                        names.push(self.chunks.last(length));
                    }
                    if self.is_enough(length) {
                        return Poll::Ready(KeepingEnd::Enough);
                    }
                }
                Ok(Ok(_)) => {}
                Ok(Err(frame)) => self.trailers = frame.into_trailers().ok(),
                Err(error) => return Poll::Ready(KeepingEnd::Error(error)),
            }
        }
    }

    /// Whether the limit is exceeded and the model, if it is needed, was found. The last chunk has
    /// this `length`.
    fn is_enough(&mut self, length: usize) -> bool {
        let (kept, limit) = (self.chunks.len(), if self.lacks_room { 0 } else { self.limit });
        if kept <= limit {
            return false;
        }
        let Some(model) = &mut self.model else { return true };
        if self.is_searching {
            model.find(self.chunks.last(length));
        } else {
            self.chunks.iter().for_each(|piece| model.find(piece));
            self.is_searching = true;
        }
        model.knows() || (self.lacks_room && kept >= UNCOUNTED_BYTES)
    }

    fn into_request(self, end: KeepingEnd<B::Error>) -> Request<ReplayBody<B>> {
        let Self { chunks, room, names, .. } = self;
        // The model may have been the last part of the body.
        let ended = (self.model.is_some() || self.lacks_room) && self.body.is_end_stream();
        let body = match end {
            KeepingEnd::Error(error) => ReplayBody::broken(chunks.join(room), error),
            KeepingEnd::Enough if !ended => ReplayBody::arriving(chunks.join(room), self.body),
            KeepingEnd::Enough | KeepingEnd::Whole => {
                ReplayBody::kept(chunks.into_whole(room), self.trailers)
            }
        };
        let body = body.naming(names.map(|names| names.found()));
        Request::from_parts(self.head, if self.lacks_room { body.once() } else { body })
    }
}

/// Bytes read for the model even if the total has no room: a connection buffers several times that
/// much.
const UNCOUNTED_BYTES: usize = 64 << 10;

/// The minimum length of a body, as far as known before it arrives.
fn expected(head: &Parts, body: &impl Body) -> usize {
    let announced = content_length(&head.headers).unwrap_or(0);
    usize::try_from(body.size_hint().lower().max(announced)).unwrap_or(usize::MAX)
}

/// Whether the request names its model in the body.
fn names_model(head: &Parts) -> bool {
    let path = ApiPath::of(head.uri.path());
    path.names_model_in_body() && path.call(head.uri.path()).operation.may_name_model()
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<ReplayBody<B>>>,
    B: Body,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
