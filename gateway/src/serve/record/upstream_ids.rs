//! The ids under which others know a request: its client, and the service.

use http::{HeaderMap, HeaderName};

use crate::access_record::OtherIds;

impl OtherIds {
    /// Keeps the ids that a client gave its request.
    pub(crate) fn keep_of_request(&mut self, headers: &HeaderMap) {
        self.keep(headers, &OF_REQUEST);
    }

    /// Keeps the ids that a backend's answer has.
    pub(crate) fn keep_of_answer(&mut self, headers: &HeaderMap) {
        self.keep(headers, &OF_ANSWER);
    }

    fn keep(&mut self, headers: &HeaderMap, names: &[HeaderName]) {
        for name in names {
            let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) else {
                continue;
            };
            if (1..=MAX_ID_BYTES).contains(&value.len()) && !value.contains(' ') {
                self.push(name.as_str(), value);
            }
        }
    }
}

/// Azure's client libraries name their requests so, and log it.
const OF_REQUEST: [HeaderName; 2] = [
    HeaderName::from_static("x-ms-client-request-id"),
    HeaderName::from_static("client-request-id"),
];
/// What the service's support asks for. Its `x-request-id` does not reach the client, whose answer has the
/// gateway's own.
const OF_ANSWER: [HeaderName; 5] = [
    HeaderName::from_static("apim-request-id"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-ms-request-id"),
    HeaderName::from_static("x-ms-client-request-id"),
    HeaderName::from_static("request-id"),
];
/// Azure's are UUIDs; a longer one is no id.
const MAX_ID_BYTES: usize = 128;
