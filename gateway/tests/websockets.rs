//! Realtime sessions: their handshakes go through the layers, then bytes are copied both ways.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Uri};
use spillover_testing::real::{pause, soon};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        handshake::{
            derive_accept_key,
            server::{ErrorResponse, Request, Response},
        },
    },
};

use crate::{
    emulate,
    served::{Gateway, TEAM_B},
    started::Started,
};

/// The handshakes that a backend received.
#[derive(Default)]
struct Seen(Mutex<Vec<(Uri, HeaderMap)>>);

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A backend that answers handshakes with `status`, and echoes what it receives.
async fn backend(status: u16) -> (SocketAddr, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, seen) = (listener.local_addr().unwrap(), Arc::<Seen>::default());
    let noted = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(session(stream, status, Arc::clone(&noted)));
        }
    });
    (addr, seen)
}

#[expect(clippy::result_large_err, reason = "tungstenite's own signature")]
async fn session(stream: TcpStream, status: u16, seen: Arc<Seen>) {
    let answer = |request: &Request, mut response: Response| {
        seen.0.lock().unwrap().push((request.uri().clone(), request.headers().clone()));
        if status != 101 {
            let mut refusal = ErrorResponse::new(Some("{}".to_owned()));
            *refusal.status_mut() = http::StatusCode::from_u16(status).unwrap();
            refusal.headers_mut().insert("retry-after-ms", 30_000.into());
            return Err(refusal);
        }
        if request.headers().contains_key("sec-websocket-protocol") {
            let chosen = http::HeaderValue::from_static("realtime");
            response.headers_mut().insert("sec-websocket-protocol", chosen);
        }
        Ok(response)
    };
    let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, answer).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        match message.to_text() {
            Ok("bye") => {
                let _ = socket.close(None).await;
            }
            Ok("vanish") => return,
            _ if message.is_text() || message.is_binary() => {
                let _ = socket.send(message).await;
            }
            _ => {}
        }
    }
}

fn gateway(name: &str, backends: &[SocketAddr], rest: &str) -> Gateway {
    let backends = backends.iter().enumerate().map(|(index, backend)| {
        format!(
            "[[models.rt.standard]]\nname = \"b{index}\"\nendpoint = \"http://{backend}\"\n\
             key = \"env:AZURE_KEY\"\ndeployment = \"rt-{index}\"\npriority = {}\n",
            index + 1
        )
    });
    let text = format!(
        "{rest}\nlisten.address = \"127.0.0.1:0\"\nlisten.admin = \"127.0.0.1:0\"\n\
         [clients.a]\nkeys = [\"env:TEAM_B_KEY\"]\nmodels = [\"rt\"]\n\
         [models.other]\nmax_wait = \"0s\"\n[[models.other.standard]]\nname = \"o\"\n\
         endpoint = \"http://127.0.0.1:1\"\nkey = \"env:AZURE_KEY\"\n\
         [models.rt]\nmax_wait = \"0s\"\n{}",
        backends.collect::<String>()
    );
    Gateway::start(&emulate::file(&format!("websockets-{name}/g.toml"), &text))
}

async fn open(
    gateway: &Gateway,
    target: &str,
    headers: &[(&'static str, &str)],
) -> Result<(Client, HeaderMap), (u16, HeaderMap)> {
    let url = format!("ws://{}{target}", gateway.address());
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match soon(connect_async(request)).await {
        Ok((client, response)) => Ok((client, response.into_parts().0.headers)),
        Err(tungstenite::Error::Http(response)) => {
            let (head, _) = response.into_parts();
            Err((head.status.as_u16(), head.headers))
        }
        Err(error) => panic!("{error}"),
    }
}

async fn echo(client: &mut Client, text: &str) {
    client.send(Message::text(text)).await.unwrap();
    let message = soon(client.next()).await.unwrap().unwrap();
    assert_eq!(message.to_text().unwrap(), text);
}

const KEY: (&str, &str) = TEAM_B;
const CLASSIC: &str = "/openai/realtime?api-version=2025-04-01-preview&deployment=rt";

fn only(seen: &Seen) -> (Uri, HeaderMap) {
    let seen = seen.0.lock().unwrap();
    let [(uri, headers)] = &seen[..] else { panic!("{seen:?}") };
    (uri.clone(), headers.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_carried_in_both_grammars_under_the_backend_s_names() {
    for (name, target, settings, expected) in [
        ("classic", CLASSIC, "", "/openai/realtime?api-version=2025-04-01-preview&deployment=rt-0"),
        (
            "v1",
            "/openai/v1/realtime?model=rt",
            "upstream.http2 = \"always\"",
            "/openai/v1/realtime?model=rt-0",
        ),
    ] {
        let (addr, seen) = backend(101).await;
        let gateway = gateway(name, &[addr], settings);
        let (mut client, headers) = open(&gateway, target, &[KEY]).await.unwrap();
        assert_eq!(headers["x-spillover-backend"], "b0");
        assert!(headers.contains_key("x-request-id"), "{headers:?}");
        echo(&mut client, "hello").await;
        echo(&mut client, &"long ".repeat(100_000)).await;
        client.close(None).await.unwrap();
        while soon(client.next()).await.is_some() {}
        let (uri, headers) = only(&seen);
        assert_eq!(uri.to_string(), expected);
        assert_eq!(headers["api-key"], "azure-key");
        assert!(!format!("{headers:?}").contains("team-b-0001"), "{headers:?}");
        gateway.eventually(|gateway| gateway.log().contains("\"session_end\":"));
        let log = gateway.log();
        let line = log.lines().find(|line| line.contains("session_end")).unwrap();
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["status"], 101, "{line}");
        assert_eq!(line["operation"], "realtime", "{line}");
        assert_eq!(line["ended"], "complete", "{line}");
        assert!(line["from_client_bytes"].as_u64() > Some(500_000), "{line}");
        assert!(line["from_backend_bytes"].as_u64() > Some(500_000), "{line}");
        let metrics = gateway.page("/metrics").0;
        assert!(metrics.contains("spillover_sessions_total{model=\"rt\",end=\""), "{metrics}");
        assert!(metrics.contains("model=\"rt\",from=\"client\"} 5"), "{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_a_browser_lets_it_in_and_goes_no_further() {
    let (addr, seen) = backend(101).await;
    let gateway = gateway("browser", &[addr], "");
    let offered = "realtime, openai-insecure-api-key.a-key-of-team-b-0001, openai-beta.realtime-v1";
    let protocols = [("sec-websocket-protocol", offered)];
    let (mut client, headers) = open(&gateway, CLASSIC, &protocols).await.unwrap();
    assert_eq!(headers["sec-websocket-protocol"], "realtime");
    echo(&mut client, "hello").await;
    let (uri, headers) = only(&seen);
    assert_eq!(headers["sec-websocket-protocol"], "realtime, openai-beta.realtime-v1");
    assert!(!format!("{uri} {headers:?}").contains("team-b-0001"), "{uri} {headers:?}");
    let by_query = format!("{CLASSIC}&api-key=a-key-of-team-b-0001");
    let (mut client, _) = open(&gateway, &by_query, &[]).await.unwrap();
    echo(&mut client, "hello").await;
    assert!(!format!("{:?}", seen.0.lock().unwrap()).contains("team-b-0001"));
    for other in [
        "realtime, OpenAI-Insecure-API-Key.a-key-of-team-b-0001",
        "realtime, \"openai-insecure-api-key.a-key-of-team-b-0001\"",
        "realtime, openai-ephemeral-key.a-key-of-team-b-0001",
    ] {
        let headers = [KEY, ("sec-websocket-protocol", other)];
        let (_, headers) = open(&gateway, CLASSIC, &headers).await.unwrap();
        assert_eq!(headers["sec-websocket-protocol"], "realtime", "{other}");
    }
    assert!(!format!("{:?}", seen.0.lock().unwrap()).contains("team-b-0001"));
    for wrong in ["realtime", "realtime, openai-insecure-api-key.wrong"] {
        let protocols = [("sec-websocket-protocol", wrong)];
        assert_eq!(open(&gateway, CLASSIC, &protocols).await.unwrap_err().0, 401, "{wrong}");
    }
    assert!(!gateway.log().contains("team-b-0001"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_handshake_goes_to_the_next_backend() {
    let ((full, refused), (free, seen)) = (backend(429).await, backend(101).await);
    let gateway = gateway("rotates", &[full, free], "");
    for _ in 0..2 {
        let (mut client, headers) = open(&gateway, CLASSIC, &[KEY]).await.unwrap();
        assert_eq!(headers["x-spillover-backend"], "b1");
        echo(&mut client, "hello").await;
    }
    assert_eq!(refused.0.lock().unwrap().len(), 1, "it is closed for as long as it said");
    let uris: Vec<_> = seen.0.lock().unwrap().iter().map(|(uri, _)| uri.to_string()).collect();
    assert!(uris.iter().all(|uri| uri.ends_with("deployment=rt-1")), "{uris:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_every_backend_refuses_is_refused_with_its_hint() {
    let gateway = gateway("refused", &[backend(429).await.0], "");
    let (status, headers) = open(&gateway, CLASSIC, &[KEY]).await.unwrap_err();
    assert_eq!(status, 429);
    let hint: u64 = headers["retry-after-ms"].to_str().unwrap().parse().unwrap();
    assert!((25_000..=30_000).contains(&hint), "{hint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_allowed_is_refused_before_anything_is_sent() {
    let (addr, seen) = backend(101).await;
    let gateway = gateway("forbidden", &[addr], "");
    for (target, status) in [
        ("/openai/realtime?api-version=1&deployment=other", 403),
        ("/openai/v1/realtime?model=other", 403),
        ("/openai/v1/realtime?model=nowhere", 403),
        ("/openai/v1/realtime?model=rt&model=other", 400),
        ("/openai/v1/responses", 426),
        ("/openai/responses?api-version=1", 426),
        ("/openai/v1/models", 426),
    ] {
        let refused = open(&gateway, target, &[KEY]).await.unwrap_err();
        assert_eq!(refused.0, status, "{target}: {refused:?}");
    }
    let plain = gateway.ask("GET", CLASSIC, &[KEY], "");
    assert_eq!((plain.status(), plain.header("upgrade")), (426, Some("websocket")), "{plain:?}");
    assert!(seen.0.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_that_closes_or_vanishes_ends_the_session_of_the_other() {
    let (addr, _) = backend(101).await;
    let gateway = gateway("ends", &[addr], "");
    for word in ["bye", "vanish"] {
        let (mut client, _) = open(&gateway, CLASSIC, &[KEY]).await.unwrap();
        client.send(Message::text(word)).await.unwrap();
        soon(async { while let Some(Ok(_)) = client.next().await {} }).await;
    }
    let (client, _) = open(&gateway, CLASSIC, &[KEY]).await.unwrap();
    drop(client);
    let ended = |gateway: &Gateway| gateway.log().matches("\"session_end\":").count();
    gateway.eventually(|gateway| ended(gateway) == 3);
    assert!(gateway.log().contains("\"session_end\":\"backend\""), "{}", gateway.log());
    assert!(gateway.log().contains("\"session_end\":\"client\""), "{}", gateway.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_session_ends_by_the_idle_limit_and_a_busy_one_goes_on() {
    let (addr, _) = backend(101).await;
    let gateway = gateway("idle", &[addr], "limits.idle_timeout = \"600ms\"");
    let (mut busy, _) = open(&gateway, CLASSIC, &[KEY]).await.unwrap();
    let (mut silent, _) = open(&gateway, CLASSIC, &[KEY]).await.unwrap();
    for _ in 0..6 {
        pause(250).await;
        echo(&mut busy, "still here").await;
    }
    assert!(!matches!(soon(silent.next()).await, Some(Ok(_))), "it is closed");
    assert!(gateway.log().contains("\"session_end\":\"idle\""), "{}", gateway.log());
    echo(&mut busy, "and here").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_counts_as_under_way_until_its_end() {
    let (addr, _) = backend(101).await;
    let gateway = gateway("counts", &[addr], "limits.concurrency = 1");
    let (mut first, _) = open(&gateway, CLASSIC, &[KEY]).await.unwrap();
    echo(&mut first, "hello").await;
    assert_eq!(open(&gateway, CLASSIC, &[KEY]).await.unwrap_err().0, 503);
    first.close(None).await.unwrap();
    soon(async { while let Some(Ok(_)) = first.next().await {} }).await;
    gateway.eventually(|gateway| gateway.log().contains("session_end"));
    assert!(open(&gateway, CLASSIC, &[KEY]).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_sessions_go_on_until_its_time_is_up() {
    let (addr, _) = backend(101).await;
    let gateway = gateway("drain", &[addr], "listen.drain = \"1s\"");
    let (mut client, _) = open(&gateway, CLASSIC, &[KEY]).await.unwrap();
    echo(&mut client, "before").await;
    gateway.signal("TERM");
    pause(300).await;
    echo(&mut client, "during the drain").await;
    assert!(!matches!(soon(client.next()).await, Some(Ok(_))), "it is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_can_be_rehearsed_against_the_emulator() {
    let resource = |name: &str, more: &str| {
        format!(
            "[[resources]]\nname = \"{name}\"\nkey = \"azure-key\"\n\
             [[resources.deployments]]\nname = \"rt\"\nstandard = {{}}\n{more}\n"
        )
    };
    let text = resource("east", "media_per_minute = 1") + &resource("sweden", "");
    let config = emulate::file("websockets-emulated/azure.toml", &text);
    let mut emulator = Started::new(&["emulate", "--config", config.to_str().unwrap()]);
    let backends = ["east", "sweden"].map(|name| {
        format!(
            "[[models.rt.standard]]\nname = \"{name}\"\nendpoint = \"{}\"\n\
             key = \"env:AZURE_KEY\"\npriority = {}\n",
            emulator.endpoint(),
            if name == "east" { 1 } else { 2 },
        )
    });
    let text = format!(
        "listen.address = \"127.0.0.1:0\"\n[clients.a]\nkeys = [\"env:TEAM_B_KEY\"]\n{}",
        backends.concat()
    );
    let gateway = Gateway::start(&emulate::file("websockets-emulated/g.toml", &text));
    for (backend, decision) in
        [("east", "standard"), ("sweden", "standard; why=rate; waited=0ms; attempts=2")]
    {
        let (mut client, headers) =
            open(&gateway, "/openai/v1/realtime?model=rt", &[KEY]).await.unwrap();
        assert_eq!(headers["x-spillover-backend"], backend);
        assert!(
            headers["x-spillover-decision"].to_str().unwrap().starts_with(decision),
            "{headers:?}"
        );
        assert_eq!(event(&mut client).await["type"], "session.created");
        client.send(Message::text(r#"{"type":"response.create"}"#)).await.unwrap();
        let mut text = String::new();
        loop {
            let event = event(&mut client).await;
            match event["type"].as_str().unwrap() {
                "response.output_text.delta" => text += event["delta"].as_str().unwrap(),
                "response.done" => break,
                _ => {}
            }
        }
        assert_eq!(text, "Hello there");
        client.close(None).await.unwrap();
        while soon(client.next()).await.is_some() {}
    }
}

async fn event(client: &mut Client) -> serde_json::Value {
    let message = soon(client.next()).await.unwrap().unwrap();
    serde_json::from_str(message.to_text().unwrap()).unwrap()
}

/// A backend that answers every handshake with a 101 and these lines, with `ACCEPT` filled in.
async fn switching(lines: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = String::new();
                let mut bytes = [0; 4096];
                while !head.contains("\r\n\r\n") {
                    let Ok(count @ 1..) = stream.read(&mut bytes).await else { return };
                    head += &String::from_utf8_lossy(&bytes[..count]);
                }
                let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: "));
                let accept = derive_accept_key(key.unwrap_or_default().as_bytes());
                let lines = lines.replace("ACCEPT", &accept);
                let answer = format!("HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.read(&mut bytes).await;
            });
        }
    });
    addr
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_to_something_else_than_was_asked_for_is_a_bad_gateway() {
    const SOUND: &str =
        "Upgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n";
    let sound = gateway("switch-sound", &[switching(SOUND).await], "");
    assert!(open(&sound, CLASSIC, &[KEY]).await.is_ok());
    let accepted = "sec-websocket-accept: ACCEPT\r\n";
    let upgrade = "upgrade: websocket\r\nconnection: upgrade\r\n";
    for (name, head, more) in [
        ("bare", "", ""),
        ("accept", accepted, ""),
        ("h2c", "upgrade: h2c\r\nconnection: upgrade\r\n", accepted),
        ("two", "upgrade: websocket, h2c\r\nconnection: upgrade\r\n", accepted),
        ("hop", "upgrade: websocket\r\n", accepted),
        ("missing", upgrade, ""),
        ("wrong", upgrade, "sec-websocket-accept: AAAA\r\n"),
        ("twice", upgrade, "sec-websocket-accept: ACCEPT\r\nsec-websocket-accept: ACCEPT\r\n"),
        ("length", upgrade, "sec-websocket-accept: ACCEPT\r\ncontent-length: 5\r\n"),
        ("chunks", upgrade, "sec-websocket-accept: ACCEPT\r\ntransfer-encoding: chunked\r\n"),
        ("protocol", upgrade, "sec-websocket-accept: ACCEPT\r\nsec-websocket-protocol: x\r\n"),
        ("extension", upgrade, "sec-websocket-accept: ACCEPT\r\nsec-websocket-extensions: x\r\n"),
    ] {
        let lines: &'static str = format!("{head}{more}").leak();
        let gateway = gateway(&format!("switch-{name}"), &[switching(lines).await], "");
        let refused = open(&gateway, CLASSIC, &[KEY]).await.map(|_| ()).unwrap_err();
        assert_eq!(refused.0, 502, "{name}: {refused:?}");
    }
}
