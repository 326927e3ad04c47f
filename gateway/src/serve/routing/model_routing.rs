//! Chooses the model that serves a request.

use std::sync::Arc;

use http::{HeaderValue, Request, StatusCode, header};
use memchr::memmem;

use super::{
    allowed_models::AllowedModels,
    body_model::{BodyModel, asked_for},
    named_backend::NamedBackend,
    routes::{ModelRoute, Routes},
};
use crate::{
    config::Config,
    serve::{refusal::Refusal, upstream::request_body::RequestBody},
};

/// The model called `name`, or the one for requests that name none.
pub(crate) fn by_name(routes: &Routes, name: Option<&str>) -> Result<Arc<ModelRoute>, Refusal> {
    let found = match name {
        Some(name) => routes.named(name),
        None => routes.unnamed(),
    };
    found.cloned().ok_or_else(|| {
        let message = match name {
            Some(_) => {
                "The API deployment for this resource does not exist: no model of this gateway \
                 has the name that the request asks for."
            }
            None => {
                "The request names no model, and the gateway has more than one. Name one, or set \
                 default_model in its configuration."
            }
        };
        Refusal::new(StatusCode::NOT_FOUND, "DeploymentNotFound", message)
    })
}

/// The model of a request that names none: the one whose backends hold what it refers to, if that
/// is known, and the default otherwise.
pub(crate) fn unnamed(
    routes: &Routes,
    allowed: &AllowedModels,
    request: &Request<RequestBody>,
    backend: Option<&NamedBackend>,
) -> Result<Arc<ModelRoute>, Refusal> {
    let may_be = |model: &str| allowed.contains(model);
    match routes.holder(request, backend.map(NamedBackend::name), may_be).cloned() {
        Some(route) => Ok(route),
        None => by_name(routes, None),
    }
}

/// The model that the body asks for; `limit` is that of the body.
pub(crate) async fn by_body(
    routes: &Routes,
    allowed: &AllowedModels,
    request: &mut Request<RequestBody>,
    backend: Option<&NamedBackend>,
    limit: u64,
) -> Result<Arc<ModelRoute>, Refusal> {
    let bad = |text: &'static str| Refusal::new(StatusCode::BAD_REQUEST, "BadRequest", text);
    let beginning = request.body_mut().beginning().await;
    let beginning = beginning.map_err(|error| error.refusal(limit))?;
    let is_whole = request.body().is_kept();
    if !is_whole && allowed.is_restricted() {
        // What is named further on cannot be seen.
        return Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestTooLarge",
            "The body is too long to see that it asks for a model that this client may use. Send \
             it to /openai/deployments/{model}/{operation}.",
        ));
    }
    let content_type = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let (model, scanned) = asked_for(content_type, &beginning, is_whole);
    if let Some(scanned) = scanned.filter(|_| is_whole) {
        // For the layers, and for what comes next.
        request.extensions_mut().insert(scanned);
    }
    match model {
        BodyModel::Model(name) => by_name(routes, Some(&name)),
        // A form or a batch that another reader may find a model in.
        BodyModel::Nothing if allowed.is_restricted() && speaks_of_models(&beginning) => {
            Err(bad("The body speaks of a model, and it cannot be seen that it is one that this \
                     client may use."))
        }
        BodyModel::Nothing => unnamed(routes, allowed, request, backend),
        BodyModel::TwoModels => Err(bad("The body names two models.")),
        BodyModel::Unreadable => {
            Err(bad("The body is not valid JSON, or not a valid form, as its content type says."))
        }
    }
}

/// Refuses a client that may not use the model.
pub(crate) fn check_access(allowed: &AllowedModels, route: &ModelRoute) -> Result<(), Refusal> {
    if allowed.contains(&route.model.name) {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::FORBIDDEN, "403", "This client may not use the model."))
}

/// A JSON body that was read whole and names no model may say the word as well, which is the price
/// of a client that may not use every model.
fn speaks_of_models(body: &[u8]) -> bool {
    memmem::find(&body.to_ascii_lowercase(), b"\"model\"").is_some()
}

/// The class, if the model has it: the number of other names has no bound.
pub(crate) fn class(config: &Config, route: &ModelRoute, class: &str) -> Result<String, Refusal> {
    let model = config.models.get(&route.model.name);
    if model.is_some_and(|model| model.classes.contains_key(class)) {
        return Ok(class.to_owned());
    }
    Err(Refusal::new(
        StatusCode::BAD_REQUEST,
        "BadRequest",
        "x-spillover-class names no class of the gateway.",
    ))
}
