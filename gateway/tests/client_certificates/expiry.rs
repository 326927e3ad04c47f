//! Certificates that expire while a session is stored, and while a connection is open.

use std::time::{Duration, SystemTime};

use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, SanType};
use tokio_rustls::rustls::{
    HandshakeKind,
    version::{TLS12, TLS13},
};

use super::{Scene, client, exchange, http2_status};

#[expect(clippy::disallowed_methods, reason = "certificates expire in real time")]
fn expiring(params: &mut CertificateParams) {
    params.not_after = (SystemTime::now() + Duration::from_secs(3)).into();
}

#[expect(clippy::disallowed_methods, reason = "certificates expire in real time")]
async fn expiry() {
    tokio::time::sleep(Duration::from_millis(3_200)).await;
}

#[tokio::test]
async fn no_session_is_resumed_past_the_verification_of_a_certificate() {
    let scene = Scene::new("resumed", "");
    let mesh = |params: &mut CertificateParams| {
        let uri = "spiffe://cluster/ns/team-a".try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
        expiring(params);
    };
    let short = scene.authority.issue(1, mesh);
    let clients = [&TLS12, &TLS13].map(|version| client(Some(&short), b"http/1.1", &[version]));
    for client in &clients {
        for _ in 0..2 {
            let mut stream = scene.connect_as(client).await.unwrap();
            assert_eq!(exchange(&mut stream, "text", "").await.status(), 200);
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        }
    }
    expiry().await;
    for client in &clients {
        let Ok(mut stream) = scene.connect_as(client).await else { continue };
        let answer = exchange(&mut stream, "text", "api-key: a-key-of-team-b-0001\r\n").await;
        assert_eq!(answer.0, "");
    }
    assert_eq!(scene.azure.asked().len(), 4);
}

#[tokio::test]
async fn a_connection_does_not_outlive_its_certificate() {
    let scene = Scene::new("outlived", "");
    let short = scene.authority.issue(1, |params| {
        let uri = "spiffe://cluster/ns/team-a".try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
        expiring(params);
    });
    let mut first = scene.connect(Some(&short), b"http/1.1").await;
    let io = TokioIo::new(scene.connect(Some(&short), b"h2").await);
    let (mut second, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let driver = tokio::spawn(connection);
    assert_eq!(exchange(&mut first, "text", "").await.status(), 200);
    assert_eq!(http2_status(&mut second).await, 200);
    expiry().await;
    let answer = exchange(&mut first, "text", "api-key: a-key-of-team-b-0001\r\n").await;
    assert_eq!(answer.0, "", "it ended");
    assert_eq!(http2_status(&mut second).await, 0, "it ended");
    driver.await.unwrap().unwrap();
    assert_eq!(scene.azure.asked().len(), 2);
}
