//! Callers that disconnect: nothing of their requests continues.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, channel::mpsc};
use http::Request;
use http_body::Frame;
use http_body_util::StreamBody;
use spillover_emulator::{Deployment, Pace, Ptu, Standard};
use tower::{ServiceBuilder, ServiceExt};
use tower_spillover::{RegionRotateLayer, ReplayLayer};

use crate::{
    azure::{Azure, PTU, STANDARD, refused_for},
    clock::{pause, until},
    protocol::BOTH,
    stack::{CLASSIC, attempts, chat, send, stack},
};

const EAST_PTU: &str = "east/gpt-4o-ptu";
const EAST: &str = "east/gpt-4o";

#[tokio::test]
async fn a_caller_that_leaves_while_waiting_leaves_no_trace() {
    for protocol in BOTH {
        let azure = Azure::open(&["east"]).await;
        let stack = stack(protocol, azure.pool([EAST_PTU]), azure.pool([EAST]));
        azure.script(EAST_PTU, [refused_for(150)]);
        let waiting = tokio::spawn(stack.clone().oneshot(chat()));
        until(|| azure.attempts() == 1).await;
        pause(30).await;
        waiting.abort();
        pause(200).await;
        let counts = azure.emulator.stats().total();
        assert_eq!((counts.attempts, counts.admitted), (1, 0), "{protocol:?}");
        assert_eq!(azure.emulator.level("east", PTU), 0.0);
        assert_eq!(attempts(&send(&stack, chat()).await), [(EAST_PTU, 200)], "{protocol:?}");
    }
}

#[tokio::test]
async fn a_caller_that_leaves_during_an_attempt_ends_it_and_starts_no_other() {
    for protocol in BOTH {
        let pace = Pace { first_token: Duration::from_secs(30), per_token: Duration::ZERO };
        let azure = Azure::with(&["east"], |resource| {
            resource
                .deployment(Deployment::ptu(PTU, Ptu::new(1e8)).pace(pace))
                .deployment(Deployment::standard(STANDARD, Standard::unlimited()))
        })
        .await;
        let stack = stack(protocol, azure.pool([EAST_PTU]), azure.pool([EAST]));
        let attempt = tokio::spawn(stack.clone().oneshot(chat()));
        until(|| azure.counts(EAST_PTU).admitted == 1).await;
        attempt.abort();
        until(|| azure.counts(EAST_PTU).abandoned == 1).await;
        assert_eq!(azure.attempts(), 1, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_caller_that_leaves_while_its_prompt_arrives_reaches_nobody() {
    for protocol in BOTH {
        let azure = Azure::open(&["east"]).await;
        let service = ServiceBuilder::new()
            .layer(ReplayLayer::new(1 << 20))
            .layer(RegionRotateLayer::new(azure.pool([EAST])))
            .service(protocol.client());
        let (mut sender, receiver) = mpsc::channel(0);
        let request = Request::post(CLASSIC).body(StreamBody::new(receiver)).unwrap();
        let uploading = tokio::spawn(service.oneshot(request));
        let half = Ok::<_, std::io::Error>(Frame::data(Bytes::from(r#"{"messages": ["#)));
        sender.send(half).await.unwrap();
        uploading.abort();
        until(|| sender.is_closed()).await;
        pause(20).await;
        assert!(azure.emulator.received().is_empty(), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_hundred_waiting_callers_leave_at_once_and_the_next_one_is_served() {
    for protocol in BOTH {
        let azure = Azure::open(&["east"]).await;
        let stack = stack(protocol, azure.pool([EAST_PTU]), azure.pool([EAST]));
        azure.script(EAST_PTU, [refused_for(250)]);
        // The first one learns of the refusal; the others wait for the same instant.
        let first = tokio::spawn(stack.clone().oneshot(chat()));
        until(|| azure.attempts() == 1).await;
        pause(20).await;
        let others: Vec<_> =
            (0..100).map(|_| tokio::spawn(stack.clone().oneshot(chat()))).collect();
        pause(50).await;
        for caller in others.iter().chain([&first]) {
            caller.abort();
        }
        pause(250).await;
        assert_eq!(azure.attempts(), 1, "{protocol:?}");
        assert_eq!(attempts(&send(&stack, chat()).await), [(EAST_PTU, 200)], "{protocol:?}");
    }
}
