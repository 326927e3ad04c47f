//! The rules of well-known providers.

mod anthropic;
mod bedrock;
mod mistral;
mod open_ai;
mod plain;
mod timestamp;

#[cfg(test)]
mod heads;

use std::{fmt, str::FromStr, time::SystemTime};

use http::{HeaderMap, StatusCode};

use super::{Classify, Hint, Limit, Outcome, Reason, Verdict};
use crate::ConfigError;

/// The provider of an API: how its refusals are read and, for a
/// [`Backend`](crate::Backend::provider), where requests and keys go.
///
/// | provider | refuses with | for how long | path of a request | key |
/// |---|---|---|---|---|
/// | `azure` | [`Outcome::of`] | [`Hint::read`] | `/openai/deployments/…`, `/openai/v1/…` | `api-key` |
/// | `openai` | 429, 503 | `retry-after-ms`, `retry-after`, `x-ratelimit-reset-*` | `/v1/…` | `Authorization: Bearer` |
/// | `anthropic` | 429, 529 | `retry-after`, `anthropic-ratelimit-*-reset` | `/v1/…` | `x-api-key`, `anthropic-version` |
/// | `bedrock` | 429, 503, and a throttling error's 400 | `retry-after`, if there is one | `/openai/v1/…` | `Authorization: Bearer` |
/// | `mistral` | 429 | `retry-after`, `ratelimitbysize-reset` | `/v1/…` | `Authorization: Bearer` |
/// | `http` | 429, and 503 with `retry-after` | `retry-after` (RFC 9110) | `/v1/…` | `Authorization: Bearer` |
///
/// `src/classify/provider` lists the sources beside the rules.
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use http::{HeaderMap, HeaderValue, StatusCode};
/// use tower_spillover::classify::{Classify, Hint, Outcome, Provider};
///
/// let mut headers = HeaderMap::new();
/// for (name, value) in [
///     ("date", "Tue, 26 Mar 2024 19:59:59 GMT"),
///     ("anthropic-ratelimit-requests-remaining", "0"),
///     ("anthropic-ratelimit-requests-reset", "2024-03-26T20:00:00Z"),
/// ] {
///     headers.insert(name, HeaderValue::from_static(value));
/// }
/// let verdict =
///     Provider::Anthropic.classify(StatusCode::TOO_MANY_REQUESTS, &headers, &SystemTime::now);
/// let one_second = Hint::After(Duration::from_secs(1));
/// assert_eq!(verdict.outcome(), Outcome::Throttled(one_second));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Provider {
    /// Azure OpenAI and Foundry, and gateways in front of them. The default.
    #[default]
    Azure,
    /// OpenAI's own API.
    OpenAi,
    /// Anthropic's API.
    Anthropic,
    /// The OpenAI-compatible endpoints of Amazon Bedrock, with a Bedrock API key. Requests are not
    /// signed, so AWS access keys (SigV4) do not work here.
    Bedrock,
    /// Mistral's API.
    Mistral,
    /// Any other server with OpenAI's API that uses 429, 503 and `retry-after` as HTTP defines them.
    Http,
}

impl Provider {
    /// All providers.
    pub const ALL: [Self; 6] =
        [Self::Azure, Self::OpenAi, Self::Anthropic, Self::Bedrock, Self::Mistral, Self::Http];

    /// The name in configurations: `azure`, `openai`, `anthropic`, `bedrock`, `mistral`, `http`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Azure => "azure",
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Bedrock => "bedrock",
            Self::Mistral => "mistral",
            Self::Http => "http",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// By its [name](Provider::name).
impl FromStr for Provider {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        Self::ALL.into_iter().find(|provider| provider.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            ConfigError::new("provider", format!("{name:?} is unknown: use one of {known}"))
        })
    }
}

impl Classify for Provider {
    fn classify(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        now: &dyn Fn() -> SystemTime,
    ) -> Verdict {
        match self {
            Self::Azure => azure(status, headers, now),
            Self::OpenAi => open_ai::classify(status, headers, now),
            Self::Anthropic => anthropic::classify(status, headers, now),
            Self::Bedrock => bedrock::classify(status, headers, now),
            Self::Mistral => mistral::classify(status, headers, now),
            Self::Http => plain::classify(status, headers, now),
        }
    }
}

/// The default rules as a verdict. A refusal that names no limit, and asks for a longer wait than any
/// window lasts, is about the request's tokens.
fn azure(status: StatusCode, headers: &HeaderMap, now: &dyn Fn() -> SystemTime) -> Verdict {
    let outcome = Outcome::of(status, headers, now);
    let limit = match outcome {
        Outcome::Throttled(hint) if status == StatusCode::TOO_MANY_REQUESTS => {
            Limit::named(headers)
                .or_else(|| Limit::spent(headers))
                .or_else(|| hint.is_beyond_windows().then_some(Limit::Tokens))
        }
        _ => None,
    };
    Verdict::new(outcome).of_limit(limit)
}

/// The meaning of a status that the provider does not define: a misconfiguration, a failure, or the
/// caller's.
fn by_status(status: StatusCode) -> Verdict {
    Verdict::new(match status.as_u16() {
        401..=403 => Outcome::Misconfigured,
        500 | 502 | 503 | 504 => Outcome::Failed,
        _ => Outcome::Answered,
    })
}

fn throttled(hint: Hint, reason: Reason) -> Verdict {
    Verdict::new(Outcome::Throttled(hint)).because(reason)
}
