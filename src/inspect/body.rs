//! What the body of a refusal says: the reason, and the wait.

use std::time::Duration;

use http::StatusCode;

use crate::{
    azure::{error::ApiError, message},
    classify::{Limit, Reason},
};

/// Why a backend refused, and the wait that its message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BodyVerdict {
    pub(crate) reason: Reason,
    pub(crate) limit: Option<Limit>,
    pub(crate) wait: Option<Duration>,
}

impl BodyVerdict {
    /// The verdict on a refusal for `reason`, which waiting can fix unless the request is at fault.
    pub(super) fn of(fault: &ApiError<'_>, reason: Reason) -> Self {
        let wait = match reason {
            Reason::ContextLength
            | Reason::ServiceTier
            | Reason::Content
            | Reason::Misconfigured => None,
            _ => message::wait(fault.message),
        };
        let limit = if reason == Reason::Rate { fault.limit() } else { None };
        Self { reason, limit, wait }
    }
}

/// Judges a response with `status` by its body, as far as it has arrived. `None` if it is not a refusal.
///
/// | status | verdict |
/// |---|---|
/// | 429 | by its error, else a rate limit |
/// | 529 | by its error, else capacity |
/// | 503 | capacity, quota or rate, if the error says so |
/// | 403 | quota, by the error's code or in API Management's words; content, if a filter or policy refused it |
/// | 404 | a missing deployment |
/// | 400, 413 | a request that is too long, if the error says so |
/// | 400 | a service tier that is not offered, if the error is about that |
pub(crate) fn judge(status: StatusCode, body: &[u8]) -> Option<BodyVerdict> {
    let fault = ApiError::in_body(body);
    let reason = match status.as_u16() {
        429 => Some(any_reason(&fault).unwrap_or(Reason::Rate)),
        529 => Some(any_reason(&fault).unwrap_or(Reason::Capacity)),
        503 => unavailable(&fault),
        403 => forbidden(&fault),
        404 => fault.is_missing_deployment().then_some(Reason::Misconfigured),
        400 if fault.is_about_service_tier() => Some(Reason::ServiceTier),
        400 | 413 => fault.is_too_long().then_some(Reason::ContextLength),
        _ => None,
    }?;
    Some(BodyVerdict::of(&fault, reason))
}

/// The service says "temporarily unable" for every failure here.
fn unavailable(fault: &ApiError<'_>) -> Option<Reason> {
    if fault.says("backend pool") && fault.says("temporarily unavailable") {
        return Some(Reason::Capacity);
    }
    if fault.says("temporarily unable") { None } else { any_reason(fault) }
}

/// The status is a refusal already; an unknown code defers to the message.
fn any_reason(fault: &ApiError<'_>) -> Option<Reason> {
    fault.reason().or_else(|| fault.reason_in_message())
}

/// API Management refuses an exhausted quota with 403 (`quota-by-key`, `llm-token-limit`).
fn forbidden(fault: &ApiError<'_>) -> Option<Reason> {
    let is_spent =
        fault.reason() == Some(Reason::Quota) || fault.is_gateways && fault.says("quota");
    let is_filtered = || fault.is_about_content().then_some(Reason::Content);
    if is_spent { Some(Reason::Quota) } else { is_filtered() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_verdict(status: u16, body: &str, expected: Option<(Reason, Option<u64>)>) {
        let status = StatusCode::from_u16(status).unwrap();
        let expected = expected.map(|(reason, wait)| (reason, wait.map(Duration::from_secs)));
        let verdict = judge(status, body.as_bytes());
        assert_eq!(verdict.map(|it| (it.reason, it.wait)), expected, "{status} {body}");
    }

    #[test]
    fn a_429_is_a_rate_limit_unless_it_says_otherwise() {
        assert_verdict(429, "", Some((Reason::Rate, None)));
        assert_verdict(429, "<html>\u{b5}</html>", Some((Reason::Rate, None)));
        assert_verdict(429, "try again in 5 seconds", Some((Reason::Rate, Some(5))));
        assert_verdict(429, r#"{"error":{"code":"server_error"}}"#, Some((Reason::Rate, None)));
        let busy = r#"{"error":{"code":"429","message":"The service is temporarily unable to process your request. Please retry after 3 seconds."}}"#;
        assert_verdict(429, busy, Some((Reason::Capacity, Some(3))));
    }

    #[test]
    fn a_529_is_a_lack_of_capacity_unless_it_says_otherwise() {
        for silent in ["", "<html></html>", r#"{"error":{"code":"server_error"}}"#] {
            assert_verdict(529, silent, Some((Reason::Capacity, None)));
        }
        let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded. Please retry after 3 seconds."}}"#;
        assert_verdict(529, overloaded, Some((Reason::Capacity, Some(3))));
        let rate = r#"{"type":"error","error":{"type":"rate_limit_error","message":"x"}}"#;
        assert_verdict(529, rate, Some((Reason::Rate, None)));
    }

    #[test]
    fn a_rate_limit_has_its_limit_and_nothing_else_has() {
        let judged = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            judge(status, body.as_bytes()).and_then(|verdict| verdict.limit)
        };
        let exceeded = |what| format!(r#"{{"error":{{"message":"exceeded {what} rate limit"}}}}"#);
        assert_eq!(judged(429, &exceeded("token")), Some(Limit::Tokens));
        assert_eq!(judged(429, &exceeded("call")), Some(Limit::Calls));
        assert_eq!(judged(429, ""), None);
        let full = r#"{"error":{"code":"no_capacity","message":"tokens per minute"}}"#;
        assert_eq!(judged(429, full), None);
    }

    #[test]
    fn only_a_400_about_it_says_that_a_service_tier_is_not_offered() {
        let tier = r#"{"error":{"code":"invalid_value","param":"service_tier","message":"Please retry after 5 seconds."}}"#;
        assert_verdict(400, tier, Some((Reason::ServiceTier, None)));
        assert_verdict(413, tier, None);
        assert_verdict(429, tier, Some((Reason::Rate, Some(5))));
        let other = r#"{"error":{"code":"invalid_value","param":"messages"}}"#;
        assert_verdict(400, other, None);
    }

    #[test]
    fn a_503_has_to_say_that_it_refuses() {
        for failed in [
            "",
            "upstream connect error",
            r#"{"error":{"code":"ServiceUnavailable","message":"The service is temporarily unable to process your request. Please try again in 5 seconds."}}"#,
            r#"{"error":{"code":"InternalServerError","message":"Backend call failure"}}"#,
        ] {
            assert_verdict(503, failed, None);
        }
        let pool =
            r#"{"statusCode":503,"message":"Backend pool 'aoai' is temporarily unavailable."}"#;
        assert_verdict(503, pool, Some((Reason::Capacity, None)));
        assert_verdict(503, r#"{"error":{"code":"no_capacity"}}"#, Some((Reason::Capacity, None)));
        assert_verdict(
            503,
            r#"{"error":{"code":"503","message":"high demand"}}"#,
            Some((Reason::Capacity, None)),
        );
        let overloaded = r#"{"error":{"type":"service_unavailable_error","code":"server_is_overloaded","message":"Please try again in 4 seconds."}}"#;
        for status in [429, 503] {
            assert_verdict(status, overloaded, Some((Reason::Capacity, Some(4))));
        }
        let words = r#"{"error":{"code":null,"message":"The engine is currently overloaded"}}"#;
        assert_verdict(503, words, Some((Reason::Capacity, None)));
    }

    #[test]
    fn only_a_spent_quota_makes_a_403_a_refusal() {
        let spent = r#"{"statusCode":403,"message":"Out of call volume quota. Quota will be replenished in 00:12:34."}"#;
        assert_verdict(403, spent, Some((Reason::Quota, Some(754))));
        let spent = r#"{ "statusCode": 403, "message": "Token quota is exceeded. Try again in 50 seconds." }"#;
        assert_verdict(403, spent, Some((Reason::Quota, Some(50))));
        for answer in [
            r#"{"statusCode":403,"message":"Access denied due to Virtual Network/Firewall rules."}"#,
            r#"{"error":{"code":"403","message":"Your quota page is not yours to see."}}"#,
            r#"{"error":{"code":"AuthorizationFailed"}}"#,
            "quota exceeded",
        ] {
            assert_verdict(403, answer, None);
        }
    }

    #[test]
    fn a_403_of_a_filter_is_about_the_request() {
        for answer in [
            r#"{"statusCode":403,"message":"Request failed content safety check."}"#,
            r#"{"error":{"code":"content_filter","message":"The response was filtered"}}"#,
            r#"{"error":{"code":"403","message":"The prompt triggered Azure OpenAI's content management policy."}}"#,
        ] {
            assert_verdict(403, answer, Some((Reason::Content, None)));
        }
    }

    #[test]
    fn a_404_is_a_missing_deployment_or_address_unless_it_is_about_an_id() {
        for answer in [
            r#"{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}"#,
            r#"{"error":{"code":null,"message":"The API deployment for this resource does not exist."}}"#,
            r#"{"error":{"code":"model_not_found","type":"invalid_request_error","message":"The model `gpt-9` does not exist or you do not have access to it."}}"#,
            r#"{"error":{"code":"unknown_model","message":"Unknown model: gpt-9"}}"#,
            r#"{"error":{"code":"404","message": "Resource not found"}}"#,
            r#"{"error":"Resource not found"}"#,
            r#"{ "statusCode": 404, "message": "Resource not found" }"#,
            "<html><head><title>404 Not Found</title></head></html>",
            "",
        ] {
            assert_verdict(404, answer, Some((Reason::Misconfigured, None)));
        }
        for answer in [
            r#"{"error":{"code":"previous_response_not_found","param":"previous_response_id","message":"Previous response with id 'resp_1' not found."}}"#,
            r#"{"error":{"code":null,"type":"invalid_request_error","param":"input","message":"Item with id 'rs_1' not found."}}"#,
            r#"{"error":{"code":"not_found","message":"File file-1 not found"}}"#,
            r#"{"error":{"code":"container_not_found","message":"Resource not found"}}"#,
        ] {
            assert_verdict(404, answer, None);
        }
    }

    #[test]
    fn only_a_request_that_is_too_long_is_more_than_a_400_or_413() {
        let long = r#"{"error":{"message":"This model's maximum context length is 128000 tokens. Please retry after 5 seconds.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#;
        let words = r#"{"error":{"code":400,"message":"This model's maximum context length is 128000 tokens."}}"#;
        let one = r#"{"error":{"code":"string_above_max_length","message":"Invalid 'input': string too long."}}"#;
        let all = r#"{"error":{"code":"tokens_limit_reached","message":"Max size: 8000 tokens."}}"#;
        for status in [400, 413] {
            for answer in [long, words, one, all] {
                assert_verdict(status, answer, Some((Reason::ContextLength, None)));
            }
        }
        for answer in [
            r#"{"error":{"code":"413","message":"The request body is larger than 104857600 bytes."}}"#,
            r#"{"error":{"code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
            r#"{"error":{"code":"429","message":"rate limit"}}"#,
            r#"{"error":{"message":"context_length_exceeded"}}"#,
            "",
        ] {
            assert_verdict(400, answer, None);
            assert_verdict(413, answer, None);
        }
        for status in [401, 408, 500, 200] {
            assert_verdict(status, r#"{"error":{"code":"no_capacity"}}"#, None);
        }
    }
}
