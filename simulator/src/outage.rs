//! Outages of the PTU.

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};

use super::{hints, network::Answer};
use spillover_emulator::{EmulatorBody, EmulatorError};

/// How the PTU fails during an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outage {
    /// It answers 429 without a hint.
    Silent,
    /// It answers 429 with this hint, in milliseconds and in seconds.
    Throttling(Duration),
    /// It answers 503 with `retry-after: 5`.
    Unavailable,
    /// It refuses connections.
    Down,
}

/// One outage. The bucket keeps draining meanwhile.
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
        let mut response = match self.outage {
            Outage::Down => return Err(EmulatorError::Down),
            Outage::Silent | Outage::Throttling(_) => refusal(StatusCode::TOO_MANY_REQUESTS),
            Outage::Unavailable => refusal(StatusCode::SERVICE_UNAVAILABLE),
        };
        match self.outage {
            Outage::Throttling(hint) => hints::say(&mut response, hint),
            Outage::Unavailable => {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(5));
            }
            Outage::Silent | Outage::Down => {}
        }
        Ok(response)
    }
}

/// Represents a failed connection for policies that only know refusals: its hint outlasts every
/// wait.
pub(super) fn unreachable() -> Response<EmulatorBody> {
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE);
    hints::say(&mut response, Duration::from_secs(86_400));
    response
}

fn refusal(status: StatusCode) -> Response<EmulatorBody> {
    let code = status.as_str();
    let body = format!(r#"{{"error":{{"code":"{code}","message":"The PTU is out."}}}}"#);
    let mut response = Response::new(EmulatorBody::whole(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
