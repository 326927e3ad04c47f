//! `spillover emulate`: what listens, what is refused, what it says at the end.

use std::{fs, path::PathBuf};

use crate::{
    served::ask,
    started::{Started, ran, stderr, stdout},
};

const TWO: &str = r#"
seed = 7
[[resources]]
name = "east"
region = "East US"
key = "key-east"
[[resources.deployments]]
name = "gpt-4o"
ptu = { tokens_per_second = 100, bucket = "1s" }
[[resources]]
name = "sweden"
region = "Sweden Central"
key = "env:PATH"
[[resources.deployments]]
name = "gpt-4o"
standard = {}
"#;

/// A file of this test run.
pub(crate) fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("gateway").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn each_resource_listens_on_a_port_of_its_own_and_is_named() {
    let config = file("emulate-two.toml", TWO);
    let mut emulator = Started::new(&["emulate", "--config", config.to_str().unwrap()]);
    let (first, second) = (emulator.line(), emulator.line());
    assert!(first.starts_with("listening on http://127.0.0.1:"), "{first}");
    assert!(first.ends_with("east (East US): gpt-4o"), "{first}");
    assert!(second.ends_with("sweden (Sweden Central): gpt-4o"), "{second}");
    assert_ne!(first.split(' ').nth(2), second.split(' ').nth(2));
}

#[test]
fn without_a_file_there_is_a_ptu_and_three_regions_for_anybody() {
    let mut emulator = Started::new(&["emulate"]);
    let endpoints: Vec<_> = (0..4).map(|_| emulator.endpoint()).collect();
    assert!(emulator.line().starts_with("try: spillover load --endpoint "));
    for endpoint in &endpoints {
        let out = ran(&["load", "--endpoint", endpoint, "--items", "1", "--max-tokens", "5"]);
        assert!(stdout(&out).contains("0-200"), "{}", stdout(&out));
    }
    #[cfg(unix)]
    {
        let summary = emulator.terminated();
        let line = summary.lines().find(|line| line.starts_with("contoso-ptu/gpt-4o")).unwrap();
        let counts: Vec<_> = line.split_whitespace().skip(1).take(3).collect();
        assert_eq!(counts, ["1", "1", "0"], "{summary}");
    }
}

#[test]
fn one_shared_port_tells_resources_apart_by_their_host() {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };
    let mut emulator = Started::new(&["emulate", "--shared"]);
    let endpoint = emulator.endpoint();
    assert_eq!(emulator.endpoint(), endpoint);
    for (host, region) in
        [("contoso-ptu", "East US"), ("contoso-sweden.openai.azure.com", "Sweden Central")]
    {
        let mut stream = TcpStream::connect(endpoint.trim_start_matches("http://")).unwrap();
        let request =
            format!("GET /openai/v1/models HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains(&format!("x-ms-region: {region}\r\n")), "{answer}");
    }
}

#[test]
fn a_bad_file_is_refused_with_file_line_key_and_remedy_before_anything_listens() {
    let text = TWO.replace("tokens_per_second = 100", "tokens_per_secnd = 100");
    let config = file("emulate-bad.toml", &text);
    let out = ran(&["emulate", "--config", config.to_str().unwrap()]);
    assert!(!out.status.success());
    assert!(stdout(&out).is_empty(), "nothing listens");
    let told = stderr(&out);
    assert!(told.contains("emulate-bad.toml:9: "), "{told}");
    assert!(told.contains("`tokens_per_secnd`, expected one of `tokens_per_second`"), "{told}");
    let out = ran(&["emulate", "--config", "/nowhere/emulator.toml"]);
    assert!(stderr(&out).contains("/nowhere/emulator.toml: "), "{}", stderr(&out));
}

#[test]
fn a_file_can_say_what_fails_how_often_and_when_nobody_can_connect() {
    let text = TWO
        .replace("standard = {}", "standard = {}\nfailures = [{ share = 1, status = 503 }]")
        + "[[resources]]\nname = \"france\"\noutages = [{ share = 1 }]\nkeep_alive = false\n\
           [[resources.deployments]]\nname = \"gpt-4o\"\nstandard = {}\n";
    let text = format!("poison = [{{ marker = \"count to 13\", status = 418 }}]\n{text}");
    let config = file("emulate-failing.toml", &text);
    let mut emulator = Started::new(&["emulate", "--config", config.to_str().unwrap()]);
    let [east, sweden, france] = [(); 3].map(|()| emulator.endpoint());
    let keyed = [("api-key", "key-east")];
    let path = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";
    let chat = |endpoint: &str, key: &[_], words| {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"{words}"}}]}}"#);
        ask(endpoint.trim_start_matches("http://"), "POST", path, key, &body)
            .map(|answer| answer.status())
    };
    assert_eq!(chat(&east, &keyed, "count to 12").unwrap(), 200);
    assert_eq!(chat(&east, &keyed, "count to 13").unwrap(), 418);
    let path_key = std::env::var("PATH").unwrap();
    assert_eq!(chat(&sweden, &[("api-key", &path_key)], "count to 12").unwrap(), 503);
    let refused = chat(&france, &[], "count to 12").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn completions_name_every_subcommand() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = stdout(&ran(&["completions", shell]));
        for subcommand in ["check", "emulate", "load", "completions"] {
            assert!(script.contains(subcommand), "{shell}: {subcommand}");
        }
    }
}

#[test]
fn every_help_of_a_tool_has_an_example() {
    for subcommand in ["emulate", "load", "completions"] {
        let help = stdout(&ran(&[subcommand, "--help"]));
        assert!(help.contains("Examples:\n  spillover "), "{help}");
    }
}
