//! The server over real sockets, in front of the emulator or of a recording server.

mod limits;
mod requests;
mod safety;
mod sockets;
mod usage;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use spillover_emulator::{Deployment, Emulator, Pace, Ptu, Resource, Serving, Standard};
use tokio::net::TcpListener;

use super::{
    lifecycle::{reload::reload, server::Server},
    record::observe::Observe,
};
use crate::{
    access_record::{AccessRecord, Ended},
    config::{self, Auth, Backend, Config, GateSettings, Model, Secret, Steering, Stickiness},
    snapshot::Snapshot,
    telemetry::Trace,
};

/// A gateway with its backends and a client.
struct Scene {
    emulator: Emulator,
    server: Server,
    accounts: Accounts,
    client: Client<HttpConnector, Full<Bytes>>,
    _azure: Serving,
}

/// The server's reports on its requests: status, tokens, completeness and the rest.
#[derive(Clone, Default)]
struct Accounts(Arc<Mutex<Vec<Told>>>);

#[derive(Clone, Debug)]
struct Told {
    status: StatusCode,
    model: Option<String>,
    operation: &'static str,
    streaming: bool,
    complete: bool,
    prompt: Option<u64>,
}

impl Observe for Accounts {
    fn finished(&self, record: AccessRecord, _: Option<&Trace>, _: &Snapshot) {
        self.0.lock().unwrap().push(Told {
            status: record.status,
            model: record.model.clone(),
            operation: record.operation,
            streaming: record.streaming,
            complete: record.ended == Ended::Complete,
            prompt: record.usage.map(|usage| usage.prompt),
        });
    }
}

impl Accounts {
    /// The reports, once there are `count`.
    async fn wait_for(&self, count: usize) -> Vec<Told> {
        for _ in 0..200 {
            let told = self.0.lock().unwrap().clone();
            if told.len() >= count {
                return told;
            }
            super::clock::sleep(Duration::from_millis(10)).await;
        }
        panic!("{count} accounts did not come");
    }
}

impl Scene {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// `change` adjusts the configuration last.
    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let pace = Pace { first_token: Duration::ZERO, per_token: Duration::from_millis(30) };
        let emulator = Emulator::new([Resource::new("east")
            .key("azure-key")
            .deployment(Deployment::ptu("ptu", Ptu::new(1e6)))
            .deployment(Deployment::standard("std", Standard::unlimited()))
            .deployment(Deployment::standard("slow", Standard::unlimited()).pace(pace))])
        .record();
        let azure = emulator.serve("east", listener().await);
        let mut config = config(&azure.endpoint());
        change(&mut config);
        let accounts = Accounts::default();
        let server = Server::start(config, Arc::new(accounts.clone())).await.expect("starts");
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { emulator, server, accounts, client, _azure: azure }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        self.client.request(request).await.expect("an answer")
    }

    fn post(&self, path: &str) -> http::request::Builder {
        Request::post(format!("{}{path}", self.server.url))
            .header("content-type", "application/json")
    }

    /// A chat completion by the classic grammar.
    async fn chat(&self, model: &str) -> Response<Incoming> {
        self.send(self.post(&chat(model)).body(Full::from(HELLO)).expect("a request")).await
    }
}

const HELLO: &str = r#"{"messages":[{"role":"user","content":"Hello"}],"max_tokens":4}"#;

fn chat(model: &str) -> String {
    format!("/openai/deployments/{model}/chat/completions?api-version=2024-10-21")
}

async fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port")
}

async fn text(answer: Response<Incoming>) -> String {
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8(body.to_vec()).expect("text")
}

fn code(text: &str) -> String {
    let error: serde_json::Value = serde_json::from_str(text).expect("JSON");
    assert!(error["error"]["message"].is_string(), "{text}");
    error["error"]["code"].as_str().expect("a code").to_owned()
}

fn said<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().expect("text"))
}

fn backend(name: &str, endpoint: &str, deployment: &str) -> Backend {
    Backend {
        name: name.to_owned(),
        endpoint: endpoint.to_owned(),
        provider: None,
        auth: Auth::Key(Secret::new("azure-key".to_owned())),
        deployment: Some(deployment.to_owned()),
        api_version: None,
        region: None,
        quota: None,
        image_deployment: None,
        priority: 1,
        weight: 1,
    }
}

/// `gpt-4o` with two tiers, `slow` with one.
fn config(endpoint: &str) -> Config {
    let model = |ptu, standard| Model {
        ptu,
        standard,
        max_wait: Duration::from_millis(500),
        longest_cooldown: Duration::from_secs(60),
        head_timeout: None,
        gate: GateSettings { patience: None, ..GateSettings::default() },
        spill_budget: None,
        aliases: Vec::new(),
        steering: Steering::default(),
        classes: BTreeMap::new(),
    };
    let mut gpt = model(
        vec![backend("ptu-east", endpoint, "ptu")],
        vec![backend("std-east", endpoint, "std")],
    );
    gpt.aliases.push("gpt-4o-2024-11-20".to_owned());
    let slow = model(Vec::new(), vec![backend("slow-east", endpoint, "slow")]);
    let text = "clients.open = true\n[[models.replaced.standard]]\nname = \"a\"\nkey = \"env:KEY\"\n\
                endpoint = \"https://a.example\"";
    let config = config::parse(text, &|_| Some("a-key".to_owned()));
    let mut config = config.unwrap_or_else(|problems| panic!("{problems}"));
    config.listen.address = (Ipv4Addr::LOCALHOST, 0).into();
    config.models = BTreeMap::from([("gpt-4o".to_owned(), gpt), ("slow".to_owned(), slow)]);
    config
}
