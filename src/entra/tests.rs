//! A source of tokens under a paused clock.

mod rejected;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use azure_core::{
    credentials::{AccessToken as SdkToken, TokenRequestOptions},
    time::OffsetDateTime,
};
use futures::{FutureExt, future::join_all};

use super::*;

/// Each of its tokens lives for `lifetime`; the fetches numbered in `failing` fail.
#[derive(Debug)]
struct Authority {
    lifetime: Duration,
    failing: Vec<usize>,
    fetches: AtomicUsize,
    opened: AtomicUsize,
}

#[async_trait]
impl TokenCredential for Authority {
    async fn get_token(
        &self,
        scopes: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<SdkToken> {
        assert_eq!(scopes, ["scope"]);
        let number = self.fetches.fetch_add(1, Ordering::Relaxed) + 1;
        rest(Duration::from_millis(100)).await;
        if self.failing.contains(&number) {
            let kind = azure_core::error::ErrorKind::Credential;
            return Err(azure_core::Error::with_message(kind, "wrong secret canary-1"));
        }
        let expires_on = OffsetDateTime::now_utc() + self.lifetime;
        Ok(SdkToken::new(format!("token-{number}"), expires_on))
    }
}

fn tokens(lifetime: u64, failing: &[usize]) -> (EntraTokens, Arc<Authority>) {
    let authority = Arc::new(Authority {
        lifetime: Duration::from_secs(lifetime),
        failing: failing.to_vec(),
        fetches: AtomicUsize::new(0),
        opened: AtomicUsize::new(0),
    });
    let shared = Arc::clone(&authority);
    let open = move || {
        shared.opened.fetch_add(1, Ordering::Relaxed);
        Ok::<_, ()>(Arc::clone(&shared) as Arc<dyn TokenCredential>)
    };
    let tokens = EntraTokens::opened_by(open).expect("it opens").scope("scope").secret("canary-1");
    (tokens, authority)
}

#[expect(clippy::disallowed_methods, reason = "virtual time passes")]
async fn rest(duration: Duration) {
    tokio::time::sleep(duration).await;
}

fn fetches(authority: &Authority) -> usize {
    authority.fetches.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn a_hundred_requests_share_one_fetch_and_later_ones_make_none() {
    let (source, authority) = tokens(3_600, &[]);
    let tokens = join_all((0..100).map(|_| source.clone().token())).await;
    assert!(tokens.iter().all(Result::is_ok));
    source.token().await.expect("it is held");
    assert_eq!(fetches(&authority), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_goes_away_does_not_cut_off_the_others() {
    let (source, authority) = tokens(3_600, &[]);
    let first = source.token();
    let second = source.token();
    drop(first);
    second.await.expect("the fetch goes on");
    assert_eq!(fetches(&authority), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_nothing_waits_for_any_more_serves_the_next_request() {
    let (source, authority) = tokens(3_600, &[]);
    drop(source.token());
    rest(Duration::from_millis(101)).await;
    let served = source.token().now_or_never();
    served.expect("it is held").expect("a token");
    assert_eq!(fetches(&authority), 1);
}

#[test]
fn a_fetch_that_its_runtime_cut_off_is_begun_anew_on_the_next_one() {
    let (source, authority) = tokens(3_600, &[]);
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().expect("a runtime")
    };
    let mut waiting = None;
    runtime().block_on(async {
        waiting = Some(source.token());
        tokio::task::yield_now().await;
    });
    runtime().block_on(async {
        let error = waiting.expect("a future").await.map(drop).expect_err("its task is gone");
        assert_eq!(error.to_string(), "no access token: the fetch was cut off");
        source.token().await.expect("another fetch");
    });
    assert_eq!(fetches(&authority), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_refreshed_ahead_of_its_end_and_serves_meanwhile() {
    let (source, authority) = tokens(3_600, &[]);
    source.token().await.expect("a token");
    rest(Duration::from_secs(3_290)).await;
    source.token().await.expect("a token");
    assert_eq!(fetches(&authority), 1, "more than five minutes are left");
    rest(Duration::from_secs(20)).await;
    for _ in 0..10 {
        let served = source.token().now_or_never();
        assert!(served.expect("no request waits for a refresh").is_ok());
    }
    rest(Duration::from_secs(1)).await;
    assert_eq!(fetches(&authority), 2);
}

#[tokio::test(start_paused = true)]
async fn a_short_lived_token_is_refreshed_in_its_last_tenth() {
    let (source, authority) = tokens(100, &[]);
    source.token().await.expect("a token");
    rest(Duration::from_secs(88)).await;
    source.token().await.expect("a token");
    rest(Duration::from_secs(3)).await;
    source.token().await.expect("a token");
    rest(Duration::from_secs(1)).await;
    assert_eq!(fetches(&authority), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_leaves_the_valid_token_and_is_tried_again_a_second_later() {
    let (source, authority) = tokens(100, &[2]);
    source.token().await.expect("a token");
    rest(Duration::from_secs(91)).await;
    for (after, expected) in [(0, 2), (200, 2), (500, 2), (900, 3)] {
        rest(Duration::from_millis(after)).await;
        let served = source.token().now_or_never();
        assert!(served.expect("the token is still valid").is_ok());
        rest(Duration::from_millis(1)).await;
        assert_eq!(fetches(&authority), expected, "after {after} ms more");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_has_ended_is_never_given_out() {
    let (source, authority) = tokens(100, &[2]);
    source.token().await.expect("a token");
    rest(Duration::from_secs(101)).await;
    source.token().await.map(drop).expect_err("the second fetch fails");
    rest(Duration::from_secs(2)).await;
    source.token().await.expect("the third does not");
    assert_eq!(fetches(&authority), 3);
}

#[tokio::test(start_paused = true)]
async fn a_failure_answers_for_a_second_and_does_not_show_the_secret() {
    let (source, authority) = tokens(100, &[1, 2]);
    for expected in [1, 1, 1] {
        let error = source.token().await.map(drop).expect_err("it fails");
        assert_eq!(error.to_string(), "no access token: wrong secret (secret)");
        assert_eq!(fetches(&authority), expected);
    }
    rest(Duration::from_millis(1_001)).await;
    source.token().await.map(drop).expect_err("it fails once more");
    assert_eq!(fetches(&authority), 2);
    assert!(!format!("{source:?}").contains("canary"));
}

#[tokio::test(start_paused = true)]
async fn events_say_what_happened_to_the_tokens() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let (source, _) = tokens(3_600, &[2]);
    let seen = Arc::clone(&events);
    let source = source.on_event(move |event| lock(&seen).push(format!("{event:?}")));
    let first = source.token().await.expect("a token");
    source.rejected(&first);
    source.token().await.map(drop).expect_err("the second fetch fails");
    assert_eq!(*lock(&events), ["Rejected", r#"Failed("wrong secret (secret)")"#]);
}

/// A credential that never answers.
#[derive(Debug)]
struct Silent;

#[async_trait]
impl TokenCredential for Silent {
    async fn get_token(
        &self,
        _: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<SdkToken> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_never_answers_is_waited_for_25_s() {
    let source = EntraTokens::from(Arc::new(Silent));
    let begun = clock::now();
    let error = source.token().await.map(drop).expect_err("none comes");
    assert_eq!(error.to_string(), "no access token: none came within 25 s");
    assert_eq!((clock::now() - begun).as_secs(), 25);
}
