//! The headers of answers: quota, waits, ids.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{Refusal, answer::errors::whole_seconds, site::Gauge, standard::Reading};

/// Adds the quota headers that every answer has.
pub(crate) fn show(gauge: &Gauge, headers: &mut HeaderMap) {
    match gauge {
        Gauge::Utilization(share) => {
            let percent = format!("{:.1}%", share * 100.0);
            if let Ok(value) = HeaderValue::try_from(percent) {
                headers.insert(UTILIZATION, value);
            }
        }
        Gauge::Windows { tokens, requests } => {
            if let Some(reading) = tokens {
                show_window(reading, &TOKENS, headers);
            }
            if let Some(reading) = requests {
                show_window(reading, &REQUESTS, headers);
            }
        }
    }
}

/// Adds the header that names which quota of a Standard deployment refused.
pub(crate) fn show_axis(refusal: Refusal, headers: &mut HeaderMap) {
    let (kind, policy) = match refusal {
        Refusal::Tokens => ("Tokens", "DeploymentRatelimit-Token"),
        Refusal::Calls => ("Requests", "DeploymentRatelimit-Call"),
        _ => return,
    };
    headers.insert("x-ratelimit-type", HeaderValue::from_static(kind));
    headers.insert("policy-id", HeaderValue::from_static(policy));
}

/// Adds the wait of a refusal: exact in milliseconds, and in seconds, rounded up.
pub(crate) fn show_wait(wait: Duration, headers: &mut HeaderMap) {
    let millis = wait.as_nanos().div_ceil(1_000_000);
    let millis = u64::try_from(millis).unwrap_or(u64::MAX);
    headers.insert("retry-after-ms", HeaderValue::from(millis));
    headers.insert(http::header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
}

/// An id in the shape of a UUID, from two numbers.
pub(crate) fn uuid(high: u64, low: u64) -> String {
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        (low >> 48) & 0xfff,
        low & 0xffff_ffff_ffff
    )
}

struct Names {
    limit: HeaderName,
    remaining: HeaderName,
    reset: HeaderName,
    period: HeaderName,
}

fn show_window(reading: &Reading, names: &Names, headers: &mut HeaderMap) {
    headers.insert(&names.limit, HeaderValue::from(reading.limit));
    headers.insert(&names.remaining, HeaderValue::from(reading.remaining));
    headers.insert(&names.reset, HeaderValue::from(whole_seconds(reading.reset)));
    headers.insert(&names.period, HeaderValue::from(reading.period.as_secs()));
}

const UTILIZATION: HeaderName = HeaderName::from_static("azure-openai-deployment-utilization");
static TOKENS: Names = Names {
    limit: HeaderName::from_static("x-ratelimit-limit-tokens"),
    remaining: HeaderName::from_static("x-ratelimit-remaining-tokens"),
    reset: HeaderName::from_static("x-ratelimit-reset-tokens"),
    period: HeaderName::from_static("x-ratelimit-renewalperiod-tokens"),
};
static REQUESTS: Names = Names {
    limit: HeaderName::from_static("x-ratelimit-limit-requests"),
    remaining: HeaderName::from_static("x-ratelimit-remaining-requests"),
    reset: HeaderName::from_static("x-ratelimit-reset-requests"),
    period: HeaderName::from_static("x-ratelimit-renewalperiod-requests"),
};
