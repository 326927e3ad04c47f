//! Scripted misbehaviour: one fault spoils one request.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::{Refusal, answer::head};

/// What happens to one request instead of, or on top of, the ordinary answer.
///
/// A fault is taken by the first request that reaches the scripted deployment, after its key was
/// checked. Faults other than [`Fault::pass`] in its various forms leave a PTU's level alone; every
/// request counts against the requests per minute of a Standard deployment.
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
    /// The ordinary answer; useful to leave requests alone before the next fault, or with headers
    /// added to it.
    pub fn pass() -> Self {
        Self::new(FaultKind::Pass)
    }

    /// Answers with this status and, unless [`Fault::body`] says otherwise, the body that Azure
    /// sends with it. No `retry-after` headers unless added.
    ///
    /// # Panics
    ///
    /// When `status` is not between 100 and 999.
    pub fn status(status: u16) -> Self {
        let status = StatusCode::from_u16(status).expect("a fault's status is a valid one");
        Self::new(FaultKind::Status(status))
    }

    /// Refuses in the words, with the status and the headers of `refusal`. No `retry-after` headers
    /// unless [added](Self::retry_after).
    pub fn refusal(refusal: Refusal) -> Self {
        Self::new(FaultKind::Refusal { refusal, wait: None, in_stream: false })
    }

    /// Resets the connection instead of answering. In process the service fails with
    /// [`EmulatorError::Reset`](crate::EmulatorError::Reset).
    pub fn reset() -> Self {
        Self::new(FaultKind::Reset)
    }

    /// Waits before answering. An event stream opens at once and stalls before its first token, as
    /// the service does when it is busy; anything else, faults included, is held back whole.
    pub fn delay(delay: Duration) -> Self {
        Self::pass().after(delay)
    }

    /// Breaks the answer off: an event stream after `events` events, any other body half way.
    pub fn cut_stream_after(events: usize) -> Self {
        Self::new(FaultKind::Cut(events))
    }

    /// Adds a header to the answer, replacing the emulator's own of that name.
    ///
    /// # Panics
    ///
    /// When the name or the value is not allowed in a header.
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

    /// Says how long to wait: `retry-after-ms`, `retry-after` in whole seconds, rounded up, and in
    /// words. On what is no [`Fault::refusal`] only the headers.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        if let FaultKind::Refusal { wait: stated, .. } = &mut self.kind {
            *stated = Some(wait);
        } else {
            head::show_wait(wait, &mut self.headers);
        }
        self
    }

    /// Hides a [`Fault::refusal`] behind status 200, where an answer would be streamed: the events
    /// that precede output, then an `error`. A response that is not streamed has status `failed`.
    #[must_use]
    pub fn in_stream(mut self) -> Self {
        if let FaultKind::Refusal { in_stream, .. } = &mut self.kind {
            *in_stream = true;
        }
        self
    }

    /// Delays this fault, as [`Fault::delay`] does the ordinary answer.
    #[must_use]
    pub const fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Says nothing for so long, not even the head of an event stream; then comes what
    /// [`Fault::after`] still holds back.
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
