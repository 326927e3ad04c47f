//! One request, from its head to the head of its answer.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tower::{Layer, Service};
use tower_spillover::{MaxWait, Priority, ReplayLayer, Served, replay::ReplayBody};

use super::{
    clients::Caller,
    clock,
    connection::Activity,
    control::Control,
    decision::Story,
    door::Door,
    headers,
    ledger::Ledger,
    model::{Asked, asked_for},
    outbound::Outbound,
    refusal::Refusal,
    route::{self, Named, Route},
    site::Line,
    stack::{Answer, BACKEND, never_spilling},
    upload::{Inbound, Upload, UploadError},
    upstream::UpstreamError,
    usage::UsageWatch,
};

/// Answers any request there can be.
pub(super) async fn answer(
    door: Door,
    activity: Arc<Activity>,
    request: Request<Incoming>,
) -> Response<Outbound> {
    let started = clock::now();
    let busy = activity.begin(request.version());
    if let Some(page) = door.page(request.uri().path()) {
        return page.map(|text| Outbound::own(text, None));
    }
    if !door.has_models {
        return Refusal::not_found().into_response().map(|text| Outbound::own(text, None));
    }
    let gateway = door.gateway;
    let id = request_id(request.headers()).unwrap_or_else(|| gateway.next_id());
    let mut ledger = Box::new(Ledger::open(gateway, busy, id, started));
    let id = ledger.id();
    let mut response = match exchange(&mut ledger, request).await {
        Ok(passed) => pass_on(passed, ledger),
        Err(refusal) => refuse(refusal, ledger),
    };
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// An answer of the layers, with what is to be said of it.
struct Passed {
    answer: Answer,
    /// When the layers got the request.
    sent: Instant,
    first_tier: &'static str,
    trace: bool,
}

async fn exchange(ledger: &mut Ledger, request: Request<Incoming>) -> Result<Passed, Refusal> {
    let site = Arc::clone(&ledger.site);
    let limits = &site.config().limits;
    let (head, body) = request.into_parts();
    refuse_tunnels(&head)?;
    let route = Route::of(&head.method, head.uri.path()).ok_or_else(Refusal::not_found)?;
    ledger.account.operation.push_str(route.operation);

    let caller = site.clients.admit(&head.headers)?;
    ledger.account.client.push_str(&caller.name);
    caller.take(ledger.account.started)?;
    if head.headers.len() > limits.headers {
        return Err(Refusal::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "RequestHeaderFieldsTooLarge",
            format!("The request has more than {} header lines.", limits.headers),
        ));
    }
    if content_length(&head.headers).is_some_and(|length| length > limits.body) {
        return Err(Refusal::too_large(limits.body));
    }
    if !ledger.gateway.enter(limits.concurrency) {
        return Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServerBusy",
            format!("The gateway has {} requests under way already.", limits.concurrency),
        )
        .retry_after(Duration::from_secs(1)));
    }
    ledger.has_place = true;
    let control = Control::read(&head.headers, caller)?;

    let by_path = match &route.named {
        Named::Path(name) => Some(line(ledger, caller, Some(name))?),
        Named::Body => None,
        Named::Nowhere => Some(line(ledger, caller, None)?),
    };
    let body = Inbound::new(body, limits.body, limits.idle_timeout);
    let mut request = keep(limits.replay, Request::from_parts(head, body)).await;
    let line = match by_path {
        Some(line) => line,
        None => by_body(ledger, caller, &mut request, limits.body).await?,
    };
    headers::strip_request(request.headers_mut());
    let trace = control.trace;
    if let Some(class) = &control.class {
        let model = site.config().models.get(&line.model.name);
        if !model.is_some_and(|model| model.classes.contains_key(class)) {
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "BadRequest",
                "x-spillover-class names no class of the gateway.",
            ));
        }
        ledger.account.class = Some(class.clone());
    }
    set_limits(control, &mut request);
    let sent = clock::now();
    let answer = line.stack.send(request).await;
    let answer = answer.map_err(|error| failure(&error, limits.body))?;
    Ok(Passed { answer, sent, first_tier: line.stack.first_tier(), trace })
}

/// Keeps the body up to `limit`, as the layer does for whatever is inside of it: here, nothing.
async fn keep(limit: usize, request: Request<Inbound>) -> Request<Upload> {
    let kept = ReplayLayer::new(limit).layer(Kept).call(request).await;
    let Ok(request) = kept;
    request.map(Upload::new)
}

/// Hands a request back.
#[derive(Clone, Copy)]
struct Kept;

impl Service<Request<ReplayBody<Inbound>>> for Kept {
    type Response = Request<ReplayBody<Inbound>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReplayBody<Inbound>>) -> Self::Future {
        std::future::ready(Ok(request))
    }
}

fn refuse_tunnels(head: &http::request::Parts) -> Result<(), Refusal> {
    if head.headers.contains_key(header::UPGRADE) && asks_for_websocket(&head.headers)
        || route::is_realtime(head.uri.path())
    {
        return Err(Refusal::new(
            StatusCode::NOT_IMPLEMENTED,
            "NotImplemented",
            "Realtime sessions over WebSocket do not pass this gateway. Connect to the resource \
             itself.",
        ));
    }
    // An answer to TRACE would show the key that the backend was sent.
    if head.method == Method::CONNECT || head.method == Method::TRACE {
        return Err(Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "The method does not pass this gateway.",
        ));
    }
    Ok(())
}

fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::UPGRADE).iter();
    values.filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|protocol| protocol.trim().eq_ignore_ascii_case("websocket"))
    })
}

/// The model called `name`, or the one for requests that name none.
fn line(ledger: &mut Ledger, caller: &Caller, name: Option<&str>) -> Result<Arc<Line>, Refusal> {
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
    ledger.account.model = Some(line.model.name.clone());
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
async fn by_body(
    ledger: &mut Ledger,
    caller: &Caller,
    request: &mut Request<Upload>,
    limit: u64,
) -> Result<Arc<Line>, Refusal> {
    let bad = |text: &'static str| Refusal::new(StatusCode::BAD_REQUEST, "BadRequest", text);
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
        Asked::Model(name) => line(ledger, caller, Some(&name)),
        Asked::Nothing => line(ledger, caller, None),
        Asked::TwoModels => Err(bad("The body names two models.")),
        Asked::Unreadable => Err(bad("The body is not valid JSON.")),
    }
}

/// Tells the layers what the request asked for.
fn set_limits(control: Control, request: &mut Request<Upload>) {
    let Control { max_wait, class, no_spill, trace: _ } = control;
    let class = if no_spill { Some(never_spilling(class.as_deref())) } else { class };
    if let Some(max_wait) = max_wait {
        request.extensions_mut().insert(MaxWait(max_wait));
    }
    if let Some(class) = class {
        request.extensions_mut().insert(Priority::from(class));
    }
}

fn failure(error: &UpstreamError, limit: u64) -> Refusal {
    if let Some(upload) = error.cause::<UploadError>() {
        return broken(upload, limit);
    }
    tracing::warn!(error = %error, cause = error.cause::<std::io::Error>().map(tracing::field::display), "no answer");
    match error {
        UpstreamError::Silent => Refusal::new(
            StatusCode::GATEWAY_TIMEOUT,
            "GatewayTimeout",
            "The backend did not answer in time.",
        ),
        error if error.is_connect() => {
            Refusal::new(StatusCode::BAD_GATEWAY, "BadGateway", "No backend could be reached.")
                .retry_after(Duration::from_secs(1))
        }
        UpstreamError::Client(_) => Refusal::new(
            StatusCode::BAD_GATEWAY,
            "BadGateway",
            "The connection to the backend broke before it answered.",
        ),
    }
}

fn broken(error: &UploadError, limit: u64) -> Refusal {
    let (status, code, message) = match error {
        UploadError::TooLong => return Refusal::too_large(limit),
        UploadError::Silent => {
            (StatusCode::REQUEST_TIMEOUT, "RequestTimeout", "The body stopped arriving.")
        }
        UploadError::Broken(_) => (StatusCode::BAD_REQUEST, "BadRequest", "The body broke off."),
    };
    Refusal::new(status, code, message)
}

fn refuse(refusal: Refusal, mut ledger: Box<Ledger>) -> Response<Outbound> {
    let response = refusal.into_response();
    ledger.head(response.status(), None, clock::now());
    response.map(|text| Outbound::own(text, Some(ledger)))
}

fn pass_on(passed: Passed, mut ledger: Box<Ledger>) -> Response<Outbound> {
    let (mut head, body) = passed.answer.into_parts();
    let now = clock::now();
    let served: Option<Served> = head.extensions.remove();
    if head.status.is_redirection() && head.status != StatusCode::NOT_MODIFIED {
        // A client that followed it would carry its key of this gateway to another host.
        let refusal = Refusal::new(
            StatusCode::BAD_GATEWAY,
            "BadGateway",
            "The backend redirects, which this gateway does not follow.",
        );
        let name = head.headers.remove(BACKEND);
        let mut response = refuse(refusal, ledger);
        response.headers_mut().extend(name.map(|name| (BACKEND, name)));
        return response;
    }
    headers::strip_answer(&mut head.headers);
    if let Some(served) = &served {
        let story = Story {
            served,
            first_tier: passed.first_tier,
            total: now.saturating_duration_since(ledger.account.started),
            in_layers: now.saturating_duration_since(passed.sent),
        };
        story.tell(&mut head.headers, head.status, passed.trace);
    }
    let kind = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    ledger.account.streaming = kind.starts_with(b"text/event-stream");
    if ledger.account.streaming || kind.starts_with(b"application/json") {
        ledger.usage = head.status.is_success().then(UsageWatch::default);
    }
    ledger.head(head.status, served, now);
    let silence = ledger.site.config().upstream.idle_timeout;
    Response::from_parts(head, Outbound::passing(body, silence, ledger))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The client's own id, when it is one.
fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (!id.is_empty() && id.len() <= 64 && id.bytes().all(plain)).then(|| id.to_owned())
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
