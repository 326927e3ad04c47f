//! What the layers answered, on its way to the client.

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use tower_spillover::{Served, azure::ContentKind, classify::utilization};

use super::{headers, opening::Opening, response_body::ResponseBody, tunnel};
use crate::{
    config::Config,
    serve::{
        activity::Tunnel,
        clock,
        record::{decision_headers::DecisionHeaders, request_guard::RequestGuard},
        refusal::Refusal,
        upstream::stack::{Answer, BACKEND},
    },
};

/// An answer of the layers, with what is to be said of it.
pub(super) struct Passed {
    pub(super) answer: Answer,
    /// When the layers got the request.
    pub(super) sent: Instant,
    pub(super) first_tier: &'static str,
    pub(super) trace: bool,
    /// Where the client asked for a WebSocket.
    pub(super) opening: Option<Opening>,
}

/// An answer of this gateway itself.
pub(super) fn own(
    response: Response<Bytes>,
    mut guard: Box<RequestGuard>,
) -> Response<ResponseBody> {
    let served = guard.record.served.take();
    guard.head(response.status(), served, clock::now());
    response.map(|text| ResponseBody::own(text, Some(guard)))
}

pub(super) async fn pass_on(
    passed: Passed,
    config: &Config,
    mut guard: Box<RequestGuard>,
) -> Response<ResponseBody> {
    let (mut head, body) = passed.answer.into_parts();
    let now = clock::now();
    guard.record.ids.keep_of_answer(&head.headers);
    guard.record.utilization = utilization(&head.headers);
    let served: Option<Served> = head.extensions.remove();
    let backend = head.extensions.remove::<OnUpgrade>();
    let is_switch = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let opening = passed.opening.filter(|it| is_switch && it.is_answered_by(&head.headers));
    let session = opening.map(|opening| opening.client).zip(backend);
    if is_switch && session.is_none() {
        let refusal =
            Refusal::bad_gateway("The backend changed to a protocol that it was not asked for.");
        guard.record.served = served;
        return instead(refusal, &mut head.headers, guard);
    }
    if head.status.is_redirection() && head.status != StatusCode::NOT_MODIFIED {
        // A client that followed it would carry its key of this gateway to another host.
        let refusal =
            Refusal::bad_gateway("The backend redirects, which this gateway does not follow.");
        guard.record.served = served;
        return instead(refusal, &mut head.headers, guard);
    }
    headers::strip_answer(&mut head.headers);
    if let Some(served) = &served {
        let decision = DecisionHeaders {
            served,
            first_tier: passed.first_tier,
            total: now.saturating_duration_since(guard.record.started),
            in_layers: now.saturating_duration_since(passed.sent),
        };
        decision.write(&mut head.headers, passed.trace);
    }
    if let Some((client, backend)) = session {
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        guard.head(head.status, served, now);
        guard.record.streaming = true;
        let activity = guard.busy.activity();
        let tunnel = tunnel::carry(client, backend, config.limits.idle_timeout, guard);
        activity.become_tunnel(Tunnel(Box::pin(tunnel)));
        return Response::from_parts(head, ResponseBody::own(Bytes::new(), None));
    }
    let kind = head.headers.get(header::CONTENT_TYPE);
    guard.record.streaming = ContentKind::named(kind) == ContentKind::EventStream;
    let is_compressed = head.headers.contains_key(header::CONTENT_ENCODING);
    if guard.record.streaming && head.status.is_success() && !is_compressed {
        guard.expect_events();
    }
    guard.head(head.status, served, now);
    let idle_timeout = config.upstream.idle_timeout;
    // The head of a stream is news of its own: its first event may take minutes.
    let waits = !guard.record.streaming;
    match ResponseBody::passing(body, idle_timeout, waits, guard).await {
        Ok(body) => Response::from_parts(head, body),
        Err((error, guard)) => instead(error.refusal(), &mut head.headers, guard),
    }
}

/// Answers a refusal where a backend's answer is of no use; the head says which backend's it was.
fn instead(
    refusal: Refusal,
    headers: &mut HeaderMap,
    guard: Box<RequestGuard>,
) -> Response<ResponseBody> {
    let name = headers.remove(BACKEND);
    let mut response = own(refusal.into_response(), guard);
    response.headers_mut().extend(name.map(|name| (BACKEND, name)));
    response
}
