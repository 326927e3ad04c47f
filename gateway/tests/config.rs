//! `spillover check` reports every problem with its location and remedy, and never a secret.

mod identities;
mod providers;
mod proxies;

use std::{
    fs,
    path::PathBuf,
    process::{self, Command, Output},
    sync::atomic::{AtomicUsize, Ordering},
};

const CANARY: &str = "canary-4fd1c0de";

/// A folder with the files that the example refers to.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("spillover-check-{}-{number}", process::id()));
        for (file, text) in [
            ("tls/cert.pem", include_str!("tls/cert.pem")),
            ("tls/ca.pem", include_str!("tls/cert.pem")),
            ("tls/key.pem", include_str!("tls/key.pem")),
            ("tls/other-key.pem", include_str!("tls/other-key.pem")),
            ("secrets/onprem", CANARY),
            ("empty", "\n"),
            ("token", "a-token"),
        ] {
            let file = folder.join(file);
            fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            fs::write(file, text).expect("a file");
        }
        Self(folder)
    }

    fn check(&self, text: &str) -> Output {
        self.check_as(text, &[])
    }

    fn check_as(&self, text: &str, arguments: &[&str]) -> Output {
        fs::write(self.0.join("c.toml"), text).expect("a file");
        Command::new(env!("CARGO_BIN_EXE_spillover"))
            .args(["check", "--config", "c.toml"])
            .args(arguments)
            .current_dir(&self.0)
            .env_clear()
            .env("EAST_KEY", CANARY)
            .env("TEAM_A_KEY", format!("{CANARY}-a"))
            .env("ENTRA_SECRET", CANARY)
            .env("REDIS_PASSWORD", CANARY)
            .env("WEAK_SECRET", "change-me-change-me")
            .env("FLEET_SECRET", format!("{CANARY}-{CANARY}"))
            .env("PROXY", "http://me:canary@proxy.example:3128")
            // Of workload identities.
            .env("AZURE_TENANT_ID", "contoso.onmicrosoft.com")
            .env("AZURE_CLIENT_ID", "11111111-2222-3333-4444-555555555555")
            .env("AZURE_FEDERATED_TOKEN_FILE", "token")
            .env("EMPTY", " ")
            .env("AWS_KEY", "AKIAEXAMPLEEXAMPLE00")
            .env("BROKEN", format!("{CANARY}\n{CANARY}"))
            .output()
            .expect("the binary runs")
    }

    fn problems(&self, text: &str) -> String {
        let output = self.check(text);
        let told = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{text}\n{told}");
        assert!(output.stdout.is_empty() && !told.contains(CANARY), "{told}");
        told.trim_end().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_example_is_good_and_summed_up_in_a_line() {
    let output = Folder::new().check(include_str!("../../examples/spillover.toml"));
    let told = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(
        told,
        "c.toml: ok; https://127.0.0.1:8080; models: embeddings (1 PTU, 1 Standard), \
         gpt-4o (1 PTU, 3 Standard); clients: team-a\n"
    );
}

/// A valid file, except for `backend`, `model` and `rest`.
fn file(model: &str, backend: &str, rest: &str) -> String {
    let backend = match backend {
        "" => r#"name = "a", endpoint = "https://a.example", key = "env:EAST_KEY""#,
        backend => backend,
    };
    let clients = if rest.contains("clients") { "" } else { "clients.open = true" };
    format!("{rest}\n{clients}\nmodels.m.standard = [{{ {backend} }}]\n{model}\n")
}

fn expect_each(cases: &[(&str, &str, &str, &str)]) {
    let folder = Folder::new();
    for (model, backend, rest, expected) in cases {
        let told = folder.problems(&file(model, backend, rest));
        let told: Vec<&str> = told
            .lines()
            .map(|line| line.splitn(4, ':').nth(3).expect("a place").trim_start())
            .collect();
        let expected = expected
            .replace("OP\n", "write it like \"POST /openai/v1/new-thing\" or \"GET /openai/v1/new-thing/{id}\", without a query\n")
            .replace("NEVER", "carries a credential, or belongs to one connection, and is never forwarded; remove it");
        assert_eq!(told.join("\n"), expected, "{model} {backend} {rest}");
    }
}

#[test]
fn what_does_nothing_is_told_and_is_an_error_only_where_that_is_asked_for() {
    let folder = Folder::new();
    // A setting without effect, and the same with what gives it an effect.
    for (key, idle, busy) in [
        (
            "operations.allow[0]",
            Sample { rest: "[operations]\nallow = [\"POST /openai/v1/responses\"]", ..ONE },
            Sample { rest: "[operations]\nallow = [\"PUT /openai/v1/responses\"]", ..ONE },
        ),
        (
            "upstream.headers[0]",
            Sample { rest: "[upstream]\nheaders = [\"user-agent\"]", ..ONE },
            Sample { rest: "[upstream]\nheaders = [\"x-mine\"]", ..ONE },
        ),
        (
            "classes.c.spill",
            Sample { rest: "[classes.c]\nspill = false", ..ONE },
            Sample { model: PTU, rest: "[classes.c]\nspill = false", ..ONE },
        ),
        (
            "classes.c.rank",
            Sample { model: "max_wait = \"0s\"", rest: "[classes.c]\nrank = 1", ..ONE },
            Sample { rest: "[classes.c]\nrank = 1", ..ONE },
        ),
        (
            "classes.c.first_token",
            Sample { rest: "[classes.c]\nfirst_token = \"off\"", ..ONE },
            Sample {
                model: "first_token = { after = \"8s\" }",
                other: KEY,
                rest: "[classes.c]\nfirst_token = \"off\"",
                ..ONE
            },
        ),
        (
            "classes.c.first_token",
            Sample { rest: "[classes.c]\nfirst_token = { after = \"8s\" }", ..ONE },
            Sample { other: KEY, rest: "[classes.c]\nfirst_token = { after = \"8s\" }", ..ONE },
        ),
        (
            "classes.c",
            Sample { rest: "[classes.c]\n[clients.c]\nKEYS", ..ONE },
            Sample { rest: "[classes.c]\n[clients.c]\nKEYS\nclass = \"c\"", ..ONE },
        ),
        (
            "classes.c",
            Sample { rest: "[classes.c]\n[clients.c]\nKEYS", ..ONE },
            Sample { rest: "[classes.c]\n[clients.c]\nKEYS\nmay = [\"class\"]", ..ONE },
        ),
        (
            "clients.c.may[0]",
            Sample { rest: "[clients.c]\nKEYS\nmay = [\"class\"]", ..ONE },
            Sample { rest: "[classes.d]\n[clients.c]\nKEYS\nmay = [\"class\"]", ..ONE },
        ),
        (
            "clients.c.may[0]",
            Sample { rest: "[clients.c]\nKEYS\nmay = [\"no-spill\"]", ..ONE },
            Sample { model: PTU, rest: "[clients.c]\nKEYS\nmay = [\"no-spill\"]", ..ONE },
        ),
        (
            "clients.c.may[0]",
            Sample {
                model: "sticky = false",
                rest: "[clients.c]\nKEYS\nmay = [\"backend\"]",
                ..ONE
            },
            Sample { rest: "[clients.c]\nKEYS\nmay = [\"backend\"]", ..ONE },
        ),
        (
            "default_model",
            Sample {
                top: "default_model = \"m\"",
                rest: "OTHER\n[clients.c]\nKEYS\nmodels = [\"n\"]",
                ..ONE
            },
            Sample {
                top: "default_model = \"n\"",
                rest: "OTHER\n[clients.c]\nKEYS\nmodels = [\"n\"]",
                ..ONE
            },
        ),
        (
            "entra",
            Sample { rest: "[entra]\nkind = \"workload\"", ..ONE },
            Sample { other: "auth = \"entra\"", rest: "[entra]\nkind = \"workload\"", ..ONE },
        ),
        (
            "entra",
            Sample {
                model: BUDGET,
                rest: "[entra]\nkind = \"workload\"\n[fleet]\nname = \"f\"\nstore = \"redis://127.0.0.1:1\"",
                ..ONE
            },
            Sample {
                model: BUDGET,
                rest: "[entra]\nkind = \"workload\"\n[fleet]\nname = \"f\"\nstore = \"redis://127.0.0.1:1\"\nuser = \"u\"\nauth = \"entra\"",
                ..ONE
            },
        ),
        (
            "fleet",
            Sample {
                rest: "[fleet]\nname = \"f\"\nshare = [\"budgets\"]\nstore = \"redis://127.0.0.1:1\"",
                ..ONE
            },
            Sample {
                model: BUDGET,
                rest: "[fleet]\nname = \"f\"\nstore = \"redis://127.0.0.1:1\"",
                ..ONE
            },
        ),
        (
            "fleet.secret",
            Sample {
                rest: "[fleet]\nname = \"f\"\nstore = \"redis://127.0.0.1:1\"\nsecret = \"env:FLEET_SECRET\"\nshare = [\"cooldowns\"]",
                ..ONE
            },
            Sample {
                rest: "[fleet]\nname = \"f\"\nstore = \"redis://127.0.0.1:1\"\nsecret = \"env:FLEET_SECRET\"\n",
                ..ONE
            },
        ),
        (
            "fleet.sticky_age",
            Sample {
                rest: "[fleet]\nname = \"f\"\nstore = \"redis://127.0.0.1:1\"\nsticky_age = \"1day\"",
                ..ONE
            },
            Sample {
                rest: "[fleet]\nname = \"f\"\nstore = \"redis://127.0.0.1:1\"\nsecret = \"env:FLEET_SECRET\"\nsticky_age = \"1day\"",
                ..ONE
            },
        ),
        (
            "fleet.secret",
            Sample {
                model: "sticky = false",
                rest: "[fleet]\nname = \"f\"\nstore = \"redis://127.0.0.1:1\"\nsecret = \"env:FLEET_SECRET\"",
                ..ONE
            },
            Sample {
                rest: "[fleet]\nname = \"f\"\nstore = \"redis://127.0.0.1:1\"\nsecret = \"env:FLEET_SECRET\"",
                ..ONE
            },
        ),
        (
            "sticky",
            Sample { top: "sticky.capacity = 9", model: "sticky = false", ..ONE },
            Sample { top: "sticky.capacity = 9", ..ONE },
        ),
        (
            "telemetry.service_name",
            Sample { top: "telemetry.service_name = \"x\"", ..ONE },
            Sample { top: "telemetry = { service_name = \"x\", otlp = \"http://c:4318\" }", ..ONE },
        ),
        (
            "limits.replay",
            Sample { top: "limits = { replay = \"9 MiB\", body = \"8 MiB\" }", ..ONE },
            Sample { top: "limits = { replay = \"8 MiB\", body = \"8 MiB\" }", ..ONE },
        ),
        (
            "models.m.failures",
            Sample { model: "failures = [\"500\"]", ..ONE },
            Sample { model: "failures = [\"500\"]", other: KEY, ..ONE },
        ),
        (
            "models.m.rotate_on_failure",
            Sample { model: "rotate_on_failure = true", ..ONE },
            Sample { model: "rotate_on_failure = true", other: KEY, ..ONE },
        ),
        (
            "models.m.sticky",
            Sample { model: "sticky = { default_backend = \"a\" }", ..ONE },
            Sample { model: "sticky = { default_backend = \"a\" }", other: KEY, ..ONE },
        ),
        (
            "models.m.cache_affinity",
            Sample { model: "cache_affinity = \"key\"", ..ONE },
            Sample { model: "cache_affinity = \"key\"", other: KEY, ..ONE },
        ),
        (
            "models.m.rotate_long_context",
            Sample { model: "rotate_long_context = true", ..ONE },
            Sample { model: "rotate_long_context = true", other: KEY, ..ONE },
        ),
        (
            "models.m.gate.contention",
            Sample { model: GATE_SHARED, ..ONE },
            Sample { model: GATE_ADAPTIVE, ..ONE },
        ),
        (
            "models.m.gate.patience",
            Sample { model: GATE_SHARED, ..ONE },
            Sample { model: GATE_ADAPTIVE, ..ONE },
        ),
        (
            "models.m.standard[0].quota",
            Sample { backend: "quota = \"q\", KEY", other: "quota = \"r\", KEY", ..ONE },
            Sample { backend: "quota = \"q\", KEY", other: "quota = \"q\", KEY", ..ONE },
        ),
        (
            "models.m.standard[0].weight",
            Sample { backend: "weight = 2, KEY", other: "priority = 2, KEY", ..ONE },
            Sample { backend: "weight = 2, KEY", other: KEY, ..ONE },
        ),
        (
            "models.m.standard[0].priority",
            Sample { backend: "priority = 2, KEY", ..ONE },
            Sample { backend: "priority = 2, KEY", other: KEY, ..ONE },
        ),
    ] {
        for (text, is_idle) in [(idle.text(), true), (busy.text(), false)] {
            let output = folder.check(&text);
            let told = String::from_utf8(output.stderr).expect("text");
            assert_eq!(output.status.code(), Some(0), "{text}\n{told}");
            assert!(!output.stdout.is_empty() && !told.contains(CANARY), "{told}");
            let is_told = told.lines().any(|line| {
                let place = line.starts_with("warning: c.toml:");
                place && line.contains(&format!(" {key}: has no effect")) && line.contains("; ")
            });
            assert_eq!(is_told, is_idle, "{key}\n{text}\n{told}");
            let strict = folder.check_as(&text, &["--strict"]).status.code();
            assert_eq!(strict, Some(if told.is_empty() { 0 } else { 2 }), "{told}");
        }
    }
}

/// A valid file in which settings may have no effect. `KEY` and `KEYS` belong to a backend and a
/// client, `OTHER` is another model.
struct Sample {
    top: &'static str,
    model: &'static str,
    backend: &'static str,
    /// A second backend, if there is one.
    other: &'static str,
    rest: &'static str,
}

const ONE: Sample = Sample { top: "", model: "", backend: KEY, other: "", rest: "" };
const KEY: &str = "KEY";
const PTU: &str = r#"ptu = [{ name = "p", endpoint = "https://p.example", KEY }]"#;
const BUDGET: &str = r#"spill_budget = { requests = 9 }
ptu = [{ name = "p", endpoint = "https://p.example", KEY }]"#;
const GATE_SHARED: &str = r#"gate = { mode = "shared", contention = "compete", patience = "9s" }
ptu = [{ name = "p", endpoint = "https://p.example", KEY }]"#;
const GATE_ADAPTIVE: &str = r#"gate = { contention = "compete", patience = "9s" }
ptu = [{ name = "p", endpoint = "https://p.example", KEY }]"#;

impl Sample {
    fn text(&self) -> String {
        let Self { top, model, backend, other, rest } = self;
        let open = if rest.contains("[clients") { "" } else { "clients.open = true" };
        let second = match *other {
            "" => String::new(),
            other => format!(r#", {{ name = "b", endpoint = "https://b.example", {other} }}"#),
        };
        let text = format!(
            "{top}\n{open}\n[models.m]\n{model}\nstandard = [\
             {{ name = \"a\", endpoint = \"https://a.example\", {backend} }}{second}]\n{rest}\n"
        );
        let other = r#"models.n.standard = [{ name = "n", endpoint = "https://n.example", KEY }]"#;
        let (other, rest) = match text.contains("OTHER") {
            true => (other, text.replace("OTHER", "")),
            false => ("", text),
        };
        let text = format!("{other}\n{rest}").replace("KEYS", "keys = [\"env:TEAM_A_KEY\"]");
        text.replace("KEY }", "key = \"env:EAST_KEY\" }")
    }
}

#[test]
fn every_problem_of_a_bad_file_is_told_at_once_by_place_and_remedy() {
    let told = Folder::new().problems(include_str!("problems/many.toml"));
    let expected = include_str!("problems/many.txt").trim_end();
    for (told, expected) in told.lines().zip(expected.lines()) {
        assert_eq!(told, expected);
    }
    assert_eq!(told.lines().count(), expected.lines().count());
    assert!(!told.contains("literal") && !told.contains("user:pw"), "{told}");
}

const FLEETS: [(&str, &str, &str, &str); 19] = [
    (
        "",
        "",
        "fleet = { name = \"f\", store = [\"rediss://a\", \"rediss://b\"] }",
        "fleet.store: names several servers; with sentinels add sentinel = \"NAME\", their name for the master, for a Redis Cluster cluster = true",
    ),
    (
        "",
        "",
        "fleet = { name = \"f\", store = [\"rediss://a\"], sentinel = \"s\", cluster = true }",
        "fleet.sentinel: stands beside cluster = true; a cluster has no sentinels. Remove one of them",
    ),
    (
        "",
        "",
        "fleet.name = \"f\"",
        "fleet.store: is missing; write it like \"rediss://redis.contoso.internal:6380\"",
    ),
    (
        "",
        "",
        "fleet.store = \"redis://[::1]:1\"",
        "fleet.name: is missing; replicas with the same name share their state",
    ),
    (
        "",
        "",
        "fleet = { name = \"a b\", store = \"redis://localhost:1\" }",
        "fleet.name: \"a b\" is not a name of a fleet; use 1 to 64 ASCII letters, digits, `.`, `_` and `-`",
    ),
    (
        "",
        "",
        "fleet = { name = \"f\", store = \"redis.example:6379\" }",
        "fleet.store: is neither rediss:// nor redis://; name one Redis or Valkey server",
    ),
    (
        "",
        "",
        "fleet = { name = \"f\", store = \"redis://redis.example:6379\" }",
        "fleet.store: would send the password over redis:// to another machine; use rediss://, or allow_plain = true",
    ),
    (
        "",
        "",
        "fleet = { name = \"f\", store = \"rediss://me:canary@redis.example\" }",
        "fleet.store: contains a user or a password; use `user` and password = \"env:NAME\"",
    ),
    (
        "",
        "",
        "fleet = { name = \"f\", store = \"rediss://r.example\", password = \"canary\" }",
        "fleet.password: is neither env:NAME nor file:PATH; keep the secret out of this file and say where it is",
    ),
    (
        "",
        "",
        "fleet = { name = \"f\", store = \"rediss://r.example\", user = \"u\" }",
        "fleet.user: has no password; add password = \"env:NAME\", or auth = \"entra\"",
    ),
    (
        "",
        "",
        "fleet = { name = \"f\", store = \"rediss://r.example\", auth = \"entra\", password = \"env:EAST_KEY\" }",
        "entra: is missing, and fleet.auth needs it; add kind = \"workload\"\nfleet.auth: cannot be combined with `password`; remove one of the two\nfleet.auth: needs `user`, the object id of the identity",
    ),
    (
        "",
        "",
        "fleet = { name = \"f\", store = \"rediss://r.example\", user = \"u\", auth = \"managed\" }",
        "fleet.auth: \"managed\" is unknown; use one of entra",
    ),
    (
        "",
        "",
        "fleet = { name = \"f\", store = \"redis://127.0.0.1:1\", trust = \"tls/ca.pem\" }",
        "fleet.trust: has no effect without TLS; use rediss:// for `store`, or remove it",
    ),
    (
        "",
        "",
        "fleet = { name = \"f\", store = \"rediss://r.example\", share = [\"budgets\", \"sticky\"] }",
        "fleet.share[1]: needs a secret, under which the store keeps hashes of ids; add secret = \"env:NAME\", the same for all replicas",
    ),
    (
        "",
        "",
        "fleet = { name = \"f\", store = \"rediss://r.example\", secret = \"env:EAST_KEY\" }",
        "fleet.secret: is shorter than 16 bytes; make one with `openssl rand -base64 32`",
    ),
    (
        "",
        "",
        "fleet = { name = \"f\", store = \"rediss://r.example\", secret = \"env:WEAK_SECRET\" }",
        "fleet.secret: is a placeholder; use a random one: openssl rand -hex 24",
    ),
    (
        "",
        "",
        "fleet = { name = \"f\", store = \"rediss://r.example\", secret = \"canary canary canary\" }",
        "fleet.secret: is neither env:NAME nor file:PATH; keep the secret out of this file and say where it is",
    ),
    (
        "",
        "",
        "fleet = { name = \"f\", store = \"rediss://r.example\", share = [] }",
        "fleet.share: shares nothing; remove the section, or name what is shared",
    ),
    (
        "models.m.max_wait = \"400ms\"",
        "",
        "fleet = { name = \"f\", store = \"rediss://r.example\", timeout = \"101ms\" }",
        "fleet.timeout: is more than a quarter of the shortest `max_wait`, 400ms; lower it",
    ),
];

#[test]
fn a_problem_is_told_in_these_words() {
    expect_each(&FLEETS);
    expect_each(&[
        (
            "",
            "",
            "open = true",
            "open: unknown key; remove it, or use one of listen, limits, upstream, operations, sticky, telemetry, entra, fleet, tokens, classes, models, default_model, clients",
        ),
        (
            "",
            "",
            "[clients]\nopen = false\n[models]\nm.max_wait = \"1s\"\n[x]",
            "clients: no client is configured; add [clients.NAME] with keys, or open = true\nmodels.m: has no backend; add [[models.m.standard]]\nx: unknown key; remove it, or use one of listen, limits, upstream, operations, sticky, telemetry, entra, fleet, tokens, classes, models, default_model, clients",
        ),
        (
            "",
            "name = \"a b\", endpoint = \"https://a\", key = \"env:EAST_KEY\"",
            "",
            "models.m.standard[0].name: \"a b\" is not a name; use letters, digits and signs like `-`",
        ),
        (
            "",
            "name = \"a\", endpoint = \"ftp://a\", key = \"env:BROKEN\"",
            "",
            "models.m.standard[0].endpoint: its scheme is neither `https` nor `http`; use `https`\nmodels.m.standard[0].key: is empty or has characters that a header cannot carry; trim line ends",
        ),
        (
            "",
            "",
            "listen.cors = { origins = [\"*\", \"https://a/b\"], headers = [\"a b\"], credentials = true }",
            "listen.cors.origins[0]: allows all origins, and cannot be combined with others; remove one of the two\nlisten.cors.headers[0]: \"a b\" is not the name of a header; use letters, digits and -\nlisten.cors.credentials: cannot be combined with origins = [\"*\"], which browsers refuse; name the origins",
        ),
        (
            "",
            "",
            "listen.cors = { origins = [\"https://a/b\", \"app.example\", \"https://u@a\"] }",
            "listen.cors.origins[0]: \"https://a/b\" is not an origin; write its scheme, host and port, such as \"https://app.example.com\"\nlisten.cors.origins[1]: \"app.example\" is not an origin; write its scheme, host and port, such as \"https://app.example.com\"\nlisten.cors.origins[2]: \"https://u@a\" is not an origin; write its scheme, host and port, such as \"https://app.example.com\"",
        ),
        (
            "",
            "",
            "listen.cors = {}",
            "listen.cors.origins: is missing; add origins = [\"https://app.example.com\"]",
        ),
        (
            "models.m.gate = { output_weight = -1, unstated_output = 2e6, unstated = 1 }",
            "",
            "",
            "models.m.gate: has no effect without a PTU tier; remove it or add `ptu`\nmodels.m.gate.output_weight: is out of range; use 0 to 1000\nmodels.m.gate.unstated_output: is out of range; use 0 to 1048576\nmodels.m.gate.unstated: unknown key; remove it, or use one of mode, contention, patience, output_weight, unstated_output",
        ),
        (
            "models.m.gate = { contention = \"fair\" }",
            "",
            "",
            "models.m.gate: has no effect without a PTU tier; remove it or add `ptu`\nmodels.m.gate.contention: \"fair\" is unknown; use one of yield, compete",
        ),
        (
            "models.m.spill_budget = { window = \"0s\" }",
            "",
            "",
            "models.m.spill_budget: has no effect without both tiers; remove it or add the other tier\nmodels.m.spill_budget: has no limit; add `requests` or `tokens`\nmodels.m.spill_budget.window: \"0s\" is out of range; use 1s to 30days",
        ),
        (
            "entra = { kind = \"secret\" }",
            "",
            "",
            "entra.client_id: is missing; kind = \"secret\" needs it\nentra.tenant: is missing; kind = \"secret\" needs it\nentra.secret: is missing; kind = \"secret\" needs it",
        ),
        (
            "upstream.trust = \"empty\"",
            "",
            "",
            "upstream.trust: contains no certificate; write it as PEM, with BEGIN CERTIFICATE",
        ),
        (
            "models.m.failures = [\"conect\", 500]\nmodels.m.rotate_on_failure = true\nmodels.m.spill_long_context = false\nmodels.m.rotate_long_context = 1\nmodels.m.max_attempts = 0\nmodels.m.cache_affinity = \"keys\"\nmodels.m.sticky = { default_backend = \"b\", capacity = 1 }\nmodels.m.inspect = { body_time = \"2m\", preamble_time = 1, preamble_limit = \"1 TiB\", x = 1 }",
            "name = \"a\", endpoint = \"https://a\", key = \"env:EAST_KEY\", quota = \"\"",
            "sticky.capacity = 0\nsticky.longest_age = \"1s\"\nsticky.age = 1",
            "sticky.capacity: 0 is out of range; use 1 to 10000000\nsticky.longest_age: \"1s\" is out of range; use 1m to 1year\nsticky.age: unknown key; remove it, or use one of capacity, longest_age, unknown\nmodels.m.standard[0].quota: is empty; give it a value or remove it\nmodels.m.failures[0]: \"conect\" is unknown; did you mean \"connect\"?\nmodels.m.failures[1]: is a whole number instead of text; put it in quotes\nmodels.m.rotate_on_failure: cannot be combined with `failures`; remove one of the two\nmodels.m.spill_long_context: has no effect without both tiers; remove it or add the other tier\nmodels.m.rotate_long_context: is a whole number instead of true or false; write it without quotes\nmodels.m.max_attempts: 0 is out of range; use 1 to 1000\nmodels.m.cache_affinity: \"keys\" is unknown; did you mean \"key\"?\nmodels.m.sticky.default_backend: \"b\" is unknown; use one of a\nmodels.m.sticky.capacity: unknown key; remove it, or use one of default_backend\nmodels.m.inspect.body_time: \"2m\" is out of range; use 0s to 1m\nmodels.m.inspect.preamble_time: is a whole number instead of a duration; write it like \"4s\" or \"250ms\"\nmodels.m.inspect.preamble_limit: \"1 TiB\" is not a size; write it like \"64 KiB\" or \"4 MiB\"\nmodels.m.inspect.x: unknown key; remove it, or use one of body_time, preamble_time, preamble_limit",
        ),
        (
            "models.m.failures = [\"424\", \"599\", \"429\", \"404\", \"413\", \"399\", \"600\", \"timeot\"]",
            "",
            "",
            "models.m.failures[2]: \"429\" is a refusal, which always moves on; remove it\nmodels.m.failures[3]: \"404\" moves on by itself where it is the backend's own fault, and is the client's otherwise; remove it\nmodels.m.failures[4]: \"413\" is about the request; what is too long is for spill_long_context and rotate_long_context\nmodels.m.failures[5]: \"399\" is not an error status; use 400 to 599\nmodels.m.failures[6]: \"600\" is not an error status; use 400 to 599\nmodels.m.failures[7]: \"timeot\" is unknown; did you mean \"timeout\"?",
        ),
        (
            "models.m.failures = { on = \"500\", budget = { moves = 0, per_success = 2, x = 1 }, x = 1 }\nmodels.m.sticky = \"on\"\nmodels.m.inspect = 1\nmodels.m.max_attempts = \"2\"\nmodels.m.rotate_long_context = \"no\"",
            "",
            "",
            "models.m.failures.on: is text instead of a list; put it in brackets\nmodels.m.failures.budget.moves: 0 is out of range; use 1 to 1000000\nmodels.m.failures.budget.per_success: is out of range; use 0 to 1\nmodels.m.failures.budget.x: unknown key; remove it, or use one of moves, per_success\nmodels.m.failures.x: unknown key; remove it, or use one of on, budget\nmodels.m.sticky: is text instead of true or false; write it without quotes\nmodels.m.inspect: is a whole number instead of true or false; write it without quotes\nmodels.m.max_attempts: is text instead of a whole number; write it without quotes\nmodels.m.rotate_long_context: is text instead of true or false; write it without quotes",
        ),
        (
            "models.m.first_token = { after = \"30s\", mode = \"hedg\", budget = { moves = 0 }, x = 1 }",
            "",
            "classes.a.first_token = true\nclasses.b.first_token = { mode = \"hedge\" }",
            "classes.a.first_token: is true or false instead of a table; write it as a section or in braces\nclasses.b.first_token.after: is missing; write how long a first token may take, like after = \"8s\"\nmodels.m.first_token: has no effect without a second backend; remove it or add one\nmodels.m.first_token.after: \"30s\" is out of range; use 50ms to 29s\nmodels.m.first_token.mode: \"hedg\" is unknown; did you mean \"hedge\"?\nmodels.m.first_token.budget.moves: 0 is out of range; use 1 to 1000000\nmodels.m.first_token.x: unknown key; remove it, or use one of after, mode, budget",
        ),
        (
            "models.m.inspect = false",
            "",
            "classes.a.first_token = { after = \"2s\" }\nclasses.b.first_token = \"off\"",
            "models.m.inspect: leaves the first token of a stream unknown, for which class \"a\" has a limit; remove one of the two",
        ),
        (
            "models.m.inspect = { preamble_time = \"5s\" }",
            "",
            "classes.a.first_token = { after = \"2s\" }\nclasses.b.first_token = { after = \"5s\" }",
            "models.m.inspect: holds a silent stream back for 5s, but class \"b\" gives it 5s until its first token; use a longer preamble_time",
        ),
        (
            "listen.address = \"127.0.0.1:80\"\nlisten.admin = \"127.0.0.1:80\"",
            "",
            "",
            "listen.admin: is the address that clients use; choose another port",
        ),
        (
            "operations.allow = [\"/openai/v1/x\", \"post /openai/v1/x\", \"POST /v1/x\", \"POST /openai/v1/x?y\", \"POST /openai/v1/../x\", \"TRACE /openai/v1/x\", 5]\noperations.x = 1",
            "",
            "",
            "operations.allow[0]: \"/openai/v1/x\" is not an operation; OP\noperations.allow[1]: \"post /openai/v1/x\" is not an operation; OP\noperations.allow[2]: \"POST /v1/x\" is not an operation; OP\noperations.allow[3]: \"POST /openai/v1/x?y\" is not an operation; OP\noperations.allow[4]: \"POST /openai/v1/../x\" is not an operation; OP\noperations.allow[5]: would open a tunnel or show the backend's key; remove it\noperations.allow[6]: is a whole number instead of text; put it in quotes\noperations.x: unknown key; remove it, or use one of allow",
        ),
        (
            "upstream.headers = [\"x y\", \"api-key\", \"Cookie\", \"transfer-encoding\", \"X-Mine\"]",
            "",
            "",
            "upstream.headers[0]: \"x y\" is not the name of a header; write it like \"x-policy-id\"\nupstream.headers[1]: NEVER\nupstream.headers[2]: NEVER\nupstream.headers[3]: NEVER",
        ),
        (
            "clients.a.keys = [\"env:EAST_KEY\"]\nclients.b.keys = [\"env:EAST_KEY\"]\nclients.c.keys = []",
            "",
            "# clients",
            "clients.a.keys[0]: is the same key as that of a backend of models.m; give each client its own\nclients.b.keys[0]: is the same key as clients.a.keys[0]; give each client its own\nclients.c.keys: has no key, so it could not be used; add one",
        ),
    ]);
}

#[test]
fn http_is_for_this_machine_or_for_who_says_so() {
    let folder = Folder::new();
    for (endpoint, more, is_good) in [
        ("http://127.0.0.1:1", "", true),
        ("http://[::1]:1/base", "", true),
        ("http://localhost", "", true),
        ("http://a.example", ", allow_http = true", true),
        ("http://a.example", ", allow_http = false", false),
        ("HTTP://10.0.0.1", "", false),
    ] {
        let backend =
            format!("name = \"a\", endpoint = \"{endpoint}\", key = \"env:EAST_KEY\"{more}");
        let output = folder.check(&file("", &backend, ""));
        assert_eq!(output.status.success(), is_good, "{endpoint}{more}");
    }
}
