//! One request, from its head to the head of its answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tower_spillover::{
    MaxWait, Priority, Served,
    azure::{ContentKind, UsageScan},
};

use super::{
    admission, connection::Activity, control::Control, headers, listener_role::Door,
    response_body::Outbound, runtime::Line,
};
use crate::serve::{
    clock,
    record::{decision_headers::Story, request_guard::Ledger},
    refusal::Refusal,
    routing::{
        model_list, model_routing,
        route::{Named, Route},
    },
    upstream::{
        client::UpstreamError,
        request_body::{self, Inbound, Upload, UploadError},
        stack::{Answer, BACKEND, never_spilling},
    },
};

/// Answers any request there can be.
pub(crate) async fn answer(
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
        Ok(Reply::Passed(passed)) => pass_on(passed, ledger),
        Ok(Reply::Own(page)) => own(page, ledger),
        Err(refusal) => own(refusal.into_response(), ledger),
    };
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

enum Reply {
    Passed(Passed),
    Own(Response<Bytes>),
}

/// An answer of the layers, with what is to be said of it.
struct Passed {
    answer: Answer,
    /// When the layers got the request.
    sent: Instant,
    first_tier: &'static str,
    trace: bool,
}

async fn exchange(ledger: &mut Ledger, request: Request<Incoming>) -> Result<Reply, Refusal> {
    let site = Arc::clone(&ledger.site);
    let limits = &site.config().limits;
    let (mut head, body) = request.into_parts();
    ledger.trace(&mut head.headers);
    admission::refuse_tunnels(&head)?;
    let route = Route::of(&head.method, head.uri.path()).ok_or_else(Refusal::not_found)?;
    ledger.record.operation = route.operation;
    let caller = admission::admit(ledger, &site, &head.headers)?;
    let mut control = Control::read(&head.headers, caller)?;

    let is_in_body = route.named == Named::Body;
    let known = match &route.named {
        Named::Path(name) => Some(model_routing::by_name(ledger, caller, Some(name))?),
        Named::Nowhere | Named::Body => None,
        Named::List(id) => return model_list::page(ledger, caller, id.as_deref()).map(Reply::Own),
    };
    let body = Inbound::new(body, limits.body, limits.idle_timeout);
    let mut request = request_body::keep(limits.replay, Request::from_parts(head, body)).await;
    let line = match known {
        Some(line) => line,
        None if is_in_body => {
            model_routing::by_body(ledger, caller, &mut request, control.backend.as_ref()).await?
        }
        None => model_routing::unnamed(ledger, caller, &request, control.backend.as_ref())?,
    };
    if let Some(class) = &control.class {
        ledger.record.class = Some(model_routing::class(&site, &line, class)?);
    }
    let named =
        control.backend.take().map(|named| model_routing::backend(&line, named)).transpose()?;
    if let Some(named) = named.flatten() {
        request.extensions_mut().insert(named);
    }
    headers::strip_request(request.headers_mut());
    let trace = control.trace;
    set_limits(control, &mut request);
    if let Some(trace) = &ledger.trace {
        request.extensions_mut().insert(trace.clone());
    }
    let sent = clock::now();
    let answer = line.stack.send(request).await;
    let answer = answer.map_err(|error| failure(&error, limits.body, &line))?;
    let first_tier = line.stack.first_tier();
    Ok(Reply::Passed(Passed { answer, sent, first_tier, trace }))
}

/// Tells the layers what the request asked for.
fn set_limits(control: Control, request: &mut Request<Upload>) {
    let Control { max_wait, class, no_spill, .. } = control;
    let class = if no_spill { Some(never_spilling(class.as_deref())) } else { class };
    if let Some(max_wait) = max_wait {
        request.extensions_mut().insert(MaxWait(max_wait));
    }
    if let Some(class) = class {
        request.extensions_mut().insert(Priority::from(class));
    }
}

fn failure(error: &UpstreamError, limit: u64, line: &Line) -> Refusal {
    if let Some(upload) = error.cause::<UploadError>() {
        return model_routing::broken(upload, limit);
    }
    tracing::warn!(error = %error, cause = error.cause::<std::io::Error>().map(tracing::field::display), "no answer");
    match error {
        // The backend may go on, and bill what nobody waits for any more.
        UpstreamError::Silent => Refusal::new(
            StatusCode::GATEWAY_TIMEOUT,
            "GatewayTimeout",
            "The backend did not answer in time.",
        )
        .not_again(),
        error if error.is_connect() => match line.ptu_refuses_for() {
            // It is worth coming back for; that the rest is not there would hide it.
            Some(left) => Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                "429",
                "The PTU refuses, and no Standard backend could be reached.",
            )
            .retry_after(left),
            None => {
                Refusal::new(StatusCode::BAD_GATEWAY, "BadGateway", "No backend could be reached.")
                    .retry_after(Duration::from_secs(1))
            }
        },
        UpstreamError::Client(_) => Refusal::new(
            StatusCode::BAD_GATEWAY,
            "BadGateway",
            "The connection to the backend broke before it answered.",
        ),
    }
}

fn own(response: Response<Bytes>, mut ledger: Box<Ledger>) -> Response<Outbound> {
    let served = ledger.record.served.take();
    ledger.head(response.status(), served, clock::now());
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
        ledger.record.served = served;
        let mut response = own(refusal.into_response(), ledger);
        response.headers_mut().extend(name.map(|name| (BACKEND, name)));
        return response;
    }
    headers::strip_answer(&mut head.headers);
    if let Some(served) = &served {
        let story = Story {
            served,
            first_tier: passed.first_tier,
            total: now.saturating_duration_since(ledger.record.started),
            in_layers: now.saturating_duration_since(passed.sent),
        };
        story.tell(&mut head.headers, head.status, passed.trace);
    }
    let kind = head.headers.get(header::CONTENT_TYPE);
    ledger.record.streaming = ContentKind::named(kind) == ContentKind::EventStream;
    if head.status.is_success() {
        ledger.usage = UsageScan::new(kind);
    }
    ledger.head(head.status, served, now);
    let silence = ledger.site.config().upstream.idle_timeout;
    Response::from_parts(head, Outbound::passing(body, silence, ledger))
}

/// The client's own id, when it is one.
fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (!id.is_empty() && id.len() <= 64 && id.bytes().all(plain)).then(|| id.to_owned())
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
