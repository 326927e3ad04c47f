//! A backend whose answers end as the deployment's name specifies, over HTTP/1.1 or HTTP/2.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

const EVENT: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const BEGINNING: &str = "{\"choices\":[";
const REST: &str = "]}";
/// How often to send something to a client that should disconnect.
const DRIPS: usize = 150;

/// `KIND-ENDING` from a path.
fn of_path(path: &str) -> (bool, String) {
    let name = path.split('/').nth(3).unwrap();
    let (kind, ending) = name.split_once('-').unwrap();
    (kind == "stream", ending.to_owned())
}

#[expect(clippy::disallowed_methods, reason = "sockets are real")]
async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Returns its address.
pub(super) async fn http1() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_http1(stream));
        }
    });
    format!("http://{address}")
}

async fn answer_http1(mut stream: TcpStream) -> Option<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"}") {
        if stream.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    }
    let path = String::from_utf8_lossy(&request).split(' ').nth(1)?.to_owned();
    let (is_stream, ending) = of_path(&path);
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let (head, first, rest) = match is_stream {
        true => (
            "content-type: text/event-stream\r\ntransfer-encoding: chunked".to_owned(),
            chunk(EVENT),
            chunk(DONE) + "0\r\n\r\n",
        ),
        false => {
            let more = if ending == "gone" { DRIPS } else { 0 };
            let length = BEGINNING.len() + REST.len() + more;
            let head = format!("content-type: application/json\r\ncontent-length: {length}");
            (head, BEGINNING.to_owned(), REST.to_owned())
        }
    };
    let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{first}");
    stream.write_all(head.as_bytes()).await.ok()?;
    pause(50).await;
    match &*ending {
        "whole" => stream.write_all(rest.as_bytes()).await.ok()?,
        "unmarked" => stream.write_all(b"0\r\n\r\n").await.ok()?,
        "cut" => return None,
        "reset" => {
            stream.set_zero_linger().ok()?;
            return None;
        }
        // A half-closed client is not a reason to end; a client that accepts nothing more is.
        "gone" => {
            for _ in 0..DRIPS {
                let piece = if is_stream { chunk(EVENT) } else { " ".to_owned() };
                stream.write_all(piece.as_bytes()).await.ok()?;
                pause(20).await;
            }
        }
        _ => pause(10_000).await,
    }
    pause(1_000).await;
    Some(())
}

/// Returns its address. It only supports HTTP/2.
pub(super) async fn http2() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_http2(stream));
        }
    });
    format!("http://{address}")
}

async fn answer_http2(stream: TcpStream) -> Option<()> {
    let mut connection = h2::server::handshake(stream).await.ok()?;
    let (break_off, mut broken_off) = mpsc::channel(1);
    loop {
        let (request, respond) = tokio::select! {
            next = connection.accept() => next?.ok()?,
            _ = broken_off.recv() => return None,
        };
        let (is_stream, ending) = of_path(request.uri().path());
        tokio::spawn(end_http2(respond, is_stream, ending, break_off.clone()));
    }
}

async fn end_http2(
    mut respond: h2::server::SendResponse<Bytes>,
    is_stream: bool,
    ending: String,
    break_off: mpsc::Sender<()>,
) -> Option<()> {
    let (kind, first, rest) = match is_stream {
        true => ("text/event-stream", EVENT, DONE),
        false => ("application/json", BEGINNING, REST),
    };
    let head = Response::builder().header("content-type", kind).body(()).unwrap();
    let mut body = respond.send_response(head, false).ok()?;
    body.send_data(Bytes::from_static(first.as_bytes()), false).ok()?;
    pause(50).await;
    match &*ending {
        "whole" => body.send_data(Bytes::from_static(rest.as_bytes()), true).ok()?,
        "unmarked" => body.send_data(Bytes::new(), true).ok()?,
        "reset" => body.send_reset(h2::Reason::INTERNAL_ERROR),
        "cut" => break_off.send(()).await.ok()?,
        "gone" => {
            for _ in 0..DRIPS {
                body.send_data(Bytes::from_static(b" "), false).ok()?;
                pause(20).await;
            }
        }
        _ => pause(10_000).await,
    }
    pause(1_000).await;
    Some(())
}
