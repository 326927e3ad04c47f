//! Decides about a request: refuses it, answers it here, or sends it through the layers.

use std::{borrow::Cow, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body::Body;
use tower_spillover::{MaxWait, Priority, ReplayLayer};

use super::{
    admission,
    authentication::authenticate,
    control::Control,
    cors,
    handshake::{self, Handshake},
    headers,
    listener_role::ListenerRole,
    own_list::{self, Listed},
    passing::Passed,
    runtime::Runtime,
};
use crate::{
    http_client,
    serve::{
        clock,
        record::request_guard::RequestGuard,
        refusal::Refusal,
        routing::{
            allowed_models::AllowedModels,
            known_operations, model_list, model_routing,
            named_models::NamedModels,
            ownership::{self, Own},
            route::{ModelSource, Route},
            routes::ModelRoute,
            spelling,
        },
        upload::Upload,
        upstream::{
            classes::never_spilling,
            client::OpensSession,
            error::UpstreamError,
            request_body::{self, BoundedBody, RequestBody, RequestBodyError},
        },
    },
};

pub(super) enum Reply {
    Passed(Passed),
    Own(Response<Bytes>),
}

/// Takes a request to the head of an answer.
///
/// # Errors
///
/// If this gateway refuses it, or no backend answers.
pub(super) async fn exchange(
    role: &ListenerRole,
    runtime: &Runtime,
    guard: &mut RequestGuard,
    request: Request<Upload>,
) -> Result<Reply, Refusal> {
    let (limits, routes) = (&runtime.config().limits, &runtime.routes);
    let (mut head, body) = request.into_parts();
    guard.begin_trace(&mut head.headers);
    guard.record.ids.keep_of_request(&head.headers);
    if let Some(answer) = cors::preflight(runtime.config().listen.cors.as_ref(), &head) {
        return Ok(Reply::Own(answer));
    }
    if let Some(uri) = spelling::plain(&head.uri) {
        head.uri = uri;
    }
    admission::check_target(&head)?;
    let handshake = Handshake::of(&mut head)?;
    let route = Route::of(&head.method, head.uri.path()).ok_or_else(Refusal::not_found)?;
    known_operations::check(&head.method, head.uri.path(), &runtime.config().operations)?;
    let operation = route.operation;
    guard.record.operation = operation;
    let Runtime { clients, verifier, .. } = runtime;
    let caller =
        authenticate(clients, verifier.as_deref(), &head.headers, role.peer.as_ref()).await?;
    guard.record.client.push_str(&caller.name);
    admission::check_limits(caller, limits, &head.headers, guard.record.started).await?;
    guard.permit = Some(admission::enter(&role.gateway, runtime, caller, &role.of_address)?);
    let mut control = Control::read(&head.headers, caller)?;

    let (allowed, home) = (&caller.models, &caller.home);
    let names = NamedModels { routes, allowed };
    names.check_head(&head)?;
    let is_in_body = route.source == ModelSource::Body
        || route.source == ModelSource::Nowhere && !body.is_end_stream();
    let known = match &route.source {
        ModelSource::Path(name) => {
            Some(permitted(guard, allowed, model_routing::by_name(routes, Some(name))?)?)
        }
        ModelSource::Nowhere | ModelSource::Body => match &handshake {
            Some(Handshake { model, .. }) => {
                let model = model_routing::by_name(routes, model.as_deref())?;
                Some(permitted(guard, allowed, model)?)
            }
            None => None,
        },
        ModelSource::List(None) => return Ok(Reply::Own(model_list::all(routes, allowed))),
        ModelSource::List(Some(id)) => {
            let model = permitted(guard, allowed, model_routing::by_name(routes, Some(id))?)?;
            return Ok(Reply::Own(model_list::one(&model.model.name)));
        }
    };
    let body = BoundedBody::new(body, limits.body, limits.idle_timeout);
    let mut request = Request::from_parts(head, body);
    let serves_unknown = runtime.config().sticky.serves_unknown;
    let own = Own {
        sticky: &runtime.snapshot.sticky,
        home: &home.home,
        serves_unknown: serves_unknown.unwrap_or_else(|| !clients.are_apart()),
    };
    let is_apart = clients.are_apart() || serves_unknown == Some(false);
    let is_checked = (is_apart || allowed.is_restricted()) && ownership::may_refer(&request);
    request.extensions_mut().insert(home.home.clone());
    if is_checked {
        // Ids can be learned only from uncompressed answers.
        request.headers_mut().remove(header::ACCEPT_ENCODING);
    }
    let sees_all = allowed.is_restricted() || is_checked && !ownership::is_upload(&request);
    let keeping = if sees_all {
        // A model named beyond the kept part of the body would go unnoticed.
        ReplayLayer::new(usize::try_from(limits.body).unwrap_or(usize::MAX))
    } else if is_in_body {
        ReplayLayer::new(limits.replay).until_model()
    } else {
        ReplayLayer::new(limits.replay)
    };
    let keeping = keeping.note_names().total(role.gateway.kept.clone());
    let mut request = request_body::keep(&keeping, request).await;
    if let Some(error) = request.body_mut().take_error() {
        return Err(error.refusal(limits.body));
    }
    let mut must_own = false;
    if allowed.is_restricted() {
        let body = model_routing::whole(&request, limits)?;
        let (method, path) = (request.method(), request.uri().path());
        must_own = names.check_body(method, path, request.headers(), &body, is_in_body)?;
    }
    if is_checked {
        if sees_all {
            model_routing::whole(&request, limits)?;
        }
        if own.sticky.is_shared() {
            // Boxed, as below.
            Box::pin(own.recall(&mut request)).await?;
        }
        own.check(&request, must_own)?;
    }
    let model = match known {
        Some(model) => model,
        None => {
            let backend = control.backend.as_ref();
            let model = if is_in_body {
                model_routing::by_body(routes, allowed, home, &mut request, backend, limits).await?
            } else {
                model_routing::unnamed(routes, allowed, home, &mut request, backend).await?
            };
            permitted(guard, allowed, model)?
        }
    };
    if let Some(class) = &control.class {
        guard.record.class = Some(model_routing::class(runtime.config(), &model, class)?);
    }
    let named = control.backend.take().map(|named| named.of(&model)).transpose()?;
    if let Some(named) = named.flatten() {
        request.extensions_mut().insert(named);
    }
    let mut more = Cow::Borrowed(&*runtime.config().upstream.headers);
    if handshake.is_some() {
        more.to_mut().extend(handshake::HEADERS);
    }
    headers::strip_request(request.headers_mut(), &more);
    let trace = control.trace;
    set_limits(control, &mut request);
    if let Some(trace) = &guard.trace {
        request.extensions_mut().insert(trace.clone());
    }
    guard.observe_usage(request.extensions_mut());
    let opening = handshake.map(|handshake| handshake.opening);
    if opening.is_some() {
        request.extensions_mut().insert(OpensSession);
    }
    let sent = clock::now();
    let answer = if is_apart && ownership::is_list(request.method(), request.uri()) {
        // Boxed, so that other requests need not move its state.
        match Box::pin(own_list::list(&model.stack, request, own, runtime.config())).await {
            Listed::Answer(answer) => Ok(answer),
            Listed::Failed(error) => Err(error),
            Listed::Own(mut head, text) => {
                guard.record.ids.keep_of_answer(&head.headers);
                guard.record.served = head.extensions.remove();
                headers::strip_answer(&mut head.headers);
                return Ok(Reply::Own(Response::from_parts(head, text)));
            }
            Listed::Unreadable(mut head, refusal) => {
                guard.record.ids.keep_of_answer(&head.headers);
                guard.record.served = head.extensions.remove();
                return Err(refusal);
            }
        }
    } else {
        model.stack.send(request).await
    };
    let answer = answer.map_err(|error| failure(&error, limits.body, &model))?;
    let first_tier = model.stack.first_tier();
    Ok(Reply::Passed(Passed { answer, sent, first_tier, trace, opening }))
}

/// Records the requested model, and refuses a client that may not use it.
fn permitted(
    guard: &mut RequestGuard,
    allowed: &AllowedModels,
    model: Arc<ModelRoute>,
) -> Result<Arc<ModelRoute>, Refusal> {
    guard.record.model = Some(model.model.name.clone());
    model_routing::check_access(allowed, &model)?;
    Ok(model)
}

/// Passes the requested wait and class to the layers.
fn set_limits(control: Control, request: &mut Request<RequestBody>) {
    let Control { max_wait, class, no_spill, .. } = control;
    let class = if no_spill { Some(never_spilling(class.as_deref())) } else { class };
    if let Some(max_wait) = max_wait {
        request.extensions_mut().insert(MaxWait(max_wait));
    }
    if let Some(class) = class {
        request.extensions_mut().insert(Priority::from(class));
    }
}

fn failure(error: &UpstreamError, limit: u64, model: &ModelRoute) -> Refusal {
    if let Some(upload) = error.cause::<RequestBodyError>() {
        return upload.refusal(limit);
    }
    tracing::warn!(target: TARGET, error = http_client::chain(error), "no answer");
    match error {
        // The backend may go on and bill an answer that is never read.
        UpstreamError::Silent => Refusal::new(
            StatusCode::GATEWAY_TIMEOUT,
            "GatewayTimeout",
            "The backend did not answer in time.",
        )
        .not_again(),
        error if error.is_connect() => match model.ptu_refuses_for() {
            // The PTU will reopen: say when; a 502 would hide that.
            Some(left) => Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                "429",
                "The PTU is at capacity, and no Standard backend could be reached.",
            )
            .retry_after(left),
            None => Refusal::bad_gateway("No backend could be reached.")
                .retry_after(Duration::from_secs(1)),
        },
        UpstreamError::Client(_) => {
            Refusal::bad_gateway("The connection to the backend broke before it answered.")
        }
        UpstreamError::TwoLengths => {
            Refusal::bad_gateway("The backend's answer has two conflicting lengths.")
        }
    }
}

/// For log events; part of their format, so it does not change with the module path.
const TARGET: &str = "spillover::serve::exchange";
