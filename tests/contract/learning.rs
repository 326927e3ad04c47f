//! What a pool learns from answers, and which parts of them count.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::{Value, json};
use tower::{Layer, ServiceExt};
use tower_spillover::{
    BackendPool, RegionRotateLayer, ResponseBody, StickTo, Sticky, sticky::StickyMatch,
};

use crate::{
    leaf::{Answer, Leaf, account, text},
    sticking::{backend, post, respond, served_by},
};

type Answered = Response<ResponseBody<Full<Bytes>>>;

fn pool(sticky: &Sticky) -> RegionRotateLayer {
    let pool = BackendPool::new(["east", "west"].map(backend)).unwrap();
    RegionRotateLayer::new(pool).sticky(sticky.clone())
}

/// A pool whose west answers this request with `body`; unknown ids go east.
async fn made_in_the_west(request: Request<Full<Bytes>>, body: impl ToString) -> RegionRotateLayer {
    let layer = pool(&Sticky::new());
    make(&layer, "west", request, body).await;
    layer
}

async fn make(
    layer: &RegionRotateLayer,
    place: &'static str,
    mut request: Request<Full<Bytes>>,
    body: impl ToString,
) {
    request.extensions_mut().insert(StickTo::from(place));
    let leaf = Leaf::playing([Answer::ok().telling(body.to_string())]);
    let made = layer.layer(leaf).oneshot(request).await.unwrap();
    assert_eq!(served_by(&made), place);
    text(made).await;
}

#[track_caller]
fn assert_known_in_the_west(response: &Answered) {
    let place = (served_by(response), account(response).held());
    assert_eq!(place, ("west".to_owned(), Some(StickyMatch::ById)));
}

async fn ask(layer: &RegionRotateLayer, request: Request<Full<Bytes>>) -> Answered {
    layer.layer(Leaf::playing([Answer::ok().telling("{}")])).oneshot(request).await.unwrap()
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).body(Full::default()).unwrap()
}

fn file_of_user() -> Value {
    json!({"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]})
}

#[tokio::test(start_paused = true)]
async fn the_files_that_a_batch_wrote_are_where_the_batch_is() {
    let batch = json!({"id": "batch_1", "object": "batch", "status": "completed",
        "input_file_id": "file-in", "output_file_id": "file-out", "error_file_id": "file-err"});
    let layer = made_in_the_west(get("/openai/v1/batches/batch_1"), batch).await;
    for file in ["file-out", "file-err"] {
        let response = ask(&layer, get(&format!("/openai/v1/files/{file}/content"))).await;
        assert_known_in_the_west(&response);
    }
}

#[tokio::test(start_paused = true)]
async fn the_files_that_fine_tuning_wrote_are_where_its_job_is() {
    let job = json!({"id": "ftjob-1", "object": "fine_tuning.job", "result_files": ["file-1"]});
    let layer = made_in_the_west(get("/openai/v1/fine_tuning/jobs/ftjob-1"), job).await;
    assert_known_in_the_west(&ask(&layer, get("/openai/v1/files/file-1/content")).await);
}

#[tokio::test(start_paused = true)]
async fn a_thread_that_was_made_with_its_run_is_where_the_run_is() {
    let run = json!({"id": "run_1", "object": "thread.run", "assistant_id": "asst_1",
        "thread_id": "thread_1", "status": "queued"});
    let create =
        post("/openai/threads/runs?api-version=2024-05-01-preview", &json!({"thread": {}}));
    let layer = made_in_the_west(create, run).await;
    assert_known_in_the_west(&ask(&layer, get("/openai/threads/thread_1/runs/run_1")).await);
}

#[tokio::test(start_paused = true)]
async fn a_video_is_where_it_was_made() {
    let video = json!({"id": "video_1", "object": "video", "status": "queued"});
    let create = post("/openai/v1/videos", &json!({"model": "sora-2", "prompt": "x"}));
    let layer = made_in_the_west(create, video).await;
    for path in ["/openai/v1/videos/video_1", "/openai/v1/videos/video_1/content"] {
        assert_known_in_the_west(&ask(&layer, get(path)).await);
    }
}

#[tokio::test(start_paused = true)]
async fn the_generations_of_a_video_job_are_where_the_job_is() {
    let job = json!({"object": "video.generation.job", "id": "task_1", "status": "succeeded",
        "generations": [{"object": "video.generation", "id": "gen_1", "job_id": "task_1"}]});
    let poll = get("/openai/v1/video/generations/jobs/task_1?api-version=preview");
    let layer = made_in_the_west(poll, job).await;
    let content = get("/openai/v1/video/generations/gen_1/content/video");
    assert_known_in_the_west(&ask(&layer, content).await);
}

#[tokio::test(start_paused = true)]
async fn the_container_of_a_tool_is_where_the_response_was_made() {
    let answer = json!({"id": "resp_1", "output": [
        {"type": "code_interpreter_call", "id": "ci_1", "container_id": "cntr_1", "code": "1"}]});
    let tool = json!({"type": "code_interpreter", "container": {"type": "auto"}});
    let layer = made_in_the_west(respond(json!({"input": "x", "tools": [tool]})), answer).await;
    let file = get("/openai/v1/containers/cntr_1/files/cfile_1/content");
    assert_known_in_the_west(&ask(&layer, file).await);
}

#[tokio::test(start_paused = true)]
async fn a_conversation_is_where_a_response_was_made_in_it() {
    let answer = json!({"id": "resp_1", "conversation": {"id": "conv_1"}, "output": []});
    let begin = || respond(json!({"input": "x", "conversation": "conv_1"}));
    let layer = made_in_the_west(begin(), &answer).await;
    assert_known_in_the_west(&ask(&layer, begin()).await);
    let event = json!({"type": "response.created", "response": answer});
    let layer = made_in_the_west(begin(), format!("data: {event}\n\n")).await;
    assert_known_in_the_west(&ask(&layer, begin()).await);
}

#[tokio::test(start_paused = true)]
async fn what_is_sealed_goes_back_to_who_sealed_it_whether_or_not_it_was_asked_for() {
    for kind in ["compaction", "reasoning"] {
        let answer = json!({"id": "resp_1", "output": [
            {"type": kind, "id": "item_1", "encrypted_content": "gAAAAwest"}]});
        let item = json!({"type": kind, "encrypted_content": "gAAAAwest"});
        for request in [
            post("/openai/v1/responses/compact", &json!({"model": "m", "input": "long"})),
            respond(json!({"input": "x", "store": false})),
            get("/openai/v1/responses/resp_1?include[]=reasoning.encrypted_content"),
        ] {
            let layer = made_in_the_west(request, &answer).await;
            // As Codex sends it: without the id.
            let next = respond(json!({"input": [&item], "store": false}));
            assert_known_in_the_west(&ask(&layer, next).await);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_needed_counts_before_what_any_resource_can_read() {
    let layer = pool(&Sticky::new());
    make(&layer, "west", post("/openai/v1/files", &json!({})), json!({"id": "file-1"})).await;
    let answer = json!({"id": "resp_1", "output": [{"type": "message", "id": "msg_1"}]});
    make(&layer, "east", respond(json!({"input": "hi"})), answer).await;
    let message = json!({"type": "message", "id": "msg_1", "role": "assistant", "content": "all"});
    let next = respond(json!({"input": [message, file_of_user()]}));
    assert_known_in_the_west(&ask(&layer, next).await);
}

#[tokio::test(start_paused = true)]
async fn a_long_history_does_not_hide_what_is_needed() {
    let upload = post("/openai/v1/files", &json!({}));
    let layer = made_in_the_west(upload, json!({"id": "file-1"})).await;
    let message = |n| json!({"type": "message", "id": format!("msg_{n}"), "content": "all"});
    let mut input: Vec<_> = (0..200).map(message).collect();
    input.push(file_of_user());
    let response = ask(&layer, respond(json!({"input": input, "store": false}))).await;
    assert_known_in_the_west(&response);
}

#[tokio::test(start_paused = true)]
async fn items_behind_the_two_echoes_of_a_large_request_are_learned() {
    let echo = "tool ".repeat(46 << 8);
    let event = |kind: &str| {
        let response = json!({"id": "resp_1", "instructions": echo});
        format!("event: {kind}\ndata: {}\n\n", json!({"type": kind, "response": response}))
    };
    let item = json!({"type": "response.output_item.added", "item": {"id": "msg_1"}});
    let item = format!("event: response.output_item.added\ndata: {item}\n\n");
    let stream = [event("response.created"), event("response.in_progress"), item].concat();
    let layer = made_in_the_west(respond(json!({"input": "x", "stream": true})), stream).await;
    let next = respond(json!({"input": [{"type": "item_reference", "id": "msg_1"}]}));
    assert_known_in_the_west(&ask(&layer, next).await);
}
