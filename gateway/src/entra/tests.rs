//! The SDK's credentials against an authority on a socket.

use std::{
    convert::Infallible,
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tower_spillover::{backend::TokenSource, entra::EntraTokens};

use super::{credential, source};
use crate::config::{Entra, EntraKind, Secret};

/// Its answer, and `METHOD target | x-identity-header | body` of each request.
#[derive(Clone)]
struct Authority {
    status: u16,
    answer: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Authority {
    fn new(status: u16, answer: impl Into<String>) -> Self {
        Self { status, answer: answer.into(), seen: Arc::default() }
    }

    fn of_tokens() -> Self {
        Self::new(200, r#"{"token_type":"Bearer","expires_in":3600,"access_token":"granted"}"#)
    }

    async fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let authority = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let authority = authority.clone();
                let service = service_fn(move |request| {
                    let authority = authority.clone();
                    async move { Ok::<_, Infallible>(authority.answer(request).await) }
                });
                let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(serving);
            }
        });
        address
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let identity = head.headers.get("x-identity-header").map_or("", |v| v.to_str().unwrap());
        let body = body.collect().await.expect("a whole body").to_bytes();
        let body = String::from_utf8_lossy(&body);
        let line = format!("{} {} | {identity} | {body}", head.method, head.uri);
        self.seen.lock().unwrap().push(line);
        let answer = Response::builder().status(self.status);
        answer.header("content-type", "application/json").body(self.answer.clone().into()).unwrap()
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn entra(kind: EntraKind, authority: Option<SocketAddr>) -> Entra {
    Entra {
        kind,
        scope: "https://cognitiveservices.azure.com/.default".to_owned(),
        authority: authority.map(|address| format!("http://{address}")),
    }
}

fn client_secret(authority: SocketAddr) -> Entra {
    let kind = EntraKind::ClientSecret {
        tenant: "contoso".to_owned(),
        client_id: "client-1".to_owned(),
        secret: Secret::new("canary+secret".to_owned()),
    };
    entra(kind, Some(authority))
}

#[tokio::test]
async fn a_client_secret_is_exchanged_once_for_a_hundred_requests() {
    let authority = Authority::of_tokens();
    let source = source(&client_secret(authority.start().await)).expect("a good description");
    let tokens = join_all((0..100).map(|_| source.clone().token())).await;
    assert!(tokens.iter().all(Result::is_ok));
    assert_eq!(
        authority.seen(),
        ["POST /contoso/oauth2/v2.0/token |  | client_id=client-1&client_secret=canary%2Bsecret\
          &grant_type=client_credentials\
          &scope=https%3A%2F%2Fcognitiveservices.azure.com%2F.default"]
    );
}

#[tokio::test]
async fn a_refusal_says_what_the_authority_said_but_not_the_secret() {
    let answer = r#"{"error":"invalid_client","error_codes":[7000215],
        "error_description":"AADSTS7000215: Invalid client secret canary+secret provided."}"#;
    let authority = Authority::new(400, answer);
    let source = source(&client_secret(authority.start().await)).expect("a good description");
    let error = source.token().await.map(drop).expect_err("it is refused").to_string();
    assert!(error.starts_with("no access token: ClientSecretCredential authentication failed."));
    assert!(error.contains("AADSTS7000215: Invalid client secret (secret) provided."), "{error}");
    assert!(!format!("{source:?}").contains("canary"));
    assert_eq!(authority.seen().len(), 1, "a 400 is not tried again");
}

#[tokio::test]
async fn an_authority_that_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let source = source(&client_secret(address)).expect("a good description");
    let error = source.token().await.map(drop).expect_err("nobody listens").to_string();
    assert!(error.contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn a_workload_sends_the_token_of_its_file() {
    let authority = Authority::of_tokens();
    let entra = entra(EntraKind::Workload, Some(authority.start().await));
    let file: PathBuf = std::env::temp_dir().join(format!("federated-{}", std::process::id()));
    fs::write(&file, "projected").expect("a writable folder");
    let variable = |name: &str| match name {
        "AZURE_TENANT_ID" => Some("contoso".to_owned()),
        "AZURE_CLIENT_ID" => Some("client-1".to_owned()),
        "AZURE_FEDERATED_TOKEN_FILE" => Some(file.display().to_string()),
        _ => None,
    };
    let credential = credential::open(&entra, variable);
    fs::remove_file(&file).expect("it was written");
    let credential = credential.expect("a good description");
    let source = EntraTokens::from(credential).scope(entra.scope);
    source.token().await.expect("a token");
    let seen = authority.seen().concat();
    assert!(seen.starts_with("POST /contoso/oauth2/v2.0/token |"), "{seen}");
    assert!(seen.contains("client_assertion=projected&"), "{seen}");
}

/// Environment variables belong to the whole process, so another process sends the request.
#[tokio::test]
async fn a_managed_identity_is_asked_where_the_environment_says() {
    let expires = in_an_hour();
    let authority = Authority::new(
        200,
        format!(
            r#"{{"access_token":"granted","expires_on":"{expires}","token_type":"Bearer","resource":"r"}}"#
        ),
    );
    let address = authority.start().await;
    let name = "entra::tests::with_the_managed_identity_of_the_environment";
    let mut child = Command::new(std::env::current_exe().expect("this test binary"));
    child
        .args(["--exact", name, "--ignored"])
        .env("IDENTITY_ENDPOINT", format!("http://{address}/msi/token"))
        .env("IDENTITY_HEADER", "header-1");
    let output = tokio::task::spawn_blocking(move || child.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let seen = authority.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(seen[0].starts_with("GET /msi/token?"), "{seen:?}");
    assert!(seen[0].contains("client_id=identity-1"), "{seen:?}");
    assert!(seen[0].ends_with("| header-1 | "), "{seen:?}");
}

#[tokio::test]
#[ignore = "run by the test above, in an environment of its own"]
async fn with_the_managed_identity_of_the_environment() {
    let kind = EntraKind::Managed { client_id: Some("identity-1".to_owned()) };
    let source = source(&entra(kind, None)).expect("a good description");
    join_all((0..100).map(|_| source.token())).await.into_iter().for_each(|token| {
        token.expect("a token");
    });
}

#[expect(clippy::disallowed_methods, reason = "the answer says when its token expires")]
fn in_an_hour() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a set clock");
    now.as_secs() + 3_600
}
