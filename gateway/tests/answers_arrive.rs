//! Answers reach a client that is still sending, that has half closed its connection, and whose
//! backend sends a broken answer.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use spillover_testing::real::Stopwatch;

use crate::{
    emulate, renewal,
    served::{Answer, Gateway, OPERATOR},
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
    let hasty = raw_backend(|_, stream| {
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

/// A backend that may do anything with a connection once a request's head has arrived.
fn raw_backend(answer: impl Fn(usize, &TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for (count, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && (&stream).read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            answer(count, &stream);
        }
    });
    url
}

/// A backend that answers the first request with these bytes, and closes; returns the client's
/// answer.
fn answer_to(name: &str, bytes: &str) -> Answer {
    let bytes = bytes.to_owned();
    let backend = raw_backend(move |_, stream| {
        let (mut body, bytes) = ([0; 512], bytes.as_bytes());
        let _ = (&*stream).read(&mut body);
        let _ = (&*stream).write_all(bytes);
    });
    gateway(name, &backend, "").chat("gpt-4o", &[("api-key", "a-key-of-team-b-0001")])
}

#[test]
fn an_answer_that_fails_before_its_first_byte_is_a_bad_gateway() {
    for (name, head) in [
        ("length", "content-type: application/json\r\ncontent-length: 10\r\n\r\n"),
        ("chunked", "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"),
        ("chunk", "transfer-encoding: chunked\r\n\r\nnonsense\r\n"),
        ("stream", "content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"),
    ] {
        let answer = answer_to(&format!("first-{name}"), &format!("HTTP/1.1 200 OK\r\n{head}"));
        assert_eq!(answer.status(), 502, "{name}: {answer:?}");
        assert!(answer.0.contains("\"error\""), "{name}: {answer:?}");
    }
}

#[test]
fn an_answer_that_fails_later_shows_what_came_and_that_it_is_not_whole() {
    let begun = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{\"a\"";
    let answer = answer_to("later", begun);
    assert!(answer.0.starts_with("HTTP/1.1 200 ") && answer.0.ends_with("{\"a\""), "{answer:?}");
}

#[test]
fn a_head_that_is_not_http_is_a_bad_gateway() {
    let long = format!("HTTP/1.1 200 {}\r\ncontent-length: 0\r\n\r\n", "O".repeat(1 << 20));
    let broken = [
        ("lengths", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{} "),
        ("list", "HTTP/1.1 200 OK\r\ncontent-length: 2, 3\r\n\r\n{} "),
        ("word", "HTTP/1.1 200 OK\r\ncontent-length: 2, x\r\n\r\n{}"),
        ("sign", "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\n{}"),
        (
            "both",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n\
             2\r\n{}\r\n0\r\n\r\n",
        ),
        (
            "both-reversed",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n\
             2\r\n{}\r\n0\r\n\r\n",
        ),
        ("status", "HTTP/1.1 2000 OK\r\ncontent-length: 2\r\n\r\n{}"),
        ("letters", "HTTP/1.1 abc OK\r\ncontent-length: 2\r\n\r\n{}"),
        ("version", "HTTP/9.9 200 OK\r\ncontent-length: 2\r\n\r\n{}"),
        ("foreign", "SSH-2.0-OpenSSH_9.6\r\n"),
        ("switch", "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"),
        ("nothing", ""),
        ("long", &long),
    ];
    for (name, bytes) in broken {
        let answer = answer_to(&format!("head-{name}"), bytes);
        assert_eq!(answer.status(), 502, "{name}: {answer:?}");
    }
}

#[test]
fn a_length_that_is_said_twice_comes_down_once() {
    for (name, said) in
        [("list", "2, 2"), ("lines", "2\r\ncontent-length: 2"), ("tight", "2,2 , 2")]
    {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {said}\r\n\r\n{{}}");
        let answer = answer_to(&format!("twice-{name}"), &head);
        let lengths =
            answer.0.to_lowercase().lines().filter(|it| it.starts_with("content-length")).count();
        assert_eq!((answer.status(), lengths), (200, 1), "{name}: {answer:?}");
        assert_eq!(answer.header("content-length"), Some("2"), "{name}");
    }
}

#[test]
fn a_broken_head_moves_on_where_breaks_do() {
    let bad = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n\
               2\r\n{}\r\n0\r\n\r\n";
    let broken = raw_backend(move |_, stream| {
        let _ = (&*stream).write_all(bad.as_bytes());
    });
    let sound = serving();
    for (name, failures, status) in [("stays", "", 502), ("moves", "failures = [\"reset\"]", 200)] {
        let backends = [&*broken, sound.endpoint()];
        let gateway = crate::steering::gateway(&format!("head-{name}"), backends, failures, "");
        assert_eq!(gateway.chat("gpt-4o", &[]).status(), status, "{name}");
    }
}

/// A chat by a client that half closes its connection after its request.
fn half_closed(gateway: &Gateway, lines: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let lines = format!("{KEY}{lines}content-length: {}\r\n", body.len());
    stream.write_all((head("POST", CHAT, &lines) + body).as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn a_client_that_half_closes_gets_its_answer() {
    let slow = Witness::new(|_| {
        thread::sleep(Duration::from_millis(300));
        (200, "content-type: application/json\r\n", "{}".to_owned())
    });
    let gateway = gateway("half", slow.endpoint(), "");
    for lines in ["", "connection: close\r\n"] {
        let answer = half_closed(&gateway, lines, "{}");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("{}"), "{answer}");
    }
}

#[test]
fn a_client_that_half_closes_is_found_out_to_be_there_and_gets_a_late_answer() {
    let slow = Witness::new(|_| {
        thread::sleep(Duration::from_millis(1_800));
        (200, "content-type: application/json\r\n", "{}".to_owned())
    });
    let gateway = gateway("half-late", slow.endpoint(), "");
    let answer = half_closed(&gateway, "", "{}");
    let last = answer.trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n");
    assert!(last.starts_with("HTTP/1.1 200 ") && last.ends_with("{}"), "{answer}");
}

#[test]
fn a_client_that_half_closes_gets_its_stream_to_the_end() {
    let events = Witness::new(|_| {
        let body = format!("data: 1\n\n{}data: [DONE]\n\n", crate::witness::PAUSE);
        (200, "content-type: text/event-stream\r\n", body)
    });
    let gateway = gateway("half-stream", events.endpoint(), "");
    let answer = half_closed(&gateway, "", "{\"stream\":true}");
    assert!(answer.ends_with("data: 1\n\ndata: [DONE]\n\n"), "{answer}");
}

#[test]
fn a_client_that_closes_instead_is_waited_for_no_longer() {
    let silent = Witness::new(|_| {
        thread::sleep(Duration::from_secs(20));
        (200, "", String::new())
    });
    let gateway = gateway("closed", silent.endpoint(), "limits.concurrency = 1");
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    let lines = format!("{KEY}content-length: 2\r\n");
    stream.write_all((head("POST", CHAT, &lines) + "{}").as_bytes()).unwrap();
    silent.wait_for(|asked| !asked.is_empty());
    drop(stream);
    let watch = Stopwatch::start();
    gateway.eventually(|gateway| gateway.log().contains("\"status\":499"));
    assert!(watch.elapsed() < Duration::from_secs(4), "{:?}", watch.elapsed());
}

#[test]
fn a_body_that_half_closes_too_early_is_refused() {
    let gateway = gateway("half-body", serving().endpoint(), "");
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let lines = format!("{KEY}content-length: 10\r\n");
    stream.write_all((head("POST", CHAT, &lines) + "{}").as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[test]
fn other_spellings_of_a_path_are_served_and_no_others() {
    let backend = serving();
    let gateway = gateway("paths", backend.endpoint(), "");
    let ask = |target: &str| {
        gateway.ask("POST", target, &[("api-key", "a-key-of-team-b-0001")], "{}").status()
    };
    let chat = "openai/deployments/gpt-4o/chat/completions";
    for path in [
        format!("//{chat}"),
        format!("///{chat}?api-version=2024-10-21"),
        format!("/{chat}/"),
        format!("/{chat}//?api-version=2024-10-21"),
        "/openai/./deployments/gpt-4o/./chat/completions".to_owned(),
        "/./openai//deployments/gpt-4o//chat/completions".to_owned(),
        "/openai/deployments/gpt-4o/chat/completions/.".to_owned(),
        format!("http://gateway/{chat}"),
        format!("http://elsewhere:81//{chat}?api-version=2024-10-21"),
        "http://gateway/openai/v1//chat/completions/".to_owned(),
    ] {
        let path = path.as_str();
        let body = "{\"model\":\"gpt-4o\"}";
        let answer = gateway.ask("POST", path, &[("api-key", "a-key-of-team-b-0001")], body);
        assert_eq!(answer.status(), 200, "{path}: {answer:?}");
    }
    for asked in backend.asked() {
        let line = &asked.head[0];
        let plain = ["POST /openai/deployments/", "POST /openai/v1/chat/completions "];
        assert!(plain.iter().any(|plain| line.starts_with(plain)), "{line}");
        assert!(
            line.contains("/chat/completions ") || line.contains("/chat/completions?"),
            "{line}"
        );
        assert!(!line.contains("//") && !line.contains("/."), "{line}");
        assert!(!asked.header("host").unwrap().contains("elsewhere"), "{asked:?}");
    }
    let served = backend.asked().len();
    for path in [
        "/openai/deployments/gpt-4o/../gpt-4o/chat/completions",
        "/openai/deployments/gpt-4o/%2e%2e/gpt-4o/chat/completions",
        "/openai/deployments/gpt-4o/.%2E/gpt-4o/chat/completions",
        "/openai/deployments/gpt-4o%2fchat/completions",
        "/openai/deployments/gpt-4o/chat%2Fcompletions",
        "/openai/deployments/gpt-4o/chat%5ccompletions",
        "/openai/%2e/deployments/gpt-4o/chat/completions",
        "/openai/deployments//chat/completions",
        "/openai/deployments/./chat/completions",
        "/openai/..",
        "/../openai/deployments/gpt-4o/chat/completions",
        "http://gateway/openai/../openai/deployments/gpt-4o/chat/completions",
    ] {
        assert_eq!(ask(path), 404, "{path}");
    }
    assert_eq!(backend.asked().len(), served, "none of these goes to a backend");
}
