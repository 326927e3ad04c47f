//! What is recorded of one request, and the headers that explain its answer.

pub(crate) mod decision_headers;
pub(crate) mod observe;
pub(crate) mod request_guard;
