//! Tokens of Microsoft Entra ID, from a credential of the Azure SDK to the resource.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use async_trait::async_trait;
use azure_core::{
    credentials::{AccessToken, TokenCredential, TokenRequestOptions},
    time::{Duration, OffsetDateTime},
};
use futures::future::join_all;
use spillover_emulator::{Deployment, Standard};
use tower_spillover::{BackendPool, entra::EntraTokens};

use crate::{
    azure::{Azure, STANDARD},
    protocol::BOTH,
    stack::{Stack, attempts, chat, rotation, send},
};

/// Returns `token-1`, `token-2` and so on, and caches them like the SDK's credentials.
#[derive(Debug)]
struct Credential {
    number: usize,
    fetches: Arc<AtomicUsize>,
}

#[async_trait]
impl TokenCredential for Credential {
    async fn get_token(
        &self,
        scopes: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        assert_eq!(scopes, [EntraTokens::COGNITIVE_SERVICES]);
        self.fetches.fetch_add(1, Relaxed);
        let expires_on = OffsetDateTime::now_utc() + Duration::hours(1);
        Ok(AccessToken::new(format!("token-{}", self.number), expires_on))
    }
}

/// Two resources that take `token` and no key.
async fn resources(token: &str) -> Azure {
    Azure::with(&["east", "sweden"], |resource| {
        resource.token(token).deployment(Deployment::standard(STANDARD, Standard::unlimited()))
    })
    .await
}

fn stack(protocol: crate::protocol::Protocol, azure: &Azure, tokens: &EntraTokens) -> Stack {
    let backends = ["east/gpt-4o", "sweden/gpt-4o"].map(|name| azure.backend(name));
    let pool = BackendPool::new(backends.map(|backend| backend.entra(tokens.clone())));
    rotation(protocol, pool.expect("a pool"))
}

#[tokio::test]
async fn many_requests_to_two_resources_are_sent_with_the_token_of_one_fetch() {
    for protocol in BOTH {
        let (azure, fetches) = (resources("token-1").await, Arc::<AtomicUsize>::default());
        let credential = Credential { number: 1, fetches: Arc::clone(&fetches) };
        let tokens = EntraTokens::from(Arc::new(credential));
        let stack = stack(protocol, &azure, &tokens);
        let answers = join_all((0..40).map(|_| send(&stack, chat()))).await;
        assert!(answers.iter().all(|answer| answer.status() == 200), "{protocol:?}");
        assert_eq!(fetches.load(Relaxed), 1, "{protocol:?}");
        for request in azure.emulator.received() {
            assert_eq!(request.headers["authorization"], "Bearer token-1");
            assert!(!request.headers.contains_key("api-key"));
        }
    }
}

#[tokio::test]
async fn a_rejected_token_is_replaced_by_that_of_another_credential_once_for_all() {
    for protocol in BOTH {
        let (azure, fetches) = (resources("token-2").await, Arc::<AtomicUsize>::default());
        let (opened, counted) = (AtomicUsize::new(0), Arc::clone(&fetches));
        let tokens = EntraTokens::opened_by(move || {
            let number = opened.fetch_add(1, Relaxed) + 1;
            let credential = Credential { number, fetches: Arc::clone(&counted) };
            Ok::<_, azure_core::Error>(Arc::new(credential) as Arc<dyn TokenCredential>)
        });
        let stack = stack(protocol, &azure, &tokens.expect("a credential"));
        let answers = join_all((0..40).map(|_| send(&stack, chat()))).await;
        for answer in &answers {
            assert_eq!(answer.status(), 200, "{protocol:?}: {:?}", attempts(answer));
        }
        assert_eq!(fetches.load(Relaxed), 2, "{protocol:?}: the first, and one for all");
    }
}
