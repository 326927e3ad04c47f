//! The record of a request, and the headers that explain its answer.

pub(crate) mod decision_headers;
mod end_mark;
mod first_token;
pub(crate) mod observe;
pub(crate) mod request_guard;
mod upstream_ids;
