//! Backends that hang: while connecting, and before the head of an answer.

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use spillover_testing::real::Stopwatch;
use tokio_rustls::rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::{
    emulate,
    served::{Answer, Azure, Gateway},
};

const CERTIFICATE: &str = include_str!("../src/serve/tests/tls/cert.pem");
const KEY: &str = include_str!("../src/serve/tests/tls/key.pem");

/// Accepts connections, sends `greeting` on each after its first bytes, and nothing more.
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

/// Accepts TLS connections for HTTP/2, and never sends a frame.
fn hung_after_tls() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let chain = vec![CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = Arc::new(config);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(tls, stream.unwrap());
            thread::spawn(move || while matches!(stream.read(&mut [0; 4_096]), Ok(1..)) {});
        }
    });
    format!("https://localhost:{port}")
}

/// `first` is tried before `next`, if there is one.
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
    // The header of a handshake record whose rest never arrives.
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
fn an_http2_backend_that_says_nothing_fails_over_like_one_that_cannot_be_connected_to() {
    let azure = Azure::new("hung-http2");
    let trust = emulate::file("hung-http2.pem", CERTIFICATE);
    let plain = format!("http://{}", hung(b""));
    for (name, http2, first) in [("tls", "auto", hung_after_tls()), ("plain", "always", plain)] {
        let settings = format!(
            "upstream.connect_timeout = \"300ms\"\nupstream.head_timeout = \"4s\"\n\
             upstream.http2 = \"{http2}\"\nupstream.trust = {trust:?}"
        );
        let config =
            configured(&format!("hung-{name}"), &settings, &first, Some(azure.endpoint(0)));
        let gateway = Gateway::start(&config);
        thread::scope(|scope| {
            for _ in 0..5 {
                scope.spawn(|| {
                    let (answer, took) = timed(&gateway);
                    assert_eq!(answer.header("x-spillover-backend"), Some("next"), "{answer:?}");
                    assert!(took < Duration::from_secs(3), "{name}: {took:?}");
                });
            }
        });
        let settings = format!("{settings}\nmodels.text.max_wait = \"0s\"");
        let config = configured(&format!("hung-{name}-alone"), &settings, &first, None);
        let gateway = Gateway::start(&config);
        let (answer, took) = timed(&gateway);
        assert_eq!((answer.status(), answer.header("x-should-retry")), (502, Some("true")));
        assert!(took < Duration::from_secs(3), "{name}: {took:?}");
    }
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
