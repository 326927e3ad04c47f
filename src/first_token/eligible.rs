//! Decides which requests may run twice: those without lasting side effects.

use http::{Method, Request};

use crate::{
    TryCloneBody,
    azure::{ApiCall, ApiPath, Kind, json::members},
};

/// Whether `request` asks for an answer and has no effect that would occur twice.
///
/// Batches, threads, files and videos have one; so do a background response, which continues without
/// its caller, and the additions of a response to a conversation. Unknown operations count as having
/// one.
pub(super) fn may_run_twice<B: TryCloneBody>(request: &Request<B>) -> bool {
    if request.method() != Method::POST {
        return false;
    }
    let path = request.uri().path();
    let ApiCall { operation, id } = ApiPath::of(path).call(path);
    id.is_none()
        && match operation.kind() {
            Kind::Free => operation.is_known(),
            Kind::Chat | Kind::Shown => true,
            Kind::Response => request.body().content().is_some_and(|body| leaves_nothing(&body)),
            Kind::Kept => false,
        }
}

/// Whether the `body` of a response requests nothing that continues or is appended to.
fn leaves_nothing(body: &[u8]) -> bool {
    let mut leaves_nothing = true;
    members(body, |key, scan| {
        let value = &body[scan.skip()?];
        leaves_nothing &= match &body[key] {
            b"background" | b"conversation" => matches!(value, b"false" | b"null"),
            _ => true,
        };
        Some(())
    });
    leaves_nothing
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;

    use super::*;

    fn may(method: Method, path: &str, body: &str) -> bool {
        let body = Full::<Bytes>::from(body.to_owned());
        may_run_twice(&Request::builder().method(method).uri(path).body(body).unwrap())
    }

    #[test]
    fn what_only_asks_for_an_answer_may_run_twice() {
        for path in [
            "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
            "/openai/v1/chat/completions",
            "/openai/v1/responses",
            "/openai/v1/responses/compact",
            "/openai/v1/embeddings",
            "/openai/deployments/whisper/audio/transcriptions",
        ] {
            assert!(may(Method::POST, path, r#"{"background":false}"#), "{path}");
        }
    }

    #[test]
    fn what_would_be_there_twice_or_is_not_known_may_not() {
        for path in [
            "/openai/v1/files",
            "/openai/v1/batches",
            "/openai/v1/threads/runs",
            "/openai/v1/videos",
            "/openai/v1/conversations/conv_1/items",
            "/openai/v1/responses/resp_1/cancel",
            "/openai/v1/chat/completions/chatcmpl-1",
            "/openai/v1/something/new",
            "/contoso.Service/Method",
        ] {
            assert!(!may(Method::POST, path, "{}"), "{path}");
        }
        assert!(!may(Method::GET, "/openai/v1/models", ""));
        assert!(!may(Method::DELETE, "/openai/v1/responses/resp_1", ""));
    }

    #[test]
    fn a_response_in_the_background_or_of_a_conversation_may_not() {
        let path = "/openai/v1/responses";
        for (body, may_run) in [
            (r#"{"model":"m","input":"x","stream":true}"#, true),
            (r#"{"background":null,"conversation":null}"#, true),
            (r#"{"tools":[{"background":true}],"input":"\"background\":true"}"#, true),
            (r#"{"background":true}"#, false),
            (r#"{"input":"x" , "background" : true ,"broken"#, false),
            (r#"{"conversation":"conv_1"}"#, false),
            (r#"{"conversation":{"id":"conv_1"}}"#, false),
        ] {
            assert_eq!(may(Method::POST, path, body), may_run, "{body}");
        }
    }
}
