//! `spillover emulate`: its listeners, its refusals, and its summary.

use std::{fs, path::PathBuf, time::Duration};

use spillover_testing::real::Stopwatch;

use crate::{
    served::{Answer, ask},
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
    // An earlier run may have left a pipe that waits for a reader.
    let _ = fs::remove_file(&path);
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

/// One resource without keys, with the deployment `gpt-4o`.
fn one(name: &str, resource: &str, deployment: &str) -> (Started, String) {
    let text = format!(
        "[[resources]]\nname = \"east\"\n{resource}\n\
         [[resources.deployments]]\nname = \"gpt-4o\"\n{deployment}\n"
    );
    let config = file(&format!("emulate-{name}.toml"), &text);
    let mut emulator = Started::new(&["emulate", "--config", config.to_str().unwrap()]);
    let endpoint = emulator.endpoint();
    (emulator, endpoint.trim_start_matches("http://").to_owned())
}

fn chat(address: &str, tokens: u32, more: &str) -> Answer {
    let body = format!(
        r#"{{"model":"gpt-4o","messages":[{{"role":"user","content":"x"}}],"input":"x","max_tokens":1,
        "metadata":{{"emulator_prompt_tokens":{tokens}}}{more}}}"#
    );
    ask(address, "POST", "/openai/v1/chat/completions", &[], &body).unwrap()
}

#[test]
fn a_request_larger_than_the_rest_is_refused_for_a_day_while_smaller_ones_pass() {
    let standard = "standard = { tokens_per_minute = 60000, too_large_for = \"1day\" }";
    let (_emulator, address) = one("size", "", standard);
    for _ in 0..2 {
        let refused = chat(&address, 70_000, "");
        assert_eq!((refused.status(), refused.header("retry-after")), (429, Some("86400")));
        assert_eq!(refused.header("x-ratelimit-type"), Some("Tokens"));
        assert!(refused.0.contains("token rate limit"), "{refused:?}");
        assert_eq!(chat(&address, 1_000, "").status(), 200);
    }
}

#[test]
fn each_tier_and_each_kind_of_operation_has_its_own_limit() {
    let deployment = "standard = { tokens_per_minute = 60000 }\n\
         flex = { tokens_per_minute = 100, too_large_for = \"20s\" }\nmedia_per_minute = 3";
    let (_emulator, address) = one("apart", "reads_per_minute = 6", deployment);
    let flex = chat(&address, 1_000, r#","service_tier":"flex""#);
    assert_eq!((flex.status(), flex.header("retry-after")), (429, Some("20")));
    assert!(flex.0.contains(r#""code":"resource_unavailable""#), "{flex:?}");
    let priority = chat(&address, 1_000, r#","service_tier":"priority""#);
    assert_eq!(priority.status(), 400);
    assert!(priority.0.contains(r#""param":"service_tier""#), "{priority:?}");
    let default = chat(&address, 1_000, r#","service_tier":"auto""#);
    assert!(default.0.contains(r#""service_tier":"default""#), "{default:?}");

    let status = |method, path, body| ask(&address, method, path, &[], body).unwrap().status();
    let video = r#"{"model":"gpt-4o","prompt":"a tide"}"#;
    let videos = [(); 2].map(|()| status("POST", "/openai/v1/videos", video));
    assert_eq!(videos, [200, 429]);
    let files = [(); 2].map(|()| status("POST", "/openai/v1/files", "{}"));
    assert_eq!(files, [200, 200]);
    let lists = [(); 2].map(|()| status("GET", "/openai/v1/files", ""));
    assert_eq!(lists, [200, 429]);
    assert_eq!(chat(&address, 1_000, "").status(), 200);
}

#[test]
fn refusals_stalls_and_keepalives_come_as_a_file_says() {
    let deployment = "standard = {}\nkeepalive = \"30ms\"\nfaults = [\n\
         { refusal = \"overloaded\", retry_after = \"7s\" },\n\
         { refusal = \"capacity\", in_stream = true },\n\
         { silent = \"150ms\" }, { after = \"150ms\" },\n]";
    let (_emulator, address) = one("words", "", deployment);
    let overloaded = chat(&address, 1, "");
    assert_eq!((overloaded.status(), overloaded.header("retry-after-ms")), (529, Some("7000")));
    assert!(overloaded.0.contains("overloaded_error"), "{overloaded:?}");
    let hidden = chat(&address, 1, r#","stream":true"#);
    assert_eq!(hidden.status(), 200);
    assert!(hidden.0.contains(r#""code":"no_capacity""#), "{hidden:?}");
    for (alive, silences) in [(false, "before the head"), (true, "after it")] {
        let begun = Stopwatch::start();
        let answer = chat(&address, 1, r#","stream":true"#);
        assert!(begun.elapsed() >= Duration::from_millis(150), "{silences}");
        assert_eq!(answer.0.contains(": keepalive"), alive, "{silences}: {answer:?}");
    }
}

#[test]
fn a_restart_comes_when_a_file_says() {
    let (_emulator, address) =
        one("restart", "outages = [{ every = \"400ms\", lasts = \"200ms\" }]", "standard = {}");
    let is_up = || std::net::TcpStream::connect(&address).is_ok();
    for expected in [false, true, false] {
        let changed = (0..300).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            is_up() == expected
        });
        assert!(changed, "it is up: {expected}");
    }
}

#[test]
fn the_example_is_a_file_that_it_takes() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/emulator.toml");
    let text = fs::read_to_string(example).unwrap();
    // No random refusals here; other draws follow the seed.
    let text = text.replace(", { share = 0.001 }", "");
    let anywhere = ["8101", "8102", "8103"].iter().fold(text, |text, port| text.replace(port, "0"));
    let config = file("emulate-example.toml", &anywhere);
    let mut emulator = Started::new(&["emulate", "--config", config.to_str().unwrap()]);
    let statuses = [(); 3].map(|()| {
        let endpoint = emulator.endpoint();
        chat(endpoint.trim_start_matches("http://"), 40_000, "").status()
    });
    assert_eq!(statuses, [429, 200, 401]);
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
