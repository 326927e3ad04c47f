//! Chooses the model that serves a request.

use std::sync::Arc;

use http::{HeaderValue, Request, StatusCode, header};
use memchr::memmem;
use tower_spillover::StickTo;

use super::body_model::{Asked, asked_for};
use crate::serve::{
    inbound::{
        clients::Caller,
        control::Named,
        runtime::{Line, Site},
    },
    record::request_guard::Ledger,
    refusal::Refusal,
    upstream::request_body::{Upload, UploadError},
};

/// The model called `name`, or the one for requests that name none.
pub(crate) fn by_name(
    ledger: &mut Ledger,
    caller: &Caller,
    name: Option<&str>,
) -> Result<Arc<Line>, Refusal> {
    let found = match name {
        Some(name) => ledger.site.line(name),
        None => ledger.site.unnamed(),
    };
    let Some(line) = found.cloned() else {
        return Err(match name {
            Some(_) => Refusal::new(
                StatusCode::NOT_FOUND,
                "DeploymentNotFound",
                "The API deployment for this resource does not exist: no model of this gateway \
                 has the name that the request asks for.",
            ),
            None => Refusal::new(
                StatusCode::NOT_FOUND,
                "DeploymentNotFound",
                "The request names no model, and the gateway has more than one. Name one, or set \
                 default_model in its configuration.",
            ),
        });
    };
    permit(ledger, caller, line)
}

/// The model of a request that names none: the one whose backends hold what it refers to, if that
/// is known, and the default otherwise.
pub(crate) fn unnamed(
    ledger: &mut Ledger,
    caller: &Caller,
    request: &Request<Upload>,
    backend: Option<&Named>,
) -> Result<Arc<Line>, Refusal> {
    let may_be = |model: &str| caller.may_use(model);
    match ledger.site.holder(request, backend.map(Named::name), may_be).cloned() {
        Some(line) => permit(ledger, caller, line),
        None => by_name(ledger, caller, None),
    }
}

fn permit(ledger: &mut Ledger, caller: &Caller, line: Arc<Line>) -> Result<Arc<Line>, Refusal> {
    ledger.record.model = Some(line.model.name.clone());
    if !caller.may_use(&line.model.name) {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "403",
            "This client may not use the model.",
        ));
    }
    Ok(line)
}

/// The model that the body asks for.
pub(crate) async fn by_body(
    ledger: &mut Ledger,
    caller: &Caller,
    request: &mut Request<Upload>,
    backend: Option<&Named>,
) -> Result<Arc<Line>, Refusal> {
    let bad = |text: &'static str| Refusal::new(StatusCode::BAD_REQUEST, "BadRequest", text);
    let limit = ledger.site.config().limits.body;
    let beginning = request.body_mut().beginning().await;
    let beginning = beginning.map_err(|error| broken(&error, limit))?;
    let is_whole = request.body().is_kept();
    if !is_whole && caller.is_restricted() {
        // What is named further on cannot be seen.
        return Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestTooLarge",
            "The body is too long to see that it asks for a model that this client may use. Send \
             it to /openai/deployments/{model}/{operation}.",
        ));
    }
    let content_type = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    match asked_for(content_type, &beginning, is_whole) {
        Asked::Model(name) => by_name(ledger, caller, Some(&name)),
        // A form or a batch that another reader may find a model in.
        Asked::Nothing if caller.is_restricted() && speaks_of_models(&beginning) => {
            Err(bad("The body speaks of a model, and it cannot be seen that it is one that this \
                     client may use."))
        }
        Asked::Nothing => unnamed(ledger, caller, request, backend),
        Asked::TwoModels => Err(bad("The body names two models.")),
        Asked::Unreadable => Err(bad("The body is not valid JSON.")),
    }
}

/// A JSON body that was read whole and names no model may say the word as well, which is the price
/// of a client that may not use every model.
fn speaks_of_models(body: &[u8]) -> bool {
    memmem::find(&body.to_ascii_lowercase(), b"\"model\"").is_some()
}

/// The class, if the model has it: names that nobody configured could be without end.
pub(crate) fn class(site: &Site, line: &Line, class: &str) -> Result<String, Refusal> {
    let model = site.config().models.get(&line.model.name);
    if model.is_some_and(|model| model.classes.contains_key(class)) {
        return Ok(class.to_owned());
    }
    Err(Refusal::new(
        StatusCode::BAD_REQUEST,
        "BadRequest",
        "x-spillover-class names no class of the gateway.",
    ))
}

/// The backend that a request is to go to, by its name. What a cookie names may be gone by now.
pub(crate) fn backend(line: &Line, named: Named) -> Result<Option<StickTo>, Refusal> {
    let problem = if !line.is_sticky() {
        "The model does not keep requests with a backend: sticky is false in its configuration."
    } else if !line.has_backend(named.name()) {
        "x-spillover-backend names no backend of the model."
    } else {
        let (Named::Header(name) | Named::Cookie(name)) = named;
        return Ok(Some(StickTo::from(name)));
    };
    match named {
        Named::Header(_) => Err(Refusal::new(StatusCode::BAD_REQUEST, "BadRequest", problem)),
        Named::Cookie(_) => Ok(None),
    }
}

/// What is said of a body that did not arrive.
pub(crate) fn broken(error: &UploadError, limit: u64) -> Refusal {
    let (status, code, message) = match error {
        UploadError::TooLong => return Refusal::too_large(limit),
        UploadError::Silent => {
            (StatusCode::REQUEST_TIMEOUT, "RequestTimeout", "The body stopped arriving.")
        }
        UploadError::Broken(_) => (StatusCode::BAD_REQUEST, "BadRequest", "The body broke off."),
    };
    Refusal::new(status, code, message)
}
