//! What a response head says about the attempt.

use std::time::SystemTime;

use http::{HeaderMap, Response, StatusCode};

use super::{Hint, Reason, Refusal, grpc, reset, retry_after, retry_info};

/// The outcome of an attempt, as far as its response head shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// Returned to the caller unchanged: a success, or anything else that is for the caller to judge
    /// (1xx, 3xx, and the 4xx and 5xx not named below).
    Answered,
    /// Refused for rate or capacity, with the service's hint.
    Throttled(Hint),
    /// Refused only for its length: a 400 or 413 with [`Reason::ContextLength`]. The backend is
    /// healthy, and another may accept the request. The head alone never shows it.
    ContextTooLong,
    /// Refused only for the service tier that it requests: a 400 with [`Reason::ServiceTier`].
    /// Another backend may offer it. The head alone never shows it.
    TierNotOffered,
    /// The backend can serve no request until its configuration is fixed: 401, 402, 403, 410, and a
    /// 404 with [`Reason::Misconfigured`]. Nothing was executed, and another backend may serve. With
    /// the caller's own credential it is the caller's error, and a layer treats it as
    /// [`Answered`](Self::Answered).
    Misconfigured,
    /// The server failed: 500, 502, 503, 504 without a hint; gRPC `UNAVAILABLE` without pushback.
    /// Also other statuses that a layer is configured to treat as failures.
    Failed,
    /// Dropped without an answer: its first token was late, or another attempt at the same request
    /// answered first. It may have been executed and billed. No head shows this; see
    /// [`FirstTokenLayer`](crate::FirstTokenLayer).
    Late,
}

impl Outcome {
    /// Classifies a response by its status and headers.
    ///
    /// | status | outcome |
    /// |---|---|
    /// | 429, 529 | throttled, whatever [`Hint::read`] finds |
    /// | any other 5xx with an explicit, well-formed hint | throttled |
    /// | 500, 502, 503, 504 | failed |
    /// | 401, 402, 403, 410 | misconfigured |
    /// | 200, gRPC, `grpc-status: 8` in the head | throttled |
    /// | 200, gRPC, `grpc-status: 14` in the head | throttled if it has a hint, else failed |
    /// | anything else | answered |
    ///
    /// An explicit hint of a 5xx is `retry-after-ms`, `x-ms-retry-after-ms` or `retry-after`, zero
    /// included; a rate-limit reset alone does not count. 529 is Anthropic's "overloaded", which Foundry
    /// passes on, and has no other meaning.
    ///
    /// In a gRPC response (`content-type: application/grpc`) the wait in `grpc-retry-pushback-ms` takes
    /// precedence over all others, and a negative or malformed one forbids another attempt:
    /// [`Hint::TooLong`]. Without it, the wait of `google.rpc.RetryInfo` in `grpc-status-details-bin`
    /// applies, for status 8 after [`Hint::read`]. A gRPC status that follows a body is not seen.
    ///
    /// `remaining` headers never make a response throttled, since they can be negative on successes, too.
    ///
    /// `now` is called at most once, and only to compare an HTTP-date. A 200 costs one lookup of
    /// `content-type`.
    pub fn of(status: StatusCode, headers: &HeaderMap, now: impl FnOnce() -> SystemTime) -> Self {
        match status {
            StatusCode::OK if grpc::is_spoken(headers) => trailers_only(headers, now),
            status if is_refusal(status) => {
                let dictated = grpc::dictated(headers);
                Self::Throttled(dictated.unwrap_or_else(|| Hint::read(headers, now)))
            }
            status if status.is_server_error() => server_error(status, headers, now),
            status if matches!(status.as_u16(), 401..=403 | 410) => Self::Misconfigured,
            _ => Self::Answered,
        }
    }

    /// Classifies a response by its head and, if that is a refusal, by the [`Refusal`] that an inner
    /// layer left in its extensions.
    ///
    /// A hint written by a layer of this crate that makes attempts applies as long as the head still
    /// carries it; if another layer replaced it, the new one applies. A hint found in a body applies
    /// if the head has none, or zero. A 400 or 413 is [`ContextTooLong`], a 400 [`TierNotOffered`]
    /// and a 404 [`Misconfigured`] if the refusal says so, and a 403 about the request's
    /// [content](Reason::Content) is answered. Otherwise the result is that of [`of`](Self::of), at
    /// the same cost: the extension is looked up only after a refusal.
    ///
    /// [`ContextTooLong`]: Self::ContextTooLong
    /// [`TierNotOffered`]: Self::TierNotOffered
    /// [`Misconfigured`]: Self::Misconfigured
    #[inline]
    pub fn of_response<B>(response: &Response<B>, now: impl FnOnce() -> SystemTime) -> Self {
        match Self::is_plain_success(response) {
            true => Self::Answered,
            false => Self::of_other(response, now),
        }
    }

    /// Whether it is a 200 other than gRPC's, like nearly every response, so that nothing more needs
    /// to be checked.
    #[inline]
    pub(crate) fn is_plain_success<B>(response: &Response<B>) -> bool {
        response.status() == StatusCode::OK && !grpc::is_spoken(response.headers())
    }

    #[inline(never)]
    fn of_other<B>(response: &Response<B>, now: impl FnOnce() -> SystemTime) -> Self {
        if response.status().as_u16() >= 400
            && let Some(refusal) = Refusal::of(response)
        {
            let headers = response.headers();
            if may_refuse(response.status())
                && let Some(hint) = refusal.hint_of_layer(headers)
            {
                return Self::Throttled(hint);
            }
            // `now` is called once: nothing below is reached after it.
            if refusal.has_verdict() {
                let asked = || Hint::asked(headers, now);
                return match refusal.verdict(headers, asked) {
                    Some(outcome @ (Self::Answered | Self::Misconfigured))
                        if response.status().is_client_error() =>
                    {
                        client_error(outcome, response)
                    }
                    outcome => outcome.unwrap_or(Self::Answered),
                };
            }
        }
        match Self::of(response.status(), response.headers(), now) {
            Self::Throttled(hint) => {
                Self::Throttled(hint.or_longer(|| {
                    Refusal::of(response).map_or(Hint::None, Refusal::hint_beside_head)
                }))
            }
            outcome @ (Self::Answered | Self::Misconfigured)
                if response.status().is_client_error() =>
            {
                client_error(outcome, response)
            }
            outcome => outcome,
        }
    }
}

/// The outcome of an error of the client or of the configuration, according to its body.
#[cold]
fn client_error<B>(by_head: Outcome, response: &Response<B>) -> Outcome {
    let reason = Refusal::of(response).map_or(Reason::Unknown, Refusal::reason);
    match (response.status().as_u16(), reason) {
        (400 | 413, Reason::ContextLength) => Outcome::ContextTooLong,
        (400 | 413, Reason::ServiceTier) => Outcome::TierNotOffered,
        (404, Reason::Misconfigured) => Outcome::Misconfigured,
        (403, Reason::Content) => Outcome::Answered,
        _ => by_head,
    }
}

/// Whether a response with this status is a refusal, whatever else it says.
pub(crate) const fn is_refusal(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 529)
}

/// Whether a response with this status is a refusal, or would be with a hint.
const fn may_refuse(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 500..=599)
}

/// A server error is about capacity only if it has a hint.
#[cold]
fn server_error(
    status: StatusCode,
    headers: &HeaderMap,
    now: impl FnOnce() -> SystemTime,
) -> Outcome {
    if let Some(pushback) = grpc::dictated(headers) {
        return Outcome::Throttled(pushback);
    }
    match (retry_after::read(headers, now), status.as_u16()) {
        (Hint::None, 500 | 502 | 503 | 504) => Outcome::Failed,
        (Hint::None, _) => Outcome::Answered,
        (asked, _) => Outcome::Throttled(asked.or_longer(|| reset::read(headers))),
    }
}

fn trailers_only(headers: &HeaderMap, now: impl FnOnce() -> SystemTime) -> Outcome {
    let Some(refusal) = grpc::refusal(headers) else {
        return Outcome::Answered;
    };
    match (grpc::pushback(headers), refusal) {
        (Some(pushback), _) => Outcome::Throttled(pushback),
        (None, grpc::GrpcRefusal::ResourceExhausted) => {
            let hint = Hint::read(headers, now);
            Outcome::Throttled(hint.or_longer(|| retry_info::read(headers)))
        }
        (None, grpc::GrpcRefusal::Unavailable) => match retry_info::read(headers) {
            Hint::None => Outcome::Failed,
            asked => Outcome::Throttled(asked),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::classify::{
        heads::{NOW, any_head, head, never},
        write_retry_after,
    };

    #[track_caller]
    fn assert_outcome(status: u16, lines: &[(&'static str, &str)], expected: Outcome) {
        let code = StatusCode::from_u16(status).expect("a status");
        assert_eq!(Outcome::of(code, &head(lines), never), expected, "{status} {lines:?}");
    }

    fn throttled(ms: u64) -> Outcome {
        Outcome::Throttled(Hint::After(Duration::from_millis(ms)))
    }

    #[test]
    fn every_status_has_one_outcome_without_headers_and_never_reads_the_clock() {
        for status in 100..=999 {
            let expected = match status {
                429 | 529 => Outcome::Throttled(Hint::None),
                500 | 502 | 503 | 504 => Outcome::Failed,
                401 | 402 | 403 | 410 => Outcome::Misconfigured,
                _ => Outcome::Answered,
            };
            assert_outcome(status, &[], expected);
        }
    }

    #[test]
    fn a_wait_makes_a_server_error_a_refusal_and_no_other_status() {
        let hint = [("retry-after-ms", "43"), ("retry-after", "1")];
        for status in (100..=999).filter(|status| *status != 429) {
            let expected = match status {
                500..600 => throttled(43),
                401..=403 | 410 => Outcome::Misconfigured,
                _ => Outcome::Answered,
            };
            assert_outcome(status, &hint, expected);
        }
    }

    #[test]
    fn a_server_error_needs_a_wait_asked_for_outright() {
        for (status, without) in
            [(500, Outcome::Failed), (503, Outcome::Failed), (501, Outcome::Answered)]
        {
            assert_outcome(status, &[("retry-after", "0")], Outcome::Throttled(Hint::Zero));
            assert_outcome(status, &[("retry-after", "1e400")], Outcome::Throttled(Hint::TooLong));
            assert_outcome(status, &[("retry-after", "soon")], without);
            assert_outcome(status, &[("x-ratelimit-reset-tokens", "55")], without);
            let both = [("retry-after", "0"), ("x-ratelimit-reset-tokens", "55")];
            assert_outcome(status, &both, throttled(55_000));
        }
        assert_outcome(529, &[("retry-after", "2")], throttled(2_000));
    }

    #[test]
    fn what_remains_throttles_nothing() {
        let spent = [
            ("x-ratelimit-remaining-tokens", "-27978"),
            ("x-ratelimit-remaining-requests", "-1"),
            ("x-ratelimit-reset-tokens", "64"),
        ];
        assert_outcome(200, &spent, Outcome::Answered);
        assert_outcome(503, &spent, Outcome::Failed);
    }

    #[test]
    fn a_trailers_only_exhaustion_is_throttled_with_its_pushback_or_any_other_hint() {
        let grpc = [("content-type", "application/grpc"), ("grpc-status", "8")];
        let with = |lines: &[(&'static str, &'static str)]| [&grpc, lines].concat();
        assert_outcome(200, &with(&[]), Outcome::Throttled(Hint::None));
        assert_outcome(200, &with(&[("retry-after", "2")]), throttled(2_000));
        let pushback = [("grpc-retry-pushback-ms", "250"), ("retry-after-ms", "9")];
        assert_outcome(200, &with(&pushback), throttled(250));
        let forbidden = [("grpc-retry-pushback-ms", "-1"), ("retry-after-ms", "9")];
        assert_outcome(200, &with(&forbidden), Outcome::Throttled(Hint::TooLong));
        assert_outcome(200, &with(&[RETRY_INFO]), throttled(1_500));
        assert_outcome(200, &with(&[RETRY_INFO, ("retry-after", "2")]), throttled(2_000));
        assert_outcome(200, &with(&[RETRY_INFO, pushback[0]]), throttled(250));
    }

    #[test]
    fn a_trailers_only_unavailability_is_a_failure_unless_it_asks_for_a_wait() {
        let grpc = [("content-type", "application/grpc+proto"), ("grpc-status", "14")];
        let with = |lines: &[(&'static str, &'static str)]| [&grpc, lines].concat();
        assert_outcome(200, &with(&[]), Outcome::Failed);
        assert_outcome(200, &with(&[("retry-after", "2")]), Outcome::Failed);
        assert_outcome(200, &with(&[("grpc-retry-pushback-ms", "40")]), throttled(40));
        assert_outcome(200, &with(&[RETRY_INFO]), throttled(1_500));
        assert_outcome(200, &with(&[RETRY_INFO, ("grpc-retry-pushback-ms", "40")]), throttled(40));
        assert_outcome(200, &with(&[("grpc-status-details-bin", "CA")]), Outcome::Failed);
    }

    /// A `google.rpc.Status` that asks for 1.5 s.
    const RETRY_INFO: (&str, &str) = (
        "grpc-status-details-bin",
        "CAgaNgoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIKCggIARCAyrXuAQ",
    );

    #[test]
    fn other_grpc_statuses_and_none_are_answers() {
        let kind = ("content-type", "application/grpc");
        assert_outcome(200, &[kind], Outcome::Answered);
        for status in ["0", "4", "13", "16", "88", "", "RESOURCE_EXHAUSTED"] {
            assert_outcome(200, &[kind, ("grpc-status", status)], Outcome::Answered);
        }
        assert_outcome(200, &[("grpc-status", "8")], Outcome::Answered);
    }

    #[test]
    fn a_grpc_refusal_by_http_status_honours_pushback_first() {
        let kind = ("content-type", "application/grpc");
        let pushback = [kind, ("grpc-retry-pushback-ms", "40"), ("retry-after", "1")];
        assert_outcome(429, &pushback, throttled(40));
        assert_outcome(503, &pushback, throttled(40));
        assert_outcome(429, &pushback[1..], throttled(1_000));
        assert_outcome(503, &[kind, ("grpc-status", "8")], Outcome::Failed);
        assert_outcome(500, &[kind, ("grpc-status", "8")], Outcome::Failed);
    }

    fn refused(status: u16, lines: &[(&'static str, &str)], refusal: &Refusal) -> Outcome {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        *response.headers_mut() = head(lines);
        response.extensions_mut().insert(refusal.clone());
        Outcome::of_response(&response, never)
    }

    #[test]
    fn what_the_body_asks_for_counts_where_the_head_asks_for_nothing() {
        let asked = Hint::After(Duration::from_secs(45));
        let body = Refusal::new(Reason::Rate, asked);
        assert_eq!(refused(429, &[], &body), Outcome::Throttled(asked));
        assert_eq!(refused(429, &[("retry-after", "0")], &body), Outcome::Throttled(asked));
        assert_eq!(refused(429, &[("retry-after-ms", "43")], &body), throttled(43));
        let silent = Refusal::new(Reason::Capacity, Hint::None);
        assert_eq!(refused(429, &[("retry-after", "0")], &silent), Outcome::Throttled(Hint::Zero));
    }

    #[test]
    fn what_another_layer_wrote_counts_before_the_hint_of_a_pool() {
        let outcome = |change: fn(&mut HeaderMap), reason| {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            let written = write_retry_after(response.headers_mut(), Duration::from_millis(500));
            Refusal::rewrite(&mut response, written, true, |refusal| refusal.set_reason(reason));
            change(response.headers_mut());
            Outcome::of_response(&response, never)
        };
        for reason in [Reason::Unknown, Reason::Rate] {
            assert_eq!(outcome(|_| {}, reason), throttled(500));
            let lengthen: fn(&mut HeaderMap) = |headers| {
                headers.append("retry-after-ms", 3_000.into());
            };
            assert_eq!(outcome(lengthen, reason), throttled(3_000));
        }
        assert_eq!(outcome(HeaderMap::clear, Reason::Rate), throttled(500));
        let as_without_one = Outcome::Throttled(Hint::None);
        assert_eq!(outcome(HeaderMap::clear, Reason::Unknown), as_without_one);
    }

    #[test]
    fn only_a_400_or_413_for_its_length_is_too_long() {
        let long = Refusal::new(Reason::ContextLength, Hint::None);
        assert_eq!(refused(400, &[], &long), Outcome::ContextTooLong);
        assert_eq!(refused(413, &[], &long), Outcome::ContextTooLong);
        assert_eq!(refused(200, &[], &long), Outcome::Answered);
        assert_eq!(refused(404, &[], &long), Outcome::Answered);
        let rate = Refusal::new(Reason::Rate, Hint::None);
        assert_eq!(refused(400, &[], &rate), Outcome::Answered);
        assert_eq!(refused(413, &[], &rate), Outcome::Answered);
    }

    #[test]
    fn a_400_for_its_service_tier_is_one_that_another_may_offer() {
        let tier = Refusal::new(Reason::ServiceTier, Hint::None);
        assert_eq!(refused(400, &[], &tier), Outcome::TierNotOffered);
        assert_eq!(refused(404, &[], &tier), Outcome::Answered);
    }

    #[test]
    fn what_the_body_says_of_a_deployment_or_of_content_counts() {
        let missing = Refusal::new(Reason::Misconfigured, Hint::None);
        assert_eq!(refused(404, &[], &missing), Outcome::Misconfigured);
        assert_eq!(refused(400, &[], &missing), Outcome::Answered);
        let filtered = Refusal::new(Reason::Content, Hint::None);
        assert_eq!(refused(403, &[], &filtered), Outcome::Answered);
        assert_eq!(refused(401, &[], &filtered), Outcome::Misconfigured);
        let unknown = Refusal::new(Reason::Unknown, Hint::None);
        assert_eq!(refused(403, &[], &unknown), Outcome::Misconfigured);
        assert_eq!(refused(404, &[], &unknown), Outcome::Answered);
    }

    proptest! {
        #[test]
        fn any_head_has_an_outcome_and_its_wait_is_within_bounds(
            status in 100_u16..1_000,
            refused in prop::sample::select(vec![None, Some(200_u16), Some(429), Some(503)]),
            headers in any_head(),
        ) {
            let status = StatusCode::from_u16(refused.unwrap_or(status)).expect("a status");
            let read = Outcome::Throttled(Hint::read(&headers, NOW));
            for outcome in [Outcome::of(status, &headers, NOW), read] {
                if let Outcome::Throttled(Hint::After(wait)) = outcome {
                    prop_assert!(!wait.is_zero() && wait <= Hint::LONGEST);
                }
            }
        }
    }
}
