//! The bodies of refusals, verbatim where the service's text is known.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    Refusal,
    request_body::BadRequest,
    routes::{Grammar, Operation},
    tier::Tier,
};

/// For a host that no resource has: the answer of the gateway in front of the service.
pub(crate) fn unknown_host() -> Value {
    json!({"statusCode": 404, "message": "Resource not found"})
}

pub(crate) fn unknown_operation() -> Value {
    coded("404", "Resource not found")
}

pub(crate) fn wrong_method(allowed: &str) -> Value {
    coded("405", &format!("The operation exists with the method {allowed} only."))
}

pub(crate) fn wrong_key() -> Value {
    coded(
        "401",
        "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide \
         a valid key for an active subscription and use a correct regional API endpoint for your \
         resource.",
    )
}

pub(crate) fn wrong_token() -> Value {
    json!({"statusCode": 401, "message": "Unauthorized. Access token is missing, invalid, audience \
        is incorrect (https://cognitiveservices.azure.com), or have expired."})
}

pub(crate) fn unknown_deployment() -> Value {
    coded(
        "DeploymentNotFound",
        "The API deployment for this resource does not exist. If you created the deployment within \
         the last 5 minutes, please wait a moment and try again.",
    )
}

pub(crate) fn too_large() -> Value {
    coded("413", "The request body is larger than 104857600 bytes.")
}

pub(crate) fn bad_request(error: &BadRequest) -> Value {
    json!({"error": {
        "message": error.message,
        "type": "invalid_request_error",
        "param": error.param,
        "code": null,
    }})
}

/// The deployment does not offer this service tier.
pub(crate) fn missing_tier(tier: Tier) -> Value {
    json!({"error": {
        "message": format!("The service tier '{}' is not supported by this model.", tier.name()),
        "type": "invalid_request_error",
        "param": "service_tier",
        "code": "unsupported_value",
    }})
}

/// Only the resource that made a response knows its `previous_response_id`.
pub(crate) fn unknown_response(id: &str) -> Value {
    json!({"error": {
        "message": format!("Previous response with id '{id}' not found."),
        "type": "invalid_request_error",
        "param": "previous_response_id",
        "code": "previous_response_not_found",
    }})
}

/// Only the resource that keeps an object knows its id.
pub(crate) fn unknown_object(id: &str) -> Value {
    json!({"error": {
        "message": format!("No object with id '{id}' found."),
        "type": "invalid_request_error",
        "param": "id",
        "code": "not_found",
    }})
}

/// Only the resource that made encrypted reasoning can read it.
pub(crate) fn unreadable_reasoning() -> Value {
    json!({"error": {
        "message": "The encrypted content could not be verified. Reason: Encrypted content could \
            not be decrypted or parsed.",
        "type": "invalid_request_error",
        "param": null,
        "code": "invalid_encrypted_content",
    }})
}

/// Refuses a request for the resource itself, not for a deployment.
pub(crate) fn too_many_calls(wait: Duration) -> Value {
    let seconds = whole_seconds(wait);
    coded("429", &format!("Rate limit is exceeded. Try again in {seconds} seconds."))
}

/// Who was refused, for the error message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused<'a> {
    pub(crate) grammar: Grammar,
    pub(crate) operation: Operation,
    pub(crate) api_version: Option<&'a str>,
    pub(crate) model: &'a str,
    pub(crate) deployment: &'a str,
    pub(crate) region: &'a str,
}

impl Refused<'_> {
    pub(crate) fn body(&self, refusal: Refusal, wait: Option<Duration>) -> Value {
        let message = self.message(refusal, wait);
        match refusal {
            Refusal::Utilization | Refusal::Tokens | Refusal::Calls
                if self.grammar == Grammar::Classic =>
            {
                coded("429", &message)
            }
            Refusal::Overloaded => json!({"type": "error", "error": {
                "type": refusal.kind(),
                "message": message,
            }}),
            _ => json!({"error": {
                "type": refusal.kind(),
                "code": refusal.code(),
                "message": message,
                "param": null,
            }}),
        }
    }

    pub(crate) fn message(&self, refusal: Refusal, wait: Option<Duration>) -> String {
        let retry = wait.map_or_else(String::new, |wait| {
            format!(" Please retry after {} seconds.", whole_seconds(wait))
        });
        match refusal {
            Refusal::Tokens => self.rate_message("token rate limit", &retry),
            Refusal::Calls => self.rate_message("call rate limit", &retry),
            Refusal::Utilization => format!(
                "Requests to the {} Operation have exceeded the capacity of the provisioned \
                 deployment {}.{retry}",
                self.operation.name(),
                self.deployment,
            ),
            Refusal::Capacity => format!(
                "The system is currently experiencing high demand and cannot process your request. \
                 Your request exceeds the maximum usage size allowed during peak load.{retry} For \
                 improved capacity reliability, consider switching to Provisioned Throughput."
            ),
            Refusal::Flex => {
                format!("There is no capacity for the service tier 'flex' at the moment.{retry}")
            }
            Refusal::Overloaded => "Overloaded".to_owned(),
            Refusal::ServerOverloaded => {
                "Our servers are currently overloaded. Please try again later.".to_owned()
            }
        }
    }

    fn rate_message(&self, limit: &str, retry: &str) -> String {
        match self.grammar {
            Grammar::Classic => format!(
                "Requests to the {} Operation under Azure OpenAI API version {} have exceeded {limit} \
                 of your current OpenAI S0 pricing tier.{retry} Please go here: \
                 https://aka.ms/oai/quotaincrease if you would like to further increase the default \
                 rate limit.",
                self.operation.name(),
                self.api_version.filter(|version| is_plain(version)).unwrap_or("unknown"),
            ),
            Grammar::V1 => format!(
                "Your requests to {} for {} in {} have exceeded the {limit} for your current \
                 AIServices S0 pricing tier.{retry}",
                self.deployment, self.model, self.region,
            ),
        }
    }
}

/// The default body of a scripted status; success statuses get an empty object.
pub(crate) fn scripted(status: StatusCode) -> Value {
    match status.as_u16() {
        401 => wrong_key(),
        402 => coded("402", "The subscription of this resource is not in good standing."),
        403 => coded("403", "Access denied due to Virtual Network/Firewall rules."),
        404 => unknown_deployment(),
        410 => coded("DeploymentDeprecated", "The model of this deployment has been retired."),
        500 => coded(
            "InternalServerError",
            "The server had an error processing your request. Sorry about that!",
        ),
        503 => coded(
            "ServiceUnavailable",
            "The service is temporarily unable to process your request. Please try again later.",
        ),
        code if status.is_client_error() || status.is_server_error() => {
            coded(&code.to_string(), status.canonical_reason().unwrap_or("Error"))
        }
        _ => json!({}),
    }
}

/// Whole seconds for `retry-after`: rounded up, at least one.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    let started = u64::from(wait.subsec_nanos() > 0);
    wait.as_secs().saturating_add(started).max(1)
}

fn coded(code: &str, message: &str) -> Value {
    json!({"error": {"code": code, "message": message}})
}

/// Repeat only what looks like a version, so that no other input is echoed.
fn is_plain(version: &str) -> bool {
    version.len() <= 32 && version.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}
