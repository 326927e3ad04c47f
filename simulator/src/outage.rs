//! Times in which the PTU serves nobody.

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};

use super::{hints, network::Answer};
use spillover_emulator::{EmulatorBody, EmulatorError};

/// What the PTU does in a time in which it serves nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outage {
    /// It answers 429 without a hint.
    Silent,
    /// It answers 429 with this hint, in milliseconds and in seconds.
    Throttling(Duration),
    /// It answers 503 with `retry-after: 5`.
    Unavailable,
    /// It cannot be connected to.
    Down,
}

/// One such time. Its level goes on draining meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) from: Duration,
    pub(super) to: Duration,
    pub(super) outage: Outage,
}

impl Window {
    pub(super) fn contains(&self, at: Duration) -> bool {
        (self.from..self.to).contains(&at)
    }

    pub(super) fn later(&self, by: Duration) -> Self {
        Self { from: self.from + by, to: self.to + by, ..*self }
    }

    pub(super) fn answer(&self) -> Answer {
        let (status, hint, code) = match self.outage {
            Outage::Down => return Err(EmulatorError::Down),
            Outage::Silent => (StatusCode::TOO_MANY_REQUESTS, None, "429"),
            Outage::Throttling(hint) => (StatusCode::TOO_MANY_REQUESTS, Some(hint), "429"),
            Outage::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, Some(Duration::from_secs(5)), "503")
            }
        };
        let body = format!(r#"{{"error":{{"code":"{code}","message":"The PTU is out."}}}}"#);
        let mut response = Response::new(EmulatorBody::whole(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match hint {
            Some(hint) if self.outage == Outage::Unavailable => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(hint.as_secs()));
            }
            Some(hint) => hints::say(&mut response, hint),
            None => {}
        }
        Ok(response)
    }
}
