//! Tokens that a resource rejects.

use std::sync::atomic::AtomicBool;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_storm_of_rejections_is_one_fetch_and_a_token_that_was_replaced_stays() {
    let (source, authority) = tokens(3_600, &[]);
    let first = source.token().await.expect("a token");
    let again = join_all((0..100).map(|_| {
        source.rejected(&first);
        source.token()
    }));
    let second = again.await.pop().expect("a hundred").expect("a token");
    assert!(second != first);
    source.rejected(&first);
    source.token().await.expect("a token");
    assert_eq!(fetches(&authority), 2);
    assert_eq!(authority.opened.load(Ordering::Relaxed), 2, "one at first, and one for the storm");

    source.rejected(&second);
    source.token().await.expect("a token");
    assert_eq!(fetches(&authority), 2, "no token helps, it seems");
    rest(Duration::from_secs(60)).await;
    source.rejected(&second);
    source.token().await.expect("a token");
    assert_eq!(fetches(&authority), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_asked_for_while_the_credential_changes_is_of_the_new_one() {
    /// Always returns the same token.
    #[derive(Debug)]
    struct Fixed(&'static str);

    #[async_trait]
    impl TokenCredential for Fixed {
        async fn get_token(
            &self,
            _: &[&str],
            _: Option<TokenRequestOptions<'_>>,
        ) -> azure_core::Result<SdkToken> {
            Ok(SdkToken::new(self.0, OffsetDateTime::now_utc() + Duration::from_secs(3_600)))
        }
    }

    let (asked, is_asked) = std::sync::mpsc::channel();
    let is_asked = Mutex::new(is_asked);
    let (opens, is_opening) = tokio::sync::oneshot::channel();
    let opens = Mutex::new(Some(opens));
    let opened = AtomicUsize::new(0);
    let source = EntraTokens::opened_by(move || {
        if opened.fetch_add(1, Ordering::Relaxed) == 0 {
            return Ok::<_, ()>(Arc::new(Fixed("old")) as Arc<dyn TokenCredential>);
        }
        if let Some(opens) = lock(&opens).take() {
            let _ = opens.send(());
        }
        // Blocks until the next request, and a moment longer.
        let _ = lock(&is_asked).recv();
        std::thread::sleep(Duration::from_millis(50));
        Ok(Arc::new(Fixed("new")) as Arc<dyn TokenCredential>)
    })
    .expect("it opens");
    let old = source.token().await.expect("a token");
    let other = source.clone();
    let rejecting = tokio::task::spawn_blocking(move || other.rejected(&old));
    let other = source.clone();
    let asking = tokio::spawn(async move {
        is_opening.await.expect("the rejection is in progress");
        asked.send(()).expect("it is waited for");
        other.token().await
    });
    rejecting.await.expect("it ends");
    let token = asking.await.expect("it ends").expect("a token");
    assert!(token == AccessToken::new("new").expect("a token"));
}

#[tokio::test(start_paused = true)]
async fn a_token_stays_where_no_other_credential_can_be_made() {
    let is_first = AtomicBool::new(true);
    let (_, authority) = tokens(3_600, &[]);
    let shared = Arc::clone(&authority);
    let source = EntraTokens::opened_by(move || {
        let credential = Arc::clone(&shared) as Arc<dyn TokenCredential>;
        if is_first.swap(false, Ordering::Relaxed) { Ok(credential) } else { Err(()) }
    });
    let source = source.expect("it opens").scope("scope");
    let token = source.token().await.expect("a token");
    source.rejected(&token);
    assert!(source.token().await.expect("a token") == token);
    assert_eq!(fetches(&authority), 1);
}
