//! The command line as people meet it: statuses, notation of durations, help, and what is printed where.

use std::{
    net::TcpListener,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::{
    emulate::file,
    started::{Started, ran, stderr, stdout},
    witness::Witness,
};

fn target(text: &str, azure: &Witness) -> String {
    let text = text.replace("AZURE", azure.endpoint());
    file(&format!("command-line-{}.json", text.len()), &text).to_str().unwrap().to_owned()
}

/// With the keys of the files here.
fn with_keys(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spillover"));
    command.args(arguments).env("AZURE_KEY", "a-key-of-azure").output().unwrap()
}

const GOOD: &str = "clients.open = true\n[[models.m.standard]]\nname = \"a\"\n\
    endpoint = \"https://a.example\"\nkey = \"env:AZURE_KEY\"\n";

#[test]
fn a_load_ends_with_a_status_that_says_whether_everything_was_served() {
    let answers =
        |status| Witness::new(move |_| (status, "", r#"{"error":{"message":"No."}}"#.to_owned()));
    let (good, refusing) = (answers(200), answers(429));
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let run = |endpoint: &str, more: &[&str]| {
        let arguments = ["load", "--endpoint", endpoint, "--items", "2", "--think", "0s"];
        ran(&[&arguments[..], more].concat()).status.code()
    };
    assert_eq!(run(good.endpoint(), &[]), Some(0));
    assert_eq!(run(refusing.endpoint(), &[]), Some(1));
    assert_eq!(run(&format!("http://{closed}"), &[]), Some(3));
    assert_eq!(run("ftp://a", &[]), Some(2));
    assert_eq!(run(good.endpoint(), &["--no-such-flag"]), Some(2));
    let both =
        format!("[{{\"endpoint\": \"AZURE\"}}, {{\"endpoint\": \"{}\"}}]", refusing.endpoint());
    let both = target(&both, &good);
    let arguments = ["load", "--targets", &both, "--items", "20", "--think", "0s", "--json"];
    let output = ran(&arguments);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["share_200"].as_f64().unwrap() > 0.0, "{report:#}");
    assert_eq!(output.status.code(), Some(1), "some were served, and some were not");
}

#[test]
fn what_errors_say_is_shown_once_for_each_group_and_without_the_key() {
    let azure = Witness::new(|asked| {
        let key = asked.header("api-key").unwrap_or_default();
        let message = format!("Access denied\n for \u{1b}[31m{key}.");
        (
            401,
            "content-type: application/json\r\n",
            serde_json::json!({ "error": { "message": message } }).to_string(),
        )
    });
    let key = format!("file:{}", file("command-line.key", "s3cret-of-mine").display());
    let ask =
        ["load", "--endpoint", azure.endpoint(), "--key", &key, "--items", "5", "--think", "0s"];
    let told = stdout(&ran(&ask));
    let shown = "  0-401: Access denied for [31m(the key).";
    assert_eq!(told.matches("Access denied").count(), 1, "{told}");
    assert!(told.contains(shown), "{told}");
    for column in
        ["Count, Share", "Name", "Region, Backend", "First byte, Total", "Prompt, Completion"]
    {
        assert!(
            told.lines().any(|line| line.starts_with(&format!("{column} "))),
            "{column}\n{told}"
        );
    }
    let report: Value =
        serde_json::from_slice(&ran(&[&ask[..], &["--json"]].concat()).stdout).unwrap();
    assert_eq!(report["groups"][0]["message"], "Access denied for [31m(the key).");
}

#[test]
fn a_number_without_a_unit_is_no_duration_anywhere() {
    for arguments in [
        &["load", "--endpoint", "http://127.0.0.1:1", "--timeout", "5"][..],
        &["load", "--endpoint", "http://127.0.0.1:1", "--think", "1.5"],
        &["load", "--endpoint", "http://127.0.0.1:1", "--rate", "1", "--duration", "20"],
    ] {
        let output = ran(arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains("write it like 4s, 250ms"), "{}", stderr(&output));
    }
    let text = format!("{GOOD}[models.m]\nmax_wait = \"5\"\n").replace("[models.m]\n", "");
    let path = file(
        "command-line-duration.toml",
        &text.replace("[[models", "models.m.max_wait = \"5\"\n[[models"),
    );
    let told = stderr(&ran(&["check", path.to_str().unwrap()]));
    assert!(told.contains("write it like \"4s\" or \"250ms\""), "{told}");
    let path = file(
        "command-line-emulator.toml",
        "[[resources]]\nname = \"a\"\n[[resources.deployments]]\nname = \"b\"\nstandard = {}\npace = { first_token = \"5\" }\n",
    );
    let output = ran(&["emulate", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("write it like \"4s\" or \"250ms\""), "{}", stderr(&output));
}

#[test]
fn check_takes_a_file_by_its_place_and_ends_as_serve_does() {
    let good = file("command-line-good.toml", GOOD);
    let good = good.to_str().unwrap();
    for arguments in [&["check", good][..], &["check", "--config", good]] {
        let output = with_keys(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stdout(&output).contains(": ok; "), "{}", stdout(&output));
    }
    assert_eq!(with_keys(&["check"]).status.code(), Some(2));
    assert_eq!(with_keys(&["check", good, "--config", good]).status.code(), Some(2));
    let wrong = file("command-line-wrong.toml", "[listen]\naddress = \"nowhere\"\n");
    let certificate = file("command-line-trust/c.pem", "no certificate\n");
    let trust = file("command-line-trust/g.toml", &format!("upstream.trust = \"c.pem\"\n{GOOD}"));
    assert!(certificate.exists());
    for path in [wrong.to_str().unwrap(), trust.to_str().unwrap(), "/nowhere.toml"] {
        let (checked, served) = (with_keys(&["check", path]), with_keys(&["serve", path]));
        assert_eq!((checked.status.code(), served.status.code()), (Some(2), Some(2)), "{path}");
        let first = |output: &Output| stderr(output).lines().next().unwrap_or_default().to_owned();
        assert!(!first(&checked).is_empty() && !first(&served).is_empty());
    }
    // What only this machine is in the way of is another status.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!("listen.address = \"{}\"\n{GOOD}", taken.local_addr().unwrap());
    let path = file("command-line-taken.toml", &text);
    assert_eq!(with_keys(&["check", path.to_str().unwrap()]).status.code(), Some(0));
    assert_eq!(with_keys(&["serve", path.to_str().unwrap()]).status.code(), Some(1));
}

#[test]
fn a_file_in_another_format_is_called_what_it_is() {
    for (name, text, told) in [
        ("litellm.yaml", "model_list:\n- model_name: a\n", "is YAML; this file is TOML"),
        ("named.toml", "listen:\n  address: 127.0.0.1:80\n", "is YAML; this file is TOML"),
        ("policy.xml", "<policies/>", "is XML; this file is TOML"),
        ("config.json", "{\"listen\": {\"key\": \"s3cret\"}}", "is JSON; this file is TOML"),
    ] {
        let path = file(&format!("command-line-formats/{name}"), text);
        for command in ["check", "serve"] {
            let output = ran(&[command, path.to_str().unwrap()]);
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains(told) && said.contains("spillover init"), "{said}");
            assert_eq!(said.lines().count(), 1, "nothing else is said of it: {said}");
            assert!(!said.contains("s3cret"));
        }
    }
}

#[test]
fn every_command_explains_its_exit_status_and_its_help_fits_the_terminal() {
    for command in ["", "check", "serve", "emulate", "load", "why", "init"] {
        let arguments: Vec<_> =
            [command, "--help"].into_iter().filter(|it| !it.is_empty()).collect();
        let help = stdout(&ran(&arguments));
        assert!(help.contains("Exit status"), "{command}: {help}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_spillover"));
    let narrow = command.args(["load", "--help"]).env("COLUMNS", "60").output().unwrap();
    let narrow = stdout(&narrow);
    let options = narrow.split("Examples:").next().unwrap();
    let longest = options.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(longest <= 90, "the options are wrapped: {longest}\n{options}");
}

/// `script` runs a command on a terminal of its own.
#[cfg(target_os = "linux")]
#[test]
fn a_load_shows_a_bar_on_a_terminal_and_lines_in_a_pipe() {
    let azure = Witness::new(|_| (200, "", "{}".to_owned()));
    let load = format!(
        "{} load --endpoint {} --items 3 --think 600ms --threads 1",
        env!("CARGO_BIN_EXE_spillover"),
        azure.endpoint()
    );
    let piped = Command::new("sh").args(["-c", &load]).output().unwrap();
    let (out, err) = (stdout(&piped), stderr(&piped));
    assert!(
        out.contains("Completed...3") && !out.contains('\r') && !out.contains('\u{1b}'),
        "{out}"
    );
    assert!(err.is_empty(), "{err}");
    let on_terminal = Command::new("script")
        .args(["-qec", &load, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output();
    let Ok(on_terminal) = on_terminal else { return };
    let shown = stdout(&on_terminal);
    assert!(shown.contains("of 3") && shown.contains("[="), "{shown:?}");
    assert!(!shown.contains("Completed...") && shown.contains("3 requests in"), "{shown:?}");
}

#[test]
fn the_demonstration_says_in_four_lines_what_to_do_with_it() {
    let mut demo = Started::with(&["serve", "--listen", "127.0.0.1:0"], |command| {
        command.stderr(Stdio::null())
    });
    let lines: Vec<_> = (0..4).map(|_| demo.line()).collect();
    let [curl, listening, load, status] = &lines[..] else { panic!("{lines:?}") };
    let url = listening.split(' ').nth(2).unwrap();
    assert!(curl.starts_with("curl ") && curl.contains(url), "{curl}");
    assert!(listening.ends_with("until Ctrl-C stops it"), "{listening}");
    let run = |line: &str, change: &dyn Fn(String) -> String| {
        let line = change(line.to_owned());
        Command::new("sh").args(["-c", &line]).output().unwrap()
    };
    let answer = run(curl, &|line| line.replace("curl -i", "curl -s"));
    // Not every machine has curl.
    assert!(!answer.status.success() || stdout(&answer).contains("choices"), "{answer:?}");
    let loaded = run(load, &|line| {
        line.replace("--rate 6 --duration 20s", "--rate 30 --duration 4s --json")
    });
    let report: Value =
        serde_json::from_slice(&loaded.stdout).unwrap_or_else(|_| panic!("{loaded:?}"));
    assert_eq!((loaded.status.code(), &report["share_200"]), (Some(0), &1.0.into()), "{report:#}");
    let served = report["groups"][0]["served_by"].as_array().unwrap();
    let count = |name: &str| -> u64 {
        let of = served.iter().filter(|it| it["backend"].as_str().unwrap().starts_with(name));
        of.map(|it| it["count"].as_u64().unwrap()).sum()
    };
    assert!(count("ptu") > 0 && count("standard") > 0, "some spill: {report:#}");
    assert!(status.contains("/-/status") && status.contains(" why ID --admin "), "{status}");
}

#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_written_is_a_failure() {
    for arguments in [&["completions", "bash"][..], &["--help"], &["--version"], &["help", "why"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_spillover"));
        let output = command.args(arguments).stdout(full).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("cannot write: No space left"), "{arguments:?}: {said}");
    }
}
