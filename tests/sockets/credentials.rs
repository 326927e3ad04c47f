//! Which key goes where: each resource has its own, and everything that arrives is inspected.

use bytes::Bytes;
use futures::future::join_all;
use http::{Response, StatusCode};
use http_body_util::Full;
use spillover_emulator::{Deployment, Fault, Ptu, Received, Standard};
use tower::ServiceExt;
use tower_spillover::{
    BackendPool,
    backend::{AccessToken, TokenFuture, TokenSource},
};

use crate::{
    azure::{Azure, PTU, STANDARD, backend_at, key_of, refused_for},
    clock::soon,
    protocol::{BOTH, Protocol},
    stack::{Ask, Stack, attempts, chat, chat_v1, rotation, send, stack},
    witness::Witness,
};

const RESOURCES: [&str; 4] = ["east", "sweden", "japan", "entra"];
const TOKEN: &str = "token-of-entra";

/// The caller's credentials, which no backend here may see.
const CALLERS: [(&str, &str); 6] = [
    ("api-key", "callers-key"),
    ("authorization", "Bearer callers-token"),
    ("cookie", "session=callers-cookie"),
    ("ocp-apim-subscription-key", "callers-subscription"),
    ("x-ms-spillover-deployment", "callers-deployment"),
    ("host", "callers.example"),
];

struct Entra;

impl TokenSource for Entra {
    fn token(&self) -> TokenFuture {
        TokenFuture::fetching(async {
            tokio::task::yield_now().await;
            AccessToken::new(TOKEN)
        })
    }
}

/// Four resources, one of which takes a token and no key.
async fn four_resources() -> Azure {
    Azure::with(&RESOURCES, |resource| {
        resource
            .token(TOKEN)
            .deployment(Deployment::ptu(PTU, Ptu::new(1e8)))
            .deployment(Deployment::standard(STANDARD, Standard::unlimited()))
    })
    .await
}

fn everywhere(protocol: Protocol, azure: &Azure) -> Stack {
    let standard = BackendPool::new([
        azure.backend("east/gpt-4o"),
        azure.backend("sweden/gpt-4o"),
        azure.backend("entra/gpt-4o").bearer(Entra),
    ]);
    let ptu = azure.pool(["japan/gpt-4o-ptu", "east/gpt-4o-ptu"]);
    stack(protocol, ptu, standard.expect("a valid pool"))
}

/// A request that the caller meant for another resource.
fn from_elsewhere(request: Ask) -> Ask {
    let (mut head, body) = request.into_parts();
    head.uri = format!("http://callers.example{}", head.uri).parse().unwrap();
    for (name, value) in CALLERS {
        head.headers.append(name, value.parse().unwrap());
    }
    // A second value must not survive the first one.
    head.headers.append("api-key", key_of("sweden").parse().unwrap());
    Ask::from_parts(head, body)
}

#[tokio::test]
async fn under_rotation_and_spill_no_key_arrives_anywhere_but_at_its_own_resource() {
    for protocol in BOTH {
        let azure = four_resources().await;
        let stack = everywhere(protocol, &azure);
        for name in ["japan/gpt-4o-ptu", "east/gpt-4o-ptu"] {
            azure.script(name, [(); 12].map(|()| refused_for(7)));
        }
        for name in ["east/gpt-4o", "sweden/gpt-4o", "entra/gpt-4o"] {
            azure.script(name, [refused_for(3), Fault::pass(), refused_for(5), Fault::pass()]);
        }
        for round in 0..15 {
            let requests = (0..8).map(|n| {
                let mut request = if (n + round) % 2 == 0 { chat() } else { chat_v1() };
                if n % 3 == 0 {
                    let nothing = tower_spillover::MaxWait(std::time::Duration::ZERO);
                    request.extensions_mut().insert(nothing);
                }
                send(&stack, from_elsewhere(request))
            });
            for answer in join_all(requests).await {
                let fair = [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS];
                assert!(fair.contains(&answer.status()), "{protocol:?}: {answer:?}");
            }
        }
        let received = azure.emulator.received();
        for resource in RESOURCES {
            let reached = received.iter().any(|it| it.resource.as_deref() == Some(resource));
            assert!(reached, "{protocol:?}: {resource} must take part");
        }
        assert!(received.len() > 120, "some are sent again");
        received.iter().for_each(|request| assert_only_its_own(&azure, request));
        let stats = azure.emulator.stats();
        assert_eq!((stats.misplaced, stats.unauthorized, stats.unrouted), (0, 0, 0));
    }
}

#[track_caller]
fn assert_only_its_own(azure: &Azure, request: &Received) {
    let resource = request.resource.as_deref().expect("a resource");
    let (own, other) = match resource {
        "entra" => (("authorization", format!("Bearer {TOKEN}")), "api-key"),
        _ => (("api-key", key_of(resource)), "authorization"),
    };
    let values: Vec<_> = request.headers.get_all(own.0).iter().collect();
    assert_eq!(values, [own.1.as_str()], "at {resource}");
    assert!(!request.headers.contains_key(other), "at {resource}");
    if let Some(host) = request.headers.get("host") {
        assert_eq!(host, &azure.addr(resource).to_string(), "at {resource}");
    }
    let strange = RESOURCES.into_iter().filter(|name| *name != resource).map(key_of);
    let token = (resource != "entra").then(|| TOKEN.to_owned());
    let mut everything = format!("{} ", request.path_and_query).into_bytes();
    everything.extend_from_slice(&request.body);
    for (name, value) in &request.headers {
        everything.extend_from_slice(format!("\n{name}: ").as_bytes());
        everything.extend_from_slice(value.as_bytes());
    }
    let everything = String::from_utf8_lossy(&everything);
    for secret in strange.chain(token).chain(["callers".to_owned()]) {
        assert!(!everything.contains(&secret), "{secret} at {resource}: {everything}");
    }
}

fn answers(status: u16, header: (&'static str, String)) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header(header.0, header.1);
    response.body(Full::default()).unwrap()
}

#[tokio::test]
async fn host_and_authority_agree_on_every_attempt() {
    for protocol in BOTH {
        let refusing = Witness::start(|_| answers(429, ("retry-after", "9".to_owned()))).await;
        let serving = Witness::start(|_| answers(200, ("x-here", "1".to_owned()))).await;
        let pool = BackendPool::new([
            backend_at("refusing/gpt-4o", refusing.addr),
            backend_at("serving/gpt-4o", serving.addr).priority(2),
        ])
        .unwrap();
        for request in [from_elsewhere(chat()), from_elsewhere(chat_v1()), chat()] {
            let answer = send(&rotation(protocol, pool.clone()), request).await;
            assert_eq!(answer.status(), StatusCode::OK, "{protocol:?}");
        }
        assert_eq!((refusing.heads().len(), serving.heads().len()), (1, 3));
        for witness in [refusing, serving] {
            for head in witness.heads() {
                let authority = head.uri.authority().map(ToString::to_string);
                let host = head.headers.get("host").map(|host| host.to_str().unwrap().to_owned());
                let here = Some(witness.addr.to_string());
                match protocol {
                    Protocol::Http1 => assert_eq!((authority, host), (None, here)),
                    Protocol::Http2 => {
                        assert_eq!(authority, here);
                        assert!(host.is_none() || host == here, "{host:?} is not {here:?}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_redirect_is_the_callers_and_no_key_follows_it() {
    for protocol in BOTH {
        let elsewhere = Witness::start(|_| answers(200, ("x-here", "1".to_owned()))).await;
        let target = format!("http://{}/openai/v1/chat/completions", elsewhere.addr);
        let redirecting = Witness::start(move |_| answers(307, ("location", target.clone()))).await;
        let pool = BackendPool::new([
            backend_at("redirecting/gpt-4o", redirecting.addr),
            backend_at("elsewhere/gpt-4o", elsewhere.addr).priority(2),
        ])
        .unwrap();
        let answer = send(&rotation(protocol, pool), chat()).await;
        assert_eq!(attempts(&answer), [("redirecting/gpt-4o", 307)], "{protocol:?}");
        assert!(elsewhere.heads().is_empty(), "{protocol:?}");
    }
}

#[tokio::test]
async fn an_error_of_the_client_names_no_key() {
    for protocol in BOTH {
        let azure = Azure::open(&["east"]).await;
        azure.script("east/gpt-4o", [Fault::reset()]);
        let stack = rotation(protocol, azure.pool(["east/gpt-4o"]));
        let error = soon(stack.oneshot(from_elsewhere(chat()))).await.expect_err("the reset");
        let printed = format!("{error:?} {error}");
        assert!(!printed.contains("key-of") && !printed.contains("callers"), "{printed}");
    }
}
