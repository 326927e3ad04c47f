//! Requests that were not processed are sent again: to the same backend, once, at no cost.

use http::Request;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use tower::{Layer, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, LimitAttemptsLayer, RegionRotateLayer, TryCloneBody,
    policy::{ErrorKind, MoveOn, RetryBudget},
};

use crate::leaf::{Answer, Broken, CLASSIC, Leaf, UNREACHABLE, account, asked, request};

fn pool<const N: usize>(names: [&str; N]) -> BackendPool {
    let mut priority = 0;
    BackendPool::new(names.map(|name| {
        priority += 1;
        let backend = Backend::new(name, format!("https://{name}.example")).unwrap();
        backend.api_key("key").priority(priority)
    }))
    .unwrap()
}

/// Every error of the client means that nothing was processed.
fn unprocessed<X>(set: MoveOn<X>) -> MoveOn<fn(&Broken) -> ErrorKind> {
    set.errors(|_: &Broken| ErrorKind::Unprocessed)
}

#[tokio::test(start_paused = true)]
async fn it_goes_to_the_same_backend_again_and_counts_as_no_failure() {
    for names in [vec!["a"], vec!["a", "b"]] {
        let pool = match names[..] {
            ["a"] => pool(["a"]),
            _ => pool(["a", "b"]),
        };
        let leaf = Leaf::playing([Answer::broken(), Answer::ok()]);
        let set = unprocessed(MoveOn::none().budget(RetryBudget::new(0, 0.0)));
        let layer = RegionRotateLayer::new(pool.clone()).move_on(set);
        let response = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
        assert_eq!(asked(account(&response)), [("a", 0), ("a", 0)], "{names:?}");
        assert!(!account(&response).rotated());
        assert!(pool.failures().all(|(_, failures)| failures == 0));
        let [first, second] = &leaf.seen()[..] else { panic!("two attempts") };
        assert_eq!((&first.uri, &first.body), (&second.uri, &second.body));
    }
}

#[tokio::test(start_paused = true)]
async fn once_and_then_it_is_like_a_backend_that_cannot_be_reached() {
    let leaf = Leaf::new(|seen| match seen.host() {
        "a.example" => Answer::broken(),
        _ => Answer::ok(),
    });
    let layer = RegionRotateLayer::new(pool(["a", "b"])).move_on(unprocessed(MoveOn::new()));
    let response = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    assert_eq!(asked(account(&response)), [("a", 0), ("a", 0), ("b", 0)]);

    let layer = RegionRotateLayer::new(pool(["a", "b"])).move_on(unprocessed(MoveOn::none()));
    let error = layer.layer(leaf.clone()).oneshot(request()).await.unwrap_err();
    assert_eq!((error, leaf.len()), (Broken("reset by peer"), 5));
}

/// A client whose connections break in one way, or cannot be made.
fn breaking(kind: ErrorKind) -> impl Fn(&Broken) -> ErrorKind + Clone {
    move |error: &Broken| if *error == UNREACHABLE { ErrorKind::Connect } else { kind }
}

/// A server that closes a kept connection may have gone down while it held the request.
#[tokio::test(start_paused = true)]
async fn a_server_that_is_gone_when_it_is_asked_again_may_have_processed_it() {
    let client = || {
        Leaf::new(|seen| match (seen.host(), seen.index) {
            ("a.example", 0) => Answer::broken(),
            ("a.example", _) => Answer::unreachable(),
            _ => Answer::ok(),
        })
    };
    for (kind, set, served) in [
        (ErrorKind::ClosedOnReuse, MoveOn::new(), None),
        (ErrorKind::ClosedOnReuse, MoveOn::new().reset(), Some("b")),
        (ErrorKind::Unprocessed, MoveOn::new(), Some("b")),
    ] {
        let layer = RegionRotateLayer::new(pool(["a", "b"])).move_on(set.errors(breaking(kind)));
        let result = layer.layer(client()).oneshot(request()).await;
        let backend = result.as_ref().map(|response| account(response).backend());
        assert_eq!(backend, served.map(Some).ok_or(&UNREACHABLE), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_kept_connection_that_closes_is_replaced_once() {
    let leaf = Leaf::playing([Answer::broken(), Answer::ok()]);
    let set = MoveOn::none().errors(breaking(ErrorKind::ClosedOnReuse));
    let layer = RegionRotateLayer::new(pool(["a", "b"])).move_on(set.clone());
    let response = layer.layer(leaf).oneshot(request()).await.unwrap();
    assert_eq!(asked(account(&response)), [("a", 0), ("a", 0)]);

    let leaf = Leaf::playing([Answer::broken()]);
    let layer = RegionRotateLayer::new(pool(["a", "b"])).move_on(set);
    layer.layer(leaf.clone()).oneshot(request()).await.unwrap_err();
    assert_eq!(leaf.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_attempts_of_all_layers_together_are_not_exceeded() {
    for (limit, attempts) in [(1, 1), (2, 2)] {
        let leaf = Leaf::playing([Answer::broken()]);
        let layer = RegionRotateLayer::new(pool(["a"])).move_on(unprocessed(MoveOn::new()));
        let service = LimitAttemptsLayer::new(limit).layer(layer.layer(leaf.clone()));
        service.oneshot(request()).await.unwrap_err();
        assert_eq!(leaf.len(), attempts);
    }
    let leaf = Leaf::playing([Answer::broken()]);
    let layer = RegionRotateLayer::new(pool(["a"])).move_on(unprocessed(MoveOn::new()));
    layer.max_attempts(1).layer(leaf.clone()).oneshot(request()).await.unwrap_err();
    assert_eq!(leaf.len(), 1);
}

/// A body that cannot be sent twice.
#[derive(Debug)]
struct Once(UnsyncBoxBody<bytes::Bytes, std::convert::Infallible>);

impl http_body::Body for Once {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        std::pin::Pin::new(&mut self.0).poll_frame(cx)
    }
}

impl TryCloneBody for Once {
    fn try_clone(&self) -> Option<Self> {
        None
    }
}

#[tokio::test(start_paused = true)]
async fn only_where_the_body_can_be_sent_again() {
    let leaf = Leaf::playing([Answer::broken(), Answer::ok()]);
    let layer = RegionRotateLayer::new(pool(["a"])).move_on(unprocessed(MoveOn::new()));
    let body = Once(Full::from("{}").boxed_unsync());
    let request = Request::post(CLASSIC).body(body).unwrap();
    layer.layer(leaf.clone()).oneshot(request).await.unwrap_err();
    assert_eq!(leaf.len(), 1);
}
