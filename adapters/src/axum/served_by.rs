//! The account of a request, as a part of a handler's response.

use std::convert::Infallible;

use axum::{
    http::Response,
    response::{IntoResponseParts, ResponseParts},
};
use tower_spillover::Served;

/// The [`Served`] of an answer, if there is one, as a part of a handler's own response: a layer around the
/// handler finds it there as it does on a proxy's.
///
/// ```
/// use axum::{Json, body::Body, http::{Request, Response}, response::IntoResponse};
/// use tower_spillover_adapters::axum::ServedBy;
/// # use tower::{ServiceExt, service_fn};
///
/// async fn summary() -> impl IntoResponse {
/// #   let azure = service_fn(|_| async { Ok::<_, std::convert::Infallible>(Response::new(())) });
/// #   let request = Request::new(Body::empty());
///     let answer = azure.oneshot(request).await.expect("an answer");
///     let served_by = ServedBy::of(&answer);
///     // What the handler makes of the answer.
///     (served_by, Json("a summary"))
/// }
/// # _ = axum::Router::<()>::new().route("/", axum::routing::get(summary));
/// ```
#[derive(Clone, Debug, Default)]
pub struct ServedBy(pub Option<Served>);

impl ServedBy {
    /// The account that the layers left on `response`.
    pub fn of<B>(response: &Response<B>) -> Self {
        Self(response.extensions().get().cloned())
    }
}

impl IntoResponseParts for ServedBy {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        if let Some(served) = self.0 {
            parts.extensions_mut().insert(served);
        }
        Ok(parts)
    }
}
