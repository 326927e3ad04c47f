//! The gateway with large bodies, silent backends, trailers and too few descriptors.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    emulate,
    served::{Azure, Gateway},
};

/// A request as received by a backend: its head, and the length of its body.
struct Asked {
    head: String,
    stream: BufReader<TcpStream>,
}

impl Asked {
    fn read(stream: TcpStream) -> Self {
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).unwrap() > 0 {}
        Self { head, stream }
    }

    /// Reads a body of this length, and returns the sum of its bytes.
    fn body(&mut self) -> (usize, u64) {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let length = lines.into_iter().find(|(name, _)| *name == "content-length").unwrap().1;
        let (mut left, mut sum) = (length.parse::<usize>().unwrap(), 0);
        let mut piece = vec![0; 64 << 10];
        while left > 0 {
            let read = self.stream.read(&mut piece).unwrap();
            assert!(read > 0, "{left} bytes are missing");
            sum += piece[..read].iter().map(|byte| u64::from(*byte)).sum::<u64>();
            left -= read;
        }
        (length.parse().unwrap(), sum)
    }

    fn answer(mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
    }
}

/// A backend that handles each connection with `answer`, and the number of connections.
fn backend(answer: impl Fn(Asked) + Send + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        for stream in listener.incoming() {
            counted.fetch_add(1, Relaxed);
            answer(Asked::read(stream.unwrap()));
        }
    });
    (url, count)
}

/// In front of two backends at the same address.
fn configured(name: &str, url: &str, more: &str) -> PathBuf {
    let backend = |name: &str| {
        format!(
            "[[models.text.standard]]\nname = \"{name}\"\nendpoint = \"{url}\"\n\
             key = \"env:AZURE_KEY\"\n"
        )
    };
    let text = format!(
        "listen.address = \"127.0.0.1:0\"\nclients.open = true\n{more}\n{}{}",
        backend("a"),
        backend("b")
    );
    emulate::file(&format!("{name}/g.toml"), &text)
}

const LARGE: usize = 64 << 20;

/// A form of this many bytes in wire format; returns the answer, and the sum of the bytes.
fn upload(gateway: &Gateway, length: usize) -> (String, u64) {
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    let head = format!(
        "POST /openai/deployments/text/audio/transcriptions?api-version=2024-10-21 HTTP/1.1\r\n\
         host: gateway\r\nconnection: close\r\ncontent-length: {length}\r\n\
         content-type: multipart/form-data; boundary=b\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let start = b"--b\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\n";
    let mut form = start.to_vec();
    let mut sum = 0;
    let mut left = length;
    while left > 0 {
        // A counter, so that all pieces differ.
        let fill = (form.len()..64 << 10).map(|index| (index ^ left >> 10) as u8);
        form.extend(fill);
        form.truncate(left);
        left -= form.len();
        sum += form.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        if stream.write_all(&form).is_err() {
            break;
        }
        form.clear();
    }
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    (answer, sum)
}

/// Peak memory in KiB.
#[cfg(target_os = "linux")]
fn peak_memory(gateway: &Gateway) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_large_upload_streams_through_whole_without_being_held() {
    let (sender, received) = std::sync::mpsc::channel();
    let (url, count) = backend(move |mut asked| {
        // The gateway must not read what it cannot forward yet.
        thread::sleep(Duration::from_millis(700));
        sender.send(asked.body()).unwrap();
        asked.answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}");
    });
    let gateway = Gateway::start(&configured("upload", &url, "limits.body = \"128 MiB\""));
    let before = peak_memory(&gateway);
    let (answer, sent) = upload(&gateway, LARGE);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("; attempts=1; not-replayable\r\n"), "{answer}");
    assert_eq!(received.recv().unwrap(), (LARGE, sent));
    assert_eq!(count.load(Relaxed), 1);
    let more = peak_memory(&gateway) - before;
    println!("{more} KiB more for {} KiB", LARGE >> 10);
    assert!(more < 24 << 10, "{more} KiB for a body of which 4 MiB may be kept");
}

#[test]
fn a_body_that_cannot_be_sent_again_gets_one_attempt_and_the_answer_says_so() {
    let (url, count) = backend(|mut asked| {
        asked.body();
        let head = "HTTP/1.1 429 Too Many Requests\r\nretry-after-ms: 20\r\nconnection: close\r\n";
        asked.answer(&format!("{head}content-length: 0\r\n\r\n"));
    });
    let settings = "limits.replay = \"16 KiB\"\n[models.text]\nmax_wait = \"0s\"";
    let gateway = Gateway::start(&configured("once", &url, settings));
    let (answer, _) = upload(&gateway, 8 << 10);
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("attempts=2"), "{answer}");
    assert_eq!(count.swap(0, Relaxed), 2, "a short one moves on to the other backend");
    thread::sleep(Duration::from_millis(50));
    let (answer, _) = upload(&gateway, 1 << 20);
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(answer.contains("; why=not-replayable; waited=0ms; attempts=1\r\n"), "{answer}");
    assert_eq!(count.load(Relaxed), 1);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a timeout in real time")]
fn an_answer_that_stops_is_broken_off_where_the_client_can_see_it() {
    let (url, _) = backend(|mut asked| {
        asked.body();
        let events = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                      transfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
        let hold = asked.stream.get_ref().try_clone().unwrap();
        asked.answer(events);
        // Open, and silent.
        thread::spawn(move || {
            thread::sleep(Duration::from_secs(10));
            drop(hold);
        });
    });
    let config = configured("silence", &url, "upstream.idle_timeout = \"300ms\"");
    let gateway = Gateway::start(&config);
    let started = Instant::now();
    let answer = gateway.chat("text", &[]).0;
    assert!((300..3_000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    assert!(answer.contains("data: 1\n\n"), "{answer}");
    assert!(!answer.ends_with("0\r\n\r\n"), "nobody takes it for a whole answer: {answer}");
}

#[test]
fn trailers_of_an_answer_pass_to_a_client_that_takes_them() {
    let (url, _) = backend(|mut asked| {
        asked.body();
        asked.answer(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntrailer: x-checksum\r\n\
             transfer-encoding: chunked\r\nconnection: close\r\n\r\n\
             2\r\n{}\r\n0\r\nx-checksum: 7\r\n\r\n",
        );
    });
    let gateway = Gateway::start(&configured("trailers", &url, ""));
    let taken = gateway.chat("text", &[("te", "trailers")]);
    assert_eq!(taken.header("trailer"), Some("x-checksum"), "{taken:?}");
    assert!(taken.0.ends_with("2\r\n{}\r\n0\r\nx-checksum: 7\r\n\r\n"), "{taken:?}");
    let left = gateway.chat("text", &[]);
    assert!(left.0.ends_with("2\r\n{}\r\n0\r\n\r\n"), "{left:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn without_descriptors_it_waits_and_serves_again_when_connections_have_closed() {
    let azure = Azure::new("descriptors");
    let config = configured("descriptors", azure.endpoint(0), "");
    let gateway = Gateway::start(&config);
    let limit = ["--pid", &gateway.pid(), "--nofile=64:64"];
    assert!(Command::new("prlimit").args(limit).status().unwrap().success());
    assert_eq!(gateway.chat("text", &[]).status(), 200);
    let crowd = (0..100).map(|_| TcpStream::connect(gateway.address()).unwrap());
    let crowd = crowd.collect::<Vec<_>>();
    gateway.eventually(|gateway| gateway.log().contains("cannot accept connections"));
    let lines = gateway.log().lines().count();
    thread::sleep(Duration::from_secs(1));
    let more = gateway.log().lines().count() - lines;
    // The crowd connects while the limit applies, so that it may begin more than once.
    assert!(more < 10, "it does not fill the disk: {more} lines in a second");
    for stream in &crowd {
        stream.shutdown(Shutdown::Both).unwrap();
    }
    drop(crowd);
    // The first ones may still find no descriptor for the backend.
    gateway.eventually(|gateway| gateway.chat("text", &[]).status() == 200);
    // And it is notified of changes again.
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("[[models.text.", "[[models.other.")).unwrap();
    gateway
        .eventually(|gateway| gateway.chat("other", &[]).header("x-spillover-backend").is_some());
}
