//! Clients that close their half of the connection after the request.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};

use spillover_testing::real::Stopwatch;

use super::{CHAT, KEY, gateway, head};
use crate::{
    served::Gateway,
    witness::{Witness, serving},
};

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
