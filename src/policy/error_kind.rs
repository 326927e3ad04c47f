//! The kinds of transport errors, which the caller's client knows and a layer does not.

use http::Response;

use crate::cooldown::Failure;

/// The kind of a transport error.
///
/// Only the caller knows what the errors of its client mean. A function given once, to
/// [`MoveOn::errors`](super::MoveOn::errors), maps them to a kind. The kinds differ in what may have
/// happened to the request:
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No connection: nothing was sent, nothing can be billed.
    Connect,
    /// The server closed the connection, or reset the stream, before any byte of the answer: usually
    /// the request was not executed, but it may have been.
    Reset,
    /// The head took too long: the model may still be working, and that is billed.
    Timeout,
    /// Any other error.
    Other,
    /// The server states that it did not process the request: HTTP/2's `REFUSED_STREAM`, or a
    /// `GOAWAY` for an earlier stream. RFC 9113, section 8.7, allows sending such a request again.
    ///
    /// It is sent again to the same backend, once, marked [`SentAgain`]. That is not a failure, and
    /// does not count towards the budget. If the second one is not processed either, it is an error
    /// like [`Connect`](Self::Connect).
    Unprocessed,
    /// A reused connection closed before any byte of an answer. Usually the server closed it for
    /// being idle at that moment, and did not process the request. RFC 9112, section 9.3.1, and
    /// common practice send it again.
    ///
    /// It is sent again like [`Unprocessed`](Self::Unprocessed). If the server then cannot be
    /// connected to, it went down, possibly while it processed the request: that is an error like
    /// [`Reset`](Self::Reset).
    ClosedOnReuse,
}

/// Marks a request that was not processed, as defined by [`ErrorKind::Unprocessed`] and
/// [`ErrorKind::ClosedOnReuse`], and is sent to the same backend again: an extension that makes the
/// client use a connection of its own.
#[derive(Clone, Copy, Debug)]
pub struct SentAgain;

/// Finds the kind of a transport error; implemented for functions and closures that return an
/// [`ErrorKind`].
///
/// The error type is that of the wrapped service, so a layer cannot know which errors occurred before
/// the request was sent. The default, [`ReturnErrors`], returns all of them to the caller.
pub trait ClassifyError<E> {
    /// Whether it ever finds a kind. If so, a request is kept for another attempt even if there is no
    /// other backend.
    const FINDS_KINDS: bool = true;

    /// The kind of `error`; `None` to return it to the caller in any case.
    fn kind(&self, error: &E) -> Option<ErrorKind>;
}

/// Returns every transport error to the caller.
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

/// The kinds of errors after a server closed a reused connection: if it can no longer be connected
/// to, it went down, possibly while it processed the request.
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
    /// The kind of failure of a failed `result`.
    pub(crate) fn of<R, E>(
        result: &Result<Response<R>, E>,
        errors: &impl ClassifyError<E>,
    ) -> Self {
        let kind = result.as_ref().err().and_then(|error| errors.kind(error));
        if kind == Some(ErrorKind::Connect) { Self::Connect } else { Self::Answer }
    }
}
