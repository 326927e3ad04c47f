//! The gateway without a configuration: an Azure of its own, a PTU and three regions.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use tokio::net::TcpListener;
use tower_spillover::{
    emulator::{Deployment, Emulator, Pace, Ptu, Resource, Serving, Standard},
    gate::Mode,
};

use crate::config::{
    Auth, Backend, Clients, Config, GateSettings, Limits, Listen, Model, Secret, Telemetry,
    Upstream,
};

/// The resources behind the demonstration, for as long as it is kept.
pub(super) struct Azure {
    _serving: Vec<Serving>,
}

/// Starts the resources on ports of their own, and makes the configuration that fits.
pub(super) async fn start() -> std::io::Result<(Azure, Config)> {
    let pace =
        Pace { first_token: Duration::from_millis(120), per_token: Duration::from_millis(12) };
    let standard = |tokens| Deployment::standard("gpt-4o", Standard::tokens_per_minute(tokens));
    let ptu = Deployment::ptu("gpt-4o-ptu", Ptu::new(200.0).bucket_seconds(2.0)).model("gpt-4o");
    let resource = |name: &str, region: &str| Resource::new(name).region(region).key(key(name));
    let emulator = Emulator::new([
        resource("east", "East US").deployment(ptu.pace(pace)),
        resource("sweden", "Sweden Central").deployment(standard(60_000).pace(pace)),
        resource("japan", "Japan East").deployment(standard(30_000).pace(pace)),
        resource("france", "France Central").deployment(standard(30_000).pace(pace)),
    ]);
    let mut serving = Vec::new();
    let mut backends = Vec::new();
    for (name, region, priority) in [
        ("east", "East US", 1),
        ("sweden", "Sweden Central", 1),
        ("japan", "Japan East", 1),
        ("france", "France Central", 2),
    ] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let resource = emulator.serve(name, listener);
        backends.push(Backend {
            name: format!("{}-{name}", if serving.is_empty() { "ptu" } else { "standard" }),
            endpoint: resource.endpoint(),
            auth: Auth::Key(Secret::new(key(name))),
            deployment: serving.is_empty().then(|| "gpt-4o-ptu".to_owned()),
            api_version: None,
            region: Some(region.to_owned()),
            image_deployment: None,
            priority,
            weight: 1,
        });
        serving.push(resource);
    }
    let standard = backends.split_off(1);
    Ok((Azure { _serving: serving }, config(backends, standard)))
}

/// A command that works as it stands against the gateway at `url`.
pub(super) fn curl(url: &str) -> String {
    format!(
        "curl -i '{url}/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21' \
         -H 'content-type: application/json' \
         -d '{{\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'"
    )
}

pub(super) fn config(ptu: Vec<Backend>, standard: Vec<Backend>) -> Config {
    let model = Model {
        ptu,
        standard,
        max_wait: Duration::from_secs(4),
        longest_cooldown: Duration::from_secs(60),
        gate: GateSettings {
            mode: Mode::Adaptive,
            patience: Some(Duration::from_secs(20)),
            output_weight: 3.0,
        },
        spill_budget: None,
        aliases: Vec::new(),
        rotate_on_failure: false,
        classes: BTreeMap::new(),
    };
    Config {
        listen: Listen {
            address: (Ipv4Addr::LOCALHOST, 8080).into(),
            tls: None,
            admin: None,
            drain: Duration::from_secs(30),
        },
        limits: Limits {
            body: 32 << 20,
            replay: 4 << 20,
            headers: 100,
            head: 64 << 10,
            concurrency: 20_000,
            head_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(300),
        },
        upstream: Upstream {
            connect_timeout: Duration::from_secs(5),
            head_timeout: Duration::from_secs(600),
            idle_timeout: Duration::from_secs(120),
            idle_connections: 256,
            http2: crate::config::Http2::default(),
            trust: Vec::new(),
        },
        models: BTreeMap::from([("gpt-4o".to_owned(), model)]),
        default_model: None,
        clients: Clients::Open,
        entra: None,
        telemetry: Telemetry {
            log: "info".to_owned(),
            json: false,
            otlp: None,
            service_name: "spillover".to_owned(),
        },
    }
}

fn key(resource: &str) -> String {
    format!("key-of-{resource}")
}
