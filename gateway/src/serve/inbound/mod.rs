//! From a client's socket to the head of its answer: connections, keys, limits, and the proxy.

mod admission;
mod authentication;
mod caller;
pub(crate) mod certificate;
mod client_certificate;
pub(crate) mod client_keys;
mod client_socket;
mod connection;
mod control;
mod cors;
pub(crate) mod gateway;
mod handshake;
mod headers;
mod linger;
pub(crate) mod listen;
pub(crate) mod listener_role;
mod opening;
mod own_list;
mod probe;
mod proxy;
mod response_body;
pub(crate) mod runtime;
mod silence;
mod streams;
mod tunnel;
mod watched;
