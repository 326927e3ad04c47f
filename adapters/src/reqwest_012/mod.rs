//! reqwest 0.12: as [`reqwest`](crate::reqwest) has it for 0.13, by the same names.

#[path = "../reqwest/body.rs"]
mod body;
#[path = "../reqwest/client.rs"]
mod client;
#[path = "../reqwest/error_kind.rs"]
mod error_kind;
#[path = "../reqwest/request_service.rs"]
mod request_service;

use ::reqwest_012 as reqwest;

pub use self::{
    body::RequestBody,
    client::{HttpClient, ResponseFuture},
    error_kind::{KindOf, error_kind, move_on},
    request_service::{RequestFuture, RequestService},
};
