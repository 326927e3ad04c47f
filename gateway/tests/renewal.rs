//! A certificate that is renewed while the gateway runs, as by cert-manager.

use std::{fs, path::Path, sync::Arc, time::Duration};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use crate::{emulate, served::Gateway};

pub(crate) const FIRST: [&str; 2] = [
    include_str!("../src/serve/tests/tls/cert.pem"),
    include_str!("../src/serve/tests/tls/key.pem"),
];
const SECOND: [&str; 2] =
    [include_str!("tls/renewed-cert.pem"), include_str!("tls/renewed-key.pem")];

/// A handshake that only succeeds with this certificate.
pub(crate) async fn handshake(address: &str, certificate: &str) -> Option<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()
}

#[expect(clippy::disallowed_methods, reason = "files change in real time")]
async fn eventually_seen(gateway: &Gateway, certificate: &str) {
    for _ in 0..100 {
        if handshake(gateway.address(), certificate).await.is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{}", gateway.log());
}

fn put(folder: &Path, [certificate, key]: [&str; 2]) {
    // Not simultaneously: in between, the key does not match the certificate.
    fs::write(folder.join("tls.crt"), certificate).unwrap();
    std::thread::sleep(Duration::from_millis(30));
    fs::write(folder.join("tls.key"), key).unwrap();
}

/// A gateway with the first certificate.
pub(crate) fn secured(file: &str) -> Gateway {
    let config = emulate::file(
        file,
        "clients.open = true\nlisten = { address = \"127.0.0.1:0\", \
         tls = { certificates = \"tls.crt\", key = \"file:tls.key\" } }\n\
         [[models.text.standard]]\nname = \"a\"\nendpoint = \"http://127.0.0.1:1\"\n\
         key = \"env:AZURE_KEY\"\n",
    );
    put(config.parent().unwrap(), FIRST);
    Gateway::start(&config)
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "files change in real time")]
async fn new_handshakes_see_a_renewed_certificate_and_open_connections_go_on() {
    let gateway = secured("renewal/g.toml");
    let folder = gateway.folder();
    let open = handshake(gateway.address(), FIRST[0]).await.expect("the first is served");
    assert!(handshake(gateway.address(), SECOND[0]).await.is_none());

    put(folder, SECOND);
    eventually_seen(&gateway, SECOND[0]).await;
    assert!(handshake(gateway.address(), FIRST[0]).await.is_none(), "it is gone");
    assert!(is_answered(open).await, "connections go on");

    // The key of another certificate does not stop the gateway.
    fs::write(folder.join("tls.crt"), FIRST[0]).unwrap();
    for _ in 0..100 {
        if gateway.log().contains("is not the key of the first certificate") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(gateway.log().contains("is not the key of the first certificate"));
    assert!(handshake(gateway.address(), SECOND[0]).await.is_some());
}

async fn is_answered(mut stream: TlsStream<TcpStream>) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let request = "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // It may end without a close_notify.
    let _ = stream.read_to_end(&mut answer).await;
    answer.starts_with(b"HTTP/1.1 200 OK")
}
