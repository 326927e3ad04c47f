//! What a client gets when a backend sends a broken answer.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use super::gateway;
use crate::{served::Answer, witness::serving};

/// A backend that may do anything with a connection once a request's head has arrived.
pub(super) fn raw_backend(answer: impl Fn(usize, &TcpStream) + Send + Sync + 'static) -> String {
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
