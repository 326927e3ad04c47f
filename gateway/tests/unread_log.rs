//! A log that is not read, or cannot be written: requests are served, and losses are reported
//! later.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use spillover_testing::real::Stopwatch;

use crate::{emulate, served::Gateway, started::Started};

/// One client, and no reachable backend.
fn configured(name: &str) -> PathBuf {
    let text = "listen.address = \"127.0.0.1:0\"\nlisten.admin = \"127.0.0.1:0\"\nlisten.drain = \"1s\"\n\
                [clients.a]\nkeys = [\"env:TEAM_B_KEY\"]\n[[models.text.standard]]\n\
                name = \"none\"\nendpoint = \"http://127.0.0.1:9\"\nkey = \"env:AZURE_KEY\"\n";
    emulate::file(&format!("{name}/g.toml"), text)
}

/// Sends this many requests to `path`, several at a time on each connection, and counts the answers
/// with this status.
fn answered(address: &str, count: usize, path: &str, key: &str, status: &str) -> usize {
    let connections = (0..CONNECTIONS).map(|_| {
        let (address, status) = (address.to_owned(), format!("HTTP/1.1 {status} "));
        // A client's own id makes a long line.
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\napi-key: {key}\r\nx-request-id: {}\r\n\r\n",
            "i".repeat(64)
        );
        thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut answers = BufReader::new(stream.try_clone().unwrap());
            let mut right = 0;
            for _ in 0..count / CONNECTIONS / AT_ONCE {
                stream.write_all(request.repeat(AT_ONCE).as_bytes()).unwrap();
                right += (0..AT_ONCE).filter(|_| answer(&mut answers).starts_with(&status)).count();
            }
            right
        })
    });
    let connections = connections.collect::<Vec<_>>();
    connections.into_iter().map(|connection| connection.join().unwrap()).sum()
}

/// Reads an answer and returns its first line.
fn answer(stream: &mut BufReader<TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).expect("an answer") > 0, "it ended");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    head.lines().next().unwrap().to_owned()
}

fn dropped(gateway: &Gateway) -> u64 {
    let page = gateway.page("/metrics").0;
    let line =
        page.lines().find_map(|line| line.strip_prefix("spillover_log_lines_dropped_total "));
    line.unwrap_or_else(|| panic!("{page}")).parse().unwrap()
}

fn ends(gateway: Gateway) -> bool {
    let begun = Stopwatch::start();
    gateway.terminated();
    println!("it ended after {:?}", begun.elapsed());
    begun.elapsed() < Duration::from_secs(8)
}

/// All of them are answered while the log is not read, and it exits on the signal.
fn serves_unread(name: &str, count: usize) {
    let mut gateway = Gateway::logging_to(&configured(name), Stdio::piped());
    let unread = gateway.stderr();
    let begun = Stopwatch::start();
    assert_eq!(answered(gateway.address(), count, NOWHERE, "a-key-of-team-b-0001", "404"), count);
    println!("{count} answers in {:?}, {} lines dropped", begun.elapsed(), dropped(&gateway));
    assert!(dropped(&gateway) > 0);
    assert_eq!(gateway.ask("GET", "/healthz", &[], "").status(), 200);
    assert!(ends(gateway), "it waits for nobody");
    drop(unread);
}

#[test]
fn an_unread_log_stops_no_request_and_no_exit() {
    serves_unread("unread", 24_000);
}

#[test]
#[ignore = "a measurement: `cargo test -p spillover --test gateway 100_000 -- --ignored --nocapture`"]
fn an_unread_log_stops_none_of_100_000_requests() {
    serves_unread("unread-100k", 100_000);
}

#[test]
fn one_line_tells_how_many_were_dropped_when_somebody_reads_again() {
    let mut gateway = Gateway::logging_to(&configured("read-again"), Stdio::piped());
    let mut log = BufReader::new(gateway.stderr());
    assert_eq!(answered(gateway.address(), 24_000, NOWHERE, "a-key-of-team-b-0001", "404"), 24_000);
    let lost = dropped(&gateway);
    assert!(lost > 0);
    let (mut line, mut whole) = (String::new(), 0);
    loop {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0);
        let event: serde_json::Value = serde_json::from_str(&line).expect("no line is cut");
        if event["message"] == "log lines were dropped" {
            assert_eq!(event["lines"], lost);
            break;
        }
        whole += u64::from(event["message"] == "request");
    }
    assert_eq!(whole + lost, 24_000, "each was written or counted");
    assert_eq!(
        gateway.ask("GET", NOWHERE, &[("api-key", "a-key-of-team-b-0001")], "").status(),
        404
    );
    line.clear();
    log.read_line(&mut line).unwrap();
    assert!(line.contains("\"message\":\"request\""), "{line}");
    thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    assert!(ends(gateway));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_a_closed_log_and_a_reader_that_left_are_survived() {
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let left = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    for (name, log) in [("full", full()), ("left", left())] {
        let gateway = Gateway::logging_to(&configured(name), log);
        assert_eq!(answered(gateway.address(), 400, NOWHERE, "a-key-of-team-b-0001", "404"), 400);
        gateway.eventually(|gateway| dropped(gateway) >= 400);
        assert!(ends(gateway), "{name}");
    }
    let config = configured("closed");
    let command = "exec \"$0\" serve --config \"$1\" 2>&-";
    let mut closed = Started::shell(command, &[config.to_str().unwrap()]);
    let address = closed.endpoint();
    let address = address.strip_prefix("http://").unwrap();
    assert_eq!(answered(address, 400, NOWHERE, "a-key-of-team-b-0001", "404"), 400);
    closed.terminated();
}

#[cfg(target_os = "linux")]
#[test]
fn a_log_at_its_largest_size_or_only_to_be_read_loses_lines_and_counts_them() {
    for (name, command) in [
        // Of 512 bytes each: not a whole number of lines.
        ("largest", "ulimit -f 20; exec \"$0\" serve --config \"$1\" 2>\"$2\""),
        ("largest-appended", "ulimit -f 20; exec \"$0\" serve --config \"$1\" 2>>\"$2\""),
        ("read-only", "exec \"$0\" serve --config \"$1\" 2<\"$2\""),
    ] {
        let config = configured(name);
        let log = config.with_file_name("log");
        std::fs::write(&log, "").unwrap();
        let arguments = [config.to_str().unwrap(), log.to_str().unwrap()];
        let gateway = Gateway::shell(command, &arguments);
        assert_eq!(answered(gateway.address(), 400, NOWHERE, "a-key-of-team-b-0001", "404"), 400);
        let whole = |text: &str| text.lines().filter(|line| line.ends_with("request\"}")).count();
        gateway.eventually(|gateway| {
            let written = whole(&std::fs::read_to_string(&log).unwrap());
            dropped(gateway) > 300 && dropped(gateway) + written as u64 >= 400
        });
        assert!(ends(gateway), "{name}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_printed_changes_no_exit_status() {
    let none = PathBuf::from("/nowhere/g.toml");
    for command in ["check", "serve", "emulate"] {
        let ended = |to: &str| {
            Command::new(env!("CARGO_BIN_EXE_spillover"))
                .args([command, "--config", none.to_str().unwrap()])
                .stderr(File::options().write(true).open(to).unwrap())
                .status()
                .unwrap()
                .code()
        };
        assert_eq!(ended("/dev/full"), ended("/dev/null"), "{command}");
        let at_its_largest = Command::new("sh")
            .args(["-c", "ulimit -f 0; exec \"$0\" \"$1\" --config /nowhere/g.toml 2>\"$2\""])
            .args([env!("CARGO_BIN_EXE_spillover"), command])
            .arg(configured(&format!("largest-{command}")).with_file_name("error"))
            .status()
            .unwrap();
        assert_eq!(at_its_largest.code(), ended("/dev/null"), "{command}");
    }
    // A start that fails, with a pipe that is already full.
    let (reader, mut writer) = std::io::pipe().unwrap();
    let filled = writer.try_clone().unwrap();
    thread::spawn(move || writer.write_all(&[b'x'; 1 << 20]));
    thread::sleep(Duration::from_millis(100));
    let begun = Stopwatch::start();
    let ended = Command::new(env!("CARGO_BIN_EXE_spillover"))
        .args(["serve", "--config", none.to_str().unwrap()])
        .stderr(filled)
        .status()
        .unwrap();
    assert_eq!(ended.code(), Some(2));
    assert!(begun.elapsed() < Duration::from_secs(5));
    drop(reader);
}

#[test]
fn what_anybody_can_cause_is_logged_at_a_bounded_rate() {
    let gateway = Gateway::start(&configured("keyless"));
    for (path, key, status) in [
        (NOWHERE, "wrong", "401"),
        ("/", "a-key-of-team-b-0001", "404"),
        ("/openai/realtime", "", "426"),
    ] {
        assert_eq!(answered(gateway.address(), 1_200, path, key, status), 1_200, "{path}");
    }
    assert_eq!(answered(gateway.address(), 400, NOWHERE, "a-key-of-team-b-0001", "404"), 400);
    let count = |gateway: &Gateway, what: &str| {
        gateway.log().lines().filter(|line| line.contains(what)).count()
    };
    gateway.eventually(|gateway| count(gateway, "\"client\":\"a\"") == 400);
    let lines = gateway.log().lines().count();
    assert!((500..=720).contains(&lines), "{lines} lines");
    let metrics = gateway.page("/metrics").0;
    assert!(metrics.contains("status=\"401\",decision=\"gateway\"} 1200"), "{metrics}");
}

const CONNECTIONS: usize = 4;
const AT_ONCE: usize = 100;
/// An unknown model: the gateway answers itself.
const NOWHERE: &str = "/openai/deployments/none/chat/completions";

#[test]
fn an_unread_standard_output_stops_no_start() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let filled = writer.try_clone().unwrap();
    thread::spawn(move || writer.write_all(&[b'x'; 1 << 20]));
    thread::sleep(Duration::from_millis(100));
    let address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let config = configured("unread-output");
    let mut child = Command::new(env!("CARGO_BIN_EXE_spillover"))
        .args(["serve", "--listen", &address, "--config", config.to_str().unwrap()])
        .env("AZURE_KEY", "azure-key")
        .env("TEAM_B_KEY", "a-key-of-team-b-0001")
        .stdout(filled.try_clone().unwrap())
        .stderr(filled)
        .spawn()
        .unwrap();
    let begun = Stopwatch::start();
    while TcpStream::connect(&address).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(answered(&address, 400, NOWHERE, "a-key-of-team-b-0001", "404"), 400);
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    drop(reader);
}
