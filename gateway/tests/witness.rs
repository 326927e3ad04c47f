//! A server on a loopback port that records its requests.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream, ToSocketAddrs},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

/// It runs until the test process ends.
pub(crate) struct Witness {
    endpoint: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// A request in wire format.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The request line and the headers, names in lower case.
    pub(crate) head: Vec<String>,
    pub(crate) body: Vec<u8>,
    pub(crate) at: Instant,
}

impl Witness {
    /// `answer` returns a status, header lines, and a body, which may contain a [`PAUSE`].
    pub(crate) fn new(
        answer: impl Fn(&Asked) -> (u16, &'static str, String) + Send + Sync + 'static,
    ) -> Self {
        Self::on("127.0.0.1:0", answer)
    }

    /// The same, at a given address.
    pub(crate) fn on(
        address: impl ToSocketAddrs,
        answer: impl Fn(&Asked) -> (u16, &'static str, String) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (kept, answer) = (Arc::clone(&asked), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                thread::spawn(move || {
                    let Some(asked) = Asked::read(&stream) else { return };
                    kept.lock().unwrap().push(asked.clone());
                    let (status, headers, body) = answer(&asked);
                    let (now, later) = body.split_once(PAUSE).unwrap_or((&body, ""));
                    let text = format!(
                        "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n\
                         {headers}\r\n{now}",
                        now.len() + later.len()
                    );
                    // The client may have disconnected.
                    let _ = (&stream).write_all(text.as_bytes());
                    if !later.is_empty() {
                        thread::sleep(Duration::from_secs(2));
                        let _ = (&stream).write_all(later.as_bytes());
                    }
                });
            }
        });
        Self { endpoint, asked }
    }

    /// Its address, with the scheme.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The requests, once `is_enough` holds.
    pub(crate) fn wait_for(&self, is_enough: impl Fn(&[Asked]) -> bool) -> Vec<Asked> {
        for _ in 0..200 {
            let asked = self.asked();
            if is_enough(&asked) {
                return asked;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("only this was asked: {:?}", self.asked());
    }
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.iter().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// `None` for a connection without a request.
    fn read(stream: &TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let line = line.split_once(": ").map_or_else(
                || line.to_owned(),
                |(name, value)| format!("{}: {value}", name.to_lowercase()),
            );
            head.push(line);
        }
        let mut asked = Self { head, body: Vec::new(), at: now() };
        if asked.header("transfer-encoding") == Some("chunked") {
            asked.body = chunks(&mut reader)?;
        } else {
            let length = asked.header("content-length").map_or(0, |length| length.parse().unwrap());
            asked.body.resize(length, 0);
            reader.read_exact(&mut asked.body).ok()?;
        }
        Some(asked)
    }
}

/// A chunked body, if it is complete.
fn chunks(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let length = usize::from_str_radix(line.trim_end(), 16).ok()?;
        let mut chunk = vec![0; length + 2];
        reader.read_exact(&mut chunk).ok()?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(&chunk[..length]);
    }
}

/// A backend that serves every chat request.
pub(crate) fn serving() -> Witness {
    Witness::new(|_| (200, "content-type: application/json\r\n", CHAT.to_owned()))
}

/// A backend that refuses everything for half a minute.
pub(crate) fn refusing() -> Witness {
    Witness::new(|_| (429, "retry-after-ms: 30000\r\n", String::new()))
}

#[expect(clippy::disallowed_methods, reason = "tests tell when something came")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Everything after it in a body is sent two seconds later.
pub(crate) const PAUSE: &str = "\0";

const CHAT: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","choices":[],
    "usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}"#;
