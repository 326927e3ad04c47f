//! Clients identified by their connection's certificate.

mod expiry;

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber, date_time_ymd, string::Ia5String,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ALL_VERSIONS, ClientConfig, RootCertStore, SupportedProtocolVersion,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

use crate::{
    emulate,
    served::{Answer, Gateway},
    witness::{Witness, serving},
};

const SERVER: [&str; 2] = [
    include_str!("../src/serve/tests/tls/cert.pem"),
    include_str!("../src/serve/tests/tls/key.pem"),
];

/// A client's connection parameters.
type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// An authority that issues client certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A client certificate, modified by `change`.
    fn issue(&self, serial: u64, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    fn named(&self, serial: u64, name: &str) -> Identity {
        let (uri, common) = (name.contains("://"), name.strip_prefix("CN="));
        self.issue(serial, |params| match common {
            Some(name) => params.distinguished_name.push(DnType::CommonName, name),
            None if uri => params.subject_alt_names.push(SanType::URI(name.try_into().unwrap())),
            None => params.subject_alt_names.push(SanType::DnsName(name.try_into().unwrap())),
        })
    }

    fn revoking(&self, serials: &[u64]) -> String {
        let revoked_certs = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2126, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

/// A connector with `identity` that stores sessions for resumption.
fn client(
    identity: Option<&Identity>,
    protocol: &[u8],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(SERVER[0].as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        Some((certificate, key)) => {
            config.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

/// Sends a request and reads until the end of the connection, or of an answer with a length.
async fn exchange(stream: &mut TlsStream<TcpStream>, model: &str, header: &str) -> Answer {
    let body = r#"{"messages":[]}"#;
    let request = format!(
        "POST /openai/deployments/{model}/chat/completions?api-version=1 HTTP/1.1\r\n\
         host: gateway\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n{header}\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    while !is_whole(&answer) || header.contains("connection: close") {
        match stream.read_buf(&mut answer).await {
            Ok(1..) => {}
            _ => break,
        }
    }
    Answer(String::from_utf8(answer).unwrap())
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.is_some_and(|length| length.parse() == Ok(body.len()))
}

/// The status of an answer on an HTTP/2 connection; 0 if there is none.
async fn http2_status(sender: &mut SendRequest<Full<Bytes>>) -> u16 {
    let uri = "https://localhost/openai/deployments/text/chat/completions?api-version=1";
    let request = http::Request::post(uri).header("content-type", "application/json");
    let request = request.body(Full::new(Bytes::from_static(b"{\"messages\":[]}"))).unwrap();
    sender.send_request(request).await.map_or(0, |answer| answer.status().as_u16())
}

struct Scene {
    authority: Authority,
    azure: Witness,
    config: PathBuf,
    gateway: Gateway,
}

impl Scene {
    /// With this in `listen.tls`, in addition to the authority.
    fn new(name: &str, more: &str) -> Self {
        let (authority, azure) = (Authority::new("clients"), serving());
        let text = format!(
            r#"
            [listen]
            address = "127.0.0.1:0"
            tls = {{ certificates = "tls.crt", key = "file:tls.key", client_ca = "clients.pem"{more} }}
            [clients.mesh]
            certificates = ["spiffe://cluster/ns/team-a"]
            may = ["trace"]
            [clients.host]
            certificates = ["host.team-b.example"]
            models = ["other"]
            [clients.common]
            certificates = ["CN=team-c"]
            requests_per_second = 0.01
            [clients.keyed]
            keys = ["env:TEAM_B_KEY"]
            [[models.text.standard]]
            name = "a"
            endpoint = "{}"
            key = "env:AZURE_KEY"
            [[models.other.standard]]
            name = "a"
            endpoint = "{}"
            key = "env:AZURE_KEY"
            "#,
            azure.endpoint(),
            azure.endpoint(),
        );
        let config = emulate::file(&format!("certificates-{name}/g.toml"), &text);
        for (file, text) in [
            ("tls.crt", SERVER[0]),
            ("tls.key", SERVER[1]),
            ("clients.pem", &authority.0.pem()),
            ("revoked.pem", &authority.revoking(&[])),
        ] {
            fs::write(config.with_file_name(file), text).unwrap();
        }
        let gateway = Gateway::start(&config);
        Self { authority, azure, config, gateway }
    }

    async fn connect(&self, identity: Option<&Identity>, protocol: &[u8]) -> TlsStream<TcpStream> {
        // In TLS 1.3, a client completes its handshake before the server has checked its
        // certificate.
        self.connect_as(&client(identity, protocol, ALL_VERSIONS)).await.unwrap()
    }

    async fn connect_as(&self, client: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.gateway.address()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::clone(client)).connect(name, stream).await
    }

    /// `None` if the connection is refused.
    async fn ask(&self, identity: Option<&Identity>, model: &str, header: &str) -> Option<Answer> {
        let mut stream = self.connect(identity, b"http/1.1").await;
        let answer = exchange(&mut stream, model, &format!("connection: close\r\n{header}")).await;
        Some(answer).filter(|answer| !answer.0.is_empty())
    }

    async fn status(&self, identity: Option<&Identity>, model: &str, header: &str) -> u16 {
        self.ask(identity, model, header).await.map_or(0, |answer| answer.status())
    }

    fn put(&self, file: &str, text: &str) {
        fs::write(self.config.with_file_name(file), text).unwrap();
    }

    #[expect(clippy::disallowed_methods, reason = "files change in real time")]
    async fn eventually(&self, identity: &Identity, status: u16) {
        for _ in 0..100 {
            if self.status(Some(identity), "text", "").await == status {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{}", self.gateway.log());
    }

    fn clients(&self) -> Vec<String> {
        let log = self.gateway.log();
        let events = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        events
            .filter_map(|event: serde_json::Value| Some(event["client"].as_str()?.to_owned()))
            .collect()
    }
}

#[tokio::test]
async fn a_client_is_known_by_a_uri_a_dns_name_or_the_common_name_of_its_certificate() {
    let scene = Scene::new("names", "");
    let mesh = scene.authority.named(1, "spiffe://cluster/ns/team-a");
    let host = scene.authority.named(2, "HOST.team-b.example");
    let common = scene.authority.named(3, "CN=team-c");
    let answer = scene.ask(Some(&mesh), "text", "x-spillover-trace: 1\r\n").await.unwrap();
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert!(answer.header("x-spillover-trace").is_some(), "what the client may, it may");
    assert_eq!(scene.status(Some(&host), "text", "").await, 403, "not this model");
    assert_eq!(scene.status(Some(&host), "other", "").await, 200);
    assert_eq!(scene.status(Some(&common), "text", "").await, 200);
    assert_eq!(scene.status(Some(&common), "text", "").await, 429, "its rate, by connection");
    scene.gateway.eventually(|_| scene.clients() == ["mesh", "host", "host", "common", "common"]);
    assert_eq!(scene.azure.asked()[0].header("api-key"), Some("azure-key"));
}

#[tokio::test]
async fn a_name_is_meant_as_it_stands() {
    let scene = Scene::new("others", "");
    for (serial, name) in [
        "CN=spiffe://cluster/ns/team-a",
        "CN=host.team-b.example",
        "spiffe://cluster/ns/team-a/b",
        "spiffe://cluster/ns/TEAM-A",
        "*.team-b.example",
        "team-c",
        "CN=TEAM-C",
    ]
    .into_iter()
    .enumerate()
    {
        let other = scene.authority.named(serial as u64 + 1, name);
        assert_eq!(scene.status(Some(&other), "text", "").await, 401, "{name}");
        let keyed = scene.status(Some(&other), "text", "api-key: a-key-of-team-b-0001\r\n").await;
        assert_eq!(keyed, 200, "a key is one still");
    }
}

#[tokio::test]
async fn a_name_is_one_of_its_kind_alone() {
    let scene = Scene::new("kinds", "");
    let san = |name: &str, kind: fn(Ia5String) -> SanType| kind(name.try_into().unwrap());
    for (serial, name) in [
        san("CN=team-c", SanType::URI),
        san("host.team-b.example", SanType::URI),
        san("spiffe://cluster/ns/team-a", SanType::DnsName),
        san("CN=team-c", SanType::DnsName),
        san("host.team-b.example", SanType::Rfc822Name),
    ]
    .into_iter()
    .enumerate()
    {
        let what = format!("{name:?}");
        let other = scene.authority.issue(serial as u64 + 1, |params| {
            params.distinguished_name.push(DnType::CommonName, "someone");
            params.subject_alt_names.push(name);
        });
        assert_eq!(scene.status(Some(&other), "other", "").await, 401, "{what}");
    }
    let common = ["CN=team-c", "spiffe://cluster/ns/team-a", "host.team-b.example"];
    for (serial, name) in (10..).zip(common) {
        let other = scene.authority.named(serial, &format!("CN={name}"));
        assert_eq!(scene.status(Some(&other), "other", "").await, 401, "{name}");
    }
}

#[tokio::test]
async fn a_subject_with_several_common_names_has_none() {
    let scene = Scene::new("several", "");
    for (serial, names) in (1..).zip([["team-c", "someone"], ["someone", "team-c"]]) {
        let other = scene.authority.issue(serial, |params| {
            // Distinguished by its number; otherwise the second would replace the first.
            let kinds = [DnType::CommonName, DnType::CustomDnType(vec![2, 5, 4, 3])];
            for (kind, name) in kinds.into_iter().zip(names) {
                params.distinguished_name.push(kind, name);
            }
        });
        assert_eq!(scene.status(Some(&other), "text", "").await, 401, "{names:?}");
    }
    // Its other names are its own.
    let mesh = scene.authority.issue(3, |params| {
        let uri = "spiffe://cluster/ns/team-a".try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
        params.distinguished_name.push(DnType::CommonName, "team-c");
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), "someone");
    });
    assert_eq!(scene.status(Some(&mesh), "text", "").await, 200);
    scene.gateway.eventually(|_| scene.clients().last().is_some_and(|it| it == "mesh"));
}

#[tokio::test]
async fn a_certificate_decides_before_the_key_that_a_library_insists_on() {
    let scene = Scene::new("dummy", "");
    let mesh = scene.authority.named(1, "spiffe://cluster/ns/team-a");
    for header in [
        "api-key: unused\r\n",
        "authorization: Bearer eyJ.a.b\r\n",
        "api-key: a-key-of-team-b-0001\r\n",
    ] {
        assert_eq!(scene.status(Some(&mesh), "text", header).await, 200, "{header}");
    }
    scene.gateway.eventually(|_| scene.clients() == ["mesh"; 3]);
    // Clients without a certificate need a key.
    assert_eq!(scene.status(None, "text", "").await, 401);
    assert_eq!(scene.status(None, "text", "api-key: a-key-of-team-b-0001\r\n").await, 200);
}

#[tokio::test]
async fn only_a_certificate_of_the_authority_that_is_for_clients_and_of_now_is_let_in() {
    let scene = Scene::new("strangers", "");
    let name = |params: &mut CertificateParams| {
        let uri = "spiffe://cluster/ns/team-a".try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
    };
    let stranger = Authority::new("clients").issue(1, name);
    let expired = scene.authority.issue(2, |params| {
        name(params);
        params.not_after = date_time_ymd(2026, 1, 1);
    });
    let early = scene.authority.issue(3, |params| {
        name(params);
        params.not_before = date_time_ymd(2100, 1, 1);
    });
    let server = scene.authority.issue(4, |params| {
        name(params);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    name(&mut params);
    let own = params.self_signed(&key).unwrap().der().clone();
    let own = (own, PrivateKeyDer::try_from(key.serialize_der()).unwrap());
    for (what, identity) in [
        ("of another authority", stranger),
        ("expired", expired),
        ("not valid yet", early),
        ("of a server", server),
        ("its own", own),
    ] {
        assert_eq!(scene.status(Some(&identity), "text", "").await, 0, "{what}");
        let keyed =
            scene.status(Some(&identity), "text", "api-key: a-key-of-team-b-0001\r\n").await;
        assert_eq!(keyed, 0, "{what}: a bad certificate is worse than none");
    }
    assert!(scene.azure.asked().is_empty());
}

#[tokio::test]
async fn where_a_certificate_is_required_nobody_connects_without() {
    let scene = Scene::new("required", ", client_required = true");
    assert_eq!(scene.status(None, "text", "api-key: a-key-of-team-b-0001\r\n").await, 0);
    let other = scene.authority.named(1, "someone.example");
    assert_eq!(scene.status(Some(&other), "text", "api-key: a-key-of-team-b-0001\r\n").await, 200);
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_once_the_list_says_so_and_authorities_are_renewed_too() {
    let scene = Scene::new("revoked", ", client_crl = \"revoked.pem\"");
    let first = scene.authority.named(1, "spiffe://cluster/ns/team-a");
    let second = scene.authority.named(2, "spiffe://cluster/ns/team-a");
    scene.eventually(&first, 200).await;
    scene.put("revoked.pem", &scene.authority.revoking(&[1]));
    scene.eventually(&first, 0).await;
    assert_eq!(scene.status(Some(&second), "text", "").await, 200);
    // An invalid list changes nothing.
    scene.put("revoked.pem", "nothing");
    scene.gateway.eventually(|gateway| gateway.log().contains("client_crl: cannot be used"));
    assert_eq!(scene.status(Some(&first), "text", "").await, 0);
    // Another authority replaces the first.
    let next = Authority::new("next");
    scene.put("revoked.pem", &next.revoking(&[]));
    scene.put("clients.pem", &next.0.pem());
    scene.eventually(&next.named(3, "spiffe://cluster/ns/team-a"), 200).await;
    assert_eq!(scene.status(Some(&second), "text", "").await, 0);
}

#[tokio::test]
async fn every_stream_of_an_http2_connection_is_its_certificates() {
    let scene = Scene::new("h2", "");
    let mesh = scene.authority.named(1, "spiffe://cluster/ns/team-a");
    let stream = scene.connect(Some(&mesh), b"h2").await;
    let io = TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let driver = tokio::spawn(connection);
    for _ in 0..3 {
        assert_eq!(http2_status(&mut sender).await, 200);
    }
    drop(sender);
    driver.abort();
    scene.gateway.eventually(|_| scene.clients() == ["mesh"; 3]);
}
