//! Refusals, estimates and their correction.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_full_ptu_says_to_the_millisecond_when_it_opens() {
    let emulator = emulator();
    assert_eq!(send(&emulator, ask(CHAT_PTU, 7_000, 0)).await.status(), StatusCode::OK);
    assert_eq!(emulator.level("contoso-east", "ptu"), 7_000.0);

    let refused = send(&emulator, ask(CHAT_PTU, 1, 0)).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(number(&refused, "retry-after-ms"), 4_001, "at 4,000 it is at 100 %, not below");
    assert_eq!(number(&refused, "retry-after"), 5);
    assert_eq!(refused.headers()["azure-openai-deployment-utilization"], "233.3%");
    assert!(!refused.headers().contains_key("x-ratelimit-remaining-tokens"));

    pass(millis(4_000)).await;
    let early = send(&emulator, ask(CHAT_PTU, 1, 0)).await;
    assert_eq!(number(&early, "retry-after-ms"), 1);
    pass(millis(1)).await;
    let served = send(&emulator, ask(CHAT_PTU, 1, 0)).await;
    assert_eq!(served.status(), StatusCode::OK);
    assert_eq!(served.headers()["azure-openai-deployment-utilization"], "101.6%");
}

#[tokio::test(start_paused = true)]
async fn a_ptu_counts_the_estimate_until_the_answer_is_there() {
    let emulator = emulator();
    let body = json!({"messages": [{"content": "x"}], "max_tokens": 500});
    let mut request = post("contoso-sweden", CHAT_PTU, "key-sweden", &body);
    let headers = request.headers_mut();
    headers.insert("x-emulator-prompt-tokens", "300".parse().unwrap());
    headers.insert("x-emulator-cached-tokens", "200".parse().unwrap());
    headers.insert("x-emulator-completion-tokens", "11".parse().unwrap());
    let call = tokio::spawn(emulator.service().call(request));
    pass(millis(100)).await;
    // 300 prompt tokens minus 200 cached, plus 3 x 500 of output, minus 10 drained.
    assert_eq!(emulator.level("contoso-sweden", "ptu").round(), 1_590.0);
    let response = call.await.unwrap().unwrap();
    // 3 x 11 instead of 3 x 500; 200 + 10 x 10 ms have passed.
    assert_eq!(emulator.level("contoso-sweden", "ptu").round(), 100.0 + 33.0 - 30.0);
    let usage = &value(response).await["usage"];
    assert_eq!(usage["completion_tokens"], 11);
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 200);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_pays_for_what_was_generated() {
    let emulator = emulator();
    let request = |stream: bool| {
        let body = json!({"messages": [{"content": "x"}], "stream": stream, "max_tokens": 500,
            "metadata": {"emulator_prompt_tokens": 1_000, "emulator_completion_tokens": 100}});
        post("contoso-sweden", CHAT_PTU, "key-sweden", &body)
    };
    let call = tokio::spawn(emulator.service().call(request(false)));
    pass(millis(300)).await;
    call.abort();
    assert!(call.await.is_err());
    // Tokens arrived at 200, 210 ... 300 ms: eleven.
    assert_eq!(emulator.level("contoso-sweden", "ptu").round(), 1_000.0 + 33.0 - 30.0);

    pass(millis(10_030)).await;
    assert_eq!(emulator.level("contoso-sweden", "ptu").round(), 0.0);
    let mut body = send(&emulator, request(true)).await.into_body();
    for _ in 0..4 {
        body.frame().await.unwrap().unwrap();
    }
    drop(body);
    // The opening event, then three tokens; the third was due after 220 ms.
    assert_eq!(emulator.level("contoso-sweden", "ptu").round(), 1_000.0 + 9.0 - 22.0);
    let counts = emulator.stats().of("contoso-sweden", "ptu");
    assert_eq!((counts.admitted, counts.ok, counts.abandoned), (2, 1, 2));
    assert_eq!(counts.completion_tokens, 14);
}

#[tokio::test(start_paused = true)]
async fn a_standard_deployment_refuses_until_the_minute_ends() {
    let emulator = emulator();
    let served = send(&emulator, ask(CHAT_STD, 12_000, 1)).await;
    assert_eq!(served.status(), StatusCode::OK);
    assert_eq!(number(&served, "x-ratelimit-limit-tokens"), 10_000);
    assert_eq!(number(&served, "x-ratelimit-remaining-tokens"), -2_016);
    assert_eq!(number(&served, "x-ratelimit-remaining-requests"), 9);
    assert_eq!(number(&served, "x-ratelimit-reset-tokens"), 60);

    pass(millis(14_500)).await;
    let refused = send(&emulator, ask(CHAT_STD, 1, 1)).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(number(&refused, "retry-after-ms"), 45_500);
    assert_eq!(number(&refused, "retry-after"), 46);
    assert_eq!(refused.headers()["x-ratelimit-type"], "Tokens");
    let body = value(refused).await;
    assert_eq!(body["error"]["code"], "429");
    let message = body["error"]["message"].as_str().unwrap();
    assert!(
        message.starts_with(
            "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version \
             2024-02-01 have exceeded token rate limit"
        ) && message.contains("Please retry after 46 seconds."),
        "{message}"
    );
    let v1 = value(send(&emulator, ask("/openai/v1/chat/completions", 1, 1)).await).await;
    assert_eq!(v1["error"]["code"], "rate_limit_exceeded");
    assert_eq!(v1["error"]["type"], "too_many_requests");

    pass(millis(45_500)).await;
    assert_eq!(send(&emulator, ask(CHAT_STD, 1, 1)).await.status(), StatusCode::OK);
    let counts = emulator.stats().of("contoso-east", "std");
    assert_eq!((counts.attempts, counts.ok, counts.throttled), (4, 2, 2));
}

#[tokio::test(start_paused = true)]
async fn failed_requests_use_up_the_requests_of_a_standard_deployment() {
    let emulator = emulator();
    for _ in 0..10 {
        let body = post("contoso-east", CHAT_STD, "key-east", &json!({"messages": 1}));
        assert_eq!(send(&emulator, body).await.status(), StatusCode::BAD_REQUEST);
    }
    let refused = send(&emulator, ask(CHAT_STD, 1, 1)).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["x-ratelimit-type"], "Requests");
    assert!(text(refused).await.contains("call rate limit"));
}

#[tokio::test(start_paused = true)]
async fn a_throttle_hides_in_a_stream_of_status_200() {
    let hiding = Deployment::standard("std", Standard::tokens_per_minute(1_000)).hides_throttles();
    let emulator = Emulator::new([Resource::new("east").deployment(hiding)]);
    let body = json!({"model": "std", "input": "x", "stream": true, "max_output_tokens": 2_000});
    let request = || post("east", "/openai/v1/responses", "k", &body);
    let served = send(&emulator, request()).await;
    assert!(!served.headers().contains_key("retry-after"));
    let hidden = send(&emulator, request()).await;
    assert_eq!(hidden.status(), StatusCode::OK);
    assert_eq!(number(&hidden, "retry-after"), 60);
    let events = text(hidden).await;
    let order = ["response.created", "event: error", "rate_limit_exceeded", "response.failed"];
    let places: Vec<_> = order.iter().map(|part| events.find(part).unwrap()).collect();
    assert!(places.is_sorted(), "{events}");
    assert_eq!(emulator.stats().of("east", "std").throttled, 1);
}

#[tokio::test(start_paused = true)]
async fn azure_spills_inside_the_resource_when_asked() {
    let emulator = emulator();
    send(&emulator, ask(CHAT_PTU, 7_000, 0)).await;
    let spilling = |prompt| {
        let mut request = ask(CHAT_PTU, prompt, 1);
        let name = "std".parse().unwrap();
        request.headers_mut().insert("x-ms-spillover-deployment", name);
        request
    };
    let spilled = send(&emulator, spilling(20_000)).await;
    assert_eq!(spilled.status(), StatusCode::OK);
    assert_eq!(spilled.headers()["x-ms-spillover-from-deployment"], "ptu");
    assert_eq!(spilled.headers()["x-ms-deployment-name"], "std");
    let refused = send(&emulator, spilling(1)).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["x-ms-spillover-error"], "429");
    assert_eq!(number(&refused, "retry-after-ms"), 4_001, "the original answer");
}
