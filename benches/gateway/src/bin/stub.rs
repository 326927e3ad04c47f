//! An upstream that answers every request immediately, always with the same text.
//!
//! `stub ADDRESS [chat|events|down|held]`: a chat answer of a kilobyte, the default; a stream of 1,000
//! events; a chat answer of a mebibyte; or a stream of one event that does not end.

use std::{convert::Infallible, env, error::Error};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let usage = "stub ADDRESS [chat|events|down|held]";
    let listener = TcpListener::bind(args.next().ok_or(usage)?).await?;
    let answer = match args.next().as_deref() {
        None | Some("chat") => Answer::Whole(chat(18).into()),
        Some("events") => Answer::Events((0..EVENTS).map(event).chain(end()).collect()),
        Some("held") => Answer::Held(event(0)),
        Some("down") => Answer::Whole(chat(26_000).into()),
        Some(_) => return Err(usage.into()),
    };
    loop {
        let (stream, _) = listener.accept().await?;
        let _ = stream.set_nodelay(true);
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer.clone();
                async move {
                    // Reads the complete request, as a service would.
                    let _ = request.into_body().collect().await;
                    Ok::<_, Infallible>(answer.response())
                }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

#[derive(Clone)]
enum Answer {
    Whole(Bytes),
    /// Each is a frame.
    Events(Vec<Bytes>),
    /// The first of a stream that does not end.
    Held(Bytes),
}

impl Answer {
    fn response(self) -> Response<BoxBody<Bytes, Infallible>> {
        let (kind, body) = match self {
            Self::Whole(text) => ("application/json", Full::from(text).boxed()),
            Self::Events(events) => {
                let frames = events.into_iter().map(|event| Ok(Frame::data(event)));
                ("text/event-stream", BodyExt::boxed(StreamBody::new(stream::iter(frames))))
            }
            Self::Held(event) => {
                let first = stream::iter([Ok(Frame::data(event))]);
                let frames = first.chain(stream::pending());
                ("text/event-stream", BodyExt::boxed(StreamBody::new(frames)))
            }
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert("x-ms-region", HeaderValue::from_static("East US"));
        response
    }
}

/// A complete answer with `count` times eight words.
fn chat(count: usize) -> String {
    let words = "one two three four five six seven eight ".repeat(count);
    format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"gpt-4o","choices":[{{"index":0,"message":{{"role":"assistant","content":"{words}"}},"finish_reason":"stop","logprobs":null}}],"usage":{{"prompt_tokens":500,"completion_tokens":160,"total_tokens":660}}}}"#
    )
}

fn event(number: usize) -> Bytes {
    let text = format!(
        "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"gpt-4o\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" word{number}\"}},\"finish_reason\":null}}]}}\n\n"
    );
    text.into()
}

fn end() -> [Bytes; 2] {
    [
        "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"gpt-4o\",\"choices\":[],\"usage\":{\"prompt_tokens\":500,\"completion_tokens\":1000,\"total_tokens\":1500}}\n\n".into(),
        "data: [DONE]\n\n".into(),
    ]
}

const EVENTS: usize = 1_000;
