//! Scripted misbehaviour.

use super::*;

#[tokio::test(start_paused = true)]
async fn faults_are_taken_in_order() {
    let emulator = emulator();
    let reset = Fault::reset();
    emulator.script(
        "contoso-east",
        "ptu",
        [
            Fault::status(429).header("retry-after-ms", "43").header("retry-after", "1"),
            Fault::status(503).body("busy"),
            reset,
            Fault::delay(millis(700)).header("x-ratelimit-remaining-tokens", "-27689"),
        ],
    );
    emulator.script("contoso-east", "ptu", [Fault::pass()]);
    let start = clock::Clock::start();
    let first = send(&emulator, ask(CHAT_PTU, 1, 1)).await;
    assert_eq!((first.status().as_u16(), number(&first, "retry-after-ms")), (429, 43));
    let second = send(&emulator, ask(CHAT_PTU, 1, 1)).await;
    assert_eq!((second.status().as_u16(), text(second).await.as_str()), (503, "busy"));
    let third = emulator.service().call(ask(CHAT_PTU, 1, 1)).await;
    assert!(matches!(third, Err(EmulatorError::Reset)));
    assert_eq!(start.now(), Duration::ZERO);
    let fourth = send(&emulator, ask(CHAT_PTU, 1, 1)).await;
    assert_eq!(start.now(), millis(700));
    assert_eq!(number(&fourth, "x-ratelimit-remaining-tokens"), -27_689);
    for _ in 0..2 {
        assert_eq!(send(&emulator, ask(CHAT_PTU, 1, 1)).await.status(), StatusCode::OK);
    }
    let counts = emulator.stats().of("contoso-east", "ptu");
    assert_eq!((counts.attempts, counts.admitted, counts.ok), (6, 3, 3));
    assert_eq!((counts.throttled, counts.failed), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_cut_breaks_streams_and_whole_bodies() {
    let emulator = emulator();
    emulator.script(
        "contoso-east",
        "std",
        [Fault::cut_stream_after(3), Fault::cut_stream_after(0)],
    );
    let body = json!({"messages": [{"content": "x"}], "stream": true,
        "metadata": {"emulator_completion_tokens": 9}});
    let response = send(&emulator, post("contoso-east", CHAT_STD, "key-east", &body)).await;
    let mut body = response.into_body();
    for _ in 0..3 {
        assert!(body.frame().await.unwrap().is_ok());
    }
    assert!(matches!(body.frame().await, Some(Err(EmulatorError::Cut))));
    assert!(body.frame().await.is_none());
    let half = send(&emulator, ask(CHAT_STD, 1, 9)).await;
    assert!(half.into_body().collect().await.is_err());
    let counts = emulator.stats().of("contoso-east", "std");
    assert_eq!((counts.ok, counts.abandoned, counts.completion_tokens), (2, 2, 2 + 4));
}
