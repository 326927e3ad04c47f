//! Names with several addresses, and names whose addresses change.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use crate::{emulate, served::Gateway, witness::Witness};

/// A backend that keeps its connections, and counts them.
struct Keeping {
    address: SocketAddr,
    opened: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
}

impl Keeping {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (opened, closed) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let counts = (Arc::clone(&opened), Arc::clone(&closed));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (opened, closed) = (Arc::clone(&counts.0), Arc::clone(&counts.1));
                opened.fetch_add(1, Relaxed);
                thread::spawn(move || {
                    answer_all(&stream);
                    closed.fetch_add(1, Relaxed);
                });
            }
        });
        Self { address, opened, closed }
    }
}

fn answer_all(stream: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
                length = value.trim().parse().ok()?;
            }
            if line == "\r\n" {
                break;
            }
        }
        reader.read_exact(&mut vec![0; length]).ok()?;
        (&*stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").ok()?;
    }
}

fn gateway(name: &str, upstream: &str, endpoint: &str) -> Gateway {
    let text = format!(
        "clients.open = true\n[listen]\naddress = \"127.0.0.1:0\"\n[upstream]\n{upstream}\n\
         [[models.text.standard]]\nname = \"a\"\nendpoint = \"{endpoint}\"\nkey = \"env:AZURE_KEY\"\n"
    );
    Gateway::start(&emulate::file(&format!("names-{name}/g.toml"), &text))
}

#[test]
fn a_connection_of_age_is_given_up_though_it_is_never_idle() {
    let backend = Keeping::new();
    let endpoint = format!("http://{}", backend.address);
    let gateway = gateway("age", "connection_age = \"1s\"", &endpoint);
    // On one client connection, which one thread serves.
    let stream = TcpStream::connect(gateway.address()).unwrap();
    let mut reader = BufReader::new(&stream);
    let path = "/openai/deployments/text/chat/completions?api-version=1";
    for round in 0..60 {
        let request = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{{}}");
        (&stream).write_all(request.as_bytes()).unwrap();
        let mut line = String::new();
        while !line.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut line).unwrap() > 0, "{line}");
        }
        reader.read_exact(&mut [0; 2]).unwrap();
        assert!(line.starts_with("HTTP/1.1 200"), "{line}");
        if round == 0 {
            assert_eq!(backend.opened.load(Relaxed), 1);
        }
        if backend.closed.load(Relaxed) > 0 {
            assert!(backend.opened.load(Relaxed) > 1);
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("it lasted: {} opened", backend.opened.load(Relaxed));
}

#[test]
fn connections_are_kept_until_then() {
    let backend = Keeping::new();
    let gateway = gateway("kept", "", &format!("http://{}", backend.address));
    for _ in 0..10 {
        assert_eq!(gateway.chat("text", &[]).status(), 200);
    }
    // One for each serving thread.
    let threads = thread::available_parallelism().map_or(1, usize::from);
    assert!(backend.opened.load(Relaxed) <= threads, "{}", backend.opened.load(Relaxed));
}

/// `localhost` is `::1` and `127.0.0.1` on most machines, and one of them nearly everywhere.
#[test]
fn a_name_is_served_by_whichever_of_its_addresses_lives() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        if TcpListener::bind(address).is_err() {
            continue;
        }
        let backend = Witness::on(address, |_| (200, "", "{}".to_owned()));
        let port = backend.endpoint().rsplit(':').next().unwrap().to_owned();
        let is_its = |it: SocketAddr| it.is_ipv6() == address.starts_with('[');
        let names = std::net::ToSocketAddrs::to_socket_addrs("localhost:1");
        if !names.is_ok_and(|mut addresses| addresses.any(is_its)) {
            continue;
        }
        let gateway = gateway("both", "", &format!("http://localhost:{port}"));
        assert_eq!(gateway.chat("text", &[]).status(), 200, "{address} {}", gateway.log());
    }
}
