//! A reverse proxy for axum: the layers as a service that does not fail.
//!
//! For a server that passes its clients' requests on to Azure OpenAI. [`proxy`] turns any stack of the
//! layers into what [`Router::fallback_service`](axum::Router::fallback_service) and
//! [`Router::nest_service`](axum::Router::nest_service) take:
//!
//! ```no_run
//! use axum::Router;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use tower::Layer;
//! use tower_spillover::{Backend, BackendPool, RegionRotateLayer, SmartFallbackLayer};
//! use tower_spillover_adapters::axum::proxy;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (ptu, standard) = ("http://127.0.0.1:8101", "http://127.0.0.1:8102");
//! let ptu = BackendPool::new([Backend::new("ptu", ptu)?.deployment("gpt-4o-ptu").api_key("key")])?;
//! let standard = BackendPool::new([Backend::new("standard", standard)?.api_key("key")])?;
//!
//! let client = Client::builder(TokioExecutor::new()).build_http();
//! let azure = SmartFallbackLayer::new(RegionRotateLayer::new(ptu), RegionRotateLayer::new(standard));
//! let app = Router::new().fallback_service(proxy(azure.layer(client)));
//!
//! axum::serve(tokio::net::TcpListener::bind("127.0.0.1:8080").await?, app).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A handler that asks Azure itself keeps the stack in its state instead, as a
//! [`PtuFirst`](tower_spillover::PtuFirst), and says with [`ServedBy`] who served it.
//!
//! # What it does not do
//!
//! It does not authenticate clients: every request is sent with a backend's key, whatever key it came with.
//! A proxy that others can reach needs a layer that knows its clients; the gateway `spillover` has one.

mod error;
mod headers;
mod proxy;
mod served_by;
mod whole;

pub use self::{
    error::UpstreamError,
    proxy::{Proxy, ResponseFuture, proxy},
    served_by::ServedBy,
};
