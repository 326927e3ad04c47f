//! Lessons 12 to 14, over sockets: refusals of streams, before and after their first event.

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use spillover_testing::corpus::Sample;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, InspectLayer, RegionRotateLayer, ResponseBody, SmartFallbackLayer,
};

use crate::{
    azure::{Azure, refused_for},
    clock::{ms, soon},
    protocol::{BOTH, Client, Protocol},
    raw::Raw,
    stack::{Ask, attempts, read, send, stack, stream},
};

/// The request that this file answers.
fn asking(sample: &Sample) -> Ask {
    let body = Full::from(r#"{"model":"gpt-4o","stream":true}"#);
    Request::post(&sample.path).header("content-type", "application/json").body(body).unwrap()
}

/// Backends `a` and `b`, of which `a` is preferred.
struct Two {
    pool: BackendPool,
    servers: [Raw; 2],
}

impl Two {
    async fn saying(a: &Sample, b: &Sample) -> Self {
        let servers = [Raw::saying([a.wire()]).await, Raw::saying([b.wire()]).await];
        let pool = BackendPool::new([backend("a", &servers[0]), backend("b", &servers[1])]);
        Self { pool: pool.unwrap(), servers }
    }

    async fn ask(&self, request: Ask) -> Answer {
        let rotate = RegionRotateLayer::new(self.pool.clone());
        let client: Client<_> = Protocol::Http1.client();
        let layers = ServiceBuilder::new().layer(rotate).layer(InspectLayer::new());
        soon(layers.service(client).oneshot(request)).await.unwrap()
    }
}

fn backend(name: &str, server: &Raw) -> Backend {
    let backend = Backend::new(name, format!("http://{}", server.addr)).unwrap();
    backend.api_key("key").priority(u32::from(name == "b"))
}

type Answer = Response<ResponseBody<ResponseBody<Incoming>>>;

async fn whole(answer: Answer) -> Vec<u8> {
    soon(answer.into_body().collect()).await.unwrap().to_bytes().to_vec()
}

// Streams do not fall back; a refusal in the middle of one spins.
#[tokio::test]
async fn lesson_12_a_stream_falls_back_before_its_first_event_and_never_after() {
    for protocol in BOTH {
        let azure = Azure::open(&["east"]).await;
        let pools = (azure.pool(["east/gpt-4o-ptu"]), azure.pool(["east/gpt-4o"]));
        azure.script("east/gpt-4o-ptu", [refused_for(9_000)]);
        let answer = send(&stack(protocol, pools.0, pools.1), stream(5)).await;
        assert_eq!(attempts(&answer), [("east/gpt-4o-ptu", 429), ("east/gpt-4o", 200)]);
        assert!(read(answer).await.ends_with(b"data: [DONE]\n\n"), "{protocol:?}");
    }
    for name in ["stream-error-later.http", "chat-stream-error-later.http"] {
        let (later, served) = (Sample::named(name), Sample::named("stream-served.http"));
        let two = Two::saying(&later, &served).await;
        let answer = two.ask(asking(&later)).await;
        assert_eq!(attempts(&answer), [("a", 200)], "{name}");
        assert!(whole(answer).await == later.body, "{name}: as it came, the error included");
    }
}

// A 429 within an HTTP 200 stream is treated as a success.
#[tokio::test]
async fn lesson_13_a_refusal_within_a_200_is_a_refusal() {
    let hidden = Sample::all().into_iter();
    let hidden =
        hidden.filter(|sample| sample.status() == 200 && sample.verdict.starts_with("429"));
    let hidden: Vec<_> = hidden.collect();
    assert!(hidden.len() > 10, "the corpus has them");
    let served = Sample::named("stream-served.http");
    for refused in hidden {
        let two = Two::saying(&refused, &served).await;
        let answer = two.ask(asking(&refused)).await;
        assert_eq!(attempts(&answer), [("a", 429), ("b", 200)], "{}", refused.name);
        assert!(whole(answer).await == served.body, "{}: one stream, whole", refused.name);
    }
}

// The refusal of a stream does not reach the memory of who is well.
#[tokio::test]
async fn lesson_14_the_refusal_of_a_stream_is_remembered_like_any_other() {
    let served = Sample::named("stream-served.http");
    for name in ["stream-retry-after.http", "stream-no-capacity.http", "body-no-capacity-wait.http"]
    {
        let refused = Sample::named(name);
        let two = Two::saying(&refused, &served).await;
        whole(two.ask(asking(&refused)).await).await;
        let (_, rest) = two.pool.cooldowns().next().unwrap();
        assert!(rest.is_some_and(|rest| rest > ms(3_000)), "{name}: {rest:?}");
        let answer = two.ask(asking(&refused)).await;
        assert_eq!(attempts(&answer), [("b", 200)], "{name}");
    }
    // The gate of a PTU remembers it too.
    let refused = Sample::named("stream-retry-after.http");
    let two = Two::saying(&refused, &served).await;
    let [a, b] = &two.servers;
    let alone = |name, server| BackendPool::new([backend(name, server)]).unwrap();
    let tiers = SmartFallbackLayer::new(
        RegionRotateLayer::new(alone("a", a)),
        RegionRotateLayer::new(alone("b", b)),
    );
    let tiers = tiers.max_wait(ms(500));
    for expected in [&[("a", 429), ("b", 200)][..], &[("b", 200)]] {
        let client: Client<_> = Protocol::Http1.client();
        let service = tiers.layer(InspectLayer::new().layer(client));
        let answer = soon(service.oneshot(asking(&refused))).await.unwrap();
        assert_eq!(attempts(&answer), expected);
    }
}
