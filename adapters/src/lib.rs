//! Adapters between the layers of [`tower_spillover`] and the clients and servers that people use.
//!
//! Each is a module behind a feature of its name, and none is on by default.
//!
//! | feature | for |
//! |---|---|
//! | `hyper` | hyper's client under the layers: what its errors mean |
//! | `reqwest` | reqwest 0.13: its client under the layers, its requests and responses above them |
//! | `reqwest-012` | the same for reqwest 0.12 |
//! | `async-openai` | async-openai over the layers, by its `with_http_service` |
//! | `rig` | rig's providers over the layers, by its `HttpClientExt` |
//! | `axum` | a reverse proxy of axum, and who served a request as a part of a handler's response |
//! | `tonic` | gRPC: channels under the layers, refusals as gRPC clients read them |
//!
//! A [`Call`] reaches through a client library that shows neither its requests nor its responses.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![allow(clippy::duplicate_mod, reason = "both versions of reqwest are served by the same files")]

#[cfg(feature = "async-openai")]
pub mod async_openai;
#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "hyper")]
pub mod hyper;
#[cfg(feature = "reqwest")]
pub mod reqwest;
#[cfg(feature = "reqwest-012")]
pub mod reqwest_012;
#[cfg(feature = "rig")]
pub mod rig;
#[cfg(feature = "tonic")]
pub mod tonic;

mod call;
#[cfg(any(feature = "reqwest", feature = "reqwest-012"))]
mod exclusive;
#[cfg(any(feature = "reqwest", feature = "reqwest-012"))]
mod time_limit;

pub use self::call::Call;
