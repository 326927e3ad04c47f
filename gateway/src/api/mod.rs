//! The API's operations and headers, for the configuration and the server.

pub(crate) mod headers;
pub(crate) mod operations;
