//! The driver: sends a load through stacks of layers under a paused clock.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use tokio::{runtime::Builder, task::JoinHandle};
use tower::ServiceExt;

use super::{
    Policy,
    draws::{seed_layers, share},
    fleet,
    ledger::{History, Ledger},
    load::{Ask, Traffic},
    neighbour,
    network::{Number, Run},
    open::OpenWatch,
    plan::{PTU, Plan, RESOURCES, STANDARD},
    processes::Processes,
    region_chain,
    stack::{self, Stack, Wiring},
};
use crate::clock;
use tower_spillover::{ConfigError, Priority, fleet::Local};

pub(super) fn run(
    plan: &Plan,
    traffic: &Traffic,
    policy: Policy,
    progress: impl FnMut(f64),
) -> Result<History, ConfigError> {
    let wiring = stack::wiring(policy)?;
    let prompts = if policy.weighs() { Prompts::Whole } else { Prompts::Short };
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without sockets needs nothing of the system");
    let _seeded = seed_layers(plan.seed);
    runtime.block_on(drive(plan, traffic, wiring, prompts, progress))
}

async fn drive(
    plan: &Plan,
    traffic: &Traffic,
    wiring: Wiring,
    prompts: Prompts,
    mut progress: impl FnMut(f64),
) -> Result<History, ConfigError> {
    let emulator = plan.emulator();
    let ledger = Ledger::new(plan.queues(), traffic.asks.len());
    let epoch = clock::now();
    let watch = Mutex::new(OpenWatch::new(plan.open_limit()));
    let store = Local::new();
    let run = Arc::new(Run { plan: plan.clone(), ledger, epoch, emulator, watch, store });
    let mut processes = Processes::begin(&run, wiring)?;
    processes.crash_at_their_times(traffic.to);
    tokio::spawn(resize(Arc::clone(&run)));
    tokio::spawn(fleet::forget(Arc::clone(&run)));
    let gauge = tokio::spawn(gauge(Arc::clone(&run), traffic.from, traffic.to));
    if let Some(neighbour) = plan.neighbour {
        let traffic = neighbour.draw(plan.seed, plan.ptu_rate, traffic.to)?;
        tokio::spawn(neighbour::live(Arc::clone(&run), traffic, neighbour.when_refused));
    }
    let uris = RESOURCES.map(|resource| region_chain::uri(resource, STANDARD));
    let mut calls: Vec<JoinHandle<()>> = Vec::with_capacity(traffic.asks.len());
    let step = traffic.asks.len() / 1_000 + 1;
    for (index, ask) in traffic.asks.iter().enumerate() {
        if ask.at > run.now() {
            run.sleep_until(ask.at).await;
        }
        if index % step == 0 {
            progress(index as f64 / traffic.asks.len() as f64);
        }
        let (life, stack) = processes.take(index)?;
        let uri = uris[plan.home(index)].clone();
        let mut request = request(plan, ask, &prompts.text(plan, index, ask), uri);
        request.extensions_mut().insert(Number(index));
        if let Some(class) = plan.class(index) {
            request.extensions_mut().insert(Priority::from(class.name));
        }
        let call = tokio::spawn(call(stack, request, life.place, Arc::clone(&run)));
        processes.hold(life, index, call.abort_handle());
        calls.push(call);
    }
    for call in calls {
        if let Err(error) = call.await {
            assert!(error.is_cancelled(), "a call does not panic: {error}");
        }
    }
    let (levels, level_at) = gauge.await.expect("the gauge does not panic and is not aborted");
    let (records, noticed) = run.ledger.take();
    let open = Some(run.watch.lock().expect("no thread panics with the lock").clone());
    Ok(History { records, levels, level_at, noticed, open })
}

/// Drives one request from its arrival until its answer has been read.
async fn call(stack: Stack, request: Request<Full<Bytes>>, place: usize, run: Arc<Run>) {
    let Number(index) = *request.extensions().get().expect("requests are numbered");
    let arrival = run.now();
    run.ledger.arrive(index, place, arrival);
    run.look();
    if let Ok(answer) = stack.oneshot(request).await {
        // Later it may not be sent any more.
        let is_in_time = run.now() <= arrival + run.plan.max_wait_of(index);
        let is_refused = answer.status() == StatusCode::TOO_MANY_REQUESTS;
        if is_refused && is_in_time && run.has_standard() {
            run.ledger.refused_needlessly(index);
        }
        let mut body = answer.into_body();
        // Read frame by frame: layers may inspect the body as it passes.
        while let Some(frame) = body.frame().await {
            frame.expect("no body is cut");
        }
    }
    run.ledger.finish(index, run.now());
    run.look();
}

/// Resizes the PTU at the times of the plan.
async fn resize(run: Arc<Run>) {
    for (at, factor) in &run.plan.resizes {
        run.sleep_until(*at).await;
        for (part, resource) in RESOURCES.iter().enumerate().take(run.plan.parts.len()) {
            run.emulator.resize(resource, PTU, run.plan.ptu(part, *factor));
        }
        run.look();
    }
}

/// Samples the PTU's level every second, and at the beginning and end of the measurement.
async fn gauge(run: Arc<Run>, from: Duration, to: Duration) -> (Vec<f64>, [f64; 2]) {
    let parts = &RESOURCES[..run.plan.parts.len()];
    let level = || parts.iter().map(|resource| run.emulator.level(resource, PTU)).sum();
    let (mut levels, mut level_at) = (Vec::new(), [0.0; 2]);
    let mut second = Duration::ZERO;
    let ends = [from, to];
    let mut end = 0;
    while end < ends.len() {
        let at = second.min(ends[end]);
        if at > run.now() {
            run.sleep_until(at).await;
        }
        if ends[end] <= second {
            level_at[end] = level();
            end += 1;
        } else {
            levels.push(level());
            second += Duration::from_secs(1);
        }
    }
    (levels, level_at)
}

/// What request bodies contain. The emulator reads the exact costs from headers.
#[derive(Clone, Copy, Debug)]
enum Prompts {
    /// Almost nothing, which saves time.
    Short,
    /// Four bytes per token, plus or minus 15 %, for layers that estimate cost from the body.
    Whole,
}

impl Prompts {
    fn text(self, plan: &Plan, index: usize, ask: &Ask) -> String {
        match self {
            Self::Short => "x".to_owned(),
            Self::Whole => {
                let guess = 0.85 + 0.3 * share(plan.seed, &[GUESS, index as u64]);
                let bytes = (4.0 * ask.prompt as f64 * guess) as usize;
                "x".repeat(bytes.clamp(1, MAX_PROMPT_BYTES))
            }
        }
    }
}

pub(super) fn request(plan: &Plan, ask: &Ask, prompt: &str, uri: Uri) -> Request<Full<Bytes>> {
    let mut body = format!(r#"{{"messages":[{{"role":"user","content":"{prompt}"}}]"#);
    if ask.is_stated {
        body += &format!(r#","max_tokens":{}"#, ask.max_tokens);
    }
    if plan.is_streamed {
        body += r#","stream":true"#;
        if plan.usage {
            body += r#","stream_options":{"include_usage":true}"#;
        }
    }
    body += "}";
    let mut request = Request::post(uri).body(Full::from(body)).expect("its parts are plain");
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("x-emulator-prompt-tokens", ask.prompt.into());
    headers.insert("x-emulator-completion-tokens", ask.output.into());
    if ask.cached > 0 {
        headers.insert("x-emulator-cached-tokens", ask.cached.into());
    }
    request
}

/// One mebibyte: far above any prompt of the published traces.
const MAX_PROMPT_BYTES: usize = 1 << 20;
const GUESS: u64 = 30;

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{MaxTokens, load::Shape};

    #[tokio::test]
    async fn a_body_says_of_max_tokens_and_usage_what_its_caller_says() {
        let body = async |plan: &Plan, max_tokens| {
            let shape = Shape { max_tokens, ..Shape::default() };
            let ask = shape.ask(1, 0, Duration::ZERO, (900, 300, Some(100)));
            let request = request(plan, &ask, "x", region_chain::uri(RESOURCES[0], STANDARD));
            assert_eq!(request.headers()["x-emulator-cached-tokens"], "100");
            assert_eq!(request.headers()["x-emulator-completion-tokens"], ask.output.to_string());
            let body = request.into_body().collect().await.expect("it is whole").to_bytes();
            serde_json::from_slice::<Value>(&body).expect("it is JSON")
        };
        let mut plan = Plan::default();
        let unstated = body(&plan, MaxTokens::Unstated(4_096)).await;
        assert!(unstated.get("max_tokens").is_none() && unstated.get("stream").is_none());
        assert_eq!(body(&plan, MaxTokens::Times(4.0)).await["max_tokens"], 1_200);
        assert_eq!(body(&plan, MaxTokens::Constant(200)).await["max_tokens"], 200, "it ends there");
        plan.is_streamed = true;
        let told = body(&plan, MaxTokens::Times(1.0)).await;
        assert_eq!(
            (&told["stream"], &told["stream_options"]["include_usage"]),
            (&Value::Bool(true), &Value::Bool(true))
        );
        plan.usage = false;
        assert!(body(&plan, MaxTokens::Times(1.0)).await.get("stream_options").is_none());
    }
}
