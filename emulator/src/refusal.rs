//! The reasons for which a deployment refuses, and the service's names for them.

use http::StatusCode;

/// Why a deployment refuses. Each reason has its own status, code and message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// A PTU's level is at 100 %: 429. The message is not public; the headers are.
    Utilization,
    /// The tokens per minute are used up, or would be by this request: 429, `x-ratelimit-type: Tokens`.
    Tokens,
    /// The requests per minute are used up: 429, `x-ratelimit-type: Requests`.
    Calls,
    /// The model has no capacity in this region, whatever the quota: 429, code `no_capacity`.
    Capacity,
    /// The service tier `flex` has no capacity: 429, code `resource_unavailable` (Azure page "Flex
    /// processing").
    Flex,
    /// 529, type `overloaded_error`, as sent by Anthropic models.
    Overloaded,
    /// 503, code `server_is_overloaded`, type `service_unavailable_error`.
    ServerOverloaded,
}

impl Refusal {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Overloaded => {
                StatusCode::from_u16(529).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
            }
            Self::ServerOverloaded => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// `error.type`.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded_error",
            Self::ServerOverloaded => "service_unavailable_error",
            _ => "too_many_requests",
        }
    }

    /// `error.code`, where there is one.
    pub(crate) const fn code(self) -> Option<&'static str> {
        match self {
            Self::Utilization | Self::Tokens | Self::Calls => Some("rate_limit_exceeded"),
            Self::Capacity => Some("no_capacity"),
            Self::Flex => Some("resource_unavailable"),
            Self::Overloaded => None,
            Self::ServerOverloaded => Some("server_is_overloaded"),
        }
    }
}
