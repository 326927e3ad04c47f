//! Request bodies that arrive while they are sent on: kept up to the limit, streamed above it.

use std::io;

use bytes::Bytes;
use futures::{SinkExt, channel::mpsc};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use hyper::body::Incoming;
use tower::{ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_spillover::{
    BackendPool, RegionRotateLayer, ReplayLayer, ResponseBody, SmartFallbackLayer,
};

use crate::{
    azure::{Azure, backend_at, refused_for},
    clock::{pause, soon, until},
    fault_proxy::{Proxy, Spoil},
    protocol::{BOTH, Error, Protocol},
    stack::{CLASSIC, attempts, served},
    witness::Witness,
};

const EAST_PTU: &str = "east/gpt-4o-ptu";
const EAST: &str = "east/gpt-4o";
const LIMIT: usize = 64 << 10;

type Chunk = Result<Frame<Bytes>, io::Error>;
type Upload = StreamBody<mpsc::Receiver<Chunk>>;
type Uploading = BoxCloneSyncService<Request<Upload>, Response<ResponseBody<Incoming>>, Error>;

fn uploading(protocol: Protocol, ptu: BackendPool, standard: BackendPool) -> Uploading {
    BoxCloneSyncService::new(
        ServiceBuilder::new()
            .layer(ReplayLayer::new(LIMIT))
            .layer(SmartFallbackLayer::new(
                RegionRotateLayer::new(ptu),
                RegionRotateLayer::new(standard),
            ))
            .service(protocol.client()),
    )
}

/// A prompt in the sender's hands.
struct Sender(mpsc::Sender<Chunk>);

impl Sender {
    async fn send(&mut self, text: impl Into<Bytes>) {
        soon(self.0.send(Ok(Frame::data(text.into())))).await.expect("somebody reads");
    }

    async fn fill(&mut self, chunks: usize) {
        for _ in 0..chunks {
            self.send(vec![b'a'; 8 << 10]).await;
        }
    }
}

/// A request whose body begins a message.
async fn upload() -> (Sender, Request<Upload>) {
    let (sender, receiver) = mpsc::channel(0);
    let request = Request::post(CLASSIC).body(StreamBody::new(receiver)).unwrap();
    (Sender(sender), request)
}

const BEGIN: &str = r#"{"messages": [{"role": "user", "content": ""#;
const END: &str = r#""}]}"#;

#[tokio::test]
async fn a_body_over_the_limit_is_sent_on_while_it_arrives_and_only_once() {
    for protocol in BOTH {
        let azure = Azure::open(&["east"]).await;
        azure.script(EAST_PTU, [refused_for(50)]);
        let proxy = Proxy::to(azure.addr("east"), Spoil::Nothing).await;
        let ptu = BackendPool::new([backend_at(EAST_PTU, proxy.addr)]).unwrap();
        let service = uploading(protocol, ptu, azure.pool([EAST]));
        for (expected, replayable) in [((EAST_PTU, 429), false), ((EAST_PTU, 200), false)] {
            let before = proxy.uploaded();
            let (mut sender, request) = upload().await;
            let answer = tokio::spawn(service.clone().oneshot(request));
            sender.send(BEGIN).await;
            sender.fill(20).await;
            until(|| proxy.uploaded() - before > 2 * LIMIT).await;
            assert!(!answer.is_finished(), "{protocol:?}: the prompt has no end yet");
            sender.fill(20).await;
            sender.send(END).await;
            drop(sender);
            let answer = soon(answer).await.unwrap().unwrap();
            assert_eq!(attempts(&answer), [expected], "{protocol:?}");
            assert_eq!(served(&answer).replayable(), replayable, "{protocol:?}");
            pause(60).await;
        }
        let length = BEGIN.len() + 40 * (8 << 10) + END.len();
        let received = azure.emulator.received();
        assert!(received.iter().all(|request| request.body.len() == length), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_goes_straight_to_the_fallback_while_the_primary_is_known_closed() {
    let azure = Azure::open(&["east"]).await;
    azure.script(EAST_PTU, [refused_for(30_000)]);
    let service = uploading(Protocol::Http1, azure.pool([EAST_PTU]), azure.pool([EAST]));
    for expected in [(EAST_PTU, 429), (EAST, 200)] {
        let (mut sender, request) = upload().await;
        let answer = tokio::spawn(service.clone().oneshot(request));
        sender.send(BEGIN).await;
        sender.fill(20).await;
        sender.send(END).await;
        drop(sender);
        let answer = soon(answer).await.unwrap().unwrap();
        assert_eq!(attempts(&answer), [expected]);
    }
}

#[tokio::test]
async fn a_short_body_of_unknown_length_is_kept_and_sent_again() {
    for protocol in BOTH {
        let azure = Azure::open(&["east"]).await;
        azure.script(EAST_PTU, [refused_for(30), refused_for(9_000)]);
        let service = uploading(protocol, azure.pool([EAST_PTU]), azure.pool([EAST]));
        let (mut sender, request) = upload().await;
        let answer = tokio::spawn(service.oneshot(request));
        sender.send(BEGIN).await;
        sender.send("hello").await;
        pause(20).await;
        assert_eq!(azure.attempts(), 0, "{protocol:?}: nothing is sent before the body is here");
        sender.send(END).await;
        drop(sender);
        let answer = soon(answer).await.unwrap().unwrap();
        assert_eq!(attempts(&answer), [(EAST_PTU, 429), (EAST_PTU, 429), (EAST, 200)]);
        let received = azure.emulator.received();
        assert_eq!(received.len(), 3);
        assert!(received.iter().all(|request| request.body == format!("{BEGIN}hello{END}")));
    }
}

#[tokio::test]
async fn a_length_over_the_limit_is_believed_before_the_body_arrives() {
    let azure = Azure::open(&["east"]).await;
    let proxy = Proxy::to(azure.addr("east"), Spoil::Nothing).await;
    let ptu = BackendPool::new([backend_at(EAST_PTU, proxy.addr)]).unwrap();
    let service = uploading(Protocol::Http1, ptu, azure.pool([EAST]));
    let (mut sender, mut request) = upload().await;
    let length = BEGIN.len() + 10 * (8 << 10) + END.len();
    request.headers_mut().insert("content-length", length.into());
    let answer = tokio::spawn(service.oneshot(request));
    sender.send(BEGIN).await;
    sender.fill(1).await;
    until(|| proxy.uploaded() > 8 << 10).await;
    sender.fill(9).await;
    sender.send(END).await;
    drop(sender);
    assert_eq!(attempts(&soon(answer).await.unwrap().unwrap()), [(EAST_PTU, 200)]);
}

#[tokio::test]
async fn a_body_that_fails_fails_the_request_and_reaches_no_deployment() {
    for protocol in BOTH {
        for chunks in [1, 20] {
            let azure = Azure::open(&["east"]).await;
            let service = uploading(protocol, azure.pool([EAST_PTU]), azure.pool([EAST]));
            let (mut sender, request) = upload().await;
            let answer = tokio::spawn(service.oneshot(request));
            sender.send(BEGIN).await;
            sender.fill(chunks).await;
            sender.0.send(Err(io::Error::other("the caller went away"))).await.unwrap();
            let error = soon(answer).await.unwrap().expect_err("no answer to half a prompt");
            assert!(!error.is_connect(), "{protocol:?}");
            pause(20).await;
            assert_eq!(azure.attempts(), 0, "{protocol:?}, {chunks} chunks");
        }
    }
}

#[tokio::test]
async fn a_refusal_that_comes_before_the_upload_ends_moves_the_kept_body_on() {
    let hasty = Witness::hasty(|_| {
        let refusal = Response::builder().status(429).header("retry-after-ms", "9000");
        refusal.body(Full::default()).unwrap()
    })
    .await;
    let azure = Azure::open(&["east"]).await;
    let ptu = BackendPool::new([backend_at("hasty/ptu", hasty.addr)]).unwrap();
    let service = uploading(Protocol::Http2, ptu, azure.pool([EAST]));
    let (mut sender, request) = upload().await;
    let answer = tokio::spawn(service.oneshot(request));
    sender.send(BEGIN).await;
    sender.fill(7).await;
    sender.send(END).await;
    drop(sender);
    let answer = soon(answer).await.unwrap().unwrap();
    assert_eq!(attempts(&answer), [("hasty/ptu", 429), (EAST, 200)]);
    let length = BEGIN.len() + 7 * (8 << 10) + END.len();
    assert_eq!(azure.emulator.received()[0].body.len(), length);
}
