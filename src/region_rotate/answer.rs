//! The answer of a pool that has no open backend.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::{BackendPool, ResponseBody, backend::Tried, classify::announce};

/// Says when the first backend of `pool` reopens, to programs in two headers and to people in a
/// body of Azure's shape that names the backends considered and why each was passed over.
pub(super) fn closed<R>(
    pool: &BackendPool,
    tried: &Tried,
    now: Instant,
    status: StatusCode,
) -> Response<ResponseBody<R>> {
    // A backend that this request may not go back to can be open already; "at once" is 1 ms then.
    let soonest = pool.soonest(now).max(Duration::from_millis(1));
    let text = Bytes::from(body(pool, tried, now, status));
    let mut response = Response::new(ResponseBody::own(text.clone()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(4);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LENGTH, text.len().into());
    announce(headers, soonest);
    response
}

/// A pool may be large, and this is written for every request that it refuses.
const NAMED: usize = 8;

fn body(pool: &BackendPool, tried: &Tried, now: Instant, status: StatusCode) -> String {
    let kind =
        if status == StatusCode::TOO_MANY_REQUESTS { "too_many_requests" } else { "unavailable" };
    let mut body = format!(
        r#"{{"error":{{"code":"{}","type":"{kind}","message":"No backend is left to ask."#,
        status.as_str()
    );
    for (index, (name, resting)) in pool.resting(now).take(NAMED).enumerate() {
        let separator = if body.ends_with('.') { " " } else { ", " };
        // Names are made of characters that JSON does not escape; see `Backend::new`.
        _ = match resting {
            Some(left) => write!(body, "{separator}{name} rests for {} ms", left.as_millis()),
            None if tried.contains(index) => write!(body, "{separator}{name} was tried"),
            None => write!(body, "{separator}{name} is beyond max_attempts"),
        };
    }
    if let Some(more) = pool.len().checked_sub(NAMED).filter(|&more| more > 0) {
        _ = write!(body, ", and {more} more");
    }
    body.push_str(r#".","param":null}}"#);
    body
}
