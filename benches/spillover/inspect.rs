//! The cost of inspecting the beginning of a stream, from one event to thousands.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::ready,
    hint::black_box,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use futures::task::noop_waker_ref;
use http::{Request, Response};
use http_body::{Body, Frame};
use tower::{Layer, Service, service_fn};
use tower_spillover::InspectLayer;

/// A stream's frames, all of which are ready.
#[derive(Clone)]
struct Frames(VecDeque<Bytes>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
    }
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("inspect");
    for (name, path, preamble) in [
        ("chat stream", "/openai/deployments/gpt-4o/chat/completions", 0),
        ("stream, 1 preamble event", "/openai/v1/responses", 1),
        ("stream, 1000 preamble events", "/openai/v1/responses", 1_000),
    ] {
        let frames = frames(path, preamble);
        let mut service = InspectLayer::new().preamble_limit(1 << 30).layer(service_fn(
            |request: Request<Frames>| {
                let response = Response::builder().header("content-type", "text/event-stream");
                ready(Ok::<_, Infallible>(response.body(request.into_body()).expect("a response")))
            },
        ));
        group.throughput(Throughput::Elements(frames.0.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let request = Request::post(path).body(frames.clone()).expect("a request");
                let cx = &mut Context::from_waker(noop_waker_ref());
                let Poll::Ready(response) = pin!(service.call(request)).poll(cx) else {
                    unreachable!("all frames are there");
                };
                let mut body = response.expect("a response").into_body();
                while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(cx) {
                    _ = black_box(frame);
                }
            });
        });
    }
    group.finish();
}

fn frames(path: &str, preamble: usize) -> Frames {
    let event = |name: &str, more: &str| {
        let data = format!(r#"{{"type":"{name}","sequence_number":1,"response":{{{more}}}}}"#);
        Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
    };
    let instructions = format!(r#""id":"resp_1","instructions":"{}""#, "a".repeat(200));
    let events = std::iter::repeat_n(event("response.in_progress", &instructions), preamble);
    let first = if path.ends_with("responses") {
        event("response.output_item.added", r#""item":{}"#)
    } else {
        Bytes::from_static(br#"data: {"choices":[{"delta":{"content":"Hello"},"finish_reason":null,"index":0}],"id":"chatcmpl-1","object":"chat.completion.chunk"}

"#)
    };
    Frames(events.chain([first]).collect())
}
