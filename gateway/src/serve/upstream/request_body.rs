//! A request's body: limited in length and silence, kept or streamed.

use std::{
    convert::Infallible,
    error::Error,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tower::{Layer, Service};
use tower_spillover::{
    ReplayLayer, TryCloneBody,
    azure::{MemberNames, ModelRename},
    body::LazyContent,
    replay::ReplayBody,
};

use super::upload_progress::UploadProgress;
use crate::serve::{client_patience::ClientPatience, clock, refusal::Refusal, upload::Upload};

/// A body as it arrives, up to a length.
#[derive(Debug)]
pub(crate) struct BoundedBody {
    upload: Upload,
    left: u64,
    patience: ClientPatience,
}

/// Why a request's body did not arrive completely.
#[derive(Debug)]
pub(crate) enum RequestBodyError {
    TooLong,
    Silent,
    /// It named another model after the one that it was routed by, and was broken off.
    TwoModels,
    Broken(hyper::Error),
    /// The client half closed its connection.
    BrokenOff,
}

impl RequestBodyError {
    /// The answer for the client; `limit` is the limit on the body.
    pub(crate) fn refusal(&self, limit: u64) -> Refusal {
        let (status, code, message) = match self {
            Self::TooLong => return Refusal::too_large(limit),
            Self::Silent => {
                (StatusCode::REQUEST_TIMEOUT, "RequestTimeout", "The body stopped arriving.")
            }
            Self::TwoModels => return Refusal::two_models(),
            Self::Broken(_) | Self::BrokenOff => {
                (StatusCode::BAD_REQUEST, "BadRequest", "The body broke off.")
            }
        };
        Refusal::new(status, code, message)
    }
}

impl BoundedBody {
    pub(crate) const fn new(upload: Upload, limit: u64, idle_timeout: Duration) -> Self {
        Self { upload, left: limit, patience: ClientPatience::new(idle_timeout) }
    }
}

impl Body for BoundedBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let Poll::Ready(next) = Pin::new(&mut self.upload).poll_frame(cx) else {
            if self.upload.is_broken_off(cx) {
                return Poll::Ready(Some(Err(RequestBodyError::BrokenOff)));
            }
            ready!(self.patience.poll(cx));
            return Poll::Ready(Some(Err(RequestBodyError::Silent)));
        };
        Poll::Ready(next.map(|frame| {
            let frame = frame.map_err(RequestBodyError::Broken)?;
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            self.patience.passed(length);
            self.left = self.left.checked_sub(length).ok_or(RequestBodyError::TooLong)?;
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.upload.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.upload.size_hint()
    }
}

/// A body on its way to the layers: kept completely, or streamed after its first piece was
/// inspected.
#[derive(Debug)]
pub(crate) struct RequestBody {
    peeked: Option<Bytes>,
    /// Updated by everything that goes to a backend.
    progress: Option<UploadProgress>,
    /// Boxed: hyper-util's queue stores requests by value.
    body: Box<ReplayBody<BoundedBody>>,
}

impl RequestBody {
    pub(crate) fn new(body: ReplayBody<BoundedBody>) -> Self {
        Self { peeked: None, progress: None, body: Box::new(body) }
    }

    /// Whether it asks for a stream, as far as the inspected part shows.
    pub(crate) fn asks_for_stream(&self) -> bool {
        self.member_names().is_some_and(MemberNames::asks_for_stream)
    }

    pub(crate) const fn is_kept(&self) -> bool {
        self.body.is_replayable()
    }

    /// The progress of the upload; `None` for a kept body, for which no backend waits.
    pub(crate) fn watch(&mut self) -> Option<UploadProgress> {
        if !self.is_kept() {
            self.progress = Some(UploadProgress::begin(clock::now()));
        }
        self.progress.clone()
    }

    /// Whether it was not kept because the kept bodies of all requests have reached their limit.
    pub(crate) const fn lacked_room(&self) -> bool {
        self.body.lacked_room()
    }

    /// Why it ended early while it was being kept.
    pub(crate) fn take_error(&mut self) -> Option<RequestBodyError> {
        self.body.take_error()
    }

    /// The complete body if it is here, otherwise its first piece.
    pub(crate) async fn beginning(&mut self) -> Result<Bytes, RequestBodyError> {
        let kept = self.body.beginning();
        if !kept.is_empty() || self.body.content().is_some() {
            return Ok(kept);
        }
        if self.peeked.is_none() {
            let first = self.body.frame().await.transpose()?;
            self.peeked = first.and_then(|frame| frame.into_data().ok());
        }
        Ok(self.peeked.clone().unwrap_or_default())
    }
}

impl TryCloneBody for RequestBody {
    fn try_clone(&self) -> Option<Self> {
        let body = Box::new(ReplayBody::try_clone(&self.body)?);
        Some(Self { peeked: None, progress: None, body })
    }

    fn content(&self) -> Option<Bytes> {
        self.body.content()
    }

    fn lazy_content(&self) -> Option<LazyContent> {
        self.body.lazy_content()
    }

    fn member_names(&self) -> Option<MemberNames> {
        self.body.member_names()
    }

    fn content_so_far(&self) -> Option<Bytes> {
        self.peeked.clone().or_else(|| self.body.content_so_far())
    }

    fn replace_content(&mut self, content: Bytes) {
        self.body.replace_content(content);
    }

    fn replace_with_pieces(&mut self, pieces: Vec<Bytes>) {
        self.body.replace_with_pieces(pieces);
    }

    fn rename_model(&mut self, rename: ModelRename) -> bool {
        self.body.rename_model(rename)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let next = match self.peeked.take() {
            Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
            None => Pin::new(&mut *self.body).poll_frame(cx),
        };
        if matches!(next, Poll::Ready(None)) && self.body.is_cut_off() {
            return Poll::Ready(Some(Err(RequestBodyError::TwoModels)));
        }
        match &self.progress {
            Some(progress) if next.is_pending() => progress.await_client(),
            Some(progress) => progress.await_backend(clock::now()),
            None => {}
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        // An early end has not been reported yet.
        self.peeked.is_none() && self.body.is_end_stream() && !self.body.is_cut_off()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        if let Some(first) = &self.peeked {
            let more = first.len() as u64;
            if let Some(upper) = hint.upper() {
                hint.set_upper(upper.saturating_add(more));
            }
            hint.set_lower(hint.lower().saturating_add(more));
        }
        hint
    }
}

/// Keeps the body as `layer` does, around a service that does nothing.
pub(crate) async fn keep(
    layer: &ReplayLayer,
    request: Request<BoundedBody>,
) -> Request<RequestBody> {
    let kept = layer.layer(Kept).call(request).await;
    let Ok(request) = kept;
    request.map(RequestBody::new)
}

/// A service that returns the request.
#[derive(Clone, Copy)]
struct Kept;

impl Service<Request<ReplayBody<BoundedBody>>> for Kept {
    type Response = Request<ReplayBody<BoundedBody>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReplayBody<BoundedBody>>) -> Self::Future {
        std::future::ready(Ok(request))
    }
}

impl fmt::Display for RequestBodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => f.write_str("the request body is too long"),
            Self::Silent => f.write_str("the request body stopped arriving"),
            Self::TwoModels => f.write_str("the request body named a second model"),
            Self::BrokenOff => f.write_str("the request body broke off"),
            Self::Broken(error) => write!(f, "the request body broke off: {error}"),
        }
    }
}

impl Error for RequestBodyError {}
