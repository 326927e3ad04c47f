//! Which headers are forwarded upstream, and which downstream.

use crate::{
    steering::{gateway, in_front_of},
    witness::{Witness, serving},
};

const CHAT: &str = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";

#[test]
fn what_a_front_door_or_a_server_behind_it_would_obey_stays_here() {
    const STAY: &[&str] = &[
        "x-original-url",
        "x-rewrite-url",
        "x-original-host",
        "x-http-method-override",
        "x-method-override",
        "x-http-method",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-prefix",
        "x-forwarded-client-cert",
        "forwarded",
        "x-real-ip",
        "cf-connecting-ip",
        "true-client-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-azure-clientip",
        "x-azure-fdid",
        "x-arr-clientcert",
        "x-arr-log-id",
        "x-ms-client-principal",
        "x-ms-client-principal-id",
        "x-ms-deployment",
        "azureml-model-deployment",
        "x-policy-id",
        "baggage",
        "via",
        "origin",
        "referer",
        "x-anything",
        "max-forwards",
        "api-key",
        "ocp-apim-subscription-key",
        "cookie",
        "x-spillover-anything",
        "x-stainless-api-key",
        "x-stainless-authorization",
        "x-stainless-anything",
    ];
    let (east, sweden) = (serving(), serving());
    let gateway = in_front_of("stay", [&east, &sweden]);
    let headers: Vec<_> = STAY.iter().map(|name| (*name, "canary")).collect();
    let answer = gateway.chat("gpt-4o", &headers);
    assert_eq!(answer.status(), 200, "{answer:?}");
    let asked = &east.asked()[0];
    assert!(asked.head.iter().all(|line| !line.contains("canary")), "{:?}", asked.head);
    assert_eq!(asked.header("api-key"), Some("azure-key"));
}

#[test]
fn a_credential_in_a_query_stays_here() {
    let (east, sweden) = (serving(), serving());
    let gateway = in_front_of("query", [&east, &sweden]);
    for name in [
        "api-key",
        "api_key",
        "Api_Key",
        "API%2DKEY",
        "Authorization",
        "access_token",
        "code",
        "Key",
        "%6bey",
        "Ocp-Apim-Subscription-Key",
        "subscription-key",
        "x=1;api-key",
    ] {
        let path = format!("{CHAT}&{name}=canary");
        let answer = gateway.ask("POST", &path, &[], r#"{"messages":[]}"#);
        assert_eq!(answer.status(), 200, "{name}: {answer:?}");
    }
    let path = "/openai/v1/files?after=f&limit=2&key=canary&purpose=batch&include[]=a";
    assert_eq!(gateway.ask("GET", path, &[], "").status(), 200);
    let asked: Vec<_> = east.asked().into_iter().chain(sweden.asked()).collect();
    let asked: Vec<_> = asked.iter().map(|asked| &asked.head[0]).collect();
    assert!(asked.iter().all(|line| !line.contains("canary")), "{asked:?}");
    for kept in ["?api-version=2024-10-21 ", "?after=f&limit=2&purpose=batch&include[]=a "] {
        assert!(asked.iter().any(|line| line.contains(kept)), "{kept}: {asked:?}");
    }
}

#[test]
fn what_a_server_in_front_of_the_gateway_would_obey_does_not_come_down() {
    let answer = "x-accel-redirect: /canary\r\nX-Accel-Buffering: canary\r\nx-sendfile: canary\r\n\
                  x-lighttpd-send-file: canary\r\nrefresh: 0; url=http://canary\r\n";
    let east = Witness::new(move |_| (200, answer, "{}".to_owned()));
    let sweden = serving();
    let gateway = in_front_of("accel", [&east, &sweden]);
    let answer = gateway.chat("gpt-4o", &[]);
    assert_eq!(answer.status(), 200);
    assert!(!answer.0.contains("canary"), "{answer:?}");
}

#[test]
fn what_clients_say_of_their_requests_goes_upstream() {
    const GO: &[&str] = &[
        "accept",
        "user-agent",
        "accept-language",
        "idempotency-key",
        "openai-beta",
        "openai-organization",
        "openai-project",
        "x-stainless-lang",
        "x-stainless-retry-count",
        "x-ms-client-request-id",
        "x-client-request-id",
        "x-ms-useragent",
        "api-version",
        "if-none-match",
        "range",
        "x-ms-oai-image-generation-deployment",
        "tracestate",
        "x-policy-id",
    ];
    let (east, sweden) = (serving(), serving());
    let more = "upstream.headers = [\"x-policy-id\"]";
    let gateway = gateway("go", [east.endpoint(), sweden.endpoint()], "", more);
    let parent = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let mut headers: Vec<_> = GO.iter().map(|name| (*name, "canary=1")).collect();
    headers.push(parent);
    assert_eq!(gateway.ask("POST", CHAT, &headers, r#"{"messages":[]}"#).status(), 200);
    let asked = &east.asked()[0];
    for name in GO {
        assert_eq!(asked.header(name), Some("canary=1"), "{name} {:?}", asked.head);
    }
    assert!(asked.header("traceparent").unwrap().starts_with(&parent.1[..35]));
}

#[test]
fn no_credential_and_no_state_comes_down() {
    const HEAD: &str = "content-type: application/json\r\napi-key: canary\r\n\
        authorization: canary\r\nocp-apim-subscription-key: canary\r\nset-cookie: canary=1\r\n\
        set-cookie: canary=2\r\nstrict-transport-security: canary\r\nalt-svc: canary\r\n\
        clear-site-data: canary\r\nx-ms-region: East US\r\n";
    for status in [200, 400] {
        let backends = [(); 2].map(|()| Witness::new(move |_| (status, HEAD, "{}".to_owned())));
        let gateway = in_front_of(&format!("down-{status}"), [&backends[0], &backends[1]]);
        let answer = gateway.chat("gpt-4o", &[]);
        assert_eq!(answer.status(), status);
        assert!(!answer.0.contains("canary"), "{answer:?}");
        assert_eq!(answer.header("x-ms-region"), Some("East US"), "{answer:?}");
    }
}
