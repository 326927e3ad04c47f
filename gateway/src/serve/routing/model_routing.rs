//! Chooses the model that serves a request.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use tower_spillover::{
    TryCloneBody,
    azure::{ContentKind, Operation, content_length},
};

use super::{
    allowed_models::AllowedModels,
    body_model::{BodyModel, asked_for},
    client_home::ClientHome,
    named_backend::NamedBackend,
    routes::{ModelRoute, Routes},
};
use crate::{
    config::{Config, Limits},
    serve::{refusal::Refusal, upstream::request_body::RequestBody},
};

/// The model named `name`, or the one for requests that name none.
pub(crate) fn by_name(routes: &Routes, name: Option<&str>) -> Result<Arc<ModelRoute>, Refusal> {
    let found = match name {
        Some(name) => routes.named(name),
        None => routes.unnamed(),
    };
    found.cloned().ok_or_else(|| {
        let message = match name {
            Some(_) => {
                "The API deployment for this resource does not exist. This gateway has no model or \
                 alias with that name."
            }
            None => {
                "The request names no model, and the gateway has more than one. Name one, or set \
                 default_model in its configuration."
            }
        };
        Refusal::new(StatusCode::NOT_FOUND, "DeploymentNotFound", message)
    })
}

/// The model for a request that names none: the one whose backends are known to store what it
/// refers to, else the default, else one on the client's home.
pub(crate) async fn unnamed(
    routes: &Routes,
    allowed: &AllowedModels,
    home: &ClientHome,
    request: &mut Request<RequestBody>,
    backend: Option<&NamedBackend>,
) -> Result<Arc<ModelRoute>, Refusal> {
    let may_be = |model: &str| allowed.contains(model);
    if backend.is_none() {
        routes.recall(request, &home.home).await;
    }
    if let Some(route) = routes.holder(request, backend.map(NamedBackend::name), may_be) {
        return Ok(Arc::clone(route));
    }
    let is_for_default = routes.unnamed().is_some_and(|route| may_be(&route.model.name));
    match &home.model {
        Some(model)
            if !is_for_default
                && Operation::needs_no_model(request.method(), request.uri().path()) =>
        {
            Ok(Arc::clone(model))
        }
        _ => by_name(routes, None),
    }
}

/// The complete body of a request that is refused unless all of it can be inspected.
pub(crate) fn whole(request: &Request<RequestBody>, limits: &Limits) -> Result<Bytes, Refusal> {
    request.body().content().ok_or_else(|| unseen(request, limits))
}

/// The model named in the body.
pub(crate) async fn by_body(
    routes: &Routes,
    allowed: &AllowedModels,
    home: &ClientHome,
    request: &mut Request<RequestBody>,
    backend: Option<&NamedBackend>,
    limits: &Limits,
) -> Result<Arc<ModelRoute>, Refusal> {
    let bad = |text: &'static str| Refusal::new(StatusCode::BAD_REQUEST, "BadRequest", text);
    let beginning = request.body_mut().beginning().await;
    let beginning = beginning.map_err(|error| error.refusal(limits.body))?;
    let is_whole = request.body().content().is_some();
    let content_type = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let (model, scanned) = asked_for(content_type, &beginning, is_whole);
    if let Some(scanned) = scanned.filter(|_| is_whole) {
        // For the layers and for later checks.
        request.extensions_mut().insert(scanned);
    }
    match model {
        BodyModel::Model(name) => by_name(routes, Some(&name)),
        // A model may follow beyond the part that was read, and must not reach a backend with
        // another name.
        BodyModel::Nothing if !is_whole && may_name_model(request) => {
            Err(if request.body().lacked_room() {
                unseen(request, limits)
            } else {
                bad(UNREADABLE)
            })
        }
        BodyModel::Nothing => unnamed(routes, allowed, home, request, backend).await,
        BodyModel::TwoModels => Err(Refusal::two_models()),
        BodyModel::Unreadable => Err(bad(UNREADABLE)),
    }
}

/// Whether the layers look for a model in bodies of this type and operation.
fn may_name_model(request: &Request<RequestBody>) -> bool {
    let is_readable = match ContentKind::of(request.headers()) {
        ContentKind::Json | ContentKind::Multipart => true,
        ContentKind::Other => !request.headers().contains_key(header::CONTENT_TYPE),
        ContentKind::EventStream => false,
    };
    is_readable && Operation::of(request.uri().path()).may_name_model()
}

/// The body could not be kept far enough to find its model.
fn unseen(request: &Request<RequestBody>, limits: &Limits) -> Refusal {
    let (limit, way) =
        (limits.replay_total, "or send it to /openai/deployments/{model}/{operation}");
    if content_length(request.headers()).is_some_and(|length| length > limit as u64) {
        let text = format!(
            "The body is longer than the {limit} bytes that may be kept (limits.replay_total) to \
             see which model it asks for. Name the model first, {way}."
        );
        return Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLarge", text);
    }
    let text = format!(
        "Requests keep {limit} bytes already (limits.replay_total), so it cannot be seen which model \
         the body asks for. Try again, name the model first, {way}."
    );
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "ServerBusy", text)
        .retry_after(Duration::from_secs(1))
}

const UNREADABLE: &str =
    "The body is not valid JSON or not a valid form, contrary to its content type.";

/// Refuses a client that may not use the model.
pub(crate) fn check_access(allowed: &AllowedModels, route: &ModelRoute) -> Result<(), Refusal> {
    if allowed.contains(&route.model.name) {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::FORBIDDEN, "403", "This client may not use the model."))
}

/// The class, if the model has it; other names would make metric labels unbounded.
pub(crate) fn class(config: &Config, route: &ModelRoute, class: &str) -> Result<String, Refusal> {
    let model = config.models.get(&route.model.name);
    if model.is_some_and(|model| model.classes.contains_key(class)) {
        return Ok(class.to_owned());
    }
    Err(Refusal::new(
        StatusCode::BAD_REQUEST,
        "BadRequest",
        "x-spillover-class names an unknown class.",
    ))
}
