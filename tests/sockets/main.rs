//! The layers over real sockets: hyper over HTTP/1.1 and HTTP/2, axum, tonic, and broken upstreams.

mod axum_routes;
mod azure;
mod cancellation;
mod clock;
mod corpus;
mod credentials;
mod fault_proxy;
mod grpc;
mod keep_alive;
mod protocol;
mod raw;
mod refusals;
#[path = "../corpus/sample.rs"]
mod sample;
mod slow_upstreams;
mod stack;
mod sticking;
mod streams;
mod transport_errors;
mod uploads;
mod whole_stack;
mod witness;
