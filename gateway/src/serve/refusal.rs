//! The gateway's own error responses, in the format of Azure's errors.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

/// An error response of the gateway.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
    /// Names the alternative: the methods of the path, or another protocol.
    instead: Option<Box<(HeaderName, HeaderValue)>>,
    is_final: bool,
    challenge: Option<HeaderValue>,
}

impl Refusal {
    pub(crate) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        let challenge =
            (status == StatusCode::UNAUTHORIZED).then_some(HeaderValue::from_static("Bearer"));
        let message = message.into();
        let is_final = false;
        let (retry_after, instead) = (None, None);
        Self { status, code, message, retry_after, instead, is_final, challenge }
    }

    /// Names the allowed methods, separated by commas.
    pub(crate) fn allow(mut self, methods: &str) -> Self {
        let methods = HeaderValue::try_from(methods).ok();
        self.instead = methods.map(|methods| Box::new((header::ALLOW, methods)));
        self
    }

    /// Sets when a retry makes sense.
    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Forbids a retry: the request may still be running at a backend.
    pub(crate) fn not_again(mut self) -> Self {
        self.is_final = true;
        self
    }

    /// Describes what is wrong with a token, as in RFC 6750.
    pub(crate) fn challenge(mut self, challenge: HeaderValue) -> Self {
        self.challenge = Some(challenge);
        self
    }

    pub(crate) fn into_response(self) -> Response<Bytes> {
        let text = serde_json::json!({ "error": { "code": self.code, "message": self.message } });
        let text = Bytes::from(text.to_string());
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_LENGTH, text.len().into());
        if let Some(wait) = self.retry_after {
            let millis = wait.as_nanos().div_ceil(1_000_000).clamp(1, MAX_MILLIS);
            let millis = u64::try_from(millis).unwrap_or(u64::MAX);
            headers.insert(RETRY_AFTER_MS, millis.into());
            headers.insert(header::RETRY_AFTER, millis.div_ceil(1_000).into());
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("true"));
        }
        headers.extend(self.instead.map(|it| *it));
        if self.is_final {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        if let Some(challenge) = self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        *response.body_mut() = text;
        response
    }

    /// The request requires another protocol.
    pub(crate) fn upgrade(to: &'static str, message: &'static str) -> Self {
        let refusal = Self::new(StatusCode::UPGRADE_REQUIRED, "UpgradeRequired", message);
        let to = (header::UPGRADE, HeaderValue::from_static(to));
        Self { instead: Some(Box::new(to)), ..refusal }
    }

    pub(crate) fn bad_gateway(message: &'static str) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "BadGateway", message)
    }

    pub(crate) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "404",
            "Resource not found. Paths are /openai/deployments/{model}/{operation} and \
             /openai/v1/{operation}.",
        )
    }

    pub(crate) fn too_large(limit: u64) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestTooLarge",
            format!("The request body is longer than {limit} bytes (limits.body)."),
        )
    }

    pub(crate) fn two_models() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", "The body names two models.")
    }
}

pub(crate) const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
pub(crate) const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const MAX_MILLIS: u128 = 3_600_000;
