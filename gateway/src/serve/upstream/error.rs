//! Why a backend gave no answer.

use std::{error::Error, fmt};

use hyper_util::client::legacy;

use super::{preface, request_body::RequestBodyError, reuse};

/// Why an attempt has no answer.
#[derive(Debug)]
pub(crate) enum UpstreamError {
    Client(legacy::Error),
    /// The head of an answer did not arrive in time.
    Silent,
    /// The head has a length and is chunked: other parsers would see another end (RFC 9112 section
    /// 6.3).
    TwoLengths,
}

impl UpstreamError {
    /// Whether the backend cannot have seen the request, or has never sent any HTTP/2 frame.
    pub(crate) fn is_connect(&self) -> bool {
        let is_late = |error: &legacy::Error| error.connect_info().is_some_and(preface::is_late);
        matches!(self, Self::Client(error) if error.is_connect() || is_late(error))
    }

    /// Whether the connection broke before the backend answered, not because of the client.
    pub(crate) fn is_reset(&self) -> bool {
        match self {
            Self::Client(_) => !self.is_connect() && self.cause::<RequestBodyError>().is_none(),
            Self::TwoLengths => true,
            Self::Silent => false,
        }
    }

    /// Whether an HTTP/2 server states that it did not process the request: it refuses a stream
    /// above its limit, or closes the connection with an earlier last stream.
    pub(crate) fn is_unprocessed(&self) -> bool {
        let is_refused = |error: &h2::Error| {
            let is_refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
            error.is_remote() && (is_refused || error.is_go_away())
        };
        self.is_reset() && self.cause::<h2::Error>().is_some_and(is_refused)
    }

    /// Whether an HTTP/1.1 server closed an idle connection just when it was reused.
    pub(crate) fn is_closed_on_reuse(&self) -> bool {
        matches!(self, Self::Client(error) if reuse::closed_on_reuse(error)) && self.is_reset()
    }

    /// A single word, for traces.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Client(_) if self.is_connect() => "connect",
            Self::Client(_) | Self::TwoLengths => "broken",
            Self::Silent => "timeout",
        }
    }

    /// The first cause of the type `T`.
    pub(crate) fn cause<T: Error + 'static>(&self) -> Option<&T> {
        let mut next: Option<&(dyn Error + 'static)> = match self {
            Self::Client(error) => Some(error),
            Self::Silent | Self::TwoLengths => None,
        };
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => error.fmt(f),
            Self::Silent => f.write_str("no answer in time"),
            Self::TwoLengths => {
                f.write_str("an answer with both content-length and transfer-encoding")
            }
        }
    }
}

impl Error for UpstreamError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Client(error) => error.source(),
            Self::Silent | Self::TwoLengths => None,
        }
    }
}
