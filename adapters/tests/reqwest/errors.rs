//! What errors of reqwest mean to the layers.

use http_body_util::StreamBody;
use spillover_emulator::Fault;
use tokio::net::{TcpListener, TcpSocket};
use tower_spillover::policy::ErrorKind;

use super::*;
use crate::{
    azure::{Azure, backend_at},
    raw::Raw,
};

/// A backend where nothing listens while the socket is kept, and the address of it.
fn dead() -> (TcpSocket, std::net::SocketAddr) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let addr = socket.local_addr().expect("it is bound");
    (socket, addr)
}

async fn error_at(builder: reqwest::ClientBuilder, url: &str) -> reqwest::Error {
    let mut request = chat();
    *request.uri_mut() = url.parse().expect("an address");
    soon(client(builder).oneshot(request)).await.map(drop).expect_err("no answer")
}

#[tokio::test]
async fn a_refused_connection_moves_on_by_default() {
    let azure = Azure::open(&["sweden"]).await;
    let (_dead, addr) = dead();
    let pool = BackendPool::new([backend_at(EAST, addr), azure.backend(SWEDEN)]).unwrap();
    pool.force_start(EAST).expect("a backend");
    let answer = send(&rotation(plain(), pool, MoveOn::new()), chat()).await;
    assert_eq!(attempts(served(answer.extensions())), [(EAST, 0), (SWEDEN, 200)]);
}

#[tokio::test]
async fn a_ptu_that_cannot_be_reached_spills() {
    let azure = Azure::open(&["east"]).await;
    let (_dead, addr) = dead();
    let ptu = BackendPool::new([backend_at(PTU, addr)]).unwrap();
    let service = azure!(plain(), ptu, azure.pool([EAST]));
    let answer = soon(service.execute(post(CHAT))).await.expect("a response");
    let account = served(answer.extensions());
    assert_eq!((account.backend(), account.spilled()), (Some(EAST), true), "{account}");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_a_connect_error() {
    let error = error_at(plain(), "http://nowhere.invalid/").await;
    assert_eq!(error_kind(&error), ErrorKind::Connect, "{error:?}");
}

#[tokio::test]
async fn a_connection_that_takes_too_long_is_a_connect_error() {
    // A listener whose queue is full accepts no connection.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let listener = socket.listen(1).expect("a listener");
    let addr = listener.local_addr().expect("it is bound");
    let mut queued = Vec::new();
    for _ in 0..4 {
        queued.push(tokio::spawn(tokio::net::TcpStream::connect(addr)));
    }
    crate::clock::pause(50).await;
    let short = plain().connect_timeout(std::time::Duration::from_millis(200));
    let error = error_at(short, &format!("http://{addr}/")).await;
    assert_eq!(error_kind(&error), ErrorKind::Connect, "{error:?}");
}

#[tokio::test]
async fn a_reset_moves_on_for_those_who_take_that_risk() {
    let azure = Azure::open(&["east", "sweden"]).await;
    let pool = azure.pool([EAST, SWEDEN]);
    pool.force_start(EAST).expect("a backend");
    azure.script(EAST, [Fault::reset()]);
    let by_default = rotation(plain(), pool.clone(), MoveOn::new()).oneshot(chat());
    let error = soon(by_default).await.expect_err("it may have been served");
    assert_eq!(error_kind(&error), ErrorKind::Reset, "{error:?}");

    azure.script(EAST, [Fault::reset()]);
    let answer = send(&rotation(plain(), pool, MoveOn::new().reset()), chat()).await;
    assert_eq!(attempts(served(answer.extensions())), [(EAST, 0), (SWEDEN, 200)]);
}

#[tokio::test]
async fn a_server_that_hangs_up_or_speaks_no_http_is_a_reset() {
    for answer in ["SSH-2.0-OpenSSH_9.9\r\n", "HTTP/1.1 200 OK\r\ncontent-le"] {
        let odd = HangsUp::after(answer).await;
        let error = error_at(plain(), &format!("http://{}/", odd.addr)).await;
        assert_eq!(error_kind(&error), ErrorKind::Reset, "{answer:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_stream_that_was_refused_is_sent_again_to_the_same_backend() {
    let server = RefusesFirst::start().await;
    let pool = BackendPool::new([backend_at(EAST, server.addr)]).unwrap();
    let http2 = plain().http2_prior_knowledge();
    let answer = send(&rotation(http2, pool, MoveOn::new()), chat()).await;
    assert_eq!(attempts(served(answer.extensions())), [(EAST, 0), (EAST, 200)]);
}

#[tokio::test]
async fn a_request_body_that_fails_is_no_failure_of_the_backend() {
    let silent = Raw::saying([""]).await;
    let frames = [Ok(http_body::Frame::data(Bytes::from("{"))), Err(std::io::Error::other("gone"))];
    let mut request = ask(StreamBody::new(futures::stream::iter(frames)));
    *request.uri_mut() = format!("http://{}/", silent.addr).parse().expect("an address");
    let error = soon(client(plain()).oneshot(request)).await.map(drop).expect_err("half a request");
    assert_eq!(error_kind(&error), ErrorKind::Other, "{error:?}");
}

/// A server that says something and closes the connection.
struct HangsUp {
    addr: std::net::SocketAddr,
}

impl HangsUp {
    async fn after(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        tokio::spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self { addr }
    }
}

/// An HTTP/2 server that refuses its first stream, and answers the others.
struct RefusesFirst {
    addr: std::net::SocketAddr,
}

impl RefusesFirst {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        tokio::spawn(async move {
            let mut is_first = true;
            while let Ok((stream, _)) = listener.accept().await {
                let refuses = std::mem::take(&mut is_first);
                tokio::spawn(async move {
                    let mut refuses = refuses;
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((_, mut respond))) = connection.accept().await {
                        if std::mem::take(&mut refuses) {
                            respond.send_reset(h2::Reason::REFUSED_STREAM);
                            continue;
                        }
                        let answer = Response::builder().status(200).body(()).expect("an answer");
                        let _ = respond.send_response(answer, true);
                    }
                });
            }
        });
        Self { addr }
    }
}
