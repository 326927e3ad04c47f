//! Replicas of the gateway that share a spill budget through a store, and what they do without it.

use std::{fs, path::PathBuf, thread, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::Value;
use spillover_testing::{
    real::Stopwatch,
    redis::{Server, free_port},
};

use crate::{
    emulate,
    served::{Azure, Gateway, TEAM_A},
    witness::{Asked, Witness},
};

const LIMIT: usize = 100;
const REPLICAS: usize = 4;
/// Requests per replica: the fleet has 500.
const EACH: usize = 125;

/// A PTU that one request fills for minutes, and a fallback.
fn config(azure: &Azure, limit: usize, fleet: &str) -> String {
    let (ptu, standard) = (azure.endpoint(0), azure.endpoint(1));
    format!(
        r#"
        listen = {{ address = "127.0.0.1:0", admin = "127.0.0.1:0" }}
        clients.open = true
        {fleet}
        [models."gpt-4o"]
        max_wait = "1s"
        spill_budget = {{ requests = {limit}, window = "1h" }}
        ptu = [{{ name = "ptu", endpoint = "{ptu}", key = "env:AZURE_KEY" }}]
        standard = [{{ name = "sweden", endpoint = "{standard}", key = "env:AZURE_KEY" }}]
        "#
    )
}

fn fleet(server: &Server, more: &str) -> String {
    format!("fleet = {{ name = \"prod\", store = \"{}\"{more} }}", server.url())
}

fn replicas(name: &str, text: &str) -> Vec<Gateway> {
    let start = |replica: usize| {
        let file = emulate::file(&format!("fleet-{name}-{replica}/g.toml"), text);
        Gateway::start(&file)
    };
    (0..REPLICAS).map(start).collect()
}

pub(crate) fn status(gateway: &Gateway) -> Value {
    let page = gateway.page("/-/status");
    let body = page.0.split_once("\r\n\r\n").unwrap().1;
    serde_json::from_str(body).unwrap()
}

fn metric(gateway: &Gateway, name: &str) -> Option<f64> {
    let page = gateway.page("/metrics");
    let line = page.0.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().parse().ok()
}

pub(crate) fn events(gateway: &Gateway, message: &str) -> Vec<Value> {
    let log = gateway.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
    lines.filter(|event: &Value| event["message"] == message).collect()
}

pub(crate) const UP: &str = "the fleet's store answers";
pub(crate) const DOWN: &str = "the fleet's store does not answer; this replica decides alone";

fn until_all_are_counted(gateways: &[Gateway]) {
    for gateway in gateways {
        gateway.eventually(|gateway| {
            let status = status(gateway);
            status["fleet"]["up"] == true && status["fleet"]["replicas"] == REPLICAS
        });
    }
}

/// The requests that were spilled, and the `retry-after` of the others.
fn load(gateways: &[Gateway]) -> (usize, Vec<u64>) {
    let answers = thread::scope(|scope| {
        let run =
            |gateway| move || (0..EACH).map(|_| Gateway::chat(gateway, "gpt-4o", &[])).collect();
        let threads: Vec<_> = gateways.iter().map(|gateway| scope.spawn(run(gateway))).collect();
        let answers = threads.into_iter().map(|thread| thread.join().unwrap());
        answers.flat_map(|answers: Vec<_>| answers).collect::<Vec<_>>()
    });
    let is_spilled =
        |answer: &&crate::served::Answer| answer.header("x-spillover-backend") == Some("sweden");
    let spilled = answers.iter().filter(is_spilled).filter(|it| it.status() == 200).count();
    let refused: Vec<u64> = answers
        .iter()
        .filter(|answer| answer.status() == 429)
        .map(|answer| answer.header("retry-after-ms").unwrap().parse().unwrap())
        .collect();
    // The PTU has served the first ones.
    assert!(spilled + refused.len() >= answers.len() - REPLICAS, "{} {}", spilled, refused.len());
    (spilled, refused)
}

#[test]
fn four_gateways_spill_what_the_budget_allows() {
    let Some(server) = Server::start(&[]) else { return };
    server.allow("azure-key", &[]);
    let azure = Azure::new("fleet-budget");
    let user = ", user = \"spillover\", password = \"env:AZURE_KEY\"";
    let gateways = replicas("budget", &config(&azure, LIMIT, &fleet(&server, user)));
    until_all_are_counted(&gateways);
    let (spilled, refused) = load(&gateways);
    assert_eq!(spilled, LIMIT);
    assert!(refused.len() >= REPLICAS * EACH - LIMIT - REPLICAS);
    let mut asked = 0.0;
    for gateway in &gateways {
        assert_eq!(metric(gateway, "spillover_fleet_up "), Some(1.0));
        assert_eq!(metric(gateway, "spillover_fleet_replicas "), Some(REPLICAS as f64));
        let calls = r#"spillover_fleet_calls_total{op="take",outcome="ok"} "#;
        let ok = metric(gateway, calls).unwrap();
        let timed = metric(gateway, r#"spillover_fleet_call_seconds_count{op="take"} "#).unwrap();
        assert!(timed >= ok, "{timed} {ok}");
        asked += ok;
        // A busy machine may let some calls time out.
        let alone = metric(gateway, "spillover_gate_alone_requests_total{model=\"gpt-4o\"} ");
        assert!(alone.is_none_or(|alone| alone < 0.1 * EACH as f64), "{alone:?}");
        let status = status(gateway);
        assert_eq!(status["fleet"]["name"], "prod");
        assert_eq!(status["fleet"]["store"], format!("127.0.0.1:{}", server.port()));
        assert_eq!(status["models"]["gpt-4o"]["spill_budget_left"], 0.0);
        assert_eq!(events(gateway, UP).len(), 1);
        assert!(events(gateway, DOWN).is_empty());
    }
    assert!(asked >= LIMIT as f64, "{asked}");
}

#[test]
fn without_the_store_four_gateways_spill_at_most_the_budget_and_say_so_once() {
    let Some(mut server) = Server::start(&[]) else { return };
    let azure = Azure::new("fleet-dead");
    let gateways = replicas("dead", &config(&azure, LIMIT, &fleet(&server, "")));
    until_all_are_counted(&gateways);
    server.kill();
    for gateway in &gateways {
        gateway.eventually(|gateway| status(gateway)["fleet"]["up"] == false);
    }
    let (spilled, _) = load(&gateways);
    assert_eq!(spilled, LIMIT);
    for gateway in &gateways {
        let decision = gateway.chat("gpt-4o", &[]);
        let decision = decision.header("x-spillover-decision").unwrap().to_owned();
        assert!(
            decision.starts_with("refused; ") && decision.ends_with("; gate=local"),
            "{decision}"
        );
        let alone = "spillover_gate_alone_requests_total{model=\"gpt-4o\"} ";
        assert!(metric(gateway, alone).unwrap() >= 1.0);
        assert_eq!(metric(gateway, "spillover_fleet_up "), Some(0.0));
        assert_eq!(gateway.page("/readyz").status(), 200);
        assert!(status(gateway)["fleet"]["why"].is_string());
    }
    server.restart();
    for gateway in &gateways {
        gateway.eventually(|gateway| status(gateway)["fleet"]["up"] == true);
        // Its line follows.
        gateway.eventually(|gateway| events(gateway, UP).len() == 2);
        assert_eq!(events(gateway, DOWN).len(), 1);
    }
}

#[test]
fn a_reload_connects_anew_and_the_fleet_remembers_what_was_spilled() {
    let Some(server) = Server::start(&["--requirepass", "a-store-key"]) else { return };
    let azure = Azure::new("fleet-reload");
    let with = |key: &str, limit| {
        let fleet = fleet(&server, &format!(", password = \"env:{key}\""));
        config(&azure, limit, &fleet)
    };
    let file = emulate::file("fleet-reload/g.toml", &with("WRONG", 3));
    let variables = [("WRONG", "canary-1"), ("RIGHT", "a-store-key")];
    let gateway = Gateway::start_with(&file, &variables);
    gateway.eventually(|gateway| events(gateway, DOWN).len() == 1);
    fs::write(&file, with("RIGHT", 3)).unwrap();
    gateway.eventually(|gateway| status(gateway)["fleet"]["up"] == true);
    // Until the PTU is known to refuse, and the budget is spent.
    let spilled = (0..9)
        .map(|_| gateway.chat("gpt-4o", &[]))
        .filter(|it| it.header("x-spillover-backend") == Some("sweden"));
    assert_eq!(spilled.filter(|it| it.status() == 200).count(), 3);
    fs::write(&file, with("RIGHT", 4)).unwrap();
    let serves = |gateway: &Gateway| gateway.chat("gpt-4o", &[]).status() == 200;
    gateway.eventually(serves);
    assert!(!serves(&gateway), "three of the four were spilled before the reload");
    let log = gateway.log();
    assert!(!log.contains("canary-1") && !log.contains("a-store-key"), "{log}");
    let status = gateway.page("/-/status").0;
    assert!(!status.contains("a-store-key"), "{status}");
}

#[test]
fn a_collector_gets_the_state_of_the_fleet() {
    let Some(server) = Server::start(&[]) else { return };
    let (azure, collector) = (Azure::new("fleet-otlp"), Witness::new(|_| (200, "", String::new())));
    let otlp = format!("[telemetry]\notlp = \"{}\"", collector.endpoint());
    let text = config(&azure, LIMIT, &fleet(&server, "")) + &otlp;
    let gateway = Gateway::start(&emulate::file("fleet-otlp/g.toml", &text));
    gateway.eventually(|gateway| status(gateway)["fleet"]["up"] == true);
    gateway.signal("TERM");
    let is_export = |asked: &Asked| asked.head[0].contains("/v1/metrics");
    let asked = collector.wait_for(|asked| asked.iter().any(is_export));
    let exported = asked.iter().filter(|asked| is_export(asked));
    let exported: String = exported.map(|it| String::from_utf8_lossy(&it.body)).collect();
    for name in ["spillover.fleet.up", "spillover.fleet.replicas", "spillover.fleet.calls"] {
        assert!(exported.contains(name), "{name} is not in {exported}");
    }
}

#[test]
fn four_gateways_keep_the_rate_of_a_client() {
    let Some(server) = Server::start(&[]) else { return };
    let azure = Azure::new("fleet-rate");
    let text = config(&azure, LIMIT, &fleet(&server, ""));
    let client = "clients.team-a = { keys = [\"env:TEAM_A_KEY\"], requests_per_second = 20 }";
    let text = text.replace("clients.open = true", client);
    let text = text.replace("gpt-4o", "text");
    let gateways = replicas("rate", &text);
    until_all_are_counted(&gateways);
    let started = Stopwatch::start();
    let (mut passed, mut waits) = (0, Vec::new());
    while started.elapsed() < Duration::from_secs(3) {
        for gateway in &gateways {
            let answer = gateway.chat("text", &[TEAM_A]);
            match answer.header("retry-after-ms") {
                None => passed += 1,
                Some(wait) => waits.push(wait.parse::<u64>().unwrap()),
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let most = 20.0 + 20.0 * seconds;
    assert!(f64::from(passed) <= most + 1.0, "{passed} in {seconds} s");
    assert!(f64::from(passed) >= 0.9 * most, "{passed} in {seconds} s");
    assert!(waits.iter().all(|wait| *wait <= 50), "{waits:?}");
}

/// A folder with an authority, and a certificate of it for `localhost`, as PEM.
fn certificates(name: &str) -> PathBuf {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let own = own.signed_by(&key, &authority).unwrap();
    let folder = emulate::file(&format!("{name}/ca.pem"), &authority.pem());
    emulate::file(&format!("{name}/own.pem"), &own.pem());
    emulate::file(&format!("{name}/key.pem"), &key.serialize_pem());
    folder.parent().unwrap().to_owned()
}

#[test]
fn a_store_with_tls_is_trusted_only_if_its_authority_is() {
    let folder = certificates("fleet-tls");
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (port, own, key) = (free_port().to_string(), path("own.pem"), path("key.pem"));
    let tls = ["--tls-port", &port, "--tls-cert-file", &own, "--tls-key-file", &key];
    let arguments = [&tls[..], &["--tls-auth-clients", "no"]].concat();
    let Some(_server) = Server::start(&arguments) else { return };
    let azure = Azure::new("fleet-tls-azure");
    let with = |host: &str, trust: &str| {
        let fleet =
            format!("fleet = {{ name = \"f\", store = \"rediss://{host}:{port}\"{trust} }}");
        let name = format!("fleet-tls/{host}-{}.toml", trust.len());
        Gateway::start(&emulate::file(&name, &config(&azure, 1, &fleet)))
    };
    let trusting = with("localhost", ", trust = \"ca.pem\"");
    trusting.eventually(|gateway| status(gateway)["fleet"]["up"] == true);
    // The log of all three is one file.
    for (host, trust) in [("localhost", ""), ("127.0.0.1", ", trust = \"ca.pem\"")] {
        let gateway = with(host, trust);
        gateway.eventually(|gateway| status(gateway)["fleet"]["why"] != "it is being connected");
        let status = status(&gateway);
        assert_eq!(status["fleet"]["up"], false, "{host} {trust}: {status}");
        assert!(status["fleet"]["why"].as_str().unwrap().contains("certificate"), "{status}");
    }
}
