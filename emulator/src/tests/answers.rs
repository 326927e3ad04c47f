//! The shapes of answers and streams.

use super::*;

#[tokio::test(start_paused = true)]
async fn lists_and_other_operations_answer_in_their_own_shape() {
    let emulator = emulator();
    let mut request = post("contoso-east", "/openai/v1/models", "key-east", &json!({}));
    *request.method_mut() = Method::GET;
    assert_eq!(value(send(&emulator, request).await).await["data"][1]["id"], "std");

    let path = "/openai/deployments/std/embeddings?api-version=1";
    let body = json!({"input": ["one", "two"], "dimensions": 3});
    let response =
        value(send(&emulator, post("contoso-east", path, "key-east", &body)).await).await;
    assert_eq!(response["data"][1]["embedding"].as_array().unwrap().len(), 3);

    let path = "/openai/v1/completions";
    let body = json!({"model": "std", "prompt": "Once", "max_tokens": 2,
        "metadata": {"emulator_completion_tokens": 9}});
    let response =
        value(send(&emulator, post("contoso-east", path, "key-east", &body)).await).await;
    assert_eq!(response["choices"][0]["text"], "the tide");
    assert_eq!(response["choices"][0]["finish_reason"], "length");

    let response = value(send(&emulator, ask("/openai/responses?api-version=1", 5, 2)).await).await;
    assert_eq!(response["output"][0]["content"][0]["text"], "the tide");
    assert_eq!(response["usage"]["input_tokens"], 5);
}

#[tokio::test(start_paused = true)]
async fn chat_streams_one_token_an_event_at_its_pace() {
    let emulator = emulator();
    let body = json!({"messages": [{"content": "x"}], "stream": true,
        "stream_options": {"include_usage": true}, "metadata": {"emulator_completion_tokens": 3}});
    let start = clock::Clock::start();
    let response = send(&emulator, post("contoso-sweden", CHAT_STD, "key-sweden", &body)).await;
    assert_eq!(start.now(), Duration::ZERO, "the stream opens at once");
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let mut body = response.into_body();
    let mut seen = Vec::new();
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        let event = std::str::from_utf8(&data).unwrap().strip_prefix("data: ").unwrap().trim();
        let event: Value = serde_json::from_str(event).unwrap_or(Value::Null);
        let delta = &event["choices"][0];
        let what = delta["delta"]["content"].as_str().or_else(|| delta["finish_reason"].as_str());
        let usage = event["usage"]["completion_tokens"].as_u64();
        seen.push((start.now().as_millis(), what.map(str::to_owned), usage));
    }
    let event = |at, what: &str| (at, Some(what.to_owned()), None);
    assert_eq!(
        seen,
        [
            event(0, ""),
            event(200, "the"),
            event(210, " tide"),
            event(220, " went"),
            event(220, "stop"),
            (220, None, Some(3)),
            (220, None, None),
        ]
    );
    assert_eq!(emulator.stats().of("contoso-sweden", "std").abandoned, 0);
}

#[tokio::test(start_paused = true)]
async fn responses_stream_numbered_events() {
    let emulator = emulator();
    let body = json!({"model": "std", "input": "x", "stream": true,
        "metadata": {"emulator_completion_tokens": 2}});
    let request = post("contoso-east", "/openai/v1/responses", "key-east", &body);
    let events = text(send(&emulator, request).await).await;
    let mut names = Vec::new();
    for (index, event) in events.split_terminator("\n\n").enumerate() {
        let (name, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(data["sequence_number"], index);
        assert_eq!(name, format!("event: {}", data["type"].as_str().unwrap()));
        names.push(data["type"].as_str().unwrap().replace("response.", ""));
        if name.ends_with("completed") {
            assert_eq!(data["response"]["usage"]["output_tokens"], 2);
        }
    }
    assert_eq!(
        names.join(" "),
        "created in_progress output_item.added content_part.added output_text.delta \
         output_text.delta output_text.done content_part.done output_item.done completed"
    );
}

#[tokio::test(start_paused = true)]
async fn one_seed_gives_the_same_bytes_each_time() {
    let run = async |seed| {
        let emulator = emulator().seed(seed);
        let mut all = String::new();
        for _ in 0..5 {
            let body = json!({"messages": [{"content": "x"}], "max_tokens": 200});
            let request = post("contoso-east", CHAT_STD, "key-east", &body);
            let response = send(&emulator, request).await;
            all += &format!("{:?}", response.headers()["x-request-id"]);
            all += &text(response).await;
        }
        all
    };
    assert_eq!(run(7).await, run(7).await);
    assert_ne!(run(7).await, run(8).await);
}

#[tokio::test(start_paused = true)]
async fn a_resource_with_a_cache_gives_what_it_has_seen_for_nothing() {
    let ptu = Ptu::new(1_000.0).bucket_seconds(10.0).output_weight(0.0);
    let resource = |name| {
        let resource = Resource::new(name).prompt_cache(millis(60_000));
        resource.deployment(Deployment::ptu("ptu", ptu))
    };
    let emulator = Emulator::new([resource("one"), resource("other")]);
    let ask = async |host: &str, words: usize| {
        let body = json!({"messages": [{"role": "user", "content": "word".repeat(words)}]});
        let usage = value(send(&emulator, post(host, CHAT_PTU, "", &body)).await).await;
        usage["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
    };
    assert_eq!(ask("one", 1_500).await, 0);
    assert_eq!(ask("one", 3_000).await, 1_024);
    assert_eq!(ask("one", 3_100).await, 2_048);
    assert_eq!(ask("other", 3_100).await, 0);
    let level = 1_500.0 + (3_000.0 - 1_024.0) + (3_100.0 - 2_048.0);
    assert!((emulator.level("one", "ptu") - level).abs() < 1e-6);
    tokio::time::advance(millis(61_000)).await;
    assert_eq!(ask("one", 3_100).await, 0);
}
