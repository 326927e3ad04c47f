//! `spillover load` against `spillover emulate`: what it sends, counts and prints.

use std::{io::Read, net::TcpListener, process::Stdio, thread};

use serde_json::Value;

use crate::{
    emulate::file,
    started::{Started, ran, stderr, stdout},
};

/// A PTU that one large request fills, and a Standard deployment without limits.
fn emulator(name: &str) -> (Started, [String; 2]) {
    let config = file(
        &format!("{name}.toml"),
        "[[resources]]\nname = \"east\"\nregion = \"East US\"\nkey = \"key-east\"\n\
         [[resources.deployments]]\nname = \"gpt-4o\"\n\
         ptu = { tokens_per_second = 1, bucket = \"1s\" }\n\
         [[resources]]\nname = \"sweden\"\nregion = \"Sweden Central\"\nkey = \"key-sweden\"\n\
         [[resources.deployments]]\nname = \"gpt-4o\"\nstandard = {}\n\
         pace = { first_token = \"30ms\" }\n\
         [[resources.deployments]]\nname = \"faulty\"\nstandard = {}\n\
         faults = [{ cut_after = 2 }, { status = 503 }, { reset = true }]\n",
    );
    let mut emulator = Started::new(&["emulate", "--config", config.to_str().unwrap()]);
    let endpoints = [emulator.endpoint(), emulator.endpoint()];
    (emulator, endpoints)
}

fn key(name: &str, text: &str) -> String {
    format!("file:{}", file(name, text).display())
}

fn json(arguments: &[&str]) -> Value {
    open(&[&["--think", "0s"], arguments].concat())
}

fn open(arguments: &[&str]) -> Value {
    parsed(&ran(&[&["load", "--json"], arguments].concat()))
}

fn parsed(out: &std::process::Output) -> Value {
    serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{}", stderr(out)))
}

fn group<'a>(report: &'a Value, name: &str) -> &'a Value {
    let groups = report["groups"].as_array().unwrap();
    groups.iter().find(|group| group["name"] == name).unwrap_or_else(|| panic!("{report:#}"))
}

#[test]
fn answers_are_counted_by_target_and_status_as_the_reference_does() {
    let (_emulator, [east, sweden]) = emulator("load-groups");
    let targets = format!(
        "\u{feff}[{{\"endpoint\": \"{east}/\", \"key\": \"key-east\"}},\n\
         {{\"endpoint\": \"{sweden}\", \"key\": \"key-sweden\", \"name\": \"paygo\"}}]"
    );
    let targets = file("load-groups.json", &targets);
    let arguments = ["--targets", targets.to_str().unwrap(), "--items", "20"];
    let out = ran(&[&["load", "--items-detail", "--think", "0s"], &arguments[..]].concat());
    let text = stdout(&out);
    let rows = |name: &str| -> Vec<Vec<String>> {
        let rows = text.lines().filter(|line| line.split_whitespace().nth(2) == Some(name));
        rows.map(|row| row.split_whitespace().map(str::to_owned).collect()).collect()
    };
    let counts: Vec<u64> =
        ["0-200", "0-429", "1-200"].iter().map(|name| rows(name)[0][0].parse().unwrap()).collect();
    assert_eq!(counts.iter().sum::<u64>(), 20, "{text}");
    assert!(counts[1] > 0 && counts[2] > 0, "{text}");
    assert!(rows("1-200")[0].join(" ").contains("1-200 paygo Sweden Central"), "{text}");
    assert!(text.contains("Running...") && text.contains("Completed...20"), "{text}");
    let items: Vec<_> = text.lines().filter(|line| line.starts_with("Id: ")).collect();
    assert_eq!(items.len(), 20);
    assert!(items[2].starts_with("Id: 2 StartTime: "), "{text}");
    assert!(items[2].contains(" TotalSeconds: ") && items[2].contains(" StatusCode: "), "{text}");
    assert!(items.iter().all(|item| item.contains(" configId: ")), "{text}");
    assert!(!text.contains("key-") && !stderr(&out).contains("key-"), "no key is printed");
}

#[test]
fn a_run_is_the_same_for_a_seed() {
    let (_emulator, [_, sweden]) = emulator("load-seed");
    let key = key("load-seed.key", "key-sweden\n");
    let run = |seed| {
        let common = ["--endpoint", &sweden, "--key", &key, "--items", "6", "--exact"];
        let size = ["--prompt-tokens", "100", "--max-tokens", "7", "--seed", seed];
        json(&[&common[..], &size[..]].concat())
    };
    let (one, two) = (run("3"), run("3"));
    for report in [&one, &two] {
        assert_eq!(report["prompt_tokens"], 600);
        assert_eq!(report["completion_tokens"], 42);
        assert_eq!(report["share_200"], 1.0);
    }
}

#[test]
fn streams_are_read_to_their_end_and_their_usage_is_counted() {
    let (_emulator, [_, sweden]) = emulator("load-stream");
    let key = key("load-stream.key", "key-sweden");
    for http in [&[][..], &["--http2"][..]] {
        for grammar in ["classic", "v1"] {
            let common = ["--endpoint", &sweden, "--key", &key, "--items", "4", "--stream"];
            let more = ["--grammar", grammar, "--header", "bearer", "--max-tokens", "9"];
            let classic = ["--header", "api-key"];
            let more = if grammar == "v1" { &more[..] } else { &[&more[..2], &classic].concat() };
            let report = json(&[&common[..], more, http].concat());
            let group = group(&report, "0-200");
            assert_eq!(group["count"], 4, "{report:#}");
            assert_eq!(group["served_by"][0]["region"], "Sweden Central");
            assert!(group["prompt_tokens"].as_u64().unwrap() >= 4);
            assert!(group["completion_tokens"].as_u64().unwrap() >= 4);
            let total = group["total_ms"]["p50"].as_f64().unwrap();
            assert!(total >= 29.0, "the first token takes 30 ms: {report:#}");
            assert!(group["first_byte_ms"]["p50"].as_f64().unwrap() < total, "{report:#}");
        }
    }
}

#[test]
fn every_api_is_asked_in_both_grammars() {
    let (_emulator, [_, sweden]) = emulator("load-apis");
    let key = key("load-apis.key", "key-sweden");
    let v1 = format!("{sweden}/openai/v1");
    for (api, more, prompt, completion) in [
        ("chat", &[][..], 300, 21),
        ("chat", &["--stream"][..], 300, 21),
        ("responses", &[], 300, 21),
        ("responses", &["--stream"], 300, 21),
        ("embeddings", &[], 300, 0),
    ] {
        for (endpoint, grammar) in [(&sweden, "classic"), (&v1, "v1")] {
            let ask = ["--endpoint", endpoint, "--key", &key, "--api", api, "--grammar", grammar];
            let size = ["--items", "3", "--prompt-tokens", "100", "--max-tokens", "7", "--exact"];
            let report = json(&[&ask[..], &size[..], more].concat());
            assert_eq!(report["share_200"], 1.0, "{api} {grammar} {more:?}: {report:#}");
            assert_eq!(report["prompt_tokens"], prompt, "{api} {grammar} {more:?}");
            assert_eq!(report["completion_tokens"], completion, "{api} {grammar} {more:?}");
        }
    }
}

#[test]
fn an_open_loop_keeps_its_rate_whatever_the_answers_take() {
    let (_emulator, [_, sweden]) = emulator("load-rate");
    let key = key("load-rate.key", "key-sweden");
    let common = ["--endpoint", &sweden, "--key", &key, "--max-tokens", "1", "--duration", "1s"];
    let even = open(&[&common[..], &["--rate", "50", "--uniform"]].concat());
    assert!(even["seconds"].as_f64().unwrap() >= 0.98, "the last of 50 comes after 980 ms");
    assert_eq!(even["count"], 50);
    let by_chance = open(&[&common[..], &["--rate", "100"]].concat());
    let count = by_chance["count"].as_u64().unwrap();
    assert!((60..=140).contains(&count), "100 at the mean, four deviations of 10: {count}");
    let full = ["--rate", "50", "--uniform", "--most-in-flight", "1"];
    let full = open(&[&common[..], &full].concat());
    let unsent = group(&full, "0-error: not sent, too many in flight")["count"].as_u64().unwrap();
    assert!(unsent > 0 && full["count"] == 50, "{full:#}");
}

#[test]
fn a_trace_is_replayed_with_its_times_and_tokens() {
    let (_emulator, [_, sweden]) = emulator("load-trace");
    let key = key("load-trace.key", "key-sweden");
    let trace = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.0,300,8\n\
                 2023-11-16 18:17:05.0,100,4\n2023-11-16 18:17:23.0,9,9\n";
    let trace = file("load-trace.csv", trace);
    let common = ["--endpoint", &sweden, "--key", &key, "--exact", "--speedup", "10"];
    let replay = ["--trace", trace.to_str().unwrap(), "--duration", "1s"];
    let report = open(&[&common[..], &replay].concat());
    assert_eq!((&report["count"], &report["prompt_tokens"]), (&2.into(), &400.into()));
    assert_eq!(report["completion_tokens"], 12);
    let seconds = report["seconds"].as_f64().unwrap();
    assert!((0.2..1.0).contains(&seconds), "two seconds, ten times faster: {seconds}");
}

#[test]
fn a_broken_stream_an_error_status_and_a_reset_are_groups_of_their_own() {
    let (_emulator, [_, sweden]) = emulator("load-faults");
    let key = key("load-faults.key", "key-sweden");
    let common = ["--endpoint", &sweden, "--key", &key, "--deployment", "faulty", "--stream"];
    let report = json(&[&common[..], &["--items", "4", "--threads", "1"]].concat());
    assert_eq!(group(&report, "0-503")["count"], 1);
    assert_eq!(group(&report, "0-200")["count"], 1);
    assert_eq!(report["failed"], 2, "{report:#}");
    let reasons: Vec<_> = (report["groups"].as_array().unwrap().iter())
        .filter_map(|group| group["error"].as_str())
        .collect();
    assert!(reasons.iter().any(|reason| reason.starts_with("broken off after 200: ")));
    assert_eq!(reasons.len(), 2, "{reasons:?}");
}

#[test]
fn a_silent_target_times_out_and_a_closed_port_is_named_as_such() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let accepted = thread::spawn(move || {
        let (mut stream, _) = silent.accept().unwrap();
        let mut request = Vec::new();
        stream.read_to_end(&mut request).unwrap();
        String::from_utf8(request).unwrap()
    });
    let out = ran(&["load", "--endpoint", &endpoint, "--items", "1", "--timeout", "200ms"]);
    assert!(!out.status.success(), "nothing was answered");
    assert!(stdout(&out).contains("0-error: timed out"), "{}", stdout(&out));
    let request = accepted.join().unwrap();
    assert!(request.starts_with("POST /openai/deployments/gpt-4o/chat/completions?api-version="));
    assert!(request.contains("Count to "), "{request}");
    // The listener is gone by now.
    let report = json(&["--endpoint", &endpoint, "--items", "2"]);
    assert_eq!(group(&report, "0-error: Connection refused")["count"], 2);
}

#[test]
fn certificates_and_keys_are_taken_from_where_the_arguments_say() {
    let (_emulator, [_, sweden]) = emulator("load-trust");
    let tls = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/renewed");
    let config = file(
        "load-trust.toml",
        &format!(
            "listen = {{ address = \"127.0.0.1:0\", \
             tls = {{ certificates = \"{tls}-cert.pem\", key = \"file:{tls}-key.pem\" }} }}\n\
             [clients.me]\nkeys = [\"env:MINE\"]\n[[models.gpt-4o.standard]]\nname = \"a\"\n\
             endpoint = \"{sweden}\"\nkey = \"env:SWEDEN\"\n"
        ),
    );
    let mut gateway = Started::with(&["serve", "--config", config.to_str().unwrap()], |command| {
        command
            .env("MINE", "my-own-key-of-the-gateway")
            .env("SWEDEN", "key-sweden")
            .stderr(Stdio::null())
    });
    let endpoint = gateway.endpoint();
    let key = key("load-trust.key", "my-own-key-of-the-gateway");
    let targets =
        format!("[[targets]]\nendpoint = \"{endpoint}\"\nkey = \"{key}\"\nheader = \"bearer\"");
    let targets = file("load-trust-targets.toml", &targets);
    let ask = ["--targets", targets.to_str().unwrap(), "--items", "2", "--threads", "1"];
    let trust = ["--trust", &format!("{tls}-cert.pem")];
    for http in [&[][..], &["--http2"]] {
        let report = json(&[&ask[..], &trust, http].concat());
        assert_eq!(group(&report, "0-200")["served_by"][0]["backend"], "a", "{report:#}");
    }
    let report = json(&ask);
    let reason = report["groups"][0]["error"].as_str().unwrap();
    assert!(reason.contains("certificate"), "nobody vouches for it: {report:#}");
}

#[test]
fn mistakes_are_told_before_anything_is_sent_and_without_keys() {
    let secret = file("load-secret.json", "[{\"endpoint\": \"http://a/\", \"kee\": \"s3cret\"}]");
    let number = file("load-number.toml", "[[targets]]\nendpoint = \"ftp://s3cret\"\n");
    let bad_trace = file("load-bad.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\nx,1,1\n");
    let at = "http://127.0.0.1:1";
    for (arguments, told) in [
        (vec!["--targets", secret.to_str().unwrap()], "load-secret.json:1: unknown field `kee`"),
        (vec!["--targets", number.to_str().unwrap()], "target 0: endpoint: not a URL"),
        (vec!["--targets", "/nowhere.json"], "/nowhere.json: "),
        (vec!["--endpoint", at, "--key", "s3cret"], "--key must be env:NAME or file:PATH"),
        (vec!["--endpoint", at, "--key", "env:NOBODY_SET_THIS"], "NOBODY_SET_THIS is not set"),
        (vec!["--endpoint", "http://me:s3cret@a/"], "passwords in URLs are not sent"),
        (vec!["--endpoint", at, "--trace", bad_trace.to_str().unwrap()], "load-bad.csv:2: "),
        (vec!["--endpoint", at, "--trace", "/dev/zero"], "/dev/zero:1: the line is longer than"),
        (vec!["--endpoint", at, "--trace", "/dev/urandom"], "/dev/urandom:1: "),
        (vec!["--endpoint", at, "--trace", "/"], "/: it is a directory"),
        (vec!["--endpoint", at, "--trust", secret.to_str().unwrap()], "no certificate in PEM"),
        (vec!["--endpoint", at, "--rate", "5", "--items", "3"], "cannot be used with"),
        (vec!["--endpoint", at, "--api", "embeddings", "--stream"], "embeddings do not stream"),
        (vec![], "--targets <FILE>|--endpoint <URL>"),
    ] {
        let out = ran(&[&["load"], &arguments[..]].concat());
        assert!(!out.status.success() && stdout(&out).is_empty(), "{told}");
        let said = stderr(&out);
        assert!(said.contains(told), "{told}\n{said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
}
