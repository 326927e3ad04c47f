//! Images, sounds and videos, which have their own limits.

use super::*;

fn limited() -> Emulator {
    let quota = Standard::tokens_per_minute(1_000).requests_per_minute(600);
    let std = Deployment::standard("std", quota).media_per_minute(6);
    Emulator::new([Resource::new("contoso-east").deployment(std)])
}

async fn status(emulator: &Emulator, path: &str) -> u16 {
    let body = json!({"model": "std", "prompt": "a tide", "input": "a tide"});
    send(emulator, post("contoso-east", path, "", &body)).await.status().as_u16()
}

#[tokio::test(start_paused = true)]
async fn media_is_limited_apart_from_tokens_and_polls_are_free() {
    let emulator = limited();
    let body = json!({"model": "std", "prompt": "a tide"});
    let video = send(&emulator, post("contoso-east", "/openai/v1/videos", "", &body)).await;
    assert_eq!(video.headers()["x-ratelimit-remaining-requests"], "0");
    let video = value(video).await;
    assert_eq!(video["status"], "queued");
    let refused = send(&emulator, post("contoso-east", "/openai/v1/videos", "", &body)).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["x-ratelimit-type"], "Requests");
    assert_eq!(number(&refused, "retry-after-ms"), 10_000);
    assert!(text(refused).await.contains("call rate limit"));
    let poll = format!("/openai/v1/videos/{}", video["id"].as_str().unwrap());
    for _ in 0..9 {
        let mut request = post("contoso-east", &poll, "", &json!({}));
        *request.method_mut() = Method::GET;
        assert_eq!(value(send(&emulator, request).await).await["status"], "completed");
    }
    assert_eq!(status(&emulator, "/openai/v1/chat/completions").await, 400, "no messages");
    assert_eq!(send(&emulator, ask(CHAT_STD, 1_000, 0)).await.status(), StatusCode::OK);
    assert_eq!(send(&emulator, ask(CHAT_STD, 1, 0)).await.status(), StatusCode::TOO_MANY_REQUESTS);
    pass(millis(10_000)).await;
    let classic = "/openai/deployments/std/images/generations?api-version=1";
    assert_eq!(status(&emulator, classic).await, 200, "whatever became of the tokens");
}

#[tokio::test(start_paused = true)]
async fn each_media_operation_answers_in_its_own_shape() {
    let emulator = emulator();
    let body = json!({"model": "std", "input": "x", "prompt": "x"});
    let answer =
        async |path: &str| send(&emulator, post("contoso-sweden", path, "key-sweden", &body)).await;
    let image = value(answer("/openai/v1/images/generations").await).await;
    assert!(image["data"][0]["b64_json"].is_string());
    let sound = answer("/openai/v1/audio/speech").await;
    assert_eq!(sound.headers()["content-type"], "audio/mpeg");
    let form = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n\
        RIFF\r\n--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nstd\r\n--b--\r\n";
    let request = Request::post("https://contoso-sweden/openai/v1/audio/transcriptions")
        .header("api-key", "key-sweden")
        .header("content-type", "multipart/form-data; boundary=b")
        .body(Full::from(form))
        .unwrap();
    assert_eq!(value(send(&emulator, request).await).await["text"], "the tide went out");
}
