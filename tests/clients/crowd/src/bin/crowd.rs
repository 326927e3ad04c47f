//! A crowd of streaming clients, each of which checks every event of its answer.

use std::{
    error::Error,
    fs,
    io::Write as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Parser;
use crowd::Reading;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::Mutex, task::JoinSet, time::sleep};

/// Prints a line for every request: its id, the status, how it ended, and who answered.
///
/// A stream ends `whole`, `cut` (the connection or the stream broke, so that the client knows),
/// `short` (it ended as if nothing were missing) or `wrong` (events lost, twice or foreign).
#[derive(Debug, Parser)]
struct Args {
    /// `http://HOST:PORT/PATH` to post to.
    url: Uri,
    #[arg(long, env = "GATEWAY_KEY", hide_env_values = true)]
    key: Option<String>,
    /// How many requests are open at once.
    #[arg(long, default_value_t = 100)]
    streams: u64,
    /// How many of them share HTTP/2 connections, 50 each; the others have one of HTTP/1.1 each.
    #[arg(long, default_value_t = 0)]
    shared: u64,
    /// For how many seconds each place asks again once it was answered; once only by default.
    #[arg(long, default_value_t = 0.0)]
    seconds: f64,
    #[arg(long, default_value_t = 5)]
    events: u64,
    #[arg(long, default_value_t = 100)]
    every_ms: u64,
    #[arg(long, default_value_t = 0)]
    head_ms: u64,
    /// Bytes of filler in an event.
    #[arg(long, default_value_t = 16)]
    size: usize,
    /// The pause before each read of a slow client.
    #[arg(long, default_value_t = 0)]
    read_ms: u64,
    /// How many requests begin in a second.
    #[arg(long, default_value_t = 2_000)]
    ramp: u64,
    #[arg(long, default_value = "gpt-4o")]
    model: String,
    #[arg(long)]
    out: PathBuf,
    /// What the ids begin with.
    #[arg(long, default_value = "c")]
    name: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let crowd = Arc::new(Crowd::new(Args::parse())?);
    let mut places = JoinSet::new();
    let step = Duration::from_secs(1) / u32::try_from(crowd.args.ramp.max(1))?;
    let start = Instant::now();
    let mut shared = None;
    for n in 0..crowd.args.streams {
        if n < crowd.args.shared && n % 50 == 0 {
            shared = Some(http2_connection(&crowd).await?);
        }
        let http2 = if n < crowd.args.shared { shared.clone() } else { None };
        let crowd = Arc::clone(&crowd);
        let ahead = (step * u32::try_from(n)?).saturating_sub(start.elapsed());
        if ahead > Duration::from_millis(1) {
            sleep(ahead).await;
        }
        places.spawn(async move { crowd.place(n, http2).await });
    }
    let mut ends = Vec::new();
    while let Some(place) = places.join_next().await {
        ends.extend(place?);
    }
    let mut out = fs::File::create(&crowd.args.out)?;
    for end in &ends {
        writeln!(out, "{end}")?;
    }
    println!("{} requests, {} bytes", ends.len(), crowd.bytes.load(Relaxed));
    Ok(())
}

type Sender2 = Arc<Mutex<http2::SendRequest<Full<Bytes>>>>;

struct Crowd {
    args: Args,
    authority: String,
    start: Instant,
    bytes: AtomicU64,
}

impl Crowd {
    fn new(args: Args) -> Result<Self, &'static str> {
        let authority = args.url.authority().ok_or("the URL has no host")?.to_string();
        Ok(Self { args, authority, start: Instant::now(), bytes: AtomicU64::new(0) })
    }

    /// One client: asks, reads, and asks again while time is left.
    async fn place(&self, n: u64, http2: Option<Sender2>) -> Vec<String> {
        let mut ends = Vec::new();
        for turn in 0.. {
            let id = format!("{}-{n}-{turn}", self.args.name);
            let told = match self.ask(&id, http2.as_ref()).await {
                Ok(told) => told,
                Err(error) => {
                    // Not to spin while no server listens.
                    sleep(Duration::from_millis(20)).await;
                    format!("000 cut - {}", error.to_string().replace(' ', "_"))
                }
            };
            ends.push(format!("{id} {told}"));
            if self.start.elapsed().as_secs_f64() >= self.args.seconds {
                break;
            }
        }
        ends
    }

    async fn ask(
        &self,
        id: &str,
        http2: Option<&Sender2>,
    ) -> Result<String, Box<dyn Error + Send + Sync>> {
        let request = self.request(id, http2.is_some())?;
        let response = if let Some(http2) = http2 {
            let mut sender = http2.lock().await.clone();
            sender.ready().await?;
            sender.send_request(request).await?
        } else {
            let stream = TcpStream::connect(&self.authority).await?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?
        };
        let status = response.status().as_u16();
        let told = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or("-").replace(' ', "_")
        };
        let (backend, decision) = (told("x-spillover-backend"), told("x-spillover-decision"));
        let ended = self.read(id, response.into_body()).await;
        Ok(format!("{status} {ended} {backend} {decision}"))
    }

    async fn read(&self, id: &str, mut body: hyper::body::Incoming) -> &'static str {
        let mut reading = Reading::default();
        loop {
            if self.args.read_ms > 0 {
                sleep(Duration::from_millis(self.args.read_ms)).await;
            }
            match body.frame().await {
                None => break,
                Some(Err(_)) if reading.wrong.is_none() => return "cut",
                Some(Err(_)) => return "wrong",
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    self.bytes.fetch_add(data.len() as u64, Relaxed);
                    reading.take(id, &data);
                }
            }
        }
        if let Some(wrong) = &reading.wrong {
            eprintln!("{id}: {wrong}");
            return "wrong";
        }
        if reading.done && reading.events() == self.args.events { "whole" } else { "short" }
    }

    fn request(&self, id: &str, absolute: bool) -> Result<Request<Full<Bytes>>, http::Error> {
        let Args { model, events, every_ms, head_ms, size, .. } = &self.args;
        let body = format!(
            r#"{{"model":"{model}","stream":true,"user":"{id}","events":{events},"every_ms":{every_ms},"head_ms":{head_ms},"size":{size},"max_tokens":16,"messages":[{{"role":"user","content":"Count to {events}"}}]}}"#
        );
        let path = self.args.url.path_and_query().map_or("/", |path| path.as_str());
        let target = if absolute { self.args.url.to_string() } else { path.to_owned() };
        let mut request = Request::post(target)
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-emulator-completion-tokens", events.to_string());
        if !absolute {
            request = request.header(header::HOST, &self.authority);
        }
        if let Some(key) = &self.args.key {
            request = request.header("api-key", key);
        }
        request.body(Full::from(body))
    }
}

async fn http2_connection(crowd: &Crowd) -> Result<Sender2, Box<dyn Error>> {
    let stream = TcpStream::connect(&crowd.authority).await?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(Arc::new(Mutex::new(sender)))
}
