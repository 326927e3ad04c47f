//! Backends of other providers than Azure: where requests go, with which keys, and how refusals are
//! classified.

use crate::{
    emulate,
    served::{Answer, Gateway, TEAM_A},
    started::Started,
    witness::{Asked, Witness, now, serving},
};

/// A gateway with these backends of one model, tried in order.
fn gateway(name: &str, backends: &[String]) -> Gateway {
    gateway_that_waits(name, backends, "0s")
}

fn gateway_that_waits(name: &str, backends: &[String], max_wait: &str) -> Gateway {
    let backends: String = backends
        .iter()
        .enumerate()
        .map(|(index, lines)| {
            format!("[[models.text.standard]]\npriority = {}\n{lines}\n", index + 1)
        })
        .collect();
    let text = format!(
        "[listen]\naddress = \"127.0.0.1:0\"\n[models.text]\nmax_wait = \"{max_wait}\"\n{backends}\
         [clients.team-a]\nkeys = [\"env:TEAM_A_KEY\"]\n"
    );
    let config = emulate::file(&format!("providers-{name}/g.toml"), &text);
    Gateway::start_with(&config, &[("OPENAI_KEY", "sk-openai"), ("CLAUDE_KEY", "sk-ant-claude")])
}

fn azure(witness: &Witness) -> String {
    let endpoint = witness.endpoint();
    format!("name = \"azure\"\nendpoint = \"{endpoint}\"\nkey = \"env:AZURE_KEY\"")
}

fn other(provider: &str, endpoint: &str, more: &str) -> String {
    format!("name = \"{provider}\"\nendpoint = \"{endpoint}\"\nprovider = \"{provider}\"\n{more}")
}

fn ask(gateway: &Gateway, path: &str, body: &str) -> Answer {
    gateway.ask("POST", path, &[TEAM_A, ("x-api-key", "sk-of-the-client")], body)
}

#[track_caller]
fn only(witness: &Witness) -> Asked {
    let mut asked = witness.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    asked.remove(0)
}

/// Everything that could be a credential.
fn credentials(asked: &Asked) -> Vec<&str> {
    let is_key = |line: &&String| {
        line.contains("key") || line.contains("sk-") || line.starts_with("authorization")
    };
    asked.head.iter().filter(is_key).map(String::as_str).collect()
}

const CLASSIC: &str = "/openai/deployments/text/chat/completions?api-version=2024-10-21";
const V1: &str = "/openai/v1/chat/completions";

#[test]
fn both_grammars_reach_open_ai_with_its_model_its_key_and_no_other() {
    let openai = serving();
    for base in ["", "/v1", "/v1/"] {
        let endpoint = format!("{}{base}", openai.endpoint());
        let lines = "key = \"env:OPENAI_KEY\"\ndeployment = \"gpt-4.1\"";
        let gateway = gateway("openai", &[other("openai", &endpoint, lines)]);
        for (path, body) in [
            (CLASSIC, r#"{"messages":[]}"#),
            (CLASSIC, r#"{"model":"text","messages":[]}"#),
            (V1, r#"{"model":"text","messages":[]}"#),
        ] {
            let answer = ask(&gateway, path, body);
            assert_eq!(answer.status(), 200, "{answer:?}");
            assert_eq!(answer.header("x-spillover-backend"), Some("openai"));
            let asked = openai.asked().pop().unwrap();
            assert_eq!(asked.head[0], "POST /v1/chat/completions HTTP/1.1");
            assert_eq!(credentials(&asked), ["authorization: Bearer sk-openai"]);
            let host = openai.endpoint().trim_start_matches("http://");
            assert_eq!(asked.header("host"), Some(host));
            let body = String::from_utf8(asked.body).unwrap();
            assert_eq!(body, r#"{"model":"gpt-4.1","messages":[]}"#);
        }
    }
}

#[test]
fn anthropic_is_given_its_key_and_a_version_of_its_api() {
    let claude = serving();
    let lines = "key = \"env:CLAUDE_KEY\"\ndeployment = \"claude-opus-4-6\"";
    let gateway = gateway("anthropic", &[other("anthropic", claude.endpoint(), lines)]);
    assert_eq!(ask(&gateway, CLASSIC, r#"{"messages":[]}"#).status(), 200);
    let asked = only(&claude);
    assert_eq!(asked.head[0], "POST /v1/chat/completions HTTP/1.1");
    assert_eq!(credentials(&asked), ["x-api-key: sk-ant-claude"]);
    assert_eq!(asked.header("anthropic-version"), Some("2023-06-01"));
}

#[test]
fn a_backend_that_the_network_authenticates_is_sent_no_key_at_all() {
    let own = serving();
    let endpoint = format!("{}/v1", own.endpoint());
    for lines in [other("http", &endpoint, "auth = \"none\""), azure_without_key(&own)] {
        let gateway = gateway("none", &[lines]);
        assert_eq!(ask(&gateway, V1, r#"{"model":"text","messages":[]}"#).status(), 200);
        assert_eq!(credentials(&own.asked().pop().unwrap()), [""; 0]);
    }
}

fn azure_without_key(witness: &Witness) -> String {
    azure(witness).replace("key = \"env:AZURE_KEY\"", "auth = \"none\"")
}

#[test]
fn a_request_moves_between_providers_in_either_direction_and_back_to_its_own_path() {
    let refusing = |headers| Witness::new(move |_| (429, headers, String::new()));
    let lines = "key = \"env:OPENAI_KEY\"\ndeployment = \"gpt-4.1\"";

    let (first, openai) = (refusing("retry-after: 30\r\n"), serving());
    let gateway_a =
        gateway("to-openai", &[azure(&first), other("openai", openai.endpoint(), lines)]);
    let body = r#"{"messages":[]}"#;
    assert_eq!(ask(&gateway_a, CLASSIC, body).status(), 200);
    let tried = only(&first);
    assert_eq!(tried.head[0], format!("POST {CLASSIC} HTTP/1.1"));
    assert_eq!(credentials(&tried), ["api-key: azure-key"]);
    assert_eq!(String::from_utf8(tried.body).unwrap(), body);
    assert_eq!(credentials(&only(&openai)), ["authorization: Bearer sk-openai"]);

    let (openai, last) = (refusing("x-ratelimit-reset-requests: 30s\r\n"), serving());
    let gateway_b = gateway("to-azure", &[other("openai", openai.endpoint(), lines), azure(&last)]);
    let answer = ask(&gateway_b, CLASSIC, body);
    assert_eq!(answer.header("x-spillover-backend"), Some("azure"));
    let served = only(&last);
    assert_eq!(served.head[0], format!("POST {CLASSIC} HTTP/1.1"));
    assert_eq!(credentials(&served), ["api-key: azure-key"]);
    assert_eq!(String::from_utf8(served.body).unwrap(), body);
    let answer = ask(&gateway_b, V1, r#"{"model":"text","messages":[]}"#);
    assert_eq!(answer.status(), 200);
    assert_eq!(openai.asked().len(), 1, "it is closed for 30 s");
    assert_eq!(last.asked()[1].head[0], format!("POST {V1} HTTP/1.1"));
}

#[test]
fn a_refusal_of_bedrock_is_a_429_with_a_time_to_the_client() {
    let bedrock = Witness::new(|_| {
        let head = "x-amzn-errortype: ThrottlingException:http://internal.amazon.com/coral/\r\n\
                    content-type: application/json\r\n";
        (400, head, r#"{"message":"Too many tokens, please wait before trying again."}"#.to_owned())
    });
    let lines = "key = \"env:OPENAI_KEY\"";
    let endpoint = format!("{}/openai/v1", bedrock.endpoint());
    let gateway = gateway("bedrock", &[other("bedrock", &endpoint, lines)]);
    let answer = ask(&gateway, V1, r#"{"model":"text","messages":[]}"#);
    assert_eq!((answer.status(), answer.header("retry-after")), (429, Some("1")), "{answer:?}");
    assert!(answer.0.ends_with(r#"trying again."}"#), "its own words: {answer:?}");
    let asked = only(&bedrock);
    assert_eq!(asked.head[0], "POST /openai/v1/chat/completions HTTP/1.1");
    assert_eq!(ask(&gateway, V1, r#"{"model":"text","messages":[]}"#).status(), 429);
    assert_eq!(bedrock.asked().len(), 1, "it is left alone for a second");
}

#[test]
fn another_provider_is_rehearsed_with_the_emulator() {
    let azure = emulate::file(
        "providers-rehearsed/azure.toml",
        r#"[[resources]]
name = "claude"
[[resources.deployments]]
name = "claude"
standard = {}
faults = [
  { status = 529, headers = { retry-after = "1" }, body = '{"type":"error","error":{"type":"overloaded_error"}}' },
  { pass = true },
  { status = 400, headers = { x-amzn-errortype = "ThrottlingException" }, body = '{"message":"Too many requests"}' },
]
"#,
    );
    let mut emulator = Started::new(&["emulate", "--config", azure.to_str().unwrap()]);
    let endpoint = format!("{}/openai/v1", emulator.endpoint());
    let lines = "key = \"env:CLAUDE_KEY\"\ndeployment = \"claude\"";
    for (provider, waited) in [("anthropic", 1_000), ("bedrock", 1_000)] {
        let patient = gateway_that_waits(provider, &[other(provider, &endpoint, lines)], "4s");
        let begun = now();
        let body = r#"{"model":"text","messages":[{"role":"user","content":"Hello"}]}"#;
        let answer = ask(&patient, V1, body);
        assert_eq!(answer.status(), 200, "{answer:?}");
        assert!(begun.elapsed().as_millis() >= waited, "{provider}: {:?}", begun.elapsed());
    }
}

#[test]
fn an_upload_that_is_too_long_to_keep_names_its_model_where_the_path_did() {
    let openai = serving();
    let lines = "key = \"env:OPENAI_KEY\"\ndeployment = \"gpt-4.1\"";
    let gateway = gateway("long", &[other("openai", openai.endpoint(), lines)]);
    let text = "x".repeat(5 << 20);
    for (body, expected) in [
        (
            format!(r#"{{"messages":"{text}"}}"#),
            format!(r#"{{"messages":"{text}","model":"gpt-4.1"}}"#),
        ),
        (
            format!(r#"{{"messages":"{text}","model":"text"}}"#),
            format!(r#"{{"messages":"{text}","model":"gpt-4.1"}}"#),
        ),
    ] {
        let answer = ask(&gateway, CLASSIC, &body);
        assert_eq!(answer.status(), 200, "{answer:?}");
        let asked = openai.asked().pop().unwrap();
        assert!(asked.body == expected.as_bytes(), "not printed: 5 MiB, {:?}", asked.head);
    }
}
