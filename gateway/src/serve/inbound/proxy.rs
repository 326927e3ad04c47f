//! One request, from its head to the head of its answer.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Request, Response, header};
use hyper::body::Incoming;

use super::{
    cors,
    exchange::{self, Reply},
    listener_role::ListenerRole,
    passing,
    response_body::ResponseBody,
};
use crate::serve::{
    activity::Busy, clock, record::request_guard::RequestGuard, refusal::Refusal, upload::Upload,
};

/// Answers any request.
pub(crate) async fn answer(
    role: ListenerRole,
    busy: Busy,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let started = clock::now();
    let request = Upload::of(request, busy.activity());
    if let Some(page) = role.page(&request).await {
        busy.delivery.offer(0);
        return page.map(|text| ResponseBody::own(text, None));
    }
    if !role.has_models {
        return Refusal::not_found().into_response().map(|text| ResponseBody::own(text, None));
    }
    let gateway = &role.gateway;
    let id = request_id(request.headers()).unwrap_or_else(|| gateway.next_id());
    let runtime = gateway.runtime();
    let (observer, snapshot) = (Arc::clone(gateway.observer()), Arc::clone(&runtime.snapshot));
    let mut guard = Box::new(RequestGuard::new(observer, snapshot, busy, id, started));
    let id = guard.id();
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = match exchange::exchange(&role, &runtime, &mut guard, request).await {
        Ok(Reply::Passed(passed)) => passing::pass_on(passed, runtime.config(), guard).await,
        Ok(Reply::Own(page)) => passing::own(page, guard),
        Err(refusal) => passing::own(refusal.into_response(), guard),
    };
    response.headers_mut().insert(REQUEST_ID, id);
    if let Some(cors) = &runtime.config().listen.cors {
        cors::mark(cors, origin.as_ref(), response.headers_mut());
    }
    response
}

/// The client's own request id, if valid.
fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (!id.is_empty() && id.len() <= 64 && id.bytes().all(plain)).then(|| id.to_owned())
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
