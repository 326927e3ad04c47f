//! What a client of the proxy sees, and what the service behind it does.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{Request, Response, StatusCode},
    middleware::map_response,
    response::IntoResponse,
    routing::{get, post},
};
use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper_util::client::legacy::connect::HttpConnector;
use spillover_testing::{
    azure::{Azure, refused_for},
    protocol::{BOTH, Client, Protocol},
    raw::Raw,
    real::{soon, until},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::{Layer, ServiceBuilder, ServiceExt, timeout::TimeoutLayer};
use tower_spillover::{
    Backend, BackendPool, Gate, PtuFirst, RegionRotateLayer, ReplayLayer, Served,
    SmartFallbackLayer, policy::ErrorKind, replay::ReplayBody,
};
use tower_spillover_adapters::axum::{Proxy, ServedBy, UpstreamError, proxy};

const PTU: &str = "east/gpt-4o-ptu";
const STANDARD: &str = "east/gpt-4o";
const CHAT: &str = "/openai/deployments/m/chat/completions?api-version=2024-10-21";
const PROMPT: &str = r#"{"messages": [{"content": "hello"}]}"#;

type HttpClient = hyper_util::client::legacy::Client<HttpConnector, ReplayBody<Body>>;

/// As an application has it: in a field, by its type.
#[derive(Clone)]
struct App {
    azure: Proxy<PtuFirst<HttpClient>>,
}

impl App {
    fn of(azure: &Azure) -> Self {
        let layer = SmartFallbackLayer::new(
            RegionRotateLayer::new(azure.pool([PTU])),
            RegionRotateLayer::new(azure.pool([STANDARD])),
        );
        Self { azure: proxy(layer.layer(Protocol::Http1.client())) }
    }

    fn router(&self) -> Router {
        Router::new().fallback_service(self.azure.clone())
    }
}

/// A proxy in front of one backend.
fn proxy_to(addr: SocketAddr) -> Router {
    Router::new().fallback_service(proxy(rotate(addr).layer(Protocol::Http1.client())))
}

fn rotate(addr: SocketAddr) -> RegionRotateLayer {
    let backend = Backend::new("only", format!("http://{addr}")).unwrap().api_key("key");
    RegionRotateLayer::new(BackendPool::new([backend]).unwrap())
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    tokio::spawn(async move { axum::serve(listener, router).await });
    addr
}

/// An address that nothing listens at.
async fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn ask(protocol: Protocol, addr: SocketAddr) -> (StatusCode, String) {
    let request = Request::post(format!("http://{addr}{CHAT}"));
    let request = request.body(Full::<Bytes>::from(PROMPT)).unwrap();
    let client: Client<Full<Bytes>> = protocol.client();
    let answer = soon(client.request(request)).await.expect("an answer");
    let status = answer.status();
    let body = soon(answer.into_body().collect()).await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// Sends `lines` and reads until the server has nothing more to say, or closes.
async fn say(addr: SocketAddr, lines: &[&str]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let text = lines.join("\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn what_the_ptu_refuses_is_served_by_standard_over_both_protocols() {
    for protocol in BOTH {
        let azure = Azure::open(&["east"]).await;
        azure.script(PTU, [refused_for(30_000)]);
        let addr = serve(App::of(&azure).router()).await;
        for _ in 0..2 {
            let (status, body) = ask(protocol, addr).await;
            assert_eq!(status, 200, "{protocol:?}");
            assert!(body.contains("chat.completion"), "{protocol:?}: {body}");
        }
        assert_eq!((azure.counts(PTU).attempts, azure.counts(STANDARD).attempts), (1, 2));
    }
}

#[tokio::test]
async fn the_refusal_of_all_reaches_the_client_with_its_hint() {
    let azure = Azure::open(&["east"]).await;
    azure.script(PTU, [refused_for(30_000)]);
    azure.script(STANDARD, [refused_for(20_000)]);
    let addr = serve(App::of(&azure).router()).await;
    let answer = say(
        addr,
        &[
            &format!("POST {CHAT} HTTP/1.1"),
            "host: a",
            "connection: close",
            "content-length: 2",
            "",
            "{}",
        ],
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(answer.contains("\r\nretry-after: 20\r\n"), "{answer}");
}

#[tokio::test]
async fn nothing_of_the_client_s_connection_goes_to_the_service() {
    let azure = Azure::open(&["east"]).await;
    let addr = serve(App::of(&azure).router()).await;
    let answer = say(
        addr,
        &[
            &format!("POST {CHAT} HTTP/1.1"),
            "Host: proxy.example",
            "Connection: close, X-Hop, Content-Length, Host, Upgrade",
            "X-Hop: 1",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABk",
            "Keep-Alive: timeout=5",
            "Proxy-Authorization: Basic c2VjcmV0",
            "TE: trailers",
            "Cookie: session=secret",
            "Forwarded: for=10.0.0.1",
            "X-Forwarded-For: 10.0.0.1",
            "api-key: of-the-client",
            "Authorization: Bearer of-the-client",
            "Content-Type: application/json",
            &format!("Content-Length: {}", PROMPT.len()),
            "",
            PROMPT,
        ],
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let received = &azure.emulator.received()[0];
    let names: Vec<&str> = received.headers.keys().map(|name| name.as_str()).collect();
    let mut expected = ["api-key", "content-length", "content-type", "host"];
    expected.sort_unstable();
    let mut names = names;
    names.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!(received.headers["api-key"], "key-of-east");
    assert_eq!(received.headers["host"], azure.addr("east").to_string());
    assert_eq!(received.body, PROMPT);
}

#[tokio::test]
async fn nothing_of_the_service_s_connection_or_host_comes_to_the_client() {
    let upstream = Raw::saying([
        "HTTP/1.1 200 OK\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
         proxy-authenticate: Basic\r\nset-cookie: a=b\r\naccess-control-allow-origin: *\r\n\
         strict-transport-security: max-age=1\r\nx-ms-region: East US\r\ncontent-length: 2\r\n\r\n{}",
    ])
    .await;
    let addr = serve(proxy_to(upstream.addr)).await;
    let answer =
        say(addr, &["GET /openai/v1/models HTTP/1.1", "host: a", "connection: close", "", ""])
            .await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "{}");
    assert!(head.contains("\r\nx-ms-region: East US"), "{head}");
    for gone in ["x-hop", "keep-alive", "proxy-", "set-cookie", "access-control", "strict-"] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }
}

#[tokio::test]
async fn a_websocket_and_a_tunnel_are_refused_and_nothing_is_sent() {
    let azure = Azure::open(&["east"]).await;
    let addr = serve(App::of(&azure).router()).await;
    let socket = [
        "GET /openai/v1/responses HTTP/1.1",
        "host: a",
        "connection: Upgrade, close",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        "",
        "",
    ];
    let answer = say(addr, &socket).await;
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
    assert!(answer.contains(r#""type":"upgrade_required""#), "{answer}");
    let tunnel = [
        "CONNECT internal.example:443 HTTP/1.1",
        "host: internal.example:443",
        "connection: close",
        "",
        "",
    ];
    let answer = say(addr, &tunnel).await;
    assert!(answer.starts_with("HTTP/1.1 501 "), "{answer}");
    assert_eq!(azure.attempts(), 0);
}

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_it_from_the_proxy() {
    let azure = Azure::open(&["east"]).await;
    let addr = serve(App::of(&azure).router()).await;
    let length = format!("content-length: {}", PROMPT.len());
    let first = format!("POST {CHAT} HTTP/1.1");
    let head = [&*first, "host: a", "connection: close", "expect: 100-continue", &length, "", ""];
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(head.join("\r\n").as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    soon(stream.read_exact(&mut go_on)).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(PROMPT.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(!azure.emulator.received()[0].headers.contains_key("expect"));
}

#[tokio::test]
async fn a_backend_that_is_gone_is_a_bad_gateway_that_names_no_host() {
    let gone = nowhere().await;
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let log = {
        let seen = Arc::clone(&seen);
        move |response: axum::response::Response| {
            let error = response.extensions().get::<UpstreamError>().map(ToString::to_string);
            seen.lock().unwrap().extend(error);
            async { response }
        }
    };
    let addr = serve(proxy_to(gone).layer(map_response(log))).await;
    for protocol in BOTH {
        let (status, body) = ask(protocol, addr).await;
        assert_eq!(status, 502, "{protocol:?}");
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body["error"]["code"], "502");
        assert!(!body.to_string().contains(&gone.port().to_string()), "{body}");
    }
    assert_eq!(seen.lock().unwrap().len(), 2, "a layer around the proxy logs them");
}

#[tokio::test]
async fn a_backend_that_says_nothing_in_time_is_a_gateway_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = silent.local_addr().unwrap();
    let client: Client<ReplayBody<Body>> = Protocol::Http1.client();
    let impatient = ServiceBuilder::new()
        .layer(rotate(addr))
        .layer(TimeoutLayer::new(Duration::from_millis(50)))
        .service(client);
    let addr = serve(Router::new().fallback_service(proxy(impatient))).await;
    assert_eq!(ask(Protocol::Http1, addr).await.0, 504);
}

#[tokio::test]
async fn what_errors_mean_can_be_said() {
    let failing = tower::service_fn(|_: Request<ReplayBody<Body>>| async {
        Err::<Response<Body>, _>(io::Error::other("my own clock"))
    });
    let late = proxy(failing).errors(|_: &io::Error| ErrorKind::Timeout);
    let answer = late.oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(answer.status(), 504);
    let answer = proxy(failing).oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(answer.status(), 502);
    let timed_out = tower::service_fn(|_: Request<ReplayBody<Body>>| async {
        Err::<Response<Body>, _>(io::Error::from(io::ErrorKind::TimedOut))
    });
    let answer = proxy(timed_out).oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(answer.status(), 504);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_the_client_s_error_and_is_never_sent() {
    let azure = Azure::open(&["east"]).await;
    let app = App::of(&azure);
    let chunks = [Ok(Bytes::from("{")), Err(io::Error::other("gone"))];
    let request = Request::post(CHAT).body(Body::from_stream(stream::iter(chunks))).unwrap();
    assert_eq!(app.azure.clone().oneshot(request).await.unwrap().status(), 400);

    let limited = Limited::new(Full::<Bytes>::from(PROMPT), 8);
    let request = Request::post(CHAT).body(Body::new(limited)).unwrap();
    assert_eq!(app.azure.clone().oneshot(request).await.unwrap().status(), 413);
    assert_eq!(azure.attempts(), 0);
}

#[tokio::test]
async fn a_body_too_long_to_be_kept_that_breaks_off_is_the_client_s_error_too() {
    let azure = Azure::open(&["east"]).await;
    let app = App::of(&azure);
    let short = app.azure.clone().replay(&ReplayLayer::new(4));
    let chunks = [Ok(Bytes::from("12345678")), Err(io::Error::other("gone"))];
    for (body, status) in [
        (Body::from_stream(stream::iter(chunks)), 400),
        (Body::new(Limited::new(Body::from_stream(forever()), 100)), 413),
    ] {
        let request = Request::post(CHAT).body(body).unwrap();
        let answer = soon(short.clone().oneshot(request)).await.unwrap();
        assert_eq!(answer.status(), status, "{answer:?}");
    }
}

/// Eight bytes at a time, for ever.
fn forever() -> impl stream::Stream<Item = Result<Bytes, Infallible>> + Send {
    stream::repeat_with(|| Ok(Bytes::from("12345678")))
}

#[tokio::test]
async fn an_answer_that_leaves_http_is_a_bad_gateway() {
    let upstream = Raw::saying([
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    ])
    .await;
    let addr = serve(proxy_to(upstream.addr)).await;
    assert_eq!(ask(Protocol::Http1, addr).await.0, 502);
}

#[tokio::test]
async fn an_answer_with_two_lengths_is_a_bad_gateway() {
    let upstream =
        Raw::saying(["HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n\
         4\r\nabcd\r\n0\r\n\r\n"])
        .await;
    let addr = serve(proxy_to(upstream.addr)).await;
    assert_eq!(ask(Protocol::Http1, addr).await.0, 502);
}

#[tokio::test]
async fn a_chunked_body_arrives_whole_whatever_length_is_claimed_beside_it() {
    for claimed in [None, Some("content-length: 3\r\n")] {
        let azure = Azure::open(&["east"]).await;
        let addr = serve(App::of(&azure).router()).await;
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{}transfer-encoding: chunked\r\n",
            claimed.unwrap_or_default()
        );
        let (first, second) = PROMPT.split_at(10);
        let body =
            format!("{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", first.len(), second.len());
        let answer = say(addr, &[&head, &body]).await;
        if claimed.is_none() {
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
        let received = azure.emulator.received();
        assert!(received.iter().all(|it| it.body == PROMPT), "{received:?}");
    }
}

#[tokio::test]
async fn a_request_that_names_another_host_goes_to_the_backend() {
    let azure = Azure::open(&["east"]).await;
    let addr = serve(App::of(&azure).router()).await;
    let first = format!("POST http://evil.example{CHAT} HTTP/1.1");
    let length = format!("content-length: {}", PROMPT.len());
    let answer =
        say(addr, &[&first, "host: evil.example", "connection: close", &length, "", PROMPT]).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(azure.emulator.received()[0].headers["host"], azure.addr("east").to_string());
}

#[tokio::test]
async fn an_upgrade_that_the_connection_does_not_ask_for_is_ignored() {
    let azure = Azure::open(&["east"]).await;
    let addr = serve(App::of(&azure).router()).await;
    let first = format!("POST {CHAT} HTTP/1.1");
    let length = format!("content-length: {}", PROMPT.len());
    let lines =
        [&*first, "host: a", "connection: close", "upgrade: websocket", &length, "", PROMPT];
    let answer = say(addr, &lines).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(!azure.emulator.received()[0].headers.contains_key("upgrade"));
}

#[tokio::test]
async fn a_request_without_a_body_goes_without_one() {
    let azure = Azure::open(&["east"]).await;
    let addr = serve(App::of(&azure).router()).await;
    let client: Client<Empty<Bytes>> = Protocol::Http1.client();
    let uri = format!("http://{addr}/openai/v1/models");
    let answer = soon(client.get(uri.parse().unwrap())).await.unwrap();
    assert_eq!(answer.status(), 200);
    let received = &azure.emulator.received()[0];
    assert!(!received.headers.contains_key("content-length"), "{:?}", received.headers);
    assert!(!received.headers.contains_key("transfer-encoding"), "{:?}", received.headers);
}

#[tokio::test]
async fn a_client_that_goes_gives_its_place_in_the_queue_back() {
    let azure = Azure::open(&["east"]).await;
    azure.script(PTU, [refused_for(20_000)]);
    let gate = Gate::new();
    let layer = SmartFallbackLayer::alone(RegionRotateLayer::new(azure.pool([PTU])))
        .max_wait(Duration::from_secs(60))
        .gate(gate.clone());
    let client: Client<ReplayBody<Body>> = Protocol::Http1.client();
    let addr = serve(Router::new().fallback_service(proxy(layer.layer(client)))).await;
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{{}}");
    stream.write_all(request.as_bytes()).await.unwrap();
    until(|| gate.waiting() == 1).await;
    drop(stream);
    until(|| gate.waiting() == 0).await;
    assert_eq!(azure.attempts(), 1);
}

/// The stack in a handler's state, for a body in memory.
type Azured = PtuFirst<Client<Full<Bytes>>>;

#[tokio::test]
async fn a_layer_finds_who_served_a_proxied_request_and_a_handler_s() {
    async fn summary(State(azure): State<Azured>) -> impl IntoResponse {
        let request = Request::post(CHAT).body(Full::<Bytes>::from(PROMPT)).unwrap();
        let answer = azure.oneshot(request).await.expect("an answer");
        (ServedBy::of(&answer), "a summary")
    }
    async fn name(response: axum::response::Response) -> axum::response::Response {
        let by = response.extensions().get::<Served>().and_then(Served::backend).map(str::to_owned);
        ([("x-by", by.unwrap_or_default())], response).into_response()
    }
    let azure = Azure::open(&["east"]).await;
    azure.script(PTU, [refused_for(30_000)]);
    let layer = SmartFallbackLayer::new(
        RegionRotateLayer::new(azure.pool([PTU])),
        RegionRotateLayer::new(azure.pool([STANDARD])),
    );
    let router = Router::new()
        .route("/summary", post(summary))
        .route("/health", get(|| async { "well" }))
        .with_state(layer.layer(Protocol::Http1.client()))
        .fallback_service(proxy(layer.layer(Protocol::Http1.client())))
        .layer(map_response(name));
    let addr = serve(router).await;
    for (path, by) in [("/summary", STANDARD), (CHAT, STANDARD), ("/health", "")] {
        let method = if by.is_empty() { "GET" } else { "POST" };
        let first = format!("{method} {path} HTTP/1.1");
        let answer =
            say(addr, &[&first, "host: a", "connection: close", "content-length: 2", "", "{}"])
                .await;
        assert!(answer.contains(&format!("\r\nx-by: {by}\r\n")), "{path}: {answer}");
    }
}
