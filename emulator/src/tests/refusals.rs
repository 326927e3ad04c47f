//! Refusals with the service's text, plain and behind status 200.

use http_body::Body;

use super::*;

const RESPONSES: &str = "/openai/v1/responses";

fn streamed(path: &str) -> Request<Full<Bytes>> {
    let body =
        json!({"model": "std", "stream": true, "input": "x", "messages": [{"content": "x"}]});
    post("contoso-east", path, "key-east", &body)
}

#[tokio::test(start_paused = true)]
async fn each_refusal_has_its_status_its_code_and_its_headers() {
    let emulator = emulator();
    for (refusal, status, code, axis) in [
        (Refusal::Utilization, 429, json!("rate_limit_exceeded"), None),
        (Refusal::Tokens, 429, json!("rate_limit_exceeded"), Some("Tokens")),
        (Refusal::Calls, 429, json!("rate_limit_exceeded"), Some("Requests")),
        (Refusal::Capacity, 429, json!("no_capacity"), None),
        (Refusal::Flex, 429, json!("resource_unavailable"), None),
        (Refusal::Overloaded, 529, Value::Null, None),
        (Refusal::ServerOverloaded, 503, json!("server_is_overloaded"), None),
    ] {
        let fault = Fault::refusal(refusal);
        let waiting = fault.clone().retry_after(millis(1_500));
        emulator.script("contoso-east", "std", [fault, waiting]);
        let silent = send(&emulator, ask(RESPONSES, 1, 1)).await;
        assert!(!silent.headers().contains_key("retry-after"), "{refusal:?}");
        let refused = send(&emulator, ask(RESPONSES, 1, 1)).await;
        assert_eq!(refused.status().as_u16(), status, "{refusal:?}");
        assert_eq!(number(&refused, "retry-after-ms"), 1_500);
        assert_eq!(number(&refused, "retry-after"), 2);
        let named = refused.headers().get("x-ratelimit-type").map(|axis| axis.to_str().unwrap());
        assert_eq!(named, axis, "{refusal:?}");
        assert_eq!(value(refused).await["error"]["code"], code, "{refusal:?}");
    }
    assert_eq!(emulator.stats().of("contoso-east", "std").throttled, 14);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_in_a_stream_follows_what_precedes_output() {
    let emulator = emulator();
    let hidden = Fault::refusal(Refusal::ServerOverloaded).in_stream();
    emulator.script("contoso-east", "std", vec![hidden; 4]);
    let response = text(send(&emulator, streamed(RESPONSES)).await).await;
    let kinds = response.lines().filter_map(|line| line.strip_prefix("event: "));
    assert!(kinds.eq(["response.created", "error", "response.failed"]), "{response}");
    assert_eq!(response.matches(r#""code":"server_is_overloaded""#).count(), 2, "{response}");

    let chat = send(&emulator, streamed(CHAT_STD)).await;
    assert_eq!(chat.body().size_hint().exact(), None, "a stream has no length, over a socket too");
    let chat = text(chat).await;
    let last = chat.trim_end().lines().next_back().unwrap();
    assert!(last.starts_with(r#"data: {"error":{"type":"service_unavailable_error""#), "{chat}");

    let whole = send(&emulator, ask(RESPONSES, 1, 1)).await;
    assert_eq!(whole.status(), StatusCode::OK);
    let whole = value(whole).await;
    assert_eq!(
        (&whole["status"], &whole["error"]["code"]),
        (&json!("failed"), &json!("server_is_overloaded"))
    );

    let plain = send(&emulator, ask(CHAT_STD, 1, 1)).await;
    assert_eq!(plain.status(), StatusCode::SERVICE_UNAVAILABLE, "a completion has no place for it");
}

#[tokio::test(start_paused = true)]
async fn a_backends_own_fault_has_azures_words() {
    let emulator = emulator();
    for (status, words) in [
        (401, "invalid subscription key"),
        (402, "good standing"),
        (403, "Virtual Network/Firewall"),
        (404, "DeploymentNotFound"),
        (410, "retired"),
    ] {
        emulator.script("contoso-east", "std", [Fault::status(status)]);
        let answer = send(&emulator, ask(CHAT_STD, 1, 1)).await;
        assert_eq!(answer.status().as_u16(), status);
        let body = text(answer).await;
        assert!(body.contains(words), "{body}");
    }
}
