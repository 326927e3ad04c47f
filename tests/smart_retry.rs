//! Runs the main job as a stranger would.

use std::{fmt::Write, process::Output};

use serde_json::Value;
use spillover_emulator::{Deployment, Emulator, Fault, Ptu, Resource, Serving, Standard};
use tokio::{net::TcpListener, process::Command};

/// `cargo run --example smart_retry -- ARGS` with this environment and nothing else of the kind.
async fn smart_retry(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--quiet", "--example", "smart_retry", "--"]).args(args);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    for name in ["OPENAI_API_BASE", "OPENAI_API_KEY", "PTU_DEPLOYMENT", "STANDARD_DEPLOYMENT"] {
        command.env_remove(name);
    }
    for name in ["PTU_MAX_WAIT", "MAX_RETRIES", "OPENAI_API_VERSION"] {
        command.env_remove(name);
    }
    // Cargo's variables for this package would make ring's build script run again.
    let told = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(told)) {
        command.env_remove(name);
    }
    command.envs(env.iter().copied()).output().await.expect("cargo runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the output is UTF-8")
}

const KEY: &str = "a-key-that-must-not-be-printed";

/// A resource with a PTU that answers its next requests as scripted.
async fn resource(faults: impl IntoIterator<Item = Fault>) -> (Emulator, Serving) {
    let emulator = Emulator::new([Resource::new("contoso")
        .key(KEY)
        .deployment(Deployment::ptu("gpt 4o/ptu", Ptu::new(1e6)))
        .deployment(Deployment::standard("gpt-4o", Standard::unlimited()))]);
    emulator.script("contoso", "gpt 4o/ptu", faults);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let serving = emulator.serve("contoso", listener);
    (emulator, serving)
}

async fn ask(serving: &Serving, args: &[&str], more: &[(&str, &str)]) -> Output {
    let endpoint = serving.endpoint();
    let mut env = vec![
        ("OPENAI_API_BASE", endpoint.as_str()),
        ("OPENAI_API_KEY", KEY),
        ("PTU_DEPLOYMENT", "gpt 4o/ptu"),
        ("STANDARD_DEPLOYMENT", "gpt-4o"),
    ];
    env.extend(more);
    let output = smart_retry(args, &env).await;
    let printed = [text(&output.stdout), text(&output.stderr)].concat();
    assert!(!printed.contains(KEY), "{printed}");
    output
}

#[tokio::test]
async fn without_an_endpoint_every_branch_shows() {
    let output = smart_retry(&[], &[]).await;
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{printed}{}", text(&output.stderr));
    for branch in ["served by PTU", "waited, then PTU", "spilled ", "rotated", "all closed"] {
        assert!(printed.contains(branch), "{branch}: {printed}");
    }
}

#[tokio::test]
async fn json_is_one_object_that_adds_up() {
    let output = smart_retry(&["--json"], &[]).await;
    let object: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let run = &object["runs"][0];
    let number = |name: &str| run[name].as_u64().expect("a count");
    assert_eq!(number("requests"), number("ok") + number("refused"));
    assert_eq!(number("lost"), 0);
    let backends = run["by_backend"].as_object().expect("backends by name");
    let sum = |field: &str| backends.values().filter_map(|b| b[field].as_u64()).sum::<u64>();
    assert_eq!((number("attempts"), number("ok")), (sum("attempts"), sum("ok")));
    assert!(number("rotated") > 0 && number("refused") > 0, "{run}");
}

#[tokio::test]
async fn an_endpoint_is_asked_as_the_script_does_it() {
    let (emulator, serving) = resource([]).await;
    let output = ask(&serving, &["Why?", "And then?"], &[]).await;
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{printed}{}", text(&output.stderr));
    assert_eq!(printed.matches("responded through PTU").count(), 2, "{printed}");
    assert!(printed.contains("Total latency was 0."), "{printed}");
    assert_eq!(emulator.stats().of("contoso", "gpt 4o/ptu").ok, 2);
}

#[tokio::test]
async fn a_short_refusal_is_waited_out_and_a_long_one_spills() {
    let refusal = |ms| Fault::status(429).header("retry-after-ms", ms);
    let (_emulator, serving) = resource([refusal("50"), refusal("5000")]).await;
    let output = ask(&serving, &[], &[("PTU_MAX_WAIT", "2000")]).await;
    let printed = text(&output.stdout);
    assert!(printed.contains("retrying PTU after 50 ms"), "{printed}");
    assert!(printed.contains("ms exceeds threshold. Switching to paygo."), "{printed}");
    assert!(printed.contains("responded through Standard"), "{printed}");
}

#[tokio::test]
async fn standard_is_asked_again_as_often_as_max_retries_says() {
    let refusal = || Fault::status(429).header("retry-after-ms", "5000");
    for (retries, answered) in [("0", false), ("1", true)] {
        let (emulator, serving) = resource([refusal()]).await;
        let brief = Fault::status(429).header("retry-after-ms", "10");
        emulator.script("contoso", "gpt-4o", [brief]);
        // Without a time to wait, in which a refusal as brief would be waited out.
        let settings = [("MAX_RETRIES", retries), ("PTU_MAX_WAIT", "0")];
        let output = ask(&serving, &[], &settings).await;
        let printed = [text(&output.stdout), text(&output.stderr)].concat();
        assert_eq!(output.status.success(), answered, "{printed}");
        assert_eq!(printed.contains("both deployments refuse: come back"), !answered, "{printed}");
    }
}

#[tokio::test]
async fn a_wrong_key_is_told_with_a_remedy_and_echoed_nowhere() {
    let (_emulator, serving) = resource([Fault::status(401)
        .body(format!(r#"{{"error":{{"message":"{KEY} is not a key\u001b[2J"}}}}"#))])
    .await;
    let output = ask(&serving, &[], &[]).await;
    let printed = text(&output.stdout);
    assert!(!output.status.success());
    assert!(printed.contains("answered 401: *** is not a key"), "{printed}");
    assert!(printed.contains("check OPENAI_API_KEY") && !printed.contains('\u{1b}'), "{printed}");
}

#[tokio::test]
async fn a_trace_is_replayed_with_both_rules() {
    let mut trace = "TIMESTAMP,ContextTokens,GeneratedTokens\n".to_owned();
    for second in 0..40 {
        writeln!(trace, "2024-01-01 00:00:{second:02}.5,{},9", 200 + second % 7 * 400).unwrap();
    }
    let path = std::env::temp_dir().join(format!("smart_retry-{}.csv", std::process::id()));
    std::fs::write(&path, &trace).expect("the temporary folder is writable");
    let name = path.to_str().expect("a plain path");
    let args = ["--trace", name, "--speedup", "40", "--limit", "40", "--bucket", "2", "--json"];
    let output = smart_retry(&args, &[]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let object: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let runs = object["runs"].as_array().expect("runs");
    let policies: Vec<_> = runs.iter().map(|run| &run["policy"]).collect();
    assert_eq!(policies, ["spillover", "reference"]);
    for run in runs {
        assert_eq!((&run["ok"], &run["lost"]), (&40.into(), &0.into()), "{run}");
    }

    std::fs::write(&path, trace.replace(":07.5", ":07.5x")).expect("the file is writable");
    let output = smart_retry(&args, &[]).await;
    std::fs::remove_file(&path).expect("the file is there");
    assert_eq!(output.status.code(), Some(1));
    let printed = text(&output.stderr);
    assert!(printed.contains("line 9: TIMESTAMP is `2024-01-01 00:00:07.5x`"), "{printed}");
}
