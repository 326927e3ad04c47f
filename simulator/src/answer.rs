//! Strips hints and usage from answers, to simulate services and gateways that do not send them.

use bytes::{Bytes, BytesMut};
use http::{HeaderName, Response, header};
use http_body_util::BodyExt;
use memchr::memmem;

use super::network::Answer;
use spillover_emulator::EmulatorBody;

/// Removes every header that says how long a refusal lasts or how much quota is left.
pub(super) fn without_hints<B>(mut refusal: Response<B>) -> Response<B> {
    let headers = refusal.headers_mut();
    for name in headers.keys().filter(|name| tells(name)).cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
    refusal
}

/// Removes what an answer says about its usage: `usage` in the body and the PTU's utilisation
/// header.
pub(super) async fn without_usage(mut answer: Response<EmulatorBody>) -> Answer {
    answer.headers_mut().remove(UTILIZATION);
    let kind = answer.headers().get(header::CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
        // The emulator sends `usage` in a stream only on request, and this caller did not ask.
        return Ok(answer);
    }
    let (head, body) = answer.into_parts();
    let body = cut_usage(body.collect().await?.to_bytes());
    Ok(Response::from_parts(head, EmulatorBody::whole(body)))
}

fn tells(name: &HeaderName) -> bool {
    let text = name.as_str();
    name == header::RETRY_AFTER
        || name == UTILIZATION
        || text.starts_with("retry-after-")
        || text.starts_with("x-ms-retry-after")
        || text.starts_with("x-ratelimit-")
        || text == "policy-id"
}

/// The emulator's objects end with `usage`.
fn cut_usage(body: Bytes) -> Bytes {
    let Some(at) = memmem::rfind(&body, br#","usage":"#) else { return body };
    let mut rest = BytesMut::from(&body[..at]);
    rest.extend_from_slice(b"}");
    rest.freeze()
}

const UTILIZATION: HeaderName = HeaderName::from_static("azure-openai-deployment-utilization");

#[cfg(test)]
mod tests {
    use http::{Request, StatusCode};
    use http_body_util::Full;
    use serde_json::Value;
    use tower_service::Service;

    use super::*;
    use spillover_emulator::{Deployment, Emulator, Ptu, Resource};

    async fn ask(emulator: &Emulator) -> Response<EmulatorBody> {
        let uri = "https://east.openai.azure.com/openai/deployments/ptu/chat/completions\
                   ?api-version=2024-10-21";
        let body = r#"{"messages":[{"role":"user","content":"x"}],"max_tokens":900}"#;
        let request = Request::post(uri).body(Full::<Bytes>::from(body)).expect("plain parts");
        emulator.service().call(request).await.expect("no fault is scripted")
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_left_of_usage_and_hints_but_an_answer_and_a_refusal() {
        let ptu = Ptu::new(100.0).bucket_seconds(1.0);
        let resource = Resource::new("east").deployment(Deployment::ptu("ptu", ptu));
        let emulator = Emulator::new([resource]);
        let answer = without_usage(ask(&emulator).await).await.expect("a whole body");
        assert!(!answer.headers().contains_key(UTILIZATION));
        let body = answer.into_body().collect().await.expect("a whole body").to_bytes();
        let body: Value = serde_json::from_slice(&body).expect("still JSON");
        assert!(body.get("usage").is_none() && body["choices"][0].is_object(), "{body}");

        let refusal = ask(&emulator).await;
        assert_eq!(refusal.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(refusal.headers().keys().filter(|name| tells(name)).count() >= 3);
        let silent = without_hints(refusal);
        assert_eq!(silent.headers().keys().filter(|name| tells(name)).count(), 0);
        assert!(silent.headers().contains_key("x-ms-region"), "the others stay");
    }
}
