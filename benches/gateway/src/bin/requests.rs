//! Sends requests of one kind over one connection, each after the last one's answer.
//!
//! `requests ADDRESS [chat|v1|up] COUNT`: a chat request of 2 KiB for a deployment in the path, one
//! of 64 KiB with its model in the body, or one of a mebibyte for a deployment in the path.

use std::{env, error::Error, fmt::Write as _};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let usage = "requests ADDRESS [chat|v1|up] COUNT";
    let address = args.next().ok_or(usage)?;
    let (path, length) = match args.next().as_deref() {
        Some("chat") => (AZURE, 2 << 10),
        Some("v1") => ("/openai/v1/chat/completions", 64 << 10),
        Some("up") => (AZURE, 1 << 20),
        _ => return Err(usage.into()),
    };
    let count: usize = args.next().ok_or(usage)?.parse()?;
    let key = env::var("BENCH_KEY").unwrap_or_default();
    let body = Bytes::from(chat(length));
    let stream = TcpStream::connect(&address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    for _ in 0..count {
        let request = Request::post(path)
            .header(header::HOST, &address)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "AzureOpenAI/Python 1.99.0")
            .header("api-key", &key)
            .header("x-stainless-lang", "python")
            .header("x-stainless-retry-count", "0")
            .body(Full::new(body.clone()))?;
        sender.ready().await?;
        let answer = sender.send_request(request).await?;
        if answer.status() != 200 {
            return Err(answer.status().as_str().into());
        }
        answer.into_body().collect().await?;
    }
    Ok(())
}

/// A conversation of exactly this many bytes.
fn chat(length: usize) -> String {
    let mut text = r#"{"model":"gpt-4o","max_tokens":160,"messages":["#.to_owned();
    let mut turn = 0;
    while length - text.len() > 1_100 {
        let role = if turn % 2 == 0 { "user" } else { "assistant" };
        let words = "word ".repeat(190);
        let _ = write!(text, r#"{{"role":"{role}","content":"{words}\n"}},"#);
        turn += 1;
    }
    text.push_str(r#"{"role":"user","content":""#);
    let words = length - text.len() - 4;
    text.extend("word ".chars().cycle().take(words));
    text.push_str("\"}]}");
    text
}

const AZURE: &str = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";
