//! Other spellings of a path.

use super::gateway;
use crate::witness::serving;

#[test]
fn other_spellings_of_a_path_are_served_and_no_others() {
    let backend = serving();
    let gateway = gateway("paths", backend.endpoint(), "");
    let ask = |target: &str| {
        gateway.ask("POST", target, &[("api-key", "a-key-of-team-b-0001")], "{}").status()
    };
    let chat = "openai/deployments/gpt-4o/chat/completions";
    for path in [
        format!("//{chat}"),
        format!("///{chat}?api-version=2024-10-21"),
        format!("/{chat}/"),
        format!("/{chat}//?api-version=2024-10-21"),
        "/openai/./deployments/gpt-4o/./chat/completions".to_owned(),
        "/./openai//deployments/gpt-4o//chat/completions".to_owned(),
        "/openai/deployments/gpt-4o/chat/completions/.".to_owned(),
        format!("http://gateway/{chat}"),
        format!("http://elsewhere:81//{chat}?api-version=2024-10-21"),
        "http://gateway/openai/v1//chat/completions/".to_owned(),
    ] {
        let path = path.as_str();
        let body = "{\"model\":\"gpt-4o\"}";
        let answer = gateway.ask("POST", path, &[("api-key", "a-key-of-team-b-0001")], body);
        assert_eq!(answer.status(), 200, "{path}: {answer:?}");
    }
    for asked in backend.asked() {
        let line = &asked.head[0];
        let plain = ["POST /openai/deployments/", "POST /openai/v1/chat/completions "];
        assert!(plain.iter().any(|plain| line.starts_with(plain)), "{line}");
        assert!(
            line.contains("/chat/completions ") || line.contains("/chat/completions?"),
            "{line}"
        );
        assert!(!line.contains("//") && !line.contains("/."), "{line}");
        assert!(!asked.header("host").unwrap().contains("elsewhere"), "{asked:?}");
    }
    let served = backend.asked().len();
    for path in [
        "/openai/deployments/gpt-4o/../gpt-4o/chat/completions",
        "/openai/deployments/gpt-4o/%2e%2e/gpt-4o/chat/completions",
        "/openai/deployments/gpt-4o/.%2E/gpt-4o/chat/completions",
        "/openai/deployments/gpt-4o%2fchat/completions",
        "/openai/deployments/gpt-4o/chat%2Fcompletions",
        "/openai/deployments/gpt-4o/chat%5ccompletions",
        "/openai/%2e/deployments/gpt-4o/chat/completions",
        "/openai/deployments//chat/completions",
        "/openai/deployments/./chat/completions",
        "/openai/..",
        "/../openai/deployments/gpt-4o/chat/completions",
        "http://gateway/openai/../openai/deployments/gpt-4o/chat/completions",
    ] {
        assert_eq!(ask(path), 404, "{path}");
    }
    assert_eq!(backend.asked().len(), served, "none of these goes to a backend");
}
