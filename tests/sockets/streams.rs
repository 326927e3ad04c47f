//! Event streams: they are forwarded as they are generated, and never requested twice.

use std::time::Duration;

use http_body_util::BodyExt;
use spillover_emulator::{Deployment, Fault, Pace, Ptu, Standard};
use tower::ServiceBuilder;
use tower_spillover::{
    RegionRotateLayer,
    policy::{ErrorKind, MoveOn},
};

use crate::{
    azure::{Azure, PTU, STANDARD, refused_for},
    clock::{soon, until},
    protocol::{BOTH, Error, Protocol},
    stack::{Stack, attempts, read, send, stack, stream},
};

const EAST_PTU: &str = "east/gpt-4o-ptu";
const EAST: &str = "east/gpt-4o";

/// 20 ms from token to token.
async fn slow_speakers() -> Azure {
    let pace = Pace { first_token: Duration::ZERO, per_token: Duration::from_millis(20) };
    Azure::with(&["east", "sweden"], |resource| {
        resource
            .deployment(Deployment::ptu(PTU, Ptu::new(1e8)).pace(pace))
            .deployment(Deployment::standard(STANDARD, Standard::unlimited()).pace(pace))
    })
    .await
}

#[tokio::test]
async fn events_arrive_while_the_rest_is_still_being_generated() {
    for protocol in BOTH {
        let azure = slow_speakers().await;
        let stack = stack(protocol, azure.pool([EAST_PTU]), azure.pool([EAST]));
        // Waited for, then streamed; spilled, then streamed.
        azure.script(EAST_PTU, [refused_for(30), Fault::pass(), refused_for(9_000)]);
        for backend in [EAST_PTU, EAST] {
            let mut answer = send(&stack, stream(15)).await;
            assert_eq!(attempts(&answer).last(), Some(&(backend, 200)), "{protocol:?}");
            let mut events = 0;
            while azure.counts(backend).completion_tokens == 0 {
                let Some(frame) = soon(answer.body_mut().frame()).await else { break };
                let data = frame.unwrap().into_data().unwrap();
                events += data.windows(6).filter(|window| window == b"data: ").count();
            }
            assert!(events >= 10, "{protocol:?}: only {events} of 17 events before the end");
            let rest = read(answer).await;
            assert!(rest.ends_with(b"data: [DONE]\n\n"), "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_the_callers_even_where_every_error_rotates() {
    for protocol in BOTH {
        let azure = slow_speakers().await;
        azure.script(EAST, [Fault::cut_stream_after(3)]);
        let pool = azure.pool([EAST, "sweden/gpt-4o"]);
        pool.force_start(EAST).unwrap();
        let rotate = RegionRotateLayer::new(pool)
            .move_on(MoveOn::new().errors(|_: &Error| ErrorKind::Other).other());
        let service = ServiceBuilder::new().layer(rotate).service(protocol.client());
        let mut answer = send(&Stack::new(service), stream(15)).await;
        let mut received = 0;
        let broken = loop {
            match soon(answer.body_mut().frame()).await {
                Some(Ok(frame)) => received += frame.into_data().unwrap().len(),
                Some(Err(_)) => break true,
                None => break false,
            }
        };
        assert!(broken, "{protocol:?}: the end of the stream must not look like a good one");
        assert!(received > 0, "{protocol:?}: what came before the break is passed on");
        assert_eq!(azure.attempts(), 1, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_caller_that_leaves_a_stream_ends_it_upstream_too() {
    for protocol in BOTH {
        let azure = slow_speakers().await;
        let stack = stack(protocol, azure.pool([EAST_PTU]), azure.pool([EAST]));
        let mut answer = send(&stack, stream(100)).await;
        soon(answer.body_mut().frame()).await.unwrap().unwrap();
        drop(answer);
        until(|| azure.counts(EAST_PTU).abandoned == 1).await;
        assert!(azure.counts(EAST_PTU).completion_tokens < 50, "{protocol:?}");
        assert_eq!(azure.attempts(), 1, "{protocol:?}");
    }
}

#[tokio::test]
async fn streams_at_the_same_time_do_not_mix() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let azure = slow_speakers().await;
        let stack = stack(protocol, azure.pool([EAST_PTU]), azure.pool([EAST]));
        let ask = |tokens| {
            let stack = &stack;
            async move { read(send(stack, stream(tokens)).await).await }
        };
        let bodies = futures::future::join_all((1..=20).map(ask)).await;
        for (tokens, body) in (1usize..).zip(bodies) {
            let text = std::str::from_utf8(&body).unwrap();
            // The role, the tokens, the finish reason, the end.
            assert_eq!(text.matches("data: ").count(), tokens + 3, "{protocol:?}");
            let mut ids: Vec<_> = text.split("\"id\":\"").skip(1).map(|rest| &rest[..20]).collect();
            ids.dedup();
            assert_eq!(ids.len(), 1, "{protocol:?}: events of one answer only");
        }
    }
}
