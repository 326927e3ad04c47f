//! Turns a response head into an `Outcome`: answered, throttled (with a hint), or failed.
//!
//! For policies and services that must know whether a deployment refused, and for how long, before
//! reading the body.
//!
//! ```
//! use std::time::{Duration, SystemTime};
//!
//! use http::{HeaderMap, HeaderValue, StatusCode};
//! use tower_spillover::classify::{Hint, Outcome};
//!
//! // A provisioned deployment above 100 % sends both; the milliseconds are the exact ones.
//! let mut headers = HeaderMap::new();
//! headers.insert("retry-after", HeaderValue::from_static("1"));
//! headers.insert("retry-after-ms", HeaderValue::from_static("43"));
//!
//! let outcome = Outcome::of(StatusCode::TOO_MANY_REQUESTS, &headers, SystemTime::now);
//! assert_eq!(outcome, Outcome::Throttled(Hint::After(Duration::from_millis(43))));
//! ```
//!
//! Nothing here reads a clock, a body or the network, and no header, however malformed, causes a
//! panic. It makes no decisions: which wait is too long for a request or a backend is up to the
//! consumer. Refusals in the body of a 200 are not visible here: a layer that reads bodies turns them
//! into ordinary ones, and stores the reason as a [`Refusal`], which also carries what a layer of
//! this crate knows of a refusal and the head cannot express.
//!
//! This applies to the heads of Azure OpenAI, the default. Other providers have their own rules:
//! [`Classify`] is the trait for them, and [`Provider`] implements the well-known ones.
//!
//! A success costs one comparison of its status and one header lookup; nothing allocates.

pub(crate) mod duration;
mod grpc;
mod hint;
mod limit;
mod members;
mod names;
mod native_spillover;
mod number;
mod outcome;
mod provider;
mod refusal;
mod reset;
mod retry_after;
mod retry_info;
mod rules;
mod should_retry;
mod utilization;
mod verdict;
mod write_retry_after;

#[cfg(test)]
mod captures;
#[cfg(test)]
mod heads;
#[cfg(test)]
mod oracle;

pub use self::{
    hint::Hint,
    limit::Limit,
    outcome::Outcome,
    provider::Provider,
    refusal::{Reason, Refusal},
    utilization::utilization,
    verdict::{Classify, Verdict},
};
pub(crate) use self::{
    native_spillover::{NativeSpillover, RefusedSpill, RefusedSpills},
    number::Digits,
    refusal::Scope,
    rules::Rules,
    should_retry::should_retry,
    write_retry_after::{forbid_retry, write_retry_after, write_retry_after_final, write_wait},
};
