//! Gates of a fleet, and what their requests tell about its store.

use std::time::Duration;

use http::{Request, Response};
use tower::{Layer, ServiceExt};
use tower_spillover::{Fleet, Gate, MaxWait, SmartFallback, SmartFallbackLayer, fleet::Local};

use crate::{
    clock::{ms, pass},
    leaf::{Answer, Leaf, Put, account, request},
};

/// A PTU that refuses its first request for 100 ms, and a fallback.
fn stack(fleet: &Fleet) -> SmartFallback<Leaf, Leaf> {
    let primary = Leaf::new(|seen| match seen.index {
        0 => Answer::refused(100),
        _ => Answer::ok(),
    });
    let layer = SmartFallbackLayer::new(Put(primary), Put(Leaf::new(|_| Answer::ok())));
    layer.gate(Gate::new().fleet(fleet, "ptu")).max_wait(ms(1_000)).layer(())
}

async fn sends<R>(
    stack: &SmartFallback<Leaf, Leaf>,
    max_wait: Duration,
    read: impl FnOnce(&Response<http_body_util::Full<bytes::Bytes>>) -> R,
) -> R {
    let mut request: Request<http_body_util::Full<bytes::Bytes>> = request();
    request.extensions_mut().insert(MaxWait(max_wait));
    read(&stack.clone().oneshot(request).await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_request_says_whether_its_gate_decided_without_the_store() {
    for is_up in [true, false] {
        let store = Local::new();
        let fleet = Fleet::new("prod", store.clone()).unwrap();
        let stack = stack(&fleet);
        let is_alone = |response: &Response<_>| {
            let served = account(response);
            assert_eq!(
                served.to_string().ends_with("gate without its fleet"),
                served.gate_was_alone(),
                "{served}"
            );
            served.gate_was_alone()
        };
        store.set_up(is_up);
        let first = tokio::spawn({
            let stack = stack.clone();
            async move { sends(&stack, ms(1_000), is_alone).await }
        });
        pass(ms(10)).await;
        // One waits, one spills at once.
        let waiting = sends(&stack, ms(1_000), is_alone);
        let spilled =
            sends(&stack, ms(20), |response| (is_alone(response), account(response).spilled()));
        let (waiting, spilled) = futures::join!(waiting, spilled);
        assert_eq!((first.await.unwrap(), waiting, spilled), (!is_up, !is_up, (!is_up, true)));
        pass(ms(60_000)).await;
        assert!(!sends(&stack, ms(1_000), is_alone).await, "an open PTU needs no decision");
    }
}
