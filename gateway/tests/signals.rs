//! Signals that end `spillover serve`: the first one drains, the second one exits immediately.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    thread,
    time::Duration,
};

use spillover_testing::real::Stopwatch;

use crate::{emulate, served::Gateway, started::Started};

/// In front of a backend that never answers, with a drain time longer than the test.
fn draining(name: &str) -> (Gateway, TcpStream) {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!(
        "listen.address = \"127.0.0.1:0\"\nlisten.drain = \"1h\"\nclients.open = true\n\
         [[models.text.standard]]\nname = \"a\"\nendpoint = \"http://{}\"\nkey = \"env:AZURE_KEY\"\n",
        silent.local_addr().unwrap()
    );
    let (sender, arrived) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let mut held = Vec::new();
        for stream in silent.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4_096]);
            held.push(stream);
            let _ = sender.send(());
        }
    });
    let gateway = Gateway::start(&emulate::file(&format!("{name}/g.toml"), &text));
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    let request = "POST /openai/deployments/text/chat/completions HTTP/1.1\r\nhost: x\r\n\
                   content-length: 15\r\n\r\n{\"messages\":[]}";
    stream.write_all(request.as_bytes()).unwrap();
    arrived.recv_timeout(Duration::from_secs(10)).expect("the request is under way");
    (gateway, stream)
}

#[test]
fn a_second_signal_of_either_kind_ends_a_drain_at_once() {
    for (index, (first, second)) in
        [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT"), ("INT", "TERM")].into_iter().enumerate()
    {
        let (gateway, _stream) = draining(&format!("signals-{index}"));
        gateway.signal(first);
        gateway.eventually(|gateway| TcpStream::connect(gateway.address()).is_err());
        thread::sleep(Duration::from_millis(200));
        let begun = Stopwatch::start();
        gateway.signal(second);
        gateway.ended();
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{first}, {second}: {:?}",
            begun.elapsed()
        );
    }
}

#[test]
fn one_signal_waits_for_what_is_under_way() {
    let (gateway, mut stream) = draining("signals-one");
    gateway.signal("TERM");
    gateway.eventually(|gateway| TcpStream::connect(gateway.address()).is_err());
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert!(stream.read(&mut [0; 16]).is_err(), "the request is still under way");
    gateway.signal("TERM");
    gateway.ended();
}

#[test]
fn a_signal_ends_a_start_that_waits_for_its_configuration() {
    let config: PathBuf = emulate::file("signals-start/g.toml", "");
    fs::remove_file(&config).unwrap();
    assert!(Command::new("mkfifo").arg(&config).status().unwrap().success());
    for command in ["serve", "emulate"] {
        let started = Started::new(&[command, "--config", config.to_str().unwrap()]);
        thread::sleep(Duration::from_millis(500));
        let begun = Stopwatch::start();
        started.terminated();
        assert!(begun.elapsed() < Duration::from_secs(3), "{command}: {:?}", begun.elapsed());
    }
}

#[test]
fn connections_without_a_request_hold_up_no_drain() {
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &settings].concat();
    // GET, http, `/` and an authority: answered 404.
    let headers = [0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84, 1, 1, b'x'];
    let asked = [preface.as_slice(), &headers].concat();
    for (name, sent) in [
        ("preface", preface.as_slice()),
        ("asked", &asked),
        ("half-a-head", b"GET / HTTP/1.1\r\nho"),
        ("half-behind", b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HT"),
    ] {
        let text = "listen.address = \"127.0.0.1:0\"\nlisten.drain = \"20s\"\nclients.open = true\n\
                    [[models.text.standard]]\nname = \"a\"\nendpoint = \"http://127.0.0.1:9\"\n\
                    key = \"env:AZURE_KEY\"\n";
        let gateway = Gateway::start(&emulate::file(&format!("drain-{name}/g.toml"), text));
        // It does not reply to anything it receives.
        let mut frozen = TcpStream::connect(gateway.address()).unwrap();
        frozen.write_all(sent).unwrap();
        thread::sleep(Duration::from_millis(200));
        let begun = Stopwatch::start();
        gateway.terminated();
        assert!(begun.elapsed() < Duration::from_secs(5), "{name}: {:?}", begun.elapsed());
    }
}
