//! What the emulator observed: counters for assertions, and the requests themselves.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use http::{HeaderMap, Method, header};

/// A snapshot of all counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// By resource and deployment; every configured deployment has an entry.
    pub deployments: BTreeMap<(String, String), Counts>,
    /// Requests refused with 401.
    pub unauthorized: u64,
    /// Keys or tokens of one resource that were sent to another one, or to a host that does not
    /// exist; detects leaked keys. Counts each header that had one.
    pub misplaced: u64,
    /// Requests that reached no deployment: unknown host, operation, method or deployment, or an
    /// unreadable body.
    pub unrouted: u64,
}

impl Stats {
    /// The counters of one deployment; zeros if there is no such deployment.
    pub fn of(&self, resource: &str, deployment: &str) -> Counts {
        let key = (resource.to_owned(), deployment.to_owned());
        self.deployments.get(&key).copied().unwrap_or_default()
    }

    /// The sum over all deployments.
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        for counts in self.deployments.values() {
            total.attempts += counts.attempts;
            total.admitted += counts.admitted;
            total.ok += counts.ok;
            total.throttled += counts.throttled;
            total.failed += counts.failed;
            total.abandoned += counts.abandoned;
            total.prompt_tokens += counts.prompt_tokens;
            total.completion_tokens += counts.completion_tokens;
        }
        total
    }
}

/// The counters of one deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Requests that reached the deployment with a valid key.
    pub attempts: u64,
    /// Requests that the quota admitted.
    pub admitted: u64,
    /// Answers with a success status.
    pub ok: u64,
    /// Refusals: every 429, every [`Fault::refusal`](crate::Fault::refusal), and those hidden in event
    /// streams.
    pub throttled: u64,
    /// Everything else: faulty requests, scripted errors and resets.
    pub failed: u64,
    /// Admitted requests whose answer was not generated to its end: the client disconnected, or a
    /// scripted cut.
    pub abandoned: u64,
    /// Prompt tokens of the admitted requests, cached ones included.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub completion_tokens: u64,
}

/// One request as it arrived, kept while [`Emulator::record`](crate::Emulator::record) is on.
#[derive(Clone)]
#[non_exhaustive]
pub struct Received {
    /// The resource it was routed to; `None` for an unknown host.
    pub resource: Option<String>,
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub path_and_query: String,
    /// Its headers, credentials included.
    pub headers: HeaderMap,
    /// Its whole body.
    pub body: Bytes,
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut headers = self.headers.clone();
        for name in [header::AUTHORIZATION.as_str(), "api-key"] {
            if let header::Entry::Occupied(mut entry) = headers.entry(name) {
                entry.iter_mut().for_each(|value| value.set_sensitive(true));
            }
        }
        f.debug_struct("Received")
            .field("resource", &self.resource)
            .field("method", &self.method)
            .field("path_and_query", &self.path_and_query)
            .field("headers", &headers)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_request_prints_no_key() {
        let mut headers = HeaderMap::new();
        headers.append("api-key", "key-one".parse().unwrap());
        headers.append("api-key", "key-two".parse().unwrap());
        headers.append("authorization", "Bearer key-three".parse().unwrap());
        let received = Received {
            resource: None,
            method: Method::GET,
            path_and_query: "/".to_owned(),
            headers,
            body: Bytes::from_static(b"key-four"),
        };
        let printed = format!("{received:?}");
        assert!(!printed.contains("key-"), "{printed}");
    }
}
