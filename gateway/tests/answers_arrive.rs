//! Answers reach a client that is still sending.

mod broken_backends;
mod half_closed;
mod spellings;

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use crate::{
    emulate, renewal,
    served::{Gateway, OPERATOR},
    witness::{Witness, serving},
};

/// `gpt-4o` on one backend, for a client with a key that may send one request per second.
fn gateway(name: &str, backend: &str, rest: &str) -> Gateway {
    let text = format!(
        "listen.address = \"127.0.0.1:0\"\n{rest}\n\
         [clients.any]\nkeys = [\"env:TEAM_B_KEY\"]\nmodels = [\"gpt-4o\"]\n\
         [clients.rare]\nkeys = [\"env:TEAM_A_KEY\"]\nrequests_per_second = 0.01\n\
         [models.other]\n[[models.other.standard]]\nname = \"a\"\nendpoint = \"{backend}\"\n\
         key = \"env:AZURE_KEY\"\n\
         [[models.\"gpt-4o\".standard]]\nname = \"east\"\nendpoint = \"{backend}\"\n\
         key = \"env:AZURE_KEY\"\n"
    );
    Gateway::start(&emulate::file(&format!("answers-{name}/g.toml"), &text))
}

const KEY: &str = "api-key: a-key-of-team-b-0001\r\n";
const CHAT: &str = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";

/// Sends a complete body before reading, like blocking clients; returns the error while sending,
/// and what could be read.
fn send_all(gateway: &Gateway, head: &str, body: &[u8]) -> (Option<String>, String) {
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let error = body.chunks(64 << 10).find_map(|piece| {
        // The answer arrives before the next piece is sent.
        thread::sleep(Duration::from_micros(500));
        stream.write_all(piece).err()
    });
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer).err();
    let error = error.or(end).map(|error| error.to_string());
    (error, String::from_utf8_lossy(&answer).into_owned())
}

fn head(method: &str, path: &str, lines: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n{lines}\r\n"
    )
}

/// A body of ten megabytes in wire format, with its framing header.
fn framings() -> [(&'static str, String, Vec<u8>); 2] {
    let body = vec![b' '; 10 << 20];
    let chunk = [format!("{:x}\r\n", 64 << 10).as_bytes(), &[b' '; 64 << 10], b"\r\n"].concat();
    let mut chunks = chunk.repeat(160);
    chunks.extend(b"0\r\n\r\n");
    [
        ("length", format!("content-length: {}\r\n", body.len()), body),
        ("chunked", "transfer-encoding: chunked\r\n".to_owned(), chunks),
    ]
}

#[test]
fn a_refusal_during_an_upload_is_read_by_a_client_that_sends_all_of_it() {
    let long = gateway("too-long", serving().endpoint(), "limits.body = \"1 MiB\"");
    let gateway = gateway("refusals", serving().endpoint(), "");
    let rare = "api-key: a-key-of-team-a-0001\r\n";
    let other = "/openai/deployments/other/chat/completions?api-version=2024-10-21";
    assert_eq!(gateway.chat("gpt-4o", &[("api-key", "a-key-of-team-a-0001")]).status(), 200);
    for (framing, line, body) in framings() {
        for (status, method, path, lines) in [
            (401, "POST", CHAT, ""),
            (401, "POST", CHAT, "expect: 100-continue\r\n"),
            (403, "POST", other, KEY),
            (404, "POST", "/nowhere", KEY),
            (405, "TRACE", CHAT, KEY),
            (413, "POST", CHAT, KEY),
            (429, "POST", CHAT, rare),
        ] {
            let gateway = if status == 413 { &long } else { &gateway };
            let (error, answer) =
                send_all(gateway, &head(method, path, &format!("{lines}{line}")), &body);
            let expected = format!("HTTP/1.1 {status} ");
            assert!(answer.contains(&expected), "{framing} {lines}{status}: {answer} {error:?}");
            assert!(answer.ends_with('}'), "{framing} {status}: {answer}");
            assert_eq!(error, None, "{framing} {lines}{status}");
        }
    }
}

/// Sends a request's head and reads the answer, then the body and, unless the answer announced a
/// close, a chat on the same connection.
fn one_after_another(gateway: &Gateway, begun: &str, rest: &[u8]) -> (String, Option<String>) {
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(begun.as_bytes()).unwrap();
    let first = one_answer(&mut stream);
    if first.contains("\r\nconnection: close\r\n") {
        return (first, None);
    }
    stream.write_all(rest).unwrap();
    thread::sleep(Duration::from_millis(50));
    let next = head("POST", CHAT, &format!("{KEY}content-length: 2\r\n")) + "{}";
    stream.write_all(next.as_bytes()).unwrap();
    (first, Some(one_answer(&mut stream)))
}

/// Whatever arrives of it.
fn one_answer(stream: &mut TcpStream) -> String {
    let (mut answer, mut byte) = (String::new(), [0]);
    let is_whole = |answer: &str| {
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
        Some(body.len() >= length.parse().ok()?)
    };
    while is_whole(&answer) != Some(true) && matches!(stream.read(&mut byte), Ok(1)) {
        answer.push(char::from(byte[0]));
    }
    answer
}

#[test]
fn a_connection_goes_on_after_an_early_refusal_or_was_said_to_close() {
    let long = gateway("on-too-long", serving().endpoint(), "limits.body = \"1 KiB\"");
    let gateway = gateway("on", serving().endpoint(), "");
    let other = "/openai/deployments/other/chat/completions?api-version=2024-10-21";
    let rare = "api-key: a-key-of-team-a-0001\r\n";
    assert_eq!(gateway.chat("gpt-4o", &[("api-key", "a-key-of-team-a-0001")]).status(), 200);
    let chunks = [b"10000\r\n".to_vec(), vec![b' '; 65_536], b"\r\n0\r\n\r\n".to_vec()].concat();
    for (framing, goes_on, rest) in [
        ("content-length: 100\r\n", true, vec![b' '; 100]),
        ("content-length: 200000\r\n", true, vec![b' '; 200_000]),
        ("content-length: 3000000\r\n", false, vec![b' '; 3_000_000]),
        ("content-length: 2000\r\nexpect: 100-continue\r\n", false, vec![b' '; 2_000]),
        ("transfer-encoding: chunked\r\n", false, chunks),
    ] {
        for (status, method, path, lines) in [
            (401, "POST", CHAT, ""),
            (403, "POST", other, KEY),
            (404, "POST", "/nowhere", KEY),
            (405, "PUT", CHAT, KEY),
            (413, "POST", CHAT, KEY),
            (429, "POST", CHAT, rare),
        ] {
            if status == 413 && (rest.len() < 1_024 || framing.starts_with("transfer")) {
                continue;
            }
            let gateway = if status == 413 { &long } else { &gateway };
            let begun = head(method, path, &format!("{lines}{framing}"));
            let (first, next) = one_after_another(gateway, &begun, &rest);
            assert!(first.starts_with(&format!("HTTP/1.1 {status} ")), "{framing}{first}");
            assert_eq!(next.is_some(), goes_on, "{framing}{first}");
            let is_served = next.as_ref().is_none_or(|next| next.starts_with("HTTP/1.1 200 "));
            assert!(is_served, "{framing}{status}: {next:?}");
        }
    }
}

#[test]
fn a_whole_request_that_is_refused_leaves_its_connection_open() {
    let gateway = gateway("whole", serving().endpoint(), "");
    for (framing, body) in
        [("content-length: 2\r\n", "{}"), ("content-length: 0\r\n", ""), ("", "")]
    {
        let begun = head("POST", CHAT, framing) + body;
        let (first, next) = one_after_another(&gateway, &begun, b"");
        assert!(first.starts_with("HTTP/1.1 401 "), "{first}");
        let next = next.unwrap_or_else(|| panic!("{framing}: {first}"));
        assert!(next.starts_with("HTTP/1.1 200 "), "{framing}: {next}");
    }
}

#[tokio::test]
async fn a_refusal_is_read_through_tls_too() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let gateway = renewal::secured("answers-tls/g.toml");
    for (framing, line, body) in framings() {
        let mut stream = renewal::handshake(gateway.address(), renewal::FIRST[0]).await.unwrap();
        stream.write_all(head("POST", "/nowhere", &line).as_bytes()).await.unwrap();
        for piece in body.chunks(64 << 10) {
            let sent = stream.write_all(piece).await;
            sent.unwrap_or_else(|error| panic!("{framing}: {error}"));
        }
        stream.flush().await.unwrap_or_else(|error| panic!("{framing}: {error}"));
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer).await;
        read.unwrap_or_else(|error| panic!("{framing}: {error}"));
        assert!(answer.starts_with("HTTP/1.1 404 ") && answer.ends_with('}'), "{answer}");
    }
}

#[tokio::test]
async fn http_2_ends_an_upload_that_was_answered_without_an_error() {
    let gateway = gateway("h2", serving().endpoint(), "");
    let tcp = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    let (client, connection) = h2::client::handshake(tcp).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(format!("http://gateway{CHAT}")).body(()).unwrap();
    let mut client = client.ready().await.unwrap();
    let (answer, mut upload) = client.send_request(request, false).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 401);
    let reset = std::future::poll_fn(|cx| upload.poll_reset(cx)).await.unwrap();
    assert_eq!(reset, h2::Reason::NO_ERROR);
    let mut body = answer.into_body();
    let text = body.data().await.unwrap().unwrap();
    assert!(text.ends_with(b"}"), "{text:?}");
    let request = http::Request::get("http://gateway/healthz").body(()).unwrap();
    let (answer, _) = client.ready().await.unwrap().send_request(request, true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200, "the connection goes on");
}

#[test]
fn a_head_that_is_too_long_is_refused_where_its_client_can_read_it() {
    let gateway = gateway("head", serving().endpoint(), "limits.head = \"8 KiB\"");
    let begun = format!("POST {CHAT} HTTP/1.1\r\nhost: gateway\r\nx-long: ");
    let (error, answer) = send_all(&gateway, &begun, &vec![b'x'; 2 << 20]);
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer} {error:?}");
    assert_eq!(error, None);
}

#[test]
fn a_busy_gateway_says_so_to_a_client_that_is_still_sending() {
    let slow = Witness::new(|_| {
        thread::sleep(Duration::from_secs(3));
        (200, "", String::new())
    });
    let gateway = gateway("busy", slow.endpoint(), "limits.concurrency = 1");
    thread::scope(|scope| {
        scope.spawn(|| gateway.chat("gpt-4o", &[("api-key", "a-key-of-team-b-0001")]));
        slow.wait_for(|asked| !asked.is_empty());
        let (_, line, body) = &framings()[0];
        let (error, answer) =
            send_all(&gateway, &head("POST", CHAT, &format!("{KEY}{line}")), body);
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer} {error:?}");
        assert_eq!(error, None);
    });
}

#[test]
fn a_client_that_goes_on_sending_is_cut_off() {
    let gateway = gateway("endless", serving().endpoint(), "");
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    let line = "transfer-encoding: chunked\r\n";
    stream.write_all(head("POST", CHAT, line).as_bytes()).unwrap();
    let chunk = [format!("{:x}\r\n", 1 << 20).as_bytes(), &[b' '; 1 << 20], b"\r\n"].concat();
    let sent = (0..1_000).take_while(|_| stream.write_all(&chunk).is_ok()).count();
    assert!((32..200).contains(&sent), "{sent} MiB");
}

#[test]
fn a_backend_s_early_answer_arrives_during_an_upload() {
    // It answers the head, and closes the connection without reading the body.
    let hasty = broken_backends::raw_backend(|_, stream| {
        let text = "HTTP/1.1 413 X\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n\
                    {\"error\":\"b\"}";
        let _ = (&*stream).write_all(text.as_bytes());
    });
    // For a client restricted to some models, the body would be read first.
    let rest = "limits.replay = \"1 KiB\"\n[clients.whole]\nkeys = [\"env:OPERATOR_KEY\"]";
    let key = format!("{}: {}\r\n", OPERATOR.0, OPERATOR.1);
    let embeddings = "/openai/deployments/gpt-4o/embeddings?api-version=1";
    let gateway = gateway("early", &hasty, rest);
    for (framing, line, body) in framings() {
        let (error, answer) =
            send_all(&gateway, &head("POST", embeddings, &format!("{key}{line}")), &body);
        assert!(answer.starts_with("HTTP/1.1 413 "), "{framing}: {answer} {error:?}");
        assert!(answer.ends_with("{\"error\":\"b\"}"), "{framing}: {answer}");
        assert_eq!(error, None, "{framing}");
    }
}
