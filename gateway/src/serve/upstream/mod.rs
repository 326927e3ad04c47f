//! How a model's requests reach its backends: the layers, the client, and the bodies.

pub(crate) mod client;
pub(crate) mod client_pool;
pub(crate) mod request_body;
pub(crate) mod stack;
pub(crate) mod upload_progress;
