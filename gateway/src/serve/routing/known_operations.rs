//! Sends only known API operations to a backend.

use http::{Method, StatusCode};

use crate::{
    api::operations::{self, is_like},
    config::AllowedOperation,
    serve::refusal::Refusal,
};

/// Refuses requests that are neither an API operation nor allowed by the configuration.
///
/// # Errors
///
/// 404 if no operation has the path, 405 with `allow` if its operations do not have the method.
pub(crate) fn check(
    method: &Method,
    path: &str,
    allowed: &[AllowedOperation],
) -> Result<(), Refusal> {
    let here = allowed.iter().filter(|operation| is_like(&operation.path, path));
    let mut known = operations::methods(path).chain(here.map(|it| it.method.as_str()));
    if known.any(|known| known == method.as_str()) {
        return Ok(());
    }
    Err(unknown(path, allowed))
}

#[cold]
fn unknown(path: &str, allowed: &[AllowedOperation]) -> Refusal {
    let here = allowed.iter().filter(|operation| is_like(&operation.path, path));
    let here = here.map(|operation| operation.method.as_str());
    let mut methods: Vec<&str> = operations::methods(path).chain(here).collect();
    if methods.is_empty() {
        return Refusal::not_found();
    }
    methods.sort_unstable();
    methods.dedup();
    not_allowed(&methods.join(", "))
}

pub(crate) fn not_allowed(methods: &str) -> Refusal {
    let message = format!(
        "The method is not one of this path: {methods}. Others pass where [operations] of the \
         gateway's configuration names them."
    );
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message).allow(methods)
}
