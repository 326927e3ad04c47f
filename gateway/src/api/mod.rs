//! What belongs to the API: its operations and its headers, for the configuration and the server.

pub(crate) mod headers;
pub(crate) mod operations;
