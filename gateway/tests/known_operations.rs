//! Requests that are not API operations are not sent to a backend with its key.

use crate::{
    served::{Answer, Gateway, ask_raw},
    steering::{gateway, in_front_of},
    witness::serving,
};

fn ask(gateway: &Gateway, method: &str, path: &str) -> Answer {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    ask_raw(gateway.address(), request.as_bytes())
}

#[test]
fn a_method_that_a_path_does_not_have_is_told_those_that_it_has() {
    let (east, sweden) = (serving(), serving());
    let gateway = in_front_of("methods", [&east, &sweden]);
    for (method, path, allow) in [
        ("TRACE", "/openai/v1/responses", Some("GET, POST")),
        ("PROPFIND", "/openai/v1/files", Some("GET, POST")),
        ("PATCH", "/openai/v1/files/file-1", Some("DELETE, GET")),
        ("PUT", "/openai/v1/chat/completions", Some("GET, POST")),
        ("HEAD", "/openai/v1/files", Some("GET, POST")),
        ("post", "/openai/v1/responses", Some("GET, POST")),
        ("DELETE", "/openai/v1/models/gpt-4o", Some("GET")),
        ("PATCH", "/openai/deployments/gpt-4o/chat/completions", Some("GET, POST")),
        ("CONNECT", "gateway:443", Some("DELETE, GET, POST")),
        ("POST", "/openai/v1/new-thing", None),
        ("POST", "/openai/v1/chat/completions/chatcmpl-1/evil", None),
        ("GET", "/openai/v1/organization/admin_api_keys", None),
        ("POST", "/openai/v1/ch%61t/completions", None),
        ("POST", "/openai/management/keys", None),
        ("GET", "/openai/deployments/gpt-4o", None),
    ] {
        let answer = ask(&gateway, method, path);
        let status = if allow.is_some() { 405 } else { 404 };
        assert_eq!((answer.status(), answer.header("allow")), (status, allow), "{method} {path}");
    }
    assert_eq!((east.asked().len(), sweden.asked().len()), (0, 0));
}

#[test]
fn a_segment_that_servers_read_in_different_ways_is_not_found() {
    let (east, sweden) = (serving(), serving());
    let gateway = in_front_of("segments", [&east, &sweden]);
    for segment in [
        "%ff",
        "%c0%ae%c0%ae",
        "%e0%80%af",
        "a%",
        "%4",
        "%zz",
        "%0d%0a",
        "%09",
        "%7f",
        "%3b",
        "%3F",
        "%23",
        "%ef%bc%8e%ef%bc%8e",
        "%c2%85",
    ] {
        let answer = ask(&gateway, "GET", &format!("/openai/v1/files/{segment}"));
        assert_eq!(answer.status(), 404, "{segment}");
        let path = format!("/openai/v1/responses/{segment}/input_items");
        assert_eq!(ask(&gateway, "GET", &path).status(), 404, "{segment}");
    }
    assert_eq!((east.asked().len(), sweden.asked().len()), (0, 0));
    for segment in ["file%2D1", "ft:gpt-4o:me::1", "k%c3%bchl", "a%20b"] {
        assert_eq!(
            ask(&gateway, "GET", &format!("/openai/v1/files/{segment}")).status(),
            200,
            "{segment}"
        );
    }
}

#[test]
fn a_longer_path_than_servers_read_is_refused() {
    let (east, sweden) = (serving(), serving());
    let gateway = in_front_of("uri", [&east, &sweden]);
    for path in [
        format!("/openai/v1/files/{}", "a".repeat(8_000)),
        format!("/openai/v1/files?after={}", "a".repeat(60_000)),
        format!("/{}", "a".repeat(20_000)),
    ] {
        assert_eq!(ask(&gateway, "GET", &path).status(), 414);
    }
    assert_eq!(east.asked().len(), 0);
    let fits = format!("/openai/v1/files/{}", "a".repeat(1_000));
    assert_eq!(ask(&gateway, "GET", &fits).status(), 200);
}

#[test]
fn an_operation_that_the_configuration_names_passes() {
    let (east, sweden) = (serving(), serving());
    let allow = "[operations]\nallow = [\"POST /openai/v1/new-thing\", \
                 \"PATCH /openai/v1/things/{id}\", \"DELETE /openai/v1/models/{id}\"]";
    let endpoints = [east.endpoint(), sweden.endpoint()];
    let gateway = gateway("operations", endpoints, "", allow);
    for (method, path, status) in [
        ("POST", "/openai/v1/new-thing", 200),
        ("PATCH", "/openai/v1/things/thing_1", 200),
        ("DELETE", "/openai/v1/models/ft-1", 200),
        ("GET", "/openai/v1/new-thing", 405),
        ("POST", "/openai/new-thing", 404),
        ("PATCH", "/openai/v1/things/thing_1/more", 404),
        ("PATCH", "/openai/v1/things/", 404),
    ] {
        let answer = ask(&gateway, method, path);
        assert_eq!(answer.status(), status, "{method} {path} {answer:?}");
    }
    assert_eq!(east.asked().len(), 3);
}
