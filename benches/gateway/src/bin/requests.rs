//! Sends requests of one kind over one connection, each after the last one's answer.
//!
//! `requests ADDRESS [chat|v1|up] COUNT`: a chat request of 2 KiB for a deployment in the path, one
//! of 64 KiB with its model in the body, or one of a mebibyte for a deployment in the path.
//!
//! `requests ADDRESS streams COUNT`: chat requests of 2 KiB, each over a connection of its own. Says
//! `open` once the first event of each answer has arrived, and keeps them until its input ends.

use std::{env, error::Error, fmt::Write as _, io};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let usage = "requests ADDRESS [chat|v1|up|streams] COUNT";
    let address = args.next().ok_or(usage)?;
    let kind = args.next().ok_or(usage)?;
    let (path, length) = match &*kind {
        "chat" | "streams" => (AZURE, 2 << 10),
        "v1" => ("/openai/v1/chat/completions", 64 << 10),
        "up" => (AZURE, 1 << 20),
        _ => return Err(usage.into()),
    };
    let count: usize = args.next().ok_or(usage)?.parse()?;
    let requests = Requests {
        key: env::var("BENCH_KEY").unwrap_or_default(),
        body: Bytes::from(chat(length)),
        address,
        path,
    };
    if kind == "streams" {
        return requests.hold(count).await;
    }
    let mut sender = requests.connect().await?;
    for _ in 0..count {
        requests.send(&mut sender).await?.into_body().collect().await?;
    }
    Ok(())
}

struct Requests {
    address: String,
    path: &'static str,
    key: String,
    body: Bytes,
}

impl Requests {
    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Box<dyn Error>> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn send(
        &self,
        sender: &mut SendRequest<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Box<dyn Error>> {
        let request = Request::post(self.path)
            .header(header::HOST, &self.address)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "AzureOpenAI/Python 1.99.0")
            .header("api-key", &self.key)
            .header("x-stainless-lang", "python")
            .header("x-stainless-retry-count", "0")
            .body(Full::new(self.body.clone()))?;
        sender.ready().await?;
        let answer = sender.send_request(request).await?;
        if answer.status() != 200 {
            return Err(answer.status().as_str().into());
        }
        Ok(answer)
    }

    /// Opens streams until there are `count`, and keeps them until the input ends.
    async fn hold(&self, count: usize) -> Result<(), Box<dyn Error>> {
        let mut streams = Vec::with_capacity(count);
        for _ in 0..count {
            let mut sender = self.connect().await?;
            let mut answer = self.send(&mut sender).await?.into_body();
            answer.frame().await.ok_or("the answer has no event")??;
            streams.push((sender, answer));
        }
        println!("open");
        tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink())).await??;
        Ok(())
    }
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
