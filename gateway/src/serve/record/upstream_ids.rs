//! The ids that a request's client and the service use for it.

use http::{HeaderMap, HeaderName};

use crate::access_record::OtherIds;

impl OtherIds {
    /// Records the ids that a client gave its request.
    pub(crate) fn keep_of_request(&mut self, headers: &HeaderMap) {
        self.keep(headers, &OF_REQUEST);
    }

    /// Records the ids in a backend's answer.
    pub(crate) fn keep_of_answer(&mut self, headers: &HeaderMap) {
        self.keep(headers, &OF_ANSWER);
    }

    fn keep(&mut self, headers: &HeaderMap, names: &[HeaderName]) {
        // One comparison per header: hashing each of the names takes longer.
        if !headers.keys().any(|name| name.as_str().ends_with("request-id")) {
            return;
        }
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

/// The request id of Azure's client libraries, which also log it.
const OF_REQUEST: [HeaderName; 2] = [
    HeaderName::from_static("x-ms-client-request-id"),
    HeaderName::from_static("client-request-id"),
];
/// The id that the service's support asks for. The service's `x-request-id` does not reach the
/// client, whose answer has the gateway's id.
const OF_ANSWER: [HeaderName; 5] = [
    HeaderName::from_static("apim-request-id"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-ms-request-id"),
    HeaderName::from_static("x-ms-client-request-id"),
    HeaderName::from_static("request-id"),
];
/// Azure's ids are UUIDs; longer values are ignored.
const MAX_ID_BYTES: usize = 128;
