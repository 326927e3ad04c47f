//! What a proxy answers where no backend did.

use std::{error::Error, fmt, io, sync::Arc};

use axum::{
    BoxError,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use http_body_util::LengthLimitError;
use tower_spillover::policy::ErrorKind;

/// Why a request has no answer of a backend: an extension of the response that says so to the client.
///
/// The client does not see it, since errors of HTTP clients name hosts and addresses. A layer around the
/// proxy logs it:
///
/// ```
/// use axum::response::Response;
/// use tower_spillover_adapters::axum::UpstreamError;
///
/// async fn log(response: Response) -> Response {
///     if let Some(error) = response.extensions().get::<UpstreamError>() {
///         eprintln!("no answer: {error}");
///     }
///     response
/// }
/// # _ = axum::Router::<()>::new().layer(axum::middleware::map_response(log));
/// ```
#[derive(Clone, Debug)]
pub struct UpstreamError(Arc<dyn Error + Send + Sync>);

impl UpstreamError {
    /// The error of the wrapped service.
    pub fn get_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for UpstreamError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// The answer to a request that failed with `error`, which is of a `kind` if that is known.
pub(super) fn failed(error: BoxError, kind: Option<ErrorKind>) -> Response {
    // Nothing but the request's body has axum's errors: it broke off while it was sent on.
    if causes(&*error).any(|cause| cause.is::<axum::Error>()) {
        return broken(error);
    }
    let is_late = match kind {
        Some(kind) => kind == ErrorKind::Timeout,
        None => causes(&*error).any(is_timeout),
    };
    let mut response = match is_late {
        true => answer(StatusCode::GATEWAY_TIMEOUT, "timeout", "No backend answered in time."),
        false => answer(StatusCode::BAD_GATEWAY, "bad_gateway", "No backend could be asked."),
    };
    response.extensions_mut().insert(UpstreamError(error.into()));
    response
}

/// The answer where a backend left HTTP with `status`, which nothing asked for.
pub(super) fn no_end(status: StatusCode) -> Response {
    failed(format!("the backend answered {status}").into(), Some(ErrorKind::Other))
}

/// The answer where that of a backend has two lengths.
pub(super) fn two_lengths() -> Response {
    let error = "the backend's answer has both content-length and transfer-encoding";
    failed(error.into(), Some(ErrorKind::Other))
}

/// The answer to a request whose body ended with `error`.
pub(super) fn broken(error: BoxError) -> Response {
    let is_too_long = causes(&*error).any(|cause| cause.is::<LengthLimitError>());
    let mut response = match is_too_long {
        true => answer(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "The body is too long."),
        false => answer(StatusCode::BAD_REQUEST, "bad_request", "The body did not arrive."),
    };
    response.extensions_mut().insert(UpstreamError(error.into()));
    response
}

/// The answer to a request for a WebSocket. Clients that can do without one go on at a 426.
pub(super) fn no_websocket() -> Response {
    let message = "This proxy carries no WebSocket. Send a plain request.";
    let mut response = answer(StatusCode::UPGRADE_REQUIRED, "upgrade_required", message);
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("HTTP/1.1"));
    response
}

/// The answer to a CONNECT.
pub(super) fn no_tunnel() -> Response {
    answer(StatusCode::NOT_IMPLEMENTED, "not_implemented", "This proxy opens no tunnel.")
}

/// An error in the service's own shape.
fn answer(status: StatusCode, kind: &str, message: &str) -> Response {
    let code = status.as_str();
    let body = format!(
        r#"{{"error":{{"code":"{code}","type":"{kind}","message":"{message}","param":null}}}}"#
    );
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// Whether time ran out, for what clients are made of.
fn is_timeout(error: &(dyn Error + 'static)) -> bool {
    error.is::<tower::timeout::error::Elapsed>()
        || error.is::<tokio::time::error::Elapsed>()
        || error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout)
        || error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}
