//! The layers over real sockets: hyper over HTTP/1.1 and HTTP/2, axum, tonic, and broken upstreams.

mod axum_routes;
mod cancellation;
mod corpus;
mod credentials;
mod entra;
mod fleet;
mod grpc;
mod hidden_refusals;
mod homes;
mod keep_alive;
mod refusals;
mod slow_upstreams;
mod sticking;
mod streams;
mod transport_errors;
mod uploads;
mod whole_stack;

use spillover_testing::{azure, fault_proxy, protocol, raw, real as clock, stack, witness};
