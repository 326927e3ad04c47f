//! What each backend receives: its own address and credential, and no other backend's.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version};
use http_body_util::Full;
use proptest::prelude::*;
use tower::{Layer, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, Credential, RegionRotateLayer, ReplayLayer, SmartFallbackLayer,
    backend::{AccessToken, TokenFuture},
};

use crate::{
    clock::{ms, pass},
    leaf::{Answer, Broken, CLASSIC, Leaf, Seen, request, through},
};

fn pool(backends: impl IntoIterator<Item = Backend>) -> BackendPool {
    let backends: Vec<_> = backends.into_iter().collect();
    let first = backends[0].name().to_owned();
    let pool = BackendPool::new(backends).unwrap();
    pool.force_start(&*first).unwrap();
    pool
}

/// What a single backend receives.
async fn received(backend: Backend, request: Request<Full<Bytes>>) -> Seen {
    let leaf = Leaf::playing([Answer::ok()]);
    RegionRotateLayer::new(pool([backend])).layer(leaf.clone()).oneshot(request).await.unwrap();
    leaf.seen().remove(0)
}

fn sweden() -> Backend {
    Backend::new("sweden", "https://sweden.example/base").unwrap().api_key("sweden-key")
}

fn post(uri: &str, body: &'static str) -> Request<Full<Bytes>> {
    Request::post(uri).body(Full::from(body)).unwrap()
}

/// A caller with every credential and every header of its own resource, some of them twice.
fn laden() -> Request<Full<Bytes>> {
    let mut request =
        post("https://user:secret@evil.example:99/openai/deployments/d/embeddings", "{}");
    for (name, value) in [
        ("host", "evil.example"),
        ("host", "worse.example"),
        ("api-key", "secret-1"),
        ("api-key", "secret-2"),
        ("authorization", "Bearer secret-3"),
        ("authorization", "Basic secret-4"),
        ("cookie", "secret-5"),
        ("proxy-authorization", "Basic secret-8"),
        ("ocp-apim-subscription-key", "secret-6"),
        ("ocp-apim-trace", "true"),
        ("x-ms-spillover-deployment", "secret-7"),
        ("x-ms-client-request-id", "kept"),
        ("accept", "kept"),
        ("accept", "kept too"),
    ] {
        let name: HeaderName = name.parse().unwrap();
        request.headers_mut().append(name, HeaderValue::from_static(value));
    }
    request
}

fn lines(headers: &HeaderMap) -> Vec<(&str, &str)> {
    let mut lines: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    lines.sort_unstable();
    lines
}

const KEPT: [(&str, &str); 3] =
    [("accept", "kept"), ("accept", "kept too"), ("x-ms-client-request-id", "kept")];

#[tokio::test]
async fn a_backend_with_a_key_gets_its_key_its_host_and_nothing_of_another_resource() {
    let seen = received(sweden(), laden()).await;
    assert_eq!(seen.uri, "https://sweden.example/base/openai/deployments/d/embeddings");
    let mut expected = KEPT.to_vec();
    expected.extend([("api-key", "sweden-key"), ("host", "sweden.example")]);
    expected.sort_unstable();
    assert_eq!(lines(&seen.headers), expected);
    assert!(seen.headers["api-key"].is_sensitive());
}

#[tokio::test]
async fn a_backend_with_a_token_gets_its_token_and_no_key() {
    let source = Tokens;
    let backend = Backend::new("b", "http://b.example:8080").unwrap().bearer(source);
    let seen = received(backend, laden()).await;
    let mut expected = KEPT.to_vec();
    expected.extend([("authorization", "Bearer a-token"), ("host", "b.example:8080")]);
    expected.sort_unstable();
    assert_eq!(lines(&seen.headers), expected);
    assert!(seen.headers["authorization"].is_sensitive());
}

#[tokio::test]
async fn how_the_caller_came_says_nothing_of_how_the_request_goes_on() {
    for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
        let mut request = request();
        *request.version_mut() = version;
        assert_eq!(received(sweden(), request).await.version, Version::default(), "{version:?}");
    }
}

#[tokio::test]
async fn a_key_in_the_callers_query_goes_to_no_backend_with_a_credential_of_its_own() {
    let pairs =
        "api-key=secret-1&x=1&Subscription-Key=secret-2&API%2DKEY=secret-3&subscription-key";
    let uri = format!("{CLASSIC}&{pairs}");
    let token = Backend::new("b", "http://b.example").unwrap().bearer(Tokens);
    for backend in [sweden(), sweden().deployment("d").api_version("2024-10-21"), token] {
        let seen = received(backend, post(&uri, "{}")).await;
        assert_eq!(seen.uri.query(), Some("api-version=2024-10-21&x=1"));
    }
    let only = received(sweden(), post("/openai/v1/models?API-key=secret", "")).await;
    assert_eq!(only.uri, "https://sweden.example/base/openai/v1/models");
    let open = Backend::new("b", "http://b.example").unwrap();
    let seen = received(open.credential(Credential::passthrough()), post(&uri, "{}")).await;
    assert_eq!(seen.uri.query(), uri.split_once('?').map(|(_, query)| query));
}

#[tokio::test]
async fn a_query_too_long_to_be_moved_loses_its_keys_all_the_same() {
    let path = format!("/openai/deployments/d/{}?api-key=secret", "x".repeat(65_490));
    let seen = received(sweden().deployment("d".repeat(60)), post(&path, "{}")).await;
    assert_eq!(seen.uri.path().len(), path.len() - "?api-key=secret".len());
    assert_eq!(seen.uri.query(), None);
}

struct Tokens;

impl tower_spillover::backend::TokenSource for Tokens {
    fn token(&self) -> TokenFuture {
        TokenFuture::ready(AccessToken::new("a-token").unwrap())
    }
}

#[tokio::test]
async fn passthrough_keeps_the_callers_credentials_and_still_changes_the_address() {
    let backend = Backend::new("b", "https://b.example").unwrap();
    let seen = received(backend.credential(Credential::passthrough()), laden()).await;
    assert_eq!(seen.uri.authority().unwrap(), "b.example");
    assert_eq!(seen.headers.get_all("api-key").iter().count(), 2);
    assert_eq!(seen.headers.get_all("authorization").iter().count(), 2);
    assert_eq!(seen.headers.get_all("host").iter().collect::<Vec<_>>(), ["b.example"]);
    assert_eq!(seen.header("ocp-apim-subscription-key"), None);
    assert_eq!(seen.header("x-ms-spillover-deployment"), None);
}

#[tokio::test]
async fn a_request_without_a_host_header_gets_none() {
    assert_eq!(received(sweden(), request()).await.header("host"), None);
}

#[tokio::test]
async fn both_url_grammars_are_addressed() {
    for (given, sent) in [
        (
            "/openai/deployments/gpt-4o/chat/completions?api-version=2023-05-15",
            "/base/openai/deployments/chat%2F4/chat/completions?api-version=2024-10-21",
        ),
        (
            "/openai/deployments/chat/chat/completions?a=1&api-version=x&b",
            "/base/openai/deployments/chat%2F4/chat/completions?a=1&api-version=2024-10-21&b",
        ),
        (
            "https://gateway.example/azure/openai/deployments/x/embeddings",
            "/base/openai/deployments/chat%2F4/embeddings?api-version=2024-10-21",
        ),
        ("/openai/responses?api-version=1", "/base/openai/responses?api-version=2024-10-21"),
        ("/openai/v1/chat/completions", "/base/openai/v1/chat/completions"),
        (
            "/openai/v1/responses?api-version=preview",
            "/base/openai/v1/responses?api-version=preview",
        ),
    ] {
        let backend = sweden().deployment("chat/4").api_version("2024-10-21");
        let seen = received(backend, post(given, "{}")).await;
        assert_eq!(seen.uri.path_and_query().unwrap(), sent, "{given}");
        assert_eq!(seen.host(), "sweden.example");
    }
}

#[tokio::test]
async fn a_v1_body_names_the_deployment_of_each_backend_with_its_length() {
    const BODY: &str = r#"{ "input": "gpt", "model" : "gpt" }"#;
    let leaf = Leaf::new(|seen| if seen.index == 0 { Answer::refused(1) } else { Answer::ok() });
    let backends = [
        sweden().deployment("gpt-in-\"sweden\""),
        Backend::new("b", "https://b.example").unwrap().api_key("k").deployment("g"),
    ];
    let mut request = post("/openai/v1/responses", BODY);
    request.headers_mut().insert("content-length", BODY.len().into());
    let service = RegionRotateLayer::new(pool(backends)).layer(leaf.clone());
    ReplayLayer::new(1_000).layer(service).oneshot(request).await.unwrap();
    let bodies = [
        r#"{ "input": "gpt", "model" : "gpt-in-\"sweden\"" }"#,
        r#"{ "input": "gpt", "model" : "g" }"#,
    ];
    for (seen, body) in leaf.seen().iter().zip(bodies) {
        assert_eq!(seen.body, body);
        assert_eq!(seen.header("content-length"), Some(&*body.len().to_string()));
    }
}

#[tokio::test]
async fn a_backend_without_a_deployment_keeps_the_callers() {
    let seen = received(sweden(), post("/openai/v1/responses", r#"{"model":"theirs"}"#)).await;
    assert_eq!(seen.body, r#"{"model":"theirs"}"#);
    let seen = received(sweden(), request()).await;
    assert_eq!(seen.uri.path_and_query().unwrap(), &*format!("/base{CLASSIC}"));
}

#[tokio::test]
async fn the_image_deployment_is_the_backends_where_the_caller_names_one() {
    let name = "x-ms-oai-image-generation-deployment";
    let mut naming = request();
    naming.headers_mut().append(name, "theirs".parse().unwrap());
    naming.headers_mut().append(name, "theirs too".parse().unwrap());
    let seen = received(sweden().image_deployment("ours"), naming.clone()).await;
    assert_eq!(seen.headers.get_all(name).iter().collect::<Vec<_>>(), ["ours"]);
    assert_eq!(received(sweden().image_deployment("ours"), request()).await.header(name), None);
    assert_eq!(received(sweden(), naming).await.headers.get_all(name).iter().count(), 2);
}

#[tokio::test]
async fn two_deployments_of_one_resource_change_the_deployment_only() {
    let leaf =
        Leaf::new(|seen| if seen.index == 0 { Answer::refused(9_000) } else { Answer::ok() });
    let layer = SmartFallbackLayer::deployments("the ptu", "standard").unwrap();
    let mut request = laden();
    *request.uri_mut() = Uri::from_static("https://a.example/openai/deployments/x/embeddings?q=1");
    let given = lines(request.headers()).len();
    let response = layer.layer(leaf.clone()).oneshot(request).await.unwrap();
    let uris: Vec<_> = leaf.seen().iter().map(|seen| seen.uri.to_string()).collect();
    let base = "https://a.example/openai/deployments";
    assert_eq!(
        uris,
        [format!("{base}/the%20ptu/embeddings?q=1"), format!("{base}/standard/embeddings?q=1")]
    );
    assert!(leaf.seen().iter().all(|seen| seen.headers.len() == given));
    let served = crate::leaf::account(&response);
    assert_eq!(crate::leaf::asked(served), [("the ptu", 0), ("standard", 0)]);
}

#[derive(Clone, Debug)]
struct Case {
    /// For each backend: whether it has a key (or a token), and whether it is in the first tier.
    backends: Vec<(bool, bool)>,
    requests: Vec<(usize, bool)>,
    /// The milliseconds for which the nth attempt is refused; 0 serves it.
    refusals: Vec<u64>,
}

const URIS: [&str; 4] = [
    CLASSIC,
    "https://evil.example:8/openai/v1/responses",
    "//evil.example/x?api-key=stray",
    "/openai",
];

fn cases() -> impl Strategy<Value = Case> {
    (
        prop::collection::vec(any::<(bool, bool)>(), 1..6),
        prop::collection::vec((0..URIS.len(), any::<bool>()), 1..12),
        prop::collection::vec(prop_oneof![Just(0), 1..3_000_u64, Just(86_400_000)], 1..20),
    )
        .prop_map(|(backends, requests, refusals)| Case { backends, requests, refusals })
}

/// All credentials of a request.
fn proof(headers: &HeaderMap) -> String {
    let of_caller = |name: &str| {
        ["api-key", "authorization", "cookie", "proxy-authorization"].contains(&name)
            || name.starts_with("ocp-apim")
    };
    let proofs = headers.iter().filter(|(name, _)| of_caller(name.as_str()));
    proofs.map(|(name, value)| format!("{name}={} ", value.to_str().unwrap())).collect()
}

struct Fixed(String);

impl tower_spillover::backend::TokenSource for Fixed {
    fn token(&self) -> TokenFuture {
        let token = AccessToken::new(&self.0);
        if self.0.len().is_multiple_of(2) {
            TokenFuture::ready(token.unwrap())
        } else {
            TokenFuture::fetching(async { token })
        }
    }
}

/// The backends of the two tiers, and the expected request at each authority.
fn configured(case: &Case) -> ([Vec<Backend>; 2], BTreeMap<String, String>) {
    let (mut tiers, mut proofs) = ([Vec::new(), Vec::new()], BTreeMap::new());
    for (index, &(keyed, in_first)) in case.backends.iter().enumerate() {
        let (host, secret) = (format!("r{index}.example:8443"), format!("secret-{index:0>index$}"));
        let backend = Backend::new(format!("r{index}"), format!("https://{host}")).unwrap();
        let (backend, proof) = if keyed {
            (backend.api_key(&secret), format!("api-key={secret} "))
        } else {
            let proof = format!("authorization=Bearer {secret} ");
            (backend.bearer(Fixed(secret)), proof)
        };
        tiers[usize::from(in_first)].push(backend);
        proofs.insert(host, proof);
    }
    // If one tier is empty, the other one serves as both.
    let all: Vec<_> = tiers.iter().flatten().cloned().collect();
    let tiers = tiers.map(|tier| if tier.is_empty() { all.clone() } else { tier });
    (tiers, proofs)
}

async fn pairs_are_configured(case: Case) -> Result<(), TestCaseError> {
    let (tiers, proofs) = configured(&case);
    let refusals = case.refusals;
    let leaf = Leaf::new(move |seen| match refusals[seen.index % refusals.len()] {
        0 => Answer::ok(),
        ms => Answer::refused(ms),
    });
    let [ptu, standard] = tiers.map(|tier| RegionRotateLayer::new(BackendPool::new(tier).unwrap()));
    let mut service = SmartFallbackLayer::new(ptu, standard).layer(leaf.clone());
    for (uri, is_laden) in case.requests {
        let mut request = if is_laden { laden() } else { request() };
        *request.uri_mut() = URIS[uri].parse().unwrap();
        let answer: Result<_, Broken> = through(&mut service, request).await;
        prop_assert!(answer.is_ok());
        pass(ms(500)).await;
    }
    for seen in leaf.seen() {
        let authority = seen.uri.authority().unwrap().to_string();
        prop_assert_eq!(proofs.get(&authority), Some(&proof(&seen.headers)));
        prop_assert!(!seen.uri.to_string().contains("stray"), "{}", seen.uri);
        let hosts: BTreeSet<_> = seen.headers.get_all("host").iter().collect();
        prop_assert!(hosts.iter().all(|host| *host == &authority), "{:?}", hosts);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_key_goes_to_its_own_authority_and_nowhere_else(case in cases()) {
        crate::clock::paused(pairs_are_configured(case))?;
    }
}
