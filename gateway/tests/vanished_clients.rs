//! Clients that vanish do not occupy the places of others.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use socket2::SockRef;
use spillover_testing::real::Stopwatch;
use tokio::io::AsyncWriteExt;

use crate::{emulate, renewal, served::Gateway};

/// How a client ends its connection.
#[derive(Clone, Copy, Debug)]
enum Leaving {
    Closed,
    Reset,
}

use Leaving::{Closed, Reset};

impl Leaving {
    fn leave(self, stream: &TcpStream) {
        if matches!(self, Reset) {
            SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
}

/// Reads the head of a request, and nothing more.
fn unread() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut held = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 512]);
            held.push(stream);
        }
    });
    url
}

fn text(tls: &str) -> String {
    format!(
        "listen.address = \"127.0.0.1:0\"\nlisten.admin = \"127.0.0.1:0\"\nclients.open = true\n{tls}\n\
         [[models.text.standard]]\nname = \"a\"\nendpoint = \"{}\"\nkey = \"env:AZURE_KEY\"\n",
        unread()
    )
}

fn gateway(name: &str) -> Gateway {
    Gateway::start(&emulate::file(&format!("vanished-{name}/g.toml"), &text("")))
}

fn head(length: usize) -> String {
    format!(
        "POST /openai/deployments/text/chat/completions HTTP/1.1\r\nhost: x\r\n\
         content-length: {length}\r\n\r\n"
    )
}

fn under_way(gateway: &Gateway) -> usize {
    let page = gateway.page("/metrics").0;
    let line = page.lines().find_map(|line| line.strip_prefix("spillover_requests_in_flight "));
    line.unwrap_or_else(|| panic!("{page}")).parse().unwrap()
}

fn gives_up(gateway: &Gateway, shape: &str) {
    let watch = Stopwatch::start();
    gateway.eventually(|gateway| under_way(gateway) == 0);
    assert!(watch.elapsed() < Duration::from_secs(4), "{shape}: {:?}", watch.elapsed());
}

#[test]
fn what_is_pipelined_behind_a_request_hides_no_end() {
    let gateway = gateway("pipelined");
    for behind in ["", "G", "\r\n", "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"] {
        for leaving in [Closed, Reset] {
            let mut stream = TcpStream::connect(gateway.address()).unwrap();
            stream.write_all((head(2) + "{}" + behind).as_bytes()).unwrap();
            gateway.eventually(|gateway| under_way(gateway) == 1);
            leaving.leave(&stream);
            drop(stream);
            gives_up(&gateway, &format!("{behind:?} {leaving:?}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_does_tls() {
    let folder = emulate::file("vanished-tls/cert.pem", renewal::FIRST[0]);
    emulate::file("vanished-tls/key.pem", renewal::FIRST[1]);
    let tls = format!("listen.tls = {{ certificates = {folder:?}, key = \"file:key.pem\" }}");
    let gateway = Gateway::start(&emulate::file("vanished-tls/g.toml", &text(&tls)));
    for leaving in [Closed, Reset] {
        let mut stream = renewal::handshake(gateway.address(), renewal::FIRST[0]).await.unwrap();
        stream.write_all((head(2) + "{}G").as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        gateway.eventually(|gateway| under_way(gateway) == 1);
        if let Reset = leaving {
            let socket = SockRef::from(stream.get_ref().0);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(stream);
        gives_up(&gateway, &format!("{leaving:?}"));
    }
}

#[test]
fn a_reset_is_seen_behind_an_upload_that_no_backend_takes() {
    let gateway = gateway("upload");
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(700))).unwrap();
    let body = vec![b' '; 30 << 20];
    stream.write_all(head(body.len()).as_bytes()).unwrap();
    stream.write_all(&body).expect_err("more than there is room for");
    thread::sleep(Duration::from_millis(1_000));
    assert_eq!(under_way(&gateway), 1, "it is waited for");
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    stream.read(&mut [0; 512]).expect_err("nothing, which some clients would not understand");
    Reset.leave(&stream);
    drop(stream);
    gives_up(&gateway, "upload");
}
