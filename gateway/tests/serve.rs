//! `spillover serve` as a process: the demonstration, a configuration, and its end by a signal.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use crate::{
    emulate,
    served::{Azure, Gateway, TEAM_A},
};

/// A running demonstration, with the lines that it printed.
struct Demo {
    child: Child,
    lines: Vec<String>,
}

impl Demo {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_spillover"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program is there");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut lines = Vec::new();
        for line in output.lines() {
            lines.push(line.expect("text"));
            if lines.last().is_some_and(|line| line.starts_with("listening on http://127.0.0.1:")) {
                break;
            }
        }
        Self { child, lines }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn shell(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().expect("a shell");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_printed_command_works_as_it_stands() {
    let demo = Demo::start();
    let curl = demo.lines.iter().find(|line| line.starts_with("curl ")).expect("a command");
    let answer = shell(&format!("{curl} -s -m 20"));
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("x-spillover-backend: ptu-east"), "{answer}");
    assert!(answer.contains(r#""object":"chat.completion""#), "{answer}");
}

#[test]
fn a_signal_ends_it_with_success() {
    let mut demo = Demo::start();
    shell(&format!("kill -TERM {}", demo.child.id()));
    assert!(demo.child.wait().expect("it ends").success());
}

/// Similar to `examples/spillover.toml`, in front of the emulator.
fn configured(name: &str) -> (Azure, Gateway) {
    let azure = Azure::new(name);
    let text = r#"
        [listen]
        address = "127.0.0.1:0"
        [limits]
        body = "1 KiB"
        headers = 12
        [upstream]
        connect_timeout = "2s"
        [classes.batch]
        rank = 1
        max_wait = "50ms"
        spill = false
        [models."gpt-4o"]
        aliases = ["gpt-4o-2024-11-20"]
        max_wait = "100ms"
        gate = { mode = "adaptive", patience = "20s", output_weight = 3 }
        spill_budget = { requests = 4, window = "1h", when_spent = "refuse" }
        [[models."gpt-4o".ptu]]
        name = "ptu-east"
        endpoint = "EAST"
        key = "env:AZURE_KEY"
        [[models."gpt-4o".standard]]
        name = "sweden"
        endpoint = "SWEDEN"
        key = "env:AZURE_KEY"
        region = "Sweden Central"
        [models.text]
        standard = [{ name = "east", endpoint = "EAST", key = "env:AZURE_KEY" }]
        [clients.team-a]
        keys = ["sha256:bcbd6f8287836e7c2dc977ffb4895869906e7a836d283bb4e98c3db467c9e693"]
        may = ["max-wait", "class", "no-spill", "trace"]
        [clients.team-b]
        keys = ["env:TEAM_B_KEY"]
        models = ["text"]
        requests_per_second = 2
    "#;
    let text = text.replace("EAST", azure.endpoint(0)).replace("SWEDEN", azure.endpoint(1));
    let gateway = Gateway::start(&emulate::file(&format!("{name}/spillover.toml"), &text));
    (azure, gateway)
}

const TEAM_B: (&str, &str) = ("authorization", "Bearer a-key-of-team-b-0001");

#[test]
fn a_full_ptu_spills_as_far_as_headers_classes_and_the_budget_let_it() {
    let (_azure, gateway) = configured("spill");
    let first = gateway.chat("gpt-4o", &[TEAM_A]);
    assert_eq!(first.header("x-spillover-decision"), Some("ptu"), "{first:?}");
    let spilled = gateway.chat("gpt-4o-2024-11-20", &[TEAM_A, ("x-spillover-trace", "true")]);
    assert_eq!(spilled.status(), 200, "{spilled:?}");
    assert_eq!(spilled.header("x-spillover-backend"), Some("sweden"), "{spilled:?}");
    let decision = spilled.header("x-spillover-decision").unwrap();
    assert!(decision.starts_with("spilled; why=hint ("), "{decision}");
    let trace = spilled.header("x-spillover-trace").unwrap();
    assert!(trace.contains("\"backend\":\"ptu-east\"") && trace.contains("429"), "{trace}");
    for stay in [("x-spillover-no-spill", "true"), ("x-spillover-class", "batch")] {
        let refused = gateway.chat("gpt-4o", &[TEAM_A, stay]);
        assert_eq!(refused.status(), 429, "{refused:?}");
        assert!(refused.header("retry-after-ms").is_some(), "{refused:?}");
    }
    let statuses = (0..4).map(|_| gateway.chat("gpt-4o", &[TEAM_A]).status());
    assert_eq!(statuses.collect::<Vec<_>>(), [200, 200, 200, 429], "four of them in an hour");
}

#[test]
fn a_client_gets_what_its_key_and_the_limits_allow() {
    let (_azure, gateway) = configured("clients");
    let status = |model: &str, headers: &[_]| gateway.chat(model, headers).status();
    assert_eq!(status("text", &[]), 401);
    assert_eq!(status("text", &[("api-key", "azure-key")]), 401);
    assert_eq!(status("text", &[TEAM_A]), 200);
    let long = format!(r#"{{"input":"{}"}}"#, "x".repeat(1_024));
    assert_eq!(gateway.ask("POST", "/openai/v1/responses", &[TEAM_A], &long).status(), 413);
    let many: Vec<_> = (0..9).map(|_| ("x-more", "1")).chain([TEAM_A]).collect();
    assert_eq!(status("text", &many), 431);
    let models = gateway.ask("GET", "/openai/v1/models", &[TEAM_A], "");
    assert!(models.0.contains("\"gpt-4o\"") && !models.0.contains("2024-11-20"), "{models:?}");

    let statuses = (0..3).map(|_| status("text", &[TEAM_B])).collect::<Vec<_>>();
    assert_eq!(statuses, [200, 200, 429], "two in a second");
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    assert_eq!(status("gpt-4o", &[TEAM_B]), 403);
    assert_eq!(status("text", &[TEAM_B, ("x-spillover-trace", "true")]), 403);
    for line in gateway.log().lines() {
        assert!(!line.contains("azure-key") && !line.contains("a-key-of"), "{line}");
    }
}
