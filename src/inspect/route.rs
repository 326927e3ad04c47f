//! Which requests ask the Responses API for a response.

use http::{Method, Request};

/// Whether `request` creates a response: `POST` to `…/responses`, or below it. What is read back
/// of a stored one with `GET` tells what once became of it, and is no refusal.
#[inline]
pub(super) fn creates_response<B>(request: &Request<B>) -> bool {
    let path = request.uri().path().as_bytes();
    // Chat, which is to cost least.
    !path.ends_with(b"/completions") && request.method() == Method::POST && names_responses(path)
}

/// Whether a segment is `responses`, in a grammar without a deployment in its path.
fn names_responses(path: &[u8]) -> bool {
    let mut is_named = false;
    for segment in path.split(|byte| *byte == b'/') {
        match segment {
            b"deployments" => return false,
            b"responses" => is_named = true,
            _ => {}
        }
    }
    is_named
}

#[cfg(test)]
mod tests {
    use super::*;

    fn creates(method: Method, uri: &str) -> bool {
        creates_response(&Request::builder().method(method).uri(uri).body(()).unwrap())
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
            assert!(creates(Method::POST, uri), "{uri}");
            assert!(!creates(Method::GET, uri), "{uri}: read, not created");
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
            assert!(!creates(Method::POST, uri), "{uri}");
        }
    }
}
