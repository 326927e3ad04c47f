//! rig's providers over the layers, by its `HttpClientExt`.
//!
//! ```
//! # use tower::ServiceBuilder;
//! # use tower_spillover::{Backend, BackendPool, RegionRotateLayer};
//! # use tower_spillover_adapters::reqwest::HttpClient;
//! use rig_core::providers::openai::{OpenAIConfig, wire::AZURE};
//! use tower_spillover_adapters::rig::RigClient;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let east = Backend::new("east", "https://contoso.openai.azure.com")?.api_key("key");
//! # let layers = RegionRotateLayer::new(BackendPool::new([east])?);
//! # let http = HttpClient::new(reqwest::Client::builder())?;
//! let stack = ServiceBuilder::new().layer(layers).service(http);
//! let config = OpenAIConfig::with_key(&AZURE, "none").with_base_url("http://azure");
//! let model = config.connect(RigClient::new(stack)).completion("gpt-4o");
//! # drop(model);
//! # Ok(())
//! # }
//! ```
//!
//! It serves rig 0.44 to 0.46, which need newer compilers than this crate: 1.95 for 0.44.

use std::{
    error::Error as StdError,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderValue, Request, Response, header};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use pin_project_lite::pin_project;
use rig_http::http_client::{
    Error, HttpClientExt, LazyBody, MultipartForm, Result, StreamingResponse,
};
use tower_service::Service;

use crate::call;

type BoxError = Box<dyn StdError + Send + Sync>;

/// A stack of layers as the HTTP client of a rig provider.
///
/// A provider's base, key and deployment are replaced by a backend's. Its address says which grammar
/// its requests are in: Azure's deployment grammar with the dialect `AZURE`, the v1 grammar with
/// OpenAI's own and a base that ends in `/openai/v1`.
///
/// [`Served`](tower_spillover::Served) stays in the extensions of the response; where rig keeps that to
/// itself, a [`Call`](crate::Call) shows it.
///
/// # Errors
///
/// As rig wants it, an answer that is no success is an error, with its status, headers and body: a refusal
/// of all backends has the wait in its `retry-after`. Errors of the stack are `Error::Instance`.
#[derive(Clone, Debug)]
pub struct RigClient<S> {
    stack: S,
}

impl<S> RigClient<S> {
    /// Serves rig by `stack`.
    pub const fn new(stack: S) -> Self {
        Self { stack }
    }

    /// The wrapped stack.
    pub const fn get_ref(&self) -> &S {
        &self.stack
    }

    /// The wrapped stack, to be changed.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.stack
    }

    /// The wrapped stack, unwrapped.
    pub fn into_inner(self) -> S {
        self.stack
    }
}

impl<S, R> HttpClientExt for RigClient<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    R: Body + Send + 'static,
    R::Data: Into<Bytes> + Send,
    R::Error: Into<BoxError>,
{
    fn send<T, U>(
        &self,
        request: Request<T>,
    ) -> impl Future<Output = Result<Response<LazyBody<U>>>> + Send + 'static
    where
        T: Into<Bytes> + Send,
        U: From<Bytes> + Send + 'static,
    {
        let answer = ask(self.stack.clone(), request.map(Into::into));
        async move { Ok(answer.await?.map(lazy)) }
    }

    fn send_multipart<U>(
        &self,
        request: Request<MultipartForm>,
    ) -> impl Future<Output = Result<Response<LazyBody<U>>>> + Send + 'static
    where
        U: From<Bytes> + Send + 'static,
    {
        let stack = self.stack.clone();
        async move {
            let (mut head, form) = request.into_parts();
            let (boundary, body) = form.encode();
            let kind = HeaderValue::try_from(format!("multipart/form-data; boundary={boundary}"))?;
            head.headers.insert(header::CONTENT_TYPE, kind);
            Ok(ask(stack, Request::from_parts(head, body)).await?.map(lazy))
        }
    }

    fn send_streaming<T>(
        &self,
        request: Request<T>,
    ) -> impl Future<Output = Result<StreamingResponse>> + Send
    where
        T: Into<Bytes> + Send,
    {
        let answer = ask(self.stack.clone(), request.map(Into::into));
        async move { Ok(answer.await?.map(|body| Box::pin(DataStream { body }) as _)) }
    }
}

/// Sends `request`, and makes an error of an answer that is no success.
async fn ask<S, R>(mut stack: S, request: Request<Bytes>) -> Result<Response<R>>
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body,
    R::Data: Into<Bytes>,
    R::Error: Into<BoxError>,
{
    let mut request = request.map(Full::new);
    call::extend(request.extensions_mut());
    poll_fn(|cx| stack.poll_ready(cx)).await.map_err(instance)?;
    let response = stack.call(request).await.map_err(instance)?;
    call::note(&response);
    if response.status().is_success() {
        return Ok(response);
    }
    let (head, body) = response.into_parts();
    let text = match collect(body).await {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) => format!("its body broke off: {error}"),
    };
    Err(Error::non_success_with_details(head.status, head.headers, text))
}

/// A body that is read when rig asks for it.
fn lazy<R, U>(body: R) -> LazyBody<U>
where
    R: Body + Send + 'static,
    R::Data: Into<Bytes> + Send,
    R::Error: Into<BoxError>,
    U: From<Bytes>,
{
    Box::pin(async move { Ok(U::from(collect(body).await?)) })
}

async fn collect<R>(body: R) -> Result<Bytes>
where
    R: Body,
    R::Error: Into<BoxError>,
{
    Ok(body.collect().await.map_err(instance)?.to_bytes())
}

fn instance(error: impl Into<BoxError>) -> Error {
    Error::Instance(error.into())
}

pin_project! {
    /// The data of a body, as it arrives.
    struct DataStream<R> {
        #[pin]
        body: R,
    }
}

impl<R> Stream for DataStream<R>
where
    R: Body,
    R::Data: Into<Bytes>,
    R::Error: Into<BoxError>,
{
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(frame) = ready!(self.as_mut().project().body.poll_frame(cx)) else {
                return Poll::Ready(None);
            };
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(data)) => return Poll::Ready(Some(Ok(data.into()))),
                // Trailers are not for rig.
                Ok(Err(_)) => {}
                Err(error) => return Poll::Ready(Some(Err(instance(error)))),
            }
        }
    }
}
