//! The emulator's behaviour in process, under a paused clock.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::{Value, json};
use tower_service::Service as _;

use super::*;

mod answers;
mod faults;
mod media;
mod quota;
mod refusals;
mod routing;
mod silence;
mod state;
mod tiers;

const CHAT_PTU: &str = "/openai/deployments/ptu/chat/completions?api-version=2024-02-01";
const CHAT_STD: &str = "/openai/deployments/std/chat/completions?api-version=2024-02-01";
const PACE: Pace =
    Pace { first_token: Duration::from_millis(200), per_token: Duration::from_millis(10) };

fn emulator() -> Emulator {
    let east = Resource::new("contoso-east")
        .region("East US")
        .key("key-east")
        .token("jwt-tenant")
        .deployment(Deployment::ptu("ptu", Ptu::new(1_000.0).bucket_seconds(3.0)))
        .deployment(Deployment::standard("std", Standard::tokens_per_minute(10_000)));
    let sweden = Resource::new("contoso-sweden")
        .region("Sweden Central")
        .key("key-sweden")
        .token("jwt-tenant")
        .deployment(Deployment::standard("std", Standard::unlimited()).pace(PACE))
        .deployment(Deployment::ptu("ptu", Ptu::new(100.0).bucket_seconds(10.0)).pace(PACE));
    Emulator::new([east, sweden]).seed(7)
}

/// A request to the resource in the east, with `prompt` input tokens and `completion` output
/// tokens.
fn ask(path: &str, prompt: u64, completion: u64) -> Request<Full<Bytes>> {
    let body = json!({
        "model": "std",
        "messages": [{"role": "user", "content": "Count"}],
        "input": "Count",
        "metadata": {
            "emulator_prompt_tokens": prompt.to_string(),
            "emulator_completion_tokens": completion.to_string(),
        },
    });
    post("contoso-east", path, "key-east", &body)
}

fn post(host: &str, path: &str, key: &str, body: &Value) -> Request<Full<Bytes>> {
    Request::post(format!("https://{host}{path}"))
        .header("api-key", key)
        .body(body.to_string().into())
        .unwrap()
}

async fn send(emulator: &Emulator, request: Request<Full<Bytes>>) -> Response<EmulatorBody> {
    emulator.service().call(request).await.unwrap()
}

async fn text(response: Response<EmulatorBody>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

async fn value(response: Response<EmulatorBody>) -> Value {
    serde_json::from_str(&text(response).await).unwrap()
}

fn number(response: &Response<EmulatorBody>, name: &str) -> i64 {
    response.headers()[name].to_str().unwrap().parse().unwrap()
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[expect(clippy::disallowed_methods, reason = "a test drives the clock")]
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}
