//! An upstream that answers every chat request immediately, with the same kilobyte.

use std::{convert::Infallible, env, error::Error};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(env::args().nth(1).ok_or("stub ADDRESS")?).await?;
    let answer = Bytes::from(answer());
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
                    let mut response = Response::new(Full::<Bytes>::from(answer));
                    let json = HeaderValue::from_static("application/json");
                    let region = HeaderValue::from_static("East US");
                    response.headers_mut().insert(header::CONTENT_TYPE, json);
                    response.headers_mut().insert("x-ms-region", region);
                    Ok::<_, Infallible>(response)
                }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn answer() -> String {
    let words = "one two three four five six seven eight ".repeat(18);
    format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"gpt-4o","choices":[{{"index":0,"message":{{"role":"assistant","content":"{words}"}},"finish_reason":"stop","logprobs":null}}],"usage":{{"prompt_tokens":500,"completion_tokens":160,"total_tokens":660}}}}"#
    )
}
