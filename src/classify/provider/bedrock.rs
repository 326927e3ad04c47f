//! Amazon Bedrock.
//!
//! Sources: the Bedrock user guide's "Troubleshooting Amazon Bedrock API error codes" and the API
//! reference of `InvokeModel` (names and statuses); amazon-bedrock-client-for-mac issue 99 for a
//! captured 429 with its `x-amzn-ErrorType`; epam/ai-dial-adapter-bedrock pull request 371, which
//! found no `retry-after`. AWS protocols that do not use HTTP statuses send throttling errors as 400,
//! so the name of the error takes precedence over its status.

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, StatusCode};

use super::{Hint, Outcome, Reason, Verdict, by_status, throttled};
use crate::classify::retry_after;

pub(super) fn classify(
    status: StatusCode,
    headers: &HeaderMap,
    now: &dyn Fn() -> SystemTime,
) -> Verdict {
    let asked = || retry_after::read(headers, now);
    match (error(headers), status.as_u16()) {
        (Some(NamedError::Throttling), _) => throttled(asked(), Reason::Rate),
        (Some(NamedError::Unavailable), _) => throttled(asked(), Reason::Capacity),
        (Some(NamedError::Quota), _) => throttled(Hint::TooLong, Reason::Quota),
        (Some(NamedError::Model), _) => Outcome::Failed.into(),
        (Some(NamedError::Misconfigured), _) => {
            Verdict::new(Outcome::Misconfigured).because(Reason::Misconfigured)
        }
        (None, 429) => throttled(asked(), Reason::Rate),
        (None, 503 | 529) => throttled(asked(), Reason::Capacity),
        (None, _) => by_status(status),
    }
}

/// The meaning of an error's name.
#[derive(Clone, Copy)]
enum NamedError {
    /// The account's rate limit.
    Throttling,
    /// The service or the model has no capacity, or is loading.
    Unavailable,
    /// The account's total quota, which waiting does not change.
    Quota,
    /// The model failed on the request.
    Model,
    /// The key, its permissions, or the model's name.
    Misconfigured,
}

/// The error named in `x-amzn-errortype`. A namespace may precede it, and the URL of its definition
/// may follow: `ThrottlingException:http://internal.amazon.com/coral/com.amazon.bedrock/`.
fn error(headers: &HeaderMap) -> Option<NamedError> {
    let value = headers.get(&ERROR_TYPE)?.as_bytes();
    let name = value.split(|byte| matches!(byte, b':' | b',' | b';')).next()?;
    let name = name.rsplit(|byte| *byte == b'#').next()?.trim_ascii();
    let name = name.strip_suffix(b"Exception").unwrap_or(name);
    Some(match name {
        b"Throttling"
        | b"ThrottledRequest"
        | b"TooManyRequests"
        | b"RequestLimitExceeded"
        | b"RequestThrottled"
        | b"SlowDown" => NamedError::Throttling,
        b"ServiceUnavailable" | b"ModelNotReady" => NamedError::Unavailable,
        b"ServiceQuotaExceeded" | b"LimitExceeded" => NamedError::Quota,
        b"ModelError" | b"ModelStreamError" | b"InternalServer" | b"InternalFailure" => {
            NamedError::Model
        }
        b"AccessDenied"
        | b"UnrecognizedClient"
        | b"ExpiredToken"
        | b"InvalidSignature"
        | b"IncompleteSignature"
        | b"MissingAuthenticationToken"
        | b"ResourceNotFound" => NamedError::Misconfigured,
        _ => return None,
    })
}

static ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");
