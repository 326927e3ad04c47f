//! An upstream that writes down which requests it began and which it finished.

use std::{
    convert::Infallible,
    error::Error,
    fs::{File, OpenOptions},
    io::Write as _,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use clap::Parser;
use futures::stream;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::Value;
use tokio::{net::TcpListener, time::sleep};

/// Answers chat requests as their body says, and logs `begun ID` and `finished ID`.
///
/// The body's `user` names the request, `events` and `every_ms` shape the stream, `head_ms` holds
/// the head back.
#[derive(Debug, Parser)]
struct Args {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where the lines go; they are appended.
    #[arg(long)]
    log: PathBuf,
    /// The value of `x-ms-region`.
    #[arg(long, default_value = "Loopback")]
    region: HeaderValue,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let log = OpenOptions::new().create(true).append(true).open(&args.log)?;
    let site = Arc::new(Site { log: Mutex::new(log), region: args.region });
    let listener = TcpListener::bind(args.listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let _ = stream.set_nodelay(true);
        let site = Arc::clone(&site);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&site), request));
            let server = auto::Builder::new(TokioExecutor::new());
            // A connection that breaks is the client's affair.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

struct Site {
    log: Mutex<File>,
    region: HeaderValue,
}

impl Site {
    /// One write per line, so that a killed process leaves whole lines.
    fn note(&self, what: &str, id: &str) {
        let line = format!("{what} {id}\n");
        let mut log = self.log.lock().expect("no holder of the log panics");
        log.write_all(line.as_bytes()).expect("the log can be written");
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn answer(site: Arc<Site>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let Ok(body) = request.into_body().collect().await else {
        return Ok(plain(StatusCode::BAD_REQUEST));
    };
    let ask: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
    let id = ask["user"].as_str().unwrap_or("nobody").to_owned();
    site.note("begun", &id);
    sleep(Duration::from_millis(ask["head_ms"].as_u64().unwrap_or(0))).await;
    let region = site.region.clone();
    let mut response = Response::new(events(site, id, &ask));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert("x-ms-region", region);
    Ok(response)
}

fn events(site: Arc<Site>, id: String, ask: &Value) -> Body {
    let total = ask["events"].as_u64().unwrap_or(3);
    let every = Duration::from_millis(ask["every_ms"].as_u64().unwrap_or(0));
    let filler = "x".repeat(usize::try_from(ask["size"].as_u64().unwrap_or(16)).unwrap_or(16));
    let frames = stream::unfold(0, move |n| {
        let (site, id, filler) = (Arc::clone(&site), id.clone(), filler.clone());
        async move {
            if n > total {
                return None;
            }
            if n > 0 && !every.is_zero() {
                sleep(every).await;
            }
            let text = if n == total {
                site.note("finished", &id);
                "data: [DONE]\n\n".to_owned()
            } else {
                let delta = format!(r#"{{"index":0,"delta":{{"content":"{filler}"}}}}"#);
                format!("data: {{\"user\":\"{id}\",\"n\":{n},\"choices\":[{delta}]}}\n\n")
            };
            Some((Ok(Frame::data(Bytes::from(text))), n + 1))
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(http_body_util::Empty::new().boxed_unsync());
    *response.status_mut() = status;
    response
}
