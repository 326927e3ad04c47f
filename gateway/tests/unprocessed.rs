//! Requests that a backend did not process are sent to it again.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use http::Response;

use crate::{
    emulate,
    served::{Answer, Gateway},
};

/// `gpt-4o` on one backend.
fn gateway(name: &str, backend: SocketAddr, rest: &str) -> Gateway {
    gateway_then(name, backend, rest, "")
}

/// The same, with more at its end.
fn gateway_then(name: &str, backend: SocketAddr, rest: &str, more: &str) -> Gateway {
    let text = format!(
        "listen.address = \"127.0.0.1:0\"\nclients.open = true\n{rest}\n\
         [[models.\"gpt-4o\".standard]]\nname = \"east\"\nendpoint = \"http://{backend}\"\n\
         key = \"env:AZURE_KEY\"\n{more}"
    );
    Gateway::start(&emulate::file(&format!("unprocessed-{name}/g.toml"), &text))
}

/// Accepts ten streams per connection, and announces that only after the first requests have
/// arrived. Counts the requests that it processed.
fn ten_streams() -> (SocketAddr, Arc<AtomicUsize>) {
    let (listener, processed) = (listener(), Arc::<AtomicUsize>::default());
    let (addr, counted) = (listener.local_addr().unwrap(), Arc::clone(&processed));
    listener.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve_ten(stream, Arc::clone(&counted)));
            }
        });
    });
    (addr, processed)
}

async fn serve_ten(stream: tokio::net::TcpStream, processed: Arc<AtomicUsize>) {
    pause(200).await;
    let serving = h2::server::Builder::new().max_concurrent_streams(10).handshake(stream);
    let Ok(mut connection) = serving.await else { return };
    while let Some(Ok((_, mut answer))) = connection.accept().await {
        processed.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            pause(100).await;
            let head = Response::builder().header("content-type", "application/json");
            let mut body = answer.send_response(head.body(()).unwrap(), false).unwrap();
            body.send_data(Bytes::from_static(b"{}"), true).unwrap();
        });
    }
}

#[expect(clippy::disallowed_methods, reason = "a server takes its time")]
async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

#[test]
fn a_cold_burst_beyond_the_streams_of_a_connection_is_answered_to_the_last() {
    let (backend, processed) = ten_streams();
    let gateway = gateway("burst", backend, "upstream.http2 = \"always\"");
    thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                let answer = gateway.chat("gpt-4o", &[]);
                assert_eq!(answer.status(), 200, "{answer:?}");
            });
        }
    });
    assert_eq!(processed.load(Ordering::Relaxed), 40, "each once");
}

/// Serves this many requests on each connection, then reads one more and closes it.
fn closing_after(served: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let (listener, asked) = (listener(), Arc::<AtomicUsize>::default());
    let (addr, counted) = (listener.local_addr().unwrap(), Arc::clone(&asked));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let counted = Arc::clone(&counted);
            thread::spawn(move || {
                for _ in 0..served {
                    if read_request(&stream).is_none() {
                        return;
                    }
                    counted.fetch_add(1, Ordering::Relaxed);
                    let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                                  content-length: 2\r\n\r\n{}";
                    (&stream).write_all(answer.as_bytes()).unwrap();
                }
                if read_request(&stream).is_some() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    (addr, asked)
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// The head and the body of a request with a length.
fn read_request(mut stream: &TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).ok()
}

#[test]
fn a_kept_connection_that_closes_when_it_is_used_again_loses_no_request() {
    let (backend, asked) = closing_after(1);
    let gateway = gateway("kept", backend, "");
    for _ in 0..20 {
        let answer = gateway.chat("gpt-4o", &[]);
        assert_eq!(answer.status(), 200, "{answer:?}");
    }
    assert!(asked.load(Ordering::Relaxed) > 20, "some were sent twice");
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(gateway.chat("gpt-4o", &[]).status(), 200));
        }
    });
}

/// Serves one request, reads another one on the same connection, and breaks it.
fn going_down() -> SocketAddr {
    let listener = listener();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        read_request(&stream).unwrap();
        (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
        read_request(&stream).unwrap();
        drop(listener);
    });
    addr
}

/// Two consecutive requests on one connection, so that one thread of the gateway serves both, over
/// one connection to the backend.
fn two_chats(gateway: &Gateway) -> (Answer, Answer) {
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut chat = |connection: &str| {
        let body = r#"{"messages":[{"role":"user","content":"Hello"}]}"#;
        write!(
            stream,
            "POST /openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21 HTTP/1.1\r\n\
             host: gateway\r\nconnection: {connection}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"}") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            text.push(byte[0]);
        }
        Answer(String::from_utf8(text).unwrap())
    };
    let served = chat("keep-alive");
    // Until the connection to the backend is known to be idle again.
    thread::sleep(Duration::from_millis(50));
    (served, chat("close"))
}

#[test]
fn a_request_with_which_a_server_goes_down_is_not_begun_elsewhere() {
    let (gone, (other, asked)) = (going_down(), closing_after(9));
    let second = format!(
        "priority = 2\n[[models.\"gpt-4o\".standard]]\nname = \"west\"\nendpoint = \"http://{other}\"\n\
         key = \"env:AZURE_KEY\"\npriority = 3\n"
    );
    let gateway = gateway_then("down", gone, "", &second);
    let (served, lost) = two_chats(&gateway);
    assert_eq!(served.status(), 200);
    assert_eq!((lost.status(), asked.load(Ordering::Relaxed)), (502, 0), "{lost:?}");
    let next = gateway.chat("gpt-4o", &[]);
    assert_eq!(
        (next.status(), asked.load(Ordering::Relaxed)),
        (200, 1),
        "nothing was sent: {next:?}"
    );
}

#[test]
fn a_fresh_connection_that_closes_without_an_answer_is_not_tried_again() {
    let (backend, asked) = closing_after(0);
    let gateway = gateway("fresh", backend, "");
    assert_eq!(gateway.chat("gpt-4o", &[]).status(), 502);
    assert_eq!(asked.load(Ordering::Relaxed), 1, "it may have been processed");
}

#[test]
fn a_connection_is_not_kept_beyond_its_idle_limit() {
    let (backend, asked) = closing_after(1);
    let limit = "upstream.idle_connection_timeout = \"100ms\"";
    let gateway = gateway("idle", backend, limit);
    for _ in 0..3 {
        assert_eq!(gateway.chat("gpt-4o", &[]).status(), 200);
        thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 3, "none met a connection that was about to close");
}
