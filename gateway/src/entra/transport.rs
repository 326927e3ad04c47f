//! Sends the identity SDK's requests with the gateway's own client.

use std::collections::HashMap;

use async_trait::async_trait;
use azure_core::{
    error::ErrorKind,
    http::{
        AsyncRawResponse, Body, HttpClient, Request as SdkRequest,
        headers::{HeaderName, HeaderValue, Headers},
    },
};
use bytes::Bytes;
use http::{HeaderMap, Request};

use crate::http_client::Client;

/// The HTTP transport of the SDK.
#[derive(Debug)]
pub(super) struct Transport {
    client: Client,
    /// `host:port` of an authority without TLS. The SDK only accepts `https`.
    plain: Option<String>,
}

impl Transport {
    pub(super) const fn new(client: Client, plain: Option<String>) -> Self {
        Self { client, plain }
    }

    fn address(&self, request: &SdkRequest) -> String {
        let url = request.url();
        match (&self.plain, url.as_str().strip_prefix("https://")) {
            (Some(plain), Some(rest)) if rest.split('/').next() == Some(plain) => {
                format!("http://{rest}")
            }
            _ => url.to_string(),
        }
    }
}

#[async_trait]
impl HttpClient for Transport {
    async fn execute_request(&self, request: &SdkRequest) -> azure_core::Result<AsyncRawResponse> {
        let mut head =
            Request::builder().method(request.method().as_str()).uri(self.address(request));
        for (name, value) in request.headers().iter() {
            head = head.header(name.as_str(), value.as_str());
        }
        let body = match request.body() {
            Body::Bytes(bytes) => bytes.clone(),
            Body::SeekableStream(_) => return Err(error("a token request has no streamed body")),
        };
        let request: Request<Bytes> = head.body(body).map_err(error)?;
        let (head, body) = self.client.send(request).await.map_err(error)?.into_parts();
        Ok(AsyncRawResponse::from_bytes(head.status.as_u16().into(), headers(&head.headers), body))
    }
}

fn headers(map: &HeaderMap) -> Headers {
    let legible = map.iter().filter_map(|(name, value)| {
        let value = value.to_str().ok()?.to_owned();
        Some((HeaderName::from(name.as_str().to_owned()), HeaderValue::from(value)))
    });
    Headers::from(legible.collect::<HashMap<_, _>>())
}

fn error(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> azure_core::Error {
    azure_core::Error::new(ErrorKind::Io, reason)
}
