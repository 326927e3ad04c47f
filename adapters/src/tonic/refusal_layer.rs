//! Refusals of the layers as gRPC responses.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{Either, Empty};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{
    retry_info::{pushback, write_details},
    status::{refusal_status, refused},
};

/// Turns refusals into what a gRPC client understands, outside of all layers that may refuse: for a proxy of
/// gRPC calls, and for a client whose pool may have no open backend.
///
/// A refusal by HTTP status, which is what a layer answers with by itself, becomes a `RESOURCE_EXHAUSTED`
/// as [`refusal_status`] makes one. A refusal that is a gRPC status already keeps it, with the wait as the
/// layers have it in pushback and `RetryInfo`. Other answers, and those to requests that are not gRPC, pass
/// as they are. The extensions, [`Served`](tower_spillover::Served) for one, stay.
///
/// ```
/// use tower::{ServiceBuilder, service_fn};
/// use tower_spillover::ReplayLayer;
/// use tower_spillover_adapters::tonic::GrpcRefusalLayer;
///
/// # let azure = service_fn(|_: http::Request<tower_spillover::replay::ReplayBody<String>>| async {
/// #     Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
/// # });
/// let service = ServiceBuilder::new()
///     .layer(GrpcRefusalLayer::new())
///     .layer(ReplayLayer::new(64 << 10))
///     // the layers, and the client
///     .service(azure);
/// # drop(service);
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct GrpcRefusalLayer {}

/// The service of [`GrpcRefusalLayer`].
#[derive(Clone, Copy, Debug)]
pub struct GrpcRefusal<S> {
    inner: S,
}

/// The body of a response: the wrapped service's, or nothing.
pub type RefusalBody<R> = Either<R, Empty<Bytes>>;

impl GrpcRefusalLayer {
    /// Has no settings.
    pub const fn new() -> Self {
        Self {}
    }
}

impl<S> Layer<S> for GrpcRefusalLayer {
    type Service = GrpcRefusal<S>;

    fn layer(&self, inner: S) -> Self::Service {
        GrpcRefusal { inner }
    }
}

impl<S> GrpcRefusal<S> {
    /// The wrapped service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The wrapped service, to be changed.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The wrapped service, unwrapped.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B, R> Service<Request<B>> for GrpcRefusal<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<RefusalBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.filter(|kind| is_grpc(kind)).cloned();
        ResponseFuture { kind, future: self.inner.call(request) }
    }
}

pin_project! {
    /// The response future of [`GrpcRefusal`].
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        // The content type of a gRPC request, which is that of its response.
        kind: Option<HeaderValue>,
        #[pin]
        future: F,
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<RefusalBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.future.poll(cx))?;
        Poll::Ready(Ok(match this.kind.take() {
            Some(kind) => in_grpc(kind, response),
            None => response.map(Either::Left),
        }))
    }
}

fn in_grpc<R>(kind: HeaderValue, mut response: Response<R>) -> Response<RefusalBody<R>> {
    let Some(hint) = refused(&response) else { return response.map(Either::Left) };
    if response.status() == StatusCode::OK {
        // Nothing but a gRPC status makes a refusal of it.
        let headers = response.headers_mut();
        if let Some(pushback) = pushback(hint) {
            headers.insert("grpc-retry-pushback-ms", pushback);
            write_details(headers, hint);
        }
        return response.map(Either::Left);
    }
    let status = refusal_status(&response).expect("it is a refusal");
    let mut response = response.map(|_| Either::Right(Empty::new()));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    for of_body in [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::TRANSFER_ENCODING] {
        headers.remove(of_body);
    }
    headers.insert(header::CONTENT_TYPE, kind);
    // The status is made of ASCII.
    _ = status.add_header(headers);
    response
}

fn is_grpc(kind: &HeaderValue) -> bool {
    let prefix = kind.as_bytes().get(..GRPC.len());
    prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(GRPC))
}

const GRPC: &[u8] = b"application/grpc";

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, time::Duration};

    use http_body_util::{BodyExt, Full};
    use tonic::{Code, Status};
    use tonic_types::{ErrorDetails, StatusExt};
    use tower::{ServiceExt, service_fn};

    use super::*;

    type Answer = Response<Full<Bytes>>;

    /// What a client that asks in `kind` gets where the layers answer with `answer`.
    async fn answered(kind: &'static str, answer: Answer) -> Response<Bytes> {
        let layers = service_fn(move |_: Request<()>| {
            let answer = answer.clone();
            async { Ok::<_, Infallible>(answer) }
        });
        let request = Request::post("/a.B/C").header("content-type", kind).body(()).unwrap();
        let answer = GrpcRefusalLayer::new().layer(layers).oneshot(request).await.unwrap();
        let (head, body) = answer.into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    fn refusal(lines: &[(&'static str, &'static str)]) -> Answer {
        let mut answer = Response::new(Full::from("{}"));
        *answer.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        answer.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
        answer.headers_mut().insert("content-length", 2.into());
        for &(name, value) in lines {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer
    }

    #[tokio::test]
    async fn a_refusal_by_status_becomes_one_by_grpc_status() {
        let mut answer = refusal(&[("retry-after-ms", "1500")]);
        answer.extensions_mut().insert(7_u8);
        let answer = answered("application/grpc+proto", answer).await;
        assert_eq!((answer.status(), answer.body().len()), (StatusCode::OK, 0));
        assert_eq!(answer.headers()["content-type"], "application/grpc+proto");
        assert!(!answer.headers().contains_key("content-length"));
        assert_eq!(answer.headers()["grpc-status"], "8");
        assert_eq!(answer.headers()["grpc-retry-pushback-ms"], "1500");
        assert_eq!(answer.extensions().get(), Some(&7_u8));
        let status = Status::from_header_map(answer.headers()).unwrap();
        let info = status.get_details_retry_info().unwrap();
        assert_eq!(info.retry_delay, Some(Duration::from_millis(1_500)));
        assert_eq!(status.message(), "No backend is open for 1500 ms.");
    }

    #[tokio::test]
    async fn a_wait_without_end_forbids_and_one_that_is_not_known_says_nothing() {
        let forever = answered("application/grpc", refusal(&[("retry-after", "9999999")])).await;
        assert_eq!(forever.headers()["grpc-retry-pushback-ms"], "-1");
        let unknown = answered("application/grpc", refusal(&[])).await;
        assert_eq!(unknown.headers()["grpc-status"], "8");
        for answer in [forever, unknown] {
            assert!(!answer.headers().contains_key("grpc-status-details-bin"));
        }
    }

    #[tokio::test]
    async fn a_grpc_refusal_keeps_its_status_with_the_time_of_the_layers() {
        let mut details = ErrorDetails::with_retry_info(Some(Duration::from_secs(60)));
        details.set_request_info("id", "");
        let status = Status::with_error_details(Code::Unavailable, "full", details);
        let mut answer: Answer = status.into_http();
        // As a layer writes it that knows another server to reopen sooner.
        answer.headers_mut().insert("grpc-retry-pushback-ms", 250.into());
        let answer = answered("application/grpc", answer).await;
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "full"));
        let details = status.get_error_details();
        let delay = details.retry_info().unwrap().retry_delay;
        assert_eq!(delay, Some(Duration::from_millis(250)));
        assert_eq!(details.request_info().unwrap().request_id, "id");
    }

    #[tokio::test]
    async fn details_that_no_client_can_read_are_replaced() {
        let mut answer: Answer = Status::resource_exhausted("full").into_http();
        let headers = answer.headers_mut();
        headers.insert("grpc-status-details-bin", HeaderValue::from_static("*"));
        headers.insert("grpc-retry-pushback-ms", 250.into());
        let answer = answered("application/grpc", answer).await;
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert!(status.get_details_retry_info().is_some());
    }

    #[tokio::test]
    async fn other_answers_and_other_requests_pass_as_they_are() {
        let plain = answered("application/json", refusal(&[("retry-after", "1")])).await;
        assert_eq!((plain.status().as_u16(), plain.body().as_ref()), (429, &b"{}"[..]));
        let mut failed = refusal(&[]);
        *failed.status_mut() = StatusCode::BAD_GATEWAY;
        assert_eq!(answered("application/grpc", failed).await.status(), 502);
        let answer = Status::not_found("no such thing").into_http();
        let headers = answered("application/grpc", answer).await;
        assert_eq!(headers.headers()["grpc-status"], "5");
        assert!(!headers.headers().contains_key("grpc-retry-pushback-ms"));
    }
}
