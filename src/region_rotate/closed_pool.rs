//! The answer of a pool that has no open backend.

use std::{iter, time::Instant};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::{
    BackendPool, ResponseBody,
    backend::TriedSet,
    classify::Digits,
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
        headers.insert(header::CONTENT_LENGTH, Digits::of(text.len() as u64).value());
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
        let mut body =
            String::with_capacity(FRAME_BYTES + count.min(MAX_NAMED_BACKENDS) * NAMED_BYTES);
        push(&mut body, [r#"{"error":{"code":""#, status.as_str(), r#"","type":""#, kind]);
        push(&mut body, [r#"","message":"No backend is left to try."#]);
        let mut separator = " ";
        for index in considered.take(MAX_NAMED_BACKENDS) {
            // Names have no characters that JSON escapes; see `Backend::new`.
            push(&mut body, [separator, self.pool.member(index).name()]);
            separator = ", ";
            let NextOpen { said, from, .. } =
                self.pool.next_open(iter::once(index), self.now, self.load);
            match u64::try_from(said.as_millis()).unwrap_or(u64::MAX) {
                0 if self.tried.contains(index) => push(&mut body, [" was tried"]),
                0 => push(&mut body, [" is beyond max_attempts"]),
                ms => {
                    push(&mut body, [" is closed for ", Digits::of(ms).text(), " ms"]);
                    if let Some(from) = from {
                        let from = Digits::of(from.get().into());
                        push(&mut body, [" from ", from.text(), " tokens up"]);
                    }
                }
            }
        }
        if let more @ 1.. = count.saturating_sub(MAX_NAMED_BACKENDS) {
            push(&mut body, [", and ", Digits::of(more as u64).text(), " more"]);
        }
        body.push_str(r#".","param":null}}"#);
        body
    }
}

fn push<const N: usize>(body: &mut String, texts: [&str; N]) {
    texts.into_iter().for_each(|text| body.push_str(text));
}

/// What the body takes without the backends.
const FRAME_BYTES: usize = 160;
/// What it takes for one, if its name is of usual length.
const NAMED_BYTES: usize = 64;

/// The most backends that are named: a pool may be large, and the body is written for every request
/// that it refuses.
const MAX_NAMED_BACKENDS: usize = 8;
