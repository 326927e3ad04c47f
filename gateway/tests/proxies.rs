//! Backends and issuers reached through a proxy.

mod proxy;

use std::{
    convert::Infallible, net::SocketAddr, path::PathBuf, process::Stdio, sync::Arc, time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

use self::proxy::{Manner, Proxy};
use crate::{
    emulate,
    served::{Gateway, ask},
    started::Started,
    witness::{Witness, serving},
};

/// A backend with TLS for `azure.example`. Its answer states a request's version and key.
async fn azure() -> (SocketAddr, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let made = rcgen::generate_simple_self_signed(["azure.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let tls = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let Ok(stream) = tls.accept(stream).await else { return };
                let service = service_fn(|request: http::Request<Incoming>| async move {
                    let key = request.headers()["api-key"].to_str().unwrap();
                    let text = json!({ "version": format!("{:?}", request.version()), "key": key });
                    Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(text.to_string())))
                });
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (address, made.cert.pem())
}

/// `text` has one backend, with `more`, and optionally a second one.
fn config(name: &str, trust: &str, http2: &str, more: &str, second: Option<&Witness>) -> PathBuf {
    emulate::file(&format!("proxies-{name}/ca.pem"), trust);
    let second = second.map(|second| {
        format!(
            "[[models.text.standard]]\nname = \"second\"\nendpoint = \"{}\"\n\
             key = \"env:AZURE_KEY\"\npriority = 2\n",
            second.endpoint()
        )
    });
    let trust = if trust.is_empty() { "" } else { "trust = \"ca.pem\"" };
    let text = format!(
        "clients.open = true\n[listen]\naddress = \"127.0.0.1:0\"\n\
         [upstream]\nconnect_timeout = \"700ms\"\nhttp2 = \"{http2}\"\n{trust}\n\
         [[models.text.standard]]\nname = \"first\"\nkey = \"env:AZURE_KEY\"\n{more}\n{}",
        second.unwrap_or_default()
    );
    emulate::file(&format!("proxies-{name}/g.toml"), &text)
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_goes_end_to_end_through_a_tunnel_and_the_proxy_sees_no_key() {
    let (target, certificate) = azure().await;
    for (number, (http2, version, own, variable)) in [
        ("auto", "HTTP/2.0", "", "HTTPS_PROXY"),
        ("never", "HTTP/1.1", "", "https_proxy"),
        ("auto", "HTTP/2.0", "", "ALL_PROXY"),
        ("never", "HTTP/1.1", "proxy = \"env:PROXY_OF_AZURE\"", "PROXY_OF_AZURE"),
    ]
    .into_iter()
    .enumerate()
    {
        let proxy = Proxy::to(Manner::Connect, target);
        let url = format!("http://me:canary%40pw@{}", proxy.address);
        let more = format!("endpoint = \"https://azure.example\"\n{own}");
        let config = config(&format!("tls-{number}"), &certificate, http2, &more, None);
        let gateway = Gateway::start_with(&config, &[(variable, &url)]);
        for _ in 0..2 {
            let answer = gateway.chat("text", &[]);
            assert_eq!(answer.status(), 200, "{variable} {answer:?} {}", gateway.log());
            assert!(answer.0.contains(version) && answer.0.contains("azure-key"), "{answer:?}");
        }
        let asked = proxy.asked();
        // One for each serving thread, and kept.
        assert!(asked.len() <= 2, "{asked:?}");
        let head = &asked[0];
        assert!(head.starts_with("CONNECT azure.example:443 HTTP/1.1\r\n"), "{head}");
        // "me:canary@pw"
        assert!(head.contains("Basic bWU6Y2FuYXJ5QHB3"), "{head}");
        assert!(!head.contains("api-key") && !contains(&proxy.passed(), "azure-key"));
        let log = gateway.log();
        assert!(!log.contains("canary") && !log.contains("bWU6Y2FuYXJ5QHB3"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socks_proxy_resolves_names_and_knows_the_gateway_by_its_user() {
    let (target, certificate) = azure().await;
    let proxy = Proxy::to(Manner::Socks, target);
    let more = "endpoint = \"https://azure.example:8443\"\nproxy = \"env:SOCKS\"";
    let config = config("socks", &certificate, "auto", more, None);
    let url = format!("socks5h://me:canary@{}", proxy.address);
    let gateway = Gateway::start_with(&config, &[("SOCKS", &url)]);
    assert_eq!(gateway.chat("text", &[]).status(), 200, "{}", gateway.log());
    assert_eq!(proxy.asked(), ["azure.example:8443 as me:canary"]);
    assert!(!contains(&proxy.passed(), "azure-key") && !gateway.log().contains("canary"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_refuses_or_says_nothing_is_a_failure_to_connect_and_moves_on() {
    let second = serving();
    for (number, manner) in [
        Manner::Say("HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"),
        Manner::Say("HTTP/1.1 502 Bad Gateway\r\n\r\n"),
        Manner::Say("HTTP/1.1 403 Forbidden\r\ncontent-type: text/html\r\n\r\n<html>"),
        Manner::Say("SSH-2.0-OpenSSH_9.6\r\n"),
        Manner::Say(""),
        Manner::Hang,
    ]
    .into_iter()
    .enumerate()
    {
        let proxy = Proxy::to(manner, ([127, 0, 0, 1], 9).into());
        let url = proxy.url("http").replace("://", "://me:canary@");
        let more = "endpoint = \"https://azure.example\"";
        let config = config(&format!("refusing-{number}"), "", "auto", more, Some(&second));
        let gateway = Gateway::start_with(&config, &[("HTTPS_PROXY", &url)]);
        let answer = gateway.chat("text", &[]);
        assert_eq!(answer.header("x-spillover-backend"), Some("second"), "{number} {answer:?}");
        assert!(!proxy.asked().is_empty(), "{number}");
        assert!(!gateway.log().contains("canary"), "{}", gateway.log());
    }
}

#[test]
fn where_nothing_else_is_left_the_log_says_which_proxy_refused_and_why() {
    let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
    let proxy = Proxy::to(Manner::Say(refusal), ([127, 0, 0, 1], 9).into());
    let more = "endpoint = \"https://azure.example\"";
    let config = config("alone", "", "auto", more, None);
    let url = proxy.url("http").replace("://", "://me:canary@");
    let gateway = Gateway::start_with(&config, &[("https_proxy", &url)]);
    assert_eq!(gateway.chat("text", &[]).status(), 502);
    let told = format!("proxy {}: tunnel error: proxy authorization required", proxy.url("http"));
    gateway.eventually(|gateway| gateway.log().contains(&told));
    assert!(!gateway.log().contains("canary"), "{}", gateway.log());
}

#[test]
fn backends_on_this_machine_are_reached_straight_unless_they_say_otherwise() {
    let backend = serving();
    let target: SocketAddr = backend.endpoint().trim_start_matches("http://").parse().unwrap();
    let proxy = Proxy::to(Manner::Connect, target);
    let url = proxy.url("http");
    let variables = [("HTTP_PROXY", &*url), ("HTTPS_PROXY", &*url), ("ALL_PROXY", &*url)];
    let near = format!("endpoint = \"{}\"", backend.endpoint());
    let gateway = Gateway::start_with(&config("near", "", "auto", &near, None), &variables);
    assert_eq!(gateway.chat("text", &[]).status(), 200);
    assert!(proxy.asked().is_empty(), "{:?}", proxy.asked());

    let own = format!("{near}\nproxy = \"{url}\"");
    let gateway = Gateway::start_with(&config("near-own", "", "auto", &own, None), &[]);
    assert_eq!(gateway.chat("text", &[]).status(), 200);
    assert_eq!(proxy.asked().len(), 1);
    assert!(proxy.asked()[0].starts_with(&format!("CONNECT {target} ")), "{:?}", proxy.asked());
}

#[test]
fn the_demonstration_stays_on_this_machine() {
    let proxy = Proxy::to(Manner::Connect, ([127, 0, 0, 1], 9).into());
    let mut demo = Started::with(&["serve", "--listen", "127.0.0.1:0"], |command| {
        command.env("ALL_PROXY", proxy.url("http")).stderr(Stdio::null())
    });
    assert!(demo.line().starts_with("curl "));
    let gateway = demo.endpoint();
    let (_, address) = gateway.split_once("://").unwrap();
    let path = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";
    let body = r#"{"messages":[{"role":"user","content":"Hello"}]}"#;
    assert_eq!(ask(address, "POST", path, &[], body).unwrap().status(), 200);
    assert!(proxy.asked().is_empty(), "{:?}", proxy.asked());
}

#[test]
fn a_backend_without_a_proxy_and_names_in_no_proxy_are_reached_straight() {
    let proxy = Proxy::to(Manner::Connect, ([127, 0, 0, 1], 9).into());
    let url = proxy.url("http");
    for (name, own, no_proxy) in [
        ("none", "proxy = \"none\"", ""),
        ("no", "", "example.com, .azure.invalid"),
        ("all", "", "*"),
    ] {
        // The name cannot be resolved: only a proxy could have resolved it.
        let more = format!("endpoint = \"https://a.azure.invalid\"\n{own}");
        let config = config(&format!("straight-{name}"), "", "auto", &more, None);
        let gateway =
            Gateway::start_with(&config, &[("HTTPS_PROXY", &url), ("no_proxy", no_proxy)]);
        assert_eq!(gateway.chat("text", &[]).status(), 502);
        gateway.eventually(|gateway| gateway.log().contains("no answer"));
        assert!(proxy.asked().is_empty(), "{name}: {:?}", proxy.asked());
    }
}

#[test]
fn another_proxy_takes_effect_by_a_reload() {
    let backend = serving();
    let target: SocketAddr = backend.endpoint().trim_start_matches("http://").parse().unwrap();
    let proxies = [(); 2].map(|()| Proxy::to(Manner::Connect, target));
    let more = |proxy: &Proxy| {
        format!(
            "endpoint = \"http://azure.invalid\"\nallow_http = true\nproxy = \"{}\"",
            proxy.url("http")
        )
    };
    let path = config("reload", "", "auto", &more(&proxies[0]), None);
    let gateway = Gateway::start(&path);
    assert_eq!(gateway.chat("text", &[]).status(), 200);
    config("reload", "", "auto", &more(&proxies[1]), None);
    gateway.eventually(|gateway| {
        assert_eq!(gateway.chat("text", &[]).status(), 200);
        !proxies[1].asked().is_empty()
    });
    assert!(proxies[1].asked()[0].starts_with("CONNECT azure.invalid:80 "));
}

#[test]
fn issuers_of_tokens_and_collectors_are_reached_through_the_proxy_of_the_environment() {
    let other = Witness::new(|_| (404, "", String::new()));
    let target: SocketAddr = other.endpoint().trim_start_matches("http://").parse().unwrap();
    let proxy = Proxy::to(Manner::Connect, target);
    let backend = serving();
    let text = format!(
        "[listen]\naddress = \"127.0.0.1:0\"\n[telemetry]\notlp = \"http://collector.invalid:4318\"\n\
         [tokens]\nissuer = \"http://issuer.invalid\"\nallow_http = true\naudience = \"x\"\n\
         [entra]\nkind = \"secret\"\ntenant = \"contoso\"\nclient_id = \"a\"\nsecret = \"env:AZURE_KEY\"\n\
         authority = \"https://authority.invalid\"\n\
         [clients.keyed]\nkeys = [\"env:TEAM_B_KEY\"]\nroles = [\"A\"]\n\
         [[models.text.standard]]\nname = \"a\"\nendpoint = \"{0}\"\nauth = \"entra\"\n\
         [[models.text.standard]]\nname = \"b\"\nendpoint = \"{0}\"\nkey = \"env:AZURE_KEY\"\n\
         priority = 2\n",
        backend.endpoint()
    );
    let config = emulate::file("proxies-others/g.toml", &text);
    let gateway = Gateway::start_with(&config, &[("ALL_PROXY", &proxy.url("http"))]);
    let token = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsifQ.e30.AA";
    assert_eq!(gateway.chat("text", &[("api-key", token)]).status(), 503);
    assert_eq!(
        gateway.chat("text", &[("api-key", "a-key-of-team-b-0001")]).header("x-spillover-backend"),
        Some("b")
    );
    gateway.signal("TERM");
    let asked = |server: &str| proxy.asked().iter().any(|head| head.contains(server));
    for _ in 0..100 {
        if asked("collector.invalid:4318") {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    for server in ["issuer.invalid:80", "authority.invalid:443", "collector.invalid:4318"] {
        assert!(asked(&format!("CONNECT {server} ")), "{server}: {:?}", proxy.asked());
    }
}
