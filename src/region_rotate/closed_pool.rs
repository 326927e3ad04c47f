//! The answer of a pool that has no open backend.

use std::{fmt::Write, time::Instant};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::{BackendPool, ResponseBody, backend::TriedSet};

/// Says to people, in a body of Azure's shape, which backends of `pool` were considered, those that
/// the request `admits`, and why each was passed over. The time is for the caller to announce.
pub(super) fn answer<R>(
    pool: &BackendPool,
    admits: impl Fn(usize) -> bool,
    tried: &TriedSet,
    now: Instant,
    status: StatusCode,
) -> Response<ResponseBody<R>> {
    let text = Bytes::from(body(pool, admits, tried, now, status));
    let mut response = Response::new(ResponseBody::own(text.clone()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(5);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LENGTH, text.len().into());
    response
}

/// A pool may be large, and this is written for every request that it refuses.
const NAMED: usize = 8;

fn body(
    pool: &BackendPool,
    admits: impl Fn(usize) -> bool,
    tried: &TriedSet,
    now: Instant,
    status: StatusCode,
) -> String {
    let kind =
        if status == StatusCode::TOO_MANY_REQUESTS { "too_many_requests" } else { "unavailable" };
    let mut body = format!(
        r#"{{"error":{{"code":"{}","type":"{kind}","message":"No backend is left to ask."#,
        status.as_str()
    );
    let considered = pool.resting(now).enumerate().filter(|(index, _)| admits(*index));
    for (index, (name, resting)) in considered.take(NAMED) {
        let separator = if body.ends_with('.') { " " } else { ", " };
        // Names are made of characters that JSON does not escape; see `Backend::new`.
        _ = match resting {
            Some(left) => write!(body, "{separator}{name} rests for {} ms", left.as_millis()),
            None if tried.contains(index) => write!(body, "{separator}{name} was tried"),
            None => write!(body, "{separator}{name} is beyond max_attempts"),
        };
    }
    let more = (0..pool.len()).filter(|index| admits(*index)).skip(NAMED).count();
    if more > 0 {
        _ = write!(body, ", and {more} more");
    }
    body.push_str(r#".","param":null}}"#);
    body
}
