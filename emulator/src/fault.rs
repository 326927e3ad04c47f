//! Scripted misbehaviour: one fault affects one request.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::{Refusal, answer::head};

/// What happens to one request instead of, or on top of, the ordinary answer.
///
/// The first request that reaches the scripted deployment takes the fault, after its key was
/// checked. Only [`Fault::pass`] and its variants change a PTU's level; every request counts
/// against the requests per minute of a Standard deployment.
#[derive(Clone, Debug)]
pub struct Fault {
    pub(crate) kind: FaultKind,
    pub(crate) silence: Duration,
    pub(crate) delay: Duration,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
}

#[derive(Clone, Debug)]
pub(crate) enum FaultKind {
    Pass,
    Status(StatusCode),
    Refusal { refusal: Refusal, wait: Option<Duration>, in_stream: bool },
    Reset,
    Cut(usize),
}

impl Fault {
    /// The ordinary answer; use it to let requests through before the next fault, or to add
    /// headers.
    pub fn pass() -> Self {
        Self::new(FaultKind::Pass)
    }

    /// Answers with this status and Azure's body for it, unless [`Fault::body`] replaces it. Has no
    /// `retry-after` headers unless added.
    ///
    /// # Panics
    ///
    /// If `status` is not between 100 and 999.
    pub fn status(status: u16) -> Self {
        let status = StatusCode::from_u16(status).expect("a fault's status is a valid one");
        Self::new(FaultKind::Status(status))
    }

    /// Refuses with the status, headers and text of `refusal`. Has no `retry-after` headers unless
    /// [added](Self::retry_after).
    pub fn refusal(refusal: Refusal) -> Self {
        Self::new(FaultKind::Refusal { refusal, wait: None, in_stream: false })
    }

    /// Resets the connection instead of answering. In process the service fails with
    /// [`EmulatorError::Reset`](crate::EmulatorError::Reset).
    pub fn reset() -> Self {
        Self::new(FaultKind::Reset)
    }

    /// Waits before answering. An event stream opens immediately and stalls before its first token,
    /// as the service does when it is busy; any other answer, including faults, is delayed
    /// completely.
    pub fn delay(delay: Duration) -> Self {
        Self::pass().after(delay)
    }

    /// Cuts the answer: an event stream after `events` events, any other body halfway.
    pub fn cut_stream_after(events: usize) -> Self {
        Self::new(FaultKind::Cut(events))
    }

    /// Adds a header to the answer, replacing the emulator's own header of that name.
    ///
    /// # Panics
    ///
    /// If the name or the value is not allowed in a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("a fault's header name is a valid one");
        let value = HeaderValue::from_str(value).expect("a fault's header value is a valid one");
        self.headers.append(name, value);
        self
    }

    /// Replaces the body of a [`Fault::status`].
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Sets the wait: `retry-after-ms`, `retry-after` in whole seconds, rounded up, and the error
    /// message. Only a [`Fault::refusal`] has it in the message.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        if let FaultKind::Refusal { wait: stated, .. } = &mut self.kind {
            *stated = Some(wait);
        } else {
            head::show_wait(wait, &mut self.headers);
        }
        self
    }

    /// Hides a [`Fault::refusal`] behind status 200 if the answer would be streamed: the events
    /// that precede output, then an `error`. A response that is not streamed gets the status
    /// `failed`.
    #[must_use]
    pub fn in_stream(mut self) -> Self {
        if let FaultKind::Refusal { in_stream, .. } = &mut self.kind {
            *in_stream = true;
        }
        self
    }

    /// Delays this fault, as [`Fault::delay`] delays the ordinary answer.
    #[must_use]
    pub const fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sends nothing for this long, not even the head of an event stream; [`Fault::after`] delays
    /// the answer after that.
    #[must_use]
    pub const fn silent_for(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    fn new(kind: FaultKind) -> Self {
        Self {
            kind,
            silence: Duration::ZERO,
            delay: Duration::ZERO,
            headers: HeaderMap::new(),
            body: None,
        }
    }
}
