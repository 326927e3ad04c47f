//! Backends that hang: while a connection is made, and before the head of an answer.

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::PathBuf,
    thread,
    time::Duration,
};

use spillover_testing::real::Stopwatch;

use crate::{
    emulate,
    served::{Answer, Azure, Gateway},
};

/// Accepts connections, says `greeting` on each after its first bytes, and nothing more.
fn hung(greeting: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4_096]);
            let _ = stream.write_all(greeting);
            held.push(stream);
        }
    });
    address
}

/// `first` is asked before `next`, where there is one.
fn configured(name: &str, settings: &str, first: &str, next: Option<&str>) -> PathBuf {
    let backend = |name: &str, endpoint: &str, priority: u32| {
        format!(
            "[[models.text.standard]]\nname = \"{name}\"\nendpoint = \"{endpoint}\"\n\
             priority = {priority}\nkey = \"env:AZURE_KEY\"\nallow_http = true\n"
        )
    };
    let text = format!(
        "listen.address = \"127.0.0.1:0\"\nclients.open = true\n{settings}\n{}{}",
        backend("hung", first, 1),
        next.map(|next| backend("next", next, 2)).unwrap_or_default()
    );
    emulate::file(&format!("{name}/g.toml"), &text)
}

fn timed(gateway: &Gateway) -> (Answer, Duration) {
    let begun = Stopwatch::start();
    (gateway.chat("text", &[]), begun.elapsed())
}

#[test]
fn a_tls_handshake_that_hangs_fails_over_like_a_connection_that_is_refused() {
    let azure = Azure::new("hung-tls");
    // The header of a handshake record whose rest never comes.
    for (name, greeting) in [("silent", &b""[..]), ("begun", b"\x16\x03\x03\x40\x00\x02")] {
        for http2 in ["auto", "never"] {
            let name = format!("hung-tls-{name}-{http2}");
            let settings =
                format!("upstream.connect_timeout = \"300ms\"\nupstream.http2 = \"{http2}\"");
            let first = format!("https://{}", hung(greeting));
            let config = configured(&name, &settings, &first, Some(azure.endpoint(0)));
            let gateway = Gateway::start(&config);
            let (answer, took) = timed(&gateway);
            assert_eq!(answer.header("x-spillover-backend"), Some("next"), "{answer:?}");
            assert!(took < Duration::from_secs(3), "{name}: {took:?}");
        }
    }
}

#[test]
fn a_tls_handshake_that_hangs_with_nothing_behind_it_is_a_502_that_may_be_repeated() {
    let settings = "upstream.connect_timeout = \"200ms\"\nmodels.text.max_wait = \"0s\"";
    let first = format!("https://{}", hung(b""));
    let gateway = Gateway::start(&configured("hung-alone", settings, &first, None));
    let (answer, took) = timed(&gateway);
    assert_eq!((answer.status(), answer.header("x-should-retry")), (502, Some("true")));
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn a_model_may_have_a_head_timeout_of_its_own() {
    let first = format!("http://{}", hung(b""));
    for (name, settings) in [
        ("head-short", "upstream.head_timeout = \"1h\"\nmodels.text.head_timeout = \"200ms\""),
        ("head-all", "upstream.head_timeout = \"200ms\""),
    ] {
        let gateway = Gateway::start(&configured(name, settings, &first, None));
        let (answer, took) = timed(&gateway);
        assert_eq!((answer.status(), answer.header("x-should-retry")), (504, Some("false")));
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
    let settings = "upstream.head_timeout = \"100ms\"\nmodels.text.head_timeout = \"1s\"";
    let gateway = Gateway::start(&configured("head-long", settings, &first, None));
    let (answer, took) = timed(&gateway);
    assert_eq!(answer.status(), 504);
    assert!(took >= Duration::from_millis(900), "{took:?}");
}
