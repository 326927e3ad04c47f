//! gRPC: the layers around tonic channels, and refusals that gRPC clients understand.
//!
//! **A client** wraps its channel in a [`GrpcChannel`], which takes whatever body the layers make of a
//! request. What a server asks to wait, by pushback or by a `google.rpc.RetryInfo`, is obeyed:
//!
//! ```no_run
//! use tonic::transport::Endpoint;
//! use tower::ServiceBuilder;
//! use tower_spillover::{ReplayLayer, SmartFallback};
//! use tower_spillover_adapters::tonic::GrpcChannel;
//!
//! # fn main() -> Result<(), tonic::transport::Error> {
//! let [primary, fallback] = ["http://10.0.0.1:50051", "http://10.0.0.2:50051"]
//!     .map(|uri| Endpoint::from_static(uri).connect_lazy())
//!     .map(GrpcChannel::new);
//! let service = ServiceBuilder::new()
//!     .layer(ReplayLayer::new(64 << 10)) // of unary calls: a stream has one attempt
//!     .service(SmartFallback::new(primary, fallback));
//! let client = tonic_health::pb::health_client::HealthClient::new(service);
//! # drop(client);
//! # Ok(())
//! # }
//! ```
//!
//! A channel puts its own authority into every request, so that a `RegionRotateLayer` cannot move one:
//! two channels are two tiers of a [`SmartFallback`](tower_spillover::SmartFallback).
//!
//! **A server** whose handlers ask Azure through the layers returns [`refusal_status`] when everything is
//! closed: `RESOURCE_EXHAUSTED` with the wait as pushback and as `RetryInfo`.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tonic::Status;
//! use tower::{BoxError, Service, ServiceExt};
//! use tower_spillover_adapters::tonic::refusal_status;
//!
//! async fn complete<S, R>(azure: S, request: Request<Full<Bytes>>) -> Result<Response<R>, Status>
//! where
//!     S: Service<Request<Full<Bytes>>, Response = Response<R>>,
//!     S::Error: Into<BoxError>,
//! {
//!     let answer = azure.oneshot(request).await.map_err(|error| Status::from_error(error.into()))?;
//!     match refusal_status(&answer) {
//!         Some(status) => Err(status),
//!         None => Ok(answer),
//!     }
//! }
//! # _ = complete::<tower::util::BoxService<_, Response<()>, std::io::Error>, ()>;
//! ```
//!
//! **A proxy** of gRPC calls has a [`GrpcRefusalLayer`] outside of the layers, which does the same for the
//! refusals that they answer with.

mod channel;
mod error_kind;
mod refusal_layer;
mod retry_info;
mod status;

pub use self::{
    channel::GrpcChannel,
    error_kind::error_kind,
    refusal_layer::{GrpcRefusal, GrpcRefusalLayer, RefusalBody, ResponseFuture},
    status::refusal_status,
};
