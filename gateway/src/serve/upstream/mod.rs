//! How a model's requests reach its backends: the layers, the HTTP client, and the bodies.

pub(crate) mod classes;
pub(crate) mod client;
mod client_pool;
mod connect_timeout;
pub(crate) mod error;
mod first_token;
pub(crate) mod gate;
mod move_on;
pub(crate) mod pools;
mod preface;
pub(crate) mod request_body;
mod reuse;
pub(crate) mod stack;
mod upload_progress;
