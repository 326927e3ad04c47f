//! What transport errors are, as the caller's client knows and a layer does not.

use http::Response;

use crate::cooldown::Failure;

/// What a transport error is.
///
/// Only the caller knows what the errors of its client mean; a function of it says so once, to
/// [`MoveOn::errors`](super::MoveOn::errors). The kinds differ in what may have happened to the
/// request:
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// It could not connect: nothing was sent, nothing can be billed.
    Connect,
    /// The server closed the connection, or reset the stream, before any byte of the answer: mostly it
    /// was not executed, yet it may have been.
    Reset,
    /// The head took too long: the model may be at work still, and is paid for.
    Timeout,
    /// Any other.
    Other,
    /// The server did not process it, and says so: HTTP/2's `REFUSED_STREAM`, a `GOAWAY` for an earlier
    /// stream. RFC 9113, section 8.7, has such a request sent again.
    ///
    /// It is sent again to the same backend, once, marked [`SentAgain`]: that is no failure, and takes
    /// nothing from the budget of moves. When that is not processed either, it is an error like
    /// [`Connect`](Self::Connect).
    Unprocessed,
    /// A connection that was kept from an earlier request closed before any byte of an answer: mostly the
    /// server closed it for being idle just then, and did not process the request. RFC 9112, section
    /// 9.3.1, and custom have it sent again.
    ///
    /// It is sent again like [`Unprocessed`](Self::Unprocessed). When the server cannot be connected to
    /// then, it went down, maybe while it processed the request: that is an error like
    /// [`Reset`](Self::Reset).
    ClosedOnReuse,
}

/// The request was not processed, as [`ErrorKind::Unprocessed`] and [`ErrorKind::ClosedOnReuse`] have it,
/// and is sent to the same backend again: an
/// extension that has its client use a connection that no other request had or has.
#[derive(Clone, Copy, Debug)]
pub struct SentAgain;

/// Finds the kind of a transport error; implemented for functions and closures that return an
/// [`ErrorKind`].
///
/// The wrapped service's error type is its own, so that a layer cannot know which errors came before
/// the request was sent; the default, [`ReturnErrors`], moves none.
pub trait ClassifyError<E> {
    /// Whether it ever finds a kind. Where it does, a request is kept for another attempt even if there is
    /// no other backend.
    const FINDS_KINDS: bool = true;

    /// The kind of `error`; `None` when it is the caller's, whatever it is.
    fn kind(&self, error: &E) -> Option<ErrorKind>;
}

/// Every transport error is the caller's.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReturnErrors;

impl<E> ClassifyError<E> for ReturnErrors {
    const FINDS_KINDS: bool = false;

    fn kind(&self, _: &E) -> Option<ErrorKind> {
        None
    }
}

impl<E, F: Fn(&E) -> ErrorKind> ClassifyError<E> for F {
    fn kind(&self, error: &E) -> Option<ErrorKind> {
        Some(self(error))
    }
}

/// The kinds of errors once a server closed a kept connection: one that cannot be connected to any more
/// went down, maybe while it processed the request.
pub(crate) struct AfterClose<'a, X>(pub(crate) &'a X);

impl<E, X: ClassifyError<E>> ClassifyError<E> for AfterClose<'_, X> {
    const FINDS_KINDS: bool = X::FINDS_KINDS;

    fn kind(&self, error: &E) -> Option<ErrorKind> {
        match self.0.kind(error) {
            Some(ErrorKind::Connect) => Some(ErrorKind::Reset),
            kind => kind,
        }
    }
}

impl Failure {
    /// What kind of failure a `result` is that failed.
    pub(crate) fn of<R, E>(
        result: &Result<Response<R>, E>,
        errors: &impl ClassifyError<E>,
    ) -> Self {
        let kind = result.as_ref().err().and_then(|error| errors.kind(error));
        if kind == Some(ErrorKind::Connect) { Self::Connect } else { Self::Answer }
    }
}
