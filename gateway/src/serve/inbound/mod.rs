//! From a client's socket to the head of its answer: connections, keys, limits, and the proxy.

pub(crate) mod admission;
pub(crate) mod caller;
pub(crate) mod certificate;
pub(crate) mod client_keys;
pub(crate) mod connection;
pub(crate) mod control;
pub(crate) mod gateway;
pub(crate) mod headers;
pub(crate) mod listen;
pub(crate) mod listener_role;
pub(crate) mod proxy;
pub(crate) mod response_body;
pub(crate) mod runtime;
