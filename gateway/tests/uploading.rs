//! Bodies that clients send slowly.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use crate::{
    served::Gateway,
    steering::{CHAT, JSON, gateway},
    witness::{Witness, serving},
};

#[test]
fn a_slow_upload_is_no_failure_of_the_backend() {
    let silent = Witness::new(|_| {
        std::thread::sleep(Duration::from_secs(20));
        (200, JSON, CHAT.to_owned())
    });
    let (east, sweden) = (serving(), serving());
    let settings = "limits.replay = \"1 KiB\"\nupstream.head_timeout = \"500ms\"\n";
    for (name, backend, expected) in
        [("slow", &east, "HTTP/1.1 200"), ("slow-silent", &silent, "HTTP/1.1 504")]
    {
        let model = "failures = [\"timeout\"]";
        let gateway = gateway(name, [backend.endpoint(), sweden.endpoint()], model, settings);
        let answer = upload_slowly(&gateway, Duration::from_millis(100));
        assert!(answer.starts_with(expected), "{answer}");
    }
}

/// Sends 40,000 bytes in ten pieces, with a pause after each.
fn upload_slowly(gateway: &Gateway, pause: Duration) -> String {
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    let path = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: 40000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..10 {
        stream.write_all(&[b' '; 4_000]).unwrap();
        std::thread::sleep(pause);
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
