//! The kind of a request, which decides how its response is read.

use http::{Method, Request};

use crate::azure::segments;

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestKind {
    /// A response of the Responses API: `POST` to `…/responses`, or below it.
    Response,
    /// A chat completion, or anything else that is generated for this request.
    Another,
    /// A stored object, with any method but `POST`, or a cancellation: an earlier failure of a
    /// response is not a refusal of the request that reads it.
    Stored,
}

impl RequestKind {
    #[inline]
    pub(super) fn by<B>(request: &Request<B>) -> Self {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        // Fast path for chat.
        if target.starts_with("/openai/deployments/") || target.starts_with("/openai/v1/chat/") {
            Self::Another
        } else {
            Self::by_parts(request.method(), request.uri().path())
        }
    }

    #[inline(never)]
    fn by_parts(method: &Method, path: &str) -> Self {
        if method != Method::POST || path.ends_with("/cancel") {
            Self::Stored
        } else if names_responses(path) {
            Self::Response
        } else {
            Self::Another
        }
    }
}

/// Whether a path without a deployment has the segment `responses`.
fn names_responses(path: &str) -> bool {
    let mut is_named = false;
    for segment in segments(path) {
        match &path[segment] {
            "deployments" => return false,
            "responses" => is_named = true,
            _ => {}
        }
    }
    is_named
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: Method, uri: &str) -> RequestKind {
        RequestKind::by(&Request::builder().method(method).uri(uri).body(()).unwrap())
    }

    #[test]
    fn a_response_is_created_below_its_segment_in_both_grammars() {
        for uri in [
            "/openai/v1/responses",
            "/openai/v1/responses/",
            "/openai/responses?api-version=2025-03-01-preview",
            "https://contoso.openai.azure.com/openai/v1/responses/compact?a=/completions",
            "/base/openai/v1/responses",
        ] {
            assert_eq!(asked(Method::POST, uri), RequestKind::Response, "{uri}");
            assert_eq!(asked(Method::GET, uri), RequestKind::Stored, "{uri}");
        }
    }

    #[test]
    fn what_is_cancelled_was_created_before() {
        for uri in ["/openai/v1/responses/resp_1/cancel", "/openai/responses/resp_1/cancel?a=b"] {
            assert_eq!(asked(Method::POST, uri), RequestKind::Stored, "{uri}");
        }
    }

    #[test]
    fn whatever_is_only_called_so_creates_none() {
        for uri in [
            "/",
            "*",
            "/openai/v1/chat/completions",
            "/openai/deployments/responses/chat/completions?api-version=2024-10-21",
            "/openai/deployments/responses/embeddings?api-version=2024-10-21",
            "/openai/v1/my-responses",
            "/openai/v1/responses-archive/x",
            "/openai/v1/files?name=/responses",
        ] {
            assert_eq!(asked(Method::POST, uri), RequestKind::Another, "{uri}");
        }
    }
}
