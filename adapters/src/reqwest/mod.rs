//! reqwest 0.13: its client under the layers, and its requests and responses above them.
//!
//! [`HttpClient`] is a service for `http` requests over `reqwest::Client`, so that the layers fit on
//! it; [`move_on`] is what sends a request on, and [`error_kind`] what its errors are. [`RequestService`]
//! takes and gives reqwest's own types outside of the layers.
//!
//! ```
//! use tower::ServiceBuilder;
//! use tower_spillover::{BackendPool, RegionRotateLayer, SmartFallbackLayer};
//! use tower_spillover_adapters::reqwest::{HttpClient, RequestService, move_on};
//!
//! # use tower_spillover::Backend;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use spillover_emulator::{Deployment, Emulator, Ptu, Resource, Standard};
//! # let resource = Resource::new("contoso").key("key")
//! #     .deployment(Deployment::ptu("gpt-4o-ptu", Ptu::new(1e3)))
//! #     .deployment(Deployment::standard("gpt-4o", Standard::unlimited()));
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let serving = Emulator::new([resource]).serve("contoso", listener);
//! # let backend = |name: &str| Backend::new(name.to_owned(), serving.endpoint())
//! #     .map(|it| it.deployment(name).api_key("key"));
//! # let ptu = BackendPool::new([backend("gpt-4o-ptu")?])?;
//! # let standard = BackendPool::new([backend("gpt-4o")?])?;
//! let tier = |pool| RegionRotateLayer::new(pool).move_on(move_on());
//! let azure = RequestService::new(
//!     ServiceBuilder::new()
//!         .layer(SmartFallbackLayer::new(tier(ptu), tier(standard)).move_on(move_on()))
//!         .service(HttpClient::new(reqwest::Client::builder())?),
//! );
//!
//! // The host is the backend's, whatever it is here.
//! let request = reqwest::Client::new()
//!     .post("http://azure/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21")
//!     .body(r#"{"messages": [{"role": "user", "content": "Hello"}]}"#)
//!     .build()?;
//! let response = azure.execute(request).await?;
//! let served = response.extensions().get::<tower_spillover::Served>().unwrap();
//! assert_eq!(served.backend(), Some("gpt-4o-ptu"));
//! # Ok(())
//! # }
//! ```

mod body;
mod client;
mod error_kind;
mod request_service;

use ::reqwest;

#[cfg(feature = "async-openai")]
pub(crate) use self::request_service::{into_http, into_reqwest};
pub use self::{
    body::RequestBody,
    client::{HttpClient, ResponseFuture},
    error_kind::{KindOf, error_kind, move_on},
    request_service::{RequestFuture, RequestService},
};
