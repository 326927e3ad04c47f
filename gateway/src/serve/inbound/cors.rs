//! Answers browsers' preflights, and decides which pages may read an answer.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts};

use crate::{
    config::{Cors, Origins},
    serve::refusal::Refusal,
};

/// Answers a preflight, which has no key and never goes to a backend; `None` for other requests.
pub(super) fn preflight(cors: Option<&Cors>, head: &Parts) -> Option<Response<Bytes>> {
    let is_preflight = head.method == Method::OPTIONS
        && head.headers.contains_key(header::ORIGIN)
        && head.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if !is_preflight {
        return None;
    }
    let refused =
        |message| Some(Refusal::new(StatusCode::FORBIDDEN, "403", message).into_response());
    let Some(cors) = cors else {
        return refused(
            "This gateway does not accept web pages of other origins: listen.cors is not set.",
        );
    };
    if allowed(cors, head.headers.get(header::ORIGIN)).is_none() {
        return refused("The origin is not in listen.cors.origins.");
    }
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    let names = match &cors.headers {
        Some(names) => {
            let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
            HeaderValue::try_from(names.join(", ")).ok()
        }
        None => head.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned(),
    };
    headers.extend(names.map(|names| (header::ACCESS_CONTROL_ALLOW_HEADERS, names)));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, cors.max_age.as_secs().into());
    headers.append(header::VARY, ASKED);
    Some(response)
}

/// Adds to an answer whether a page of `origin` may read it, and which of its headers.
pub(super) fn mark(cors: &Cors, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    let Some(allowed) = allowed(cors, origin) else { return };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    if cors.credentials {
        let yes = HeaderValue::from_static("true");
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
    }
}

/// The allowed origin for a page of `origin`; `None` if it may not read answers.
fn allowed(cors: &Cors, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
    let origin = origin?;
    match &cors.origins {
        Origins::Any => Some(HeaderValue::from_static("*")),
        Origins::These(known) => known.iter().find(|known| *known == origin).cloned(),
    }
}

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
const ASKED: HeaderValue =
    HeaderValue::from_static("access-control-request-method, access-control-request-headers");
/// Headers that clients base decisions on, and headers that explain what happened.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "retry-after, retry-after-ms, x-should-retry, x-request-id, x-spillover-backend, \
     x-spillover-decision, x-spillover-sticky, x-spillover-trace, x-ratelimit-limit-requests, \
     x-ratelimit-limit-tokens, x-ratelimit-remaining-requests, x-ratelimit-remaining-tokens, \
     x-ratelimit-reset-requests, x-ratelimit-reset-tokens, apim-request-id, x-ms-region, \
     azure-openai-deployment-utilization, openai-processing-ms, server-timing",
);
