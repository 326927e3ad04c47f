//! The exporter's HTTP client: the gateway's own, on a separate thread.

use std::sync::Arc;

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use tokio::runtime::{Builder, Runtime};

use crate::http_client::{BoxError, Client};

/// The SDK exports from plain threads, which may block each other but never a request; so a
/// separate runtime drives the sockets.
#[derive(Clone, Debug)]
pub(crate) struct Exporting {
    client: Client,
    runtime: Arc<OwnRuntime>,
}

#[derive(Debug)]
struct OwnRuntime(Option<Runtime>);

impl Exporting {
    pub(crate) fn new() -> Result<Self, BoxError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("otlp")
            .enable_all()
            .build()?;
        Ok(Self { client: Client::new()?, runtime: Arc::new(OwnRuntime(Some(runtime))) })
    }
}

#[async_trait]
impl HttpClient for Exporting {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let runtime = self.runtime.0.as_ref().expect("it ends when the last client does");
        let client = self.client.clone();
        runtime.spawn(async move { client.send(request).await }).await?
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        // Must be droppable where blocking is forbidden, too.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
