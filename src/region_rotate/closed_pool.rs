//! The answer of a pool that has no open backend.

use std::{fmt::Write, iter, time::Instant};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::{
    BackendPool, ResponseBody,
    backend::TriedSet,
    cooldown::{Load, NextOpen},
};

/// A pool that has no open backend for a request.
pub(super) struct ClosedPool<'a> {
    pub(super) pool: &'a BackendPool,
    pub(super) tried: &'a TriedSet,
    pub(super) now: Instant,
    pub(super) load: &'a dyn Load,
}

impl ClosedPool<'_> {
    /// A body of Azure's shape, for people: the `considered` backends, `count` in all, and why each
    /// was skipped. The caller of this writes the wait.
    pub(super) fn answer<R>(
        &self,
        considered: impl Iterator<Item = usize>,
        count: usize,
        status: StatusCode,
    ) -> Response<ResponseBody<R>> {
        let text = Bytes::from(self.body(considered, count, status));
        let mut response = Response::new(ResponseBody::own(text.clone()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.reserve(5);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_LENGTH, text.len().into());
        response
    }

    fn body(
        &self,
        considered: impl Iterator<Item = usize>,
        count: usize,
        status: StatusCode,
    ) -> String {
        let is_refused = status == StatusCode::TOO_MANY_REQUESTS;
        let kind = if is_refused { "too_many_requests" } else { "unavailable" };
        let mut body = format!(
            r#"{{"error":{{"code":"{}","type":"{kind}","message":"No backend is left to try."#,
            status.as_str()
        );
        for index in considered.take(MAX_NAMED_BACKENDS) {
            let separator = if body.ends_with('.') { " " } else { ", " };
            // Names have no characters that JSON escapes; see `Backend::new`.
            let name = self.pool.member(index).name();
            let NextOpen { said, from, .. } =
                self.pool.next_open(iter::once(index), self.now, self.load);
            let ms = said.as_millis();
            _ = match from {
                _ if ms == 0 && self.tried.contains(index) => {
                    write!(body, "{separator}{name} was tried")
                }
                _ if ms == 0 => write!(body, "{separator}{name} is beyond max_attempts"),
                None => write!(body, "{separator}{name} is closed for {ms} ms"),
                Some(from) => {
                    write!(body, "{separator}{name} is closed for {ms} ms from {from} tokens up")
                }
            };
        }
        if let more @ 1.. = count.saturating_sub(MAX_NAMED_BACKENDS) {
            _ = write!(body, ", and {more} more");
        }
        body.push_str(r#".","param":null}}"#);
        body
    }
}

/// The most backends that are named: a pool may be large, and the body is written for every request
/// that it refuses.
const MAX_NAMED_BACKENDS: usize = 8;
