//! The header names that classification reads.

use http::HeaderName;

/// The headers of one of the two limits that a deployment counts. Each name has two spellings: the
/// documented one, and the `x-rate-limit-` of a captured Azure 429 (openai-python issue 937).
#[derive(Debug)]
pub(super) struct Dimension {
    pub(super) limit: [HeaderName; 2],
    pub(super) remaining: [HeaderName; 2],
    pub(super) reset: [HeaderName; 2],
}

pub(super) static RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
/// The name that all Azure SDKs also read.
pub(super) static X_MS_RETRY_AFTER_MS: HeaderName = HeaderName::from_static("x-ms-retry-after-ms");

/// Whether OpenAI's clients retry, whatever the status (openai-python, `_base_client`).
pub(super) static X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

pub(super) static TOKENS: Dimension = Dimension {
    limit: [
        HeaderName::from_static("x-ratelimit-limit-tokens"),
        HeaderName::from_static("x-rate-limit-limit-tokens"),
    ],
    remaining: [
        HeaderName::from_static("x-ratelimit-remaining-tokens"),
        HeaderName::from_static("x-rate-limit-remaining-tokens"),
    ],
    reset: [
        HeaderName::from_static("x-ratelimit-reset-tokens"),
        HeaderName::from_static("x-rate-limit-reset-tokens"),
    ],
};

pub(super) static REQUESTS: Dimension = Dimension {
    limit: [
        HeaderName::from_static("x-ratelimit-limit-requests"),
        HeaderName::from_static("x-rate-limit-limit-requests"),
    ],
    remaining: [
        HeaderName::from_static("x-ratelimit-remaining-requests"),
        HeaderName::from_static("x-rate-limit-remaining-requests"),
    ],
    reset: [
        HeaderName::from_static("x-ratelimit-reset-requests"),
        HeaderName::from_static("x-rate-limit-reset-requests"),
    ],
};

/// `Tokens` or `Requests`.
pub(super) static RATELIMIT_TYPE: [HeaderName; 2] =
    [HeaderName::from_static("x-ratelimit-type"), HeaderName::from_static("x-rate-limit-type")];
/// `DeploymentRatelimit-Token`.
pub(super) static POLICY_ID: HeaderName = HeaderName::from_static("policy-id");

pub(super) static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(super) static GRPC_STATUS_DETAILS: HeaderName =
    HeaderName::from_static("grpc-status-details-bin");
pub(super) static GRPC_RETRY_PUSHBACK_MS: HeaderName =
    HeaderName::from_static("grpc-retry-pushback-ms");
