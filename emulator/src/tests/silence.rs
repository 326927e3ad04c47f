//! Silences before and inside answers, and keep-alive events.

use super::*;

fn streamed(path: &str) -> Request<Full<Bytes>> {
    let body = json!({"model": "std", "stream": true, "input": "x", "messages": [{"content": "x"}],
        "metadata": {"emulator_completion_tokens": 2}});
    post("contoso-east", path, "", &body)
}

fn emulator(deployment: impl Fn(Deployment) -> Deployment) -> Emulator {
    let std = deployment(Deployment::standard("std", Standard::unlimited()));
    Emulator::new([Resource::new("contoso-east").deployment(std)])
}

#[tokio::test(start_paused = true)]
async fn a_silence_holds_the_head_back_and_a_delay_only_the_first_token() {
    let emulator = emulator(|std| std);
    let faults =
        [Fault::pass().silent_for(millis(900)).after(millis(300)), Fault::delay(millis(300))];
    emulator.script("contoso-east", "std", faults);
    for (to_head, whole) in [(900, 1_200), (0, 300)] {
        let start = clock::Clock::start();
        let response = send(&emulator, streamed(CHAT_STD)).await;
        assert_eq!(start.now(), millis(to_head));
        text(response).await;
        assert_eq!(start.now(), millis(whole));
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_kept_alive_until_its_first_token() {
    let emulator = emulator(|std| std.keepalive(millis(5_000)));
    emulator.script("contoso-east", "std", vec![Fault::delay(millis(12_000)); 2]);
    let response = text(send(&emulator, streamed("/openai/v1/responses")).await).await;
    let kinds: Vec<_> = response.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(
        kinds[4..8],
        ["keepalive", "keepalive", "response.output_text.delta", "response.output_text.delta"]
    );
    let number = |event: &str| {
        let event: Value = serde_json::from_str(event).unwrap();
        event["sequence_number"].as_u64().unwrap()
    };
    let numbers = response.lines().filter_map(|line| line.strip_prefix("data: ")).map(number);
    assert!(numbers.eq(0..kinds.len() as u64), "{response}");
    let chat = text(send(&emulator, streamed(CHAT_STD)).await).await;
    assert_eq!(chat.matches(": keepalive\n\n").count(), 2, "{chat}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_at_its_pace_needs_no_keepalive() {
    let pace = Pace { first_token: millis(40), per_token: millis(40) };
    let emulator = emulator(|std| std.keepalive(millis(50)).pace(pace));
    let chat = text(send(&emulator, streamed(CHAT_STD)).await).await;
    assert!(!chat.contains("keepalive"), "{chat}");
}

#[tokio::test(start_paused = true)]
async fn the_content_filter_speaks_before_the_first_choice() {
    let emulator = emulator(Deployment::filters_prompts);
    emulator.script(
        "contoso-east",
        "std",
        [Fault::pass(), Fault::refusal(Refusal::Tokens).in_stream()],
    );
    for _ in 0..2 {
        let chat = text(send(&emulator, streamed(CHAT_STD)).await).await;
        assert!(chat.starts_with(r#"data: {"choices":[],"#), "{chat}");
        assert!(chat.contains("prompt_filter_results"), "{chat}");
    }
}
