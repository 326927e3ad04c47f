//! Clients that occupy places without using them: by not reading, by trickling, by silence.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    thread,
    time::Duration,
};

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use spillover_testing::real::{Stopwatch, pause, soon};

use crate::{
    emulate,
    served::{Azure, Gateway},
};

const PLACES: usize = 20;
const CHAT: &str = "/openai/deployments/text/chat/completions?api-version=2024-10-21";
const BODY: &str = r#"{"messages":[{"role":"user","content":"Hello"}],"max_tokens":100}"#;

/// One backend, this many places, and half a second for anything a client has to do.
fn configured(name: &str, endpoint: &str) -> PathBuf {
    let text = format!(
        "listen.address = \"127.0.0.1:0\"\nlisten.admin = \"127.0.0.1:0\"\nclients.open = true\n\
         [limits]\nconcurrency = {PLACES}\nidle_timeout = \"500ms\"\nhead_timeout = \"500ms\"\n\
         [[models.text.standard]]\nname = \"a\"\nendpoint = \"{endpoint}\"\n\
         key = \"env:AZURE_KEY\"\n"
    );
    emulate::file(&format!("{name}/g.toml"), &text)
}

fn serving(name: &str) -> (Azure, Gateway) {
    let azure = Azure::new(name);
    let gateway = Gateway::start(&configured(name, azure.endpoint(0)));
    (azure, gateway)
}

/// In front of a backend with endless answers.
fn endless(name: &str) -> Gateway {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 4_096]);
                let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
                let mut sent = stream.write_all(head.as_bytes());
                while sent.is_ok() {
                    sent = stream.write_all(chunk.as_bytes());
                }
            });
        }
    });
    Gateway::start(&configured(name, &url))
}

fn under_way(gateway: &Gateway) -> usize {
    let page = gateway.page("/metrics").0;
    let line = page.lines().find_map(|line| line.strip_prefix("spillover_requests_in_flight "));
    line.unwrap_or_else(|| panic!("{page}")).parse().unwrap()
}

/// Places are taken, and returned in time, while their clients are still connected.
fn gives_back(gateway: &Gateway) {
    let begun = Stopwatch::start();
    gateway.eventually(|gateway| under_way(gateway) == 0);
    println!("given back after {:?}", begun.elapsed());
}

async fn connected(gateway: &Gateway, window: u32) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window);
    let (send, connection) = builder.handshake(stream).await.unwrap();
    tokio::spawn(connection);
    send
}

fn request() -> Request<()> {
    let uri = format!("http://gateway{CHAT}");
    Request::post(uri).header("content-type", "application/json").body(()).unwrap()
}

async fn asked(send: &mut SendRequest<Bytes>) -> http::Response<h2::RecvStream> {
    *send = send.clone().ready().await.unwrap();
    let (answer, mut body) = send.send_request(request(), false).unwrap();
    body.send_data(BODY.into(), true).unwrap();
    answer.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_a_window_loses_its_place_and_its_neighbours_go_on() {
    let gateway = endless("window");
    let mut send = connected(&gateway, 0).await;
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(asked(&mut send).await);
    }
    assert_eq!(under_way(&gateway), 8);
    gives_back(&gateway);
    let error = answers[0].body_mut().data().await.expect("an end").unwrap_err();
    assert!(error.is_reset(), "the stream ends and not the connection: {error:?}");
    assert_eq!(asked(&mut send).await.status(), 200, "the connection goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_answer_without_a_window_is_not_kept_either() {
    let (_azure, gateway) = serving("window-short");
    let mut send = connected(&gateway, 0).await;
    let mut answer = asked(&mut send).await;
    let error = soon(answer.body_mut().data()).await.expect("an end").unwrap_err();
    assert!(error.is_reset() || error.is_go_away(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_that_opens_byte_by_byte_holds_no_place() {
    let gateway = endless("window-trickle");
    let mut send = connected(&gateway, 1).await;
    for _ in 0..8 {
        let mut answer = asked(&mut send).await.into_body();
        tokio::spawn(async move {
            while let Some(Ok(piece)) = answer.data().await {
                pause(100).await;
                let _ = answer.flow_control().release_capacity(piece.len());
            }
        });
    }
    assert_eq!(under_way(&gateway), 8);
    gives_back(&gateway);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_trickles_over_http_2_holds_no_place() {
    let (_azure, gateway) = serving("trickle-2");
    let mut send = connected(&gateway, 65_535).await;
    for index in 0..8 {
        send = send.ready().await.unwrap();
        let (answer, mut body) = send.send_request(request(), false).unwrap();
        // Half of them send nothing, repeatedly.
        let piece = if index % 2 == 0 { "" } else { " " };
        tokio::spawn(async move {
            while body.send_data(piece.into(), false).is_ok() {
                pause(100).await;
            }
            drop(answer);
        });
    }
    pause(200).await;
    assert_eq!(under_way(&gateway), 8);
    gives_back(&gateway);
}

#[test]
fn a_body_that_trickles_over_http_1_holds_no_place() {
    let (_azure, gateway) = serving("trickle-1");
    for length in ["content-length: 1000", "transfer-encoding: chunked"] {
        for _ in 0..4 {
            let mut stream = TcpStream::connect(gateway.address()).unwrap();
            let head = format!("POST {CHAT} HTTP/1.1\r\nhost: gateway\r\n{length}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            let piece = if length.starts_with('t') { "1\r\n \r\n" } else { " " };
            thread::spawn(move || {
                while stream.write_all(piece.as_bytes()).is_ok() {
                    thread::sleep(Duration::from_millis(100));
                }
            });
        }
    }
    gateway.eventually(|gateway| under_way(gateway) == 8);
    gives_back(&gateway);
}

#[test]
fn a_client_of_either_protocol_that_stops_reading_loses_its_place() {
    let gateway = endless("unread-answer");
    let ask = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}");
    let plain = (0..4).map(|_| {
        let mut stream = TcpStream::connect(gateway.address()).unwrap();
        stream.write_all(ask.as_bytes()).unwrap();
        stream
    });
    let plain = plain.collect::<Vec<_>>();
    let multiplexed = (0..4).map(|_| {
        let mut stream = TcpStream::connect(gateway.address()).unwrap();
        stream.write_all(&unanswered(CHAT)).unwrap();
        stream
    });
    let multiplexed = multiplexed.collect::<Vec<_>>();
    gateway.eventually(|gateway| under_way(gateway) == 8);
    gives_back(&gateway);
    drop((plain, multiplexed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_every_place_that_way_shuts_others_out_for_no_longer_than_the_limit() {
    let azure = Azure::new("every-place");
    let text = std::fs::read_to_string(configured("every-place", azure.endpoint(0))).unwrap();
    let all = text.replace("[limits]\n", "[limits]\nclient_share = 1\n");
    let gateway = Gateway::start(&emulate::file("every-place/g.toml", &all));
    let trickled = (0..PLACES / 2).map(|_| {
        let mut stream = TcpStream::connect(gateway.address()).unwrap();
        let head = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream
    });
    let trickled = trickled.collect::<Vec<_>>();
    let mut send = connected(&gateway, 65_535).await;
    let mut streams = Vec::new();
    for _ in 0..PLACES / 2 {
        send = send.ready().await.unwrap();
        streams.push(send.send_request(request(), false).unwrap());
    }
    gateway.eventually(|gateway| under_way(gateway) == PLACES);
    assert_eq!(gateway.chat("text", &[]).status(), 503);
    gateway.eventually(|gateway| gateway.chat("text", &[]).status() == 200);
    drop((trickled, streams));
}

/// All bytes of a client for one request on an HTTP/2 connection: it replies to nothing and reads
/// nothing. It has a large window.
fn unanswered(path: &str) -> Vec<u8> {
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
    };
    let settings = [&[0, 4][..], &0x7fff_ffff_u32.to_be_bytes()].concat();
    let update = 0x7fff_0000_u32.to_be_bytes();
    // POST, http, and literal `:authority` and `:path` (RFC 7541 section 6.2.2).
    let literal = |index: u8, text: &str| [&[index, text.len() as u8], text.as_bytes()].concat();
    let head = [vec![0x83, 0x86], literal(1, "x"), literal(4, path)].concat();
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, &settings),
        frame(8, 0, 0, &update),
        frame(1, 4, 1, &head),
        frame(0, 1, 1, b"{}"),
    ]
    .concat()
}

/// Until the gateway closes, for at most 5 s.
fn closes(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut bytes = [0; 4_096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn a_connection_without_a_whole_request_is_closed() {
    let (_azure, gateway) = serving("halves");
    let http_2 = |length: usize| unanswered(CHAT)[..length].to_vec();
    for (shape, first) in [
        ("nothing", Vec::new()),
        ("half a head", b"GET /healthz HTTP/1.1\r\nhost: x\r\n".to_vec()),
        ("half a preface", http_2(10)),
        ("a preface without settings", http_2(24)),
        ("settings without a request", http_2(39)),
        ("a request without its end", http_2(60)),
    ] {
        let mut stream = TcpStream::connect(gateway.address()).unwrap();
        stream.write_all(&first).unwrap();
        assert!(closes(&mut stream), "{shape}");
    }
    let mut trickled = TcpStream::connect(gateway.address()).unwrap();
    let mut writing = trickled.try_clone().unwrap();
    thread::spawn(move || {
        while writing.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    });
    assert!(closes(&mut trickled));
}

#[test]
fn a_head_that_begins_behind_a_request_has_the_time_of_a_head() {
    let azure = Azure::new("behind");
    let text = std::fs::read_to_string(configured("behind", azure.endpoint(0))).unwrap();
    let patient = text.replace("idle_timeout = \"500ms\"", "idle_timeout = \"1h\"");
    let gateway = Gateway::start(&emulate::file("behind/g.toml", &patient));
    let whole = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let chat =
        format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len());
    for first in [whole, &chat] {
        let mut stream = TcpStream::connect(gateway.address()).unwrap();
        stream.write_all(format!("{first}GET / HTTP/1.1\r\nho").as_bytes()).unwrap();
        assert!(closes(&mut stream), "{first}");
        let mut idle = TcpStream::connect(gateway.address()).unwrap();
        idle.write_all(first.as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(1_200));
        idle.write_all(whole.as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(100));
        let mut answers = vec![0; 65_536];
        let length = idle.read(&mut answers).unwrap();
        let answers = String::from_utf8_lossy(&answers[..length]).matches("HTTP/1.1 200").count();
        assert_eq!(answers, 2, "one that only waits is kept: {first}");
    }
}

#[test]
fn a_client_that_never_finishes_its_tls_handshake_is_closed_and_holds_up_no_drain() {
    let folder = emulate::file("handshake/cert.pem", include_str!("tls/cert.pem"));
    emulate::file("handshake/key.pem", include_str!("tls/key.pem"));
    let azure = Azure::new("handshake");
    let text = std::fs::read_to_string(configured("handshake", azure.endpoint(0))).unwrap();
    let tls = format!("listen.tls = {{ certificates = {folder:?}, key = \"file:key.pem\" }}\n");
    let gateway = Gateway::start(&emulate::file("handshake/g.toml", &(tls.clone() + &text)));
    for first in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut stream = TcpStream::connect(gateway.address()).unwrap();
        stream.write_all(first).unwrap();
        assert!(closes(&mut stream));
    }
    let patient = (tls + &text).replace("head_timeout = \"500ms\"", "head_timeout = \"1h\"");
    let gateway = Gateway::start(&emulate::file("handshake/patient.toml", &patient));
    let stream = TcpStream::connect(gateway.address()).unwrap();
    thread::sleep(Duration::from_millis(100));
    let begun = Stopwatch::start();
    gateway.terminated();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(stream);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_ignores_its_end_is_closed() {
    let (_azure, gateway) = serving("deaf");
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    stream.write_all(&unanswered("/healthz")).unwrap();
    // It reads everything, but acknowledges neither settings nor pings.
    assert!(closes(&mut stream));
}
