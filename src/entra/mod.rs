//! Microsoft Entra ID tokens from the credentials of the Azure SDK.

mod fetch;
mod state;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use azure_core::credentials::TokenCredential;

use self::{
    fetch::Fetch,
    state::{Ask, State},
};
use crate::{
    Backend,
    backend::{AccessToken, TokenError, TokenFuture, TokenSource},
    clock,
};

/// Access tokens of Microsoft Entra ID, from a credential of the Azure SDK: any of
/// [`azure_identity`], or another [`TokenCredential`].
///
/// The first request fetches a token, and requests that arrive meanwhile share that fetch; later ones
/// are served from memory. A token is refreshed in the background before its end, by the smaller of
/// five minutes and a tenth of its lifetime, and is used until it ends, or until a resource rejects
/// it. A failed fetch is repeated after a second at the earliest, so that an outage of the authority
/// does not cause a fetch per request. Clones share the token: make one for all backends of a tenant.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use azure_core::credentials::TokenCredential;
/// use tower_spillover::{Backend, BackendPool, entra::EntraTokens};
///
/// # fn pool(credential: Arc<dyn TokenCredential>) -> Result<(), tower_spillover::ConfigError> {
/// // `DeveloperToolsCredential::new(None)?`, `ManagedIdentityCredential::new(None)?`, ...
/// let tokens = EntraTokens::new(credential);
/// let pool = BackendPool::new([
///     Backend::new("east", "https://contoso-east.openai.azure.com")?.entra(tokens.clone()),
///     Backend::new("sweden", "https://contoso-sweden.openai.azure.com")?.entra(tokens),
/// ])?;
/// # drop(pool);
/// # Ok(())
/// # }
/// ```
///
/// # Rejected tokens
///
/// The SDK's credentials cache their tokens until five minutes before the end, and cannot be made to
/// drop one. [`opened_by`](Self::opened_by) makes another credential after a rejection, at most once
/// a minute; the credential given to [`new`](Self::new) is called again, and may return the rejected
/// token.
///
/// # Cost
///
/// An attempt locks a mutex while it clones the token. Nothing is allocated while there is one.
///
/// # Runtime
///
/// Fetches are tasks of the tokio runtime that a request runs on. If that runtime shuts down, the
/// next request starts a new fetch.
///
/// [`azure_identity`]: https://docs.rs/azure_identity
#[derive(Clone)]
pub struct EntraTokens {
    config: Arc<Config>,
    shared: Arc<Shared>,
}

/// An event in the life of the tokens of an [`EntraTokens`], for a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenEvent<'a> {
    /// A resource rejected the token, which is replaced.
    Rejected,
    /// No token could be fetched, for this reason.
    Failed(&'a str),
}

#[derive(Clone)]
struct Config {
    scope: Arc<str>,
    open: Option<Open>,
    /// Text that must not appear in errors.
    secret: Option<Arc<str>>,
    on_event: Option<OnEvent>,
}

type Open = Arc<dyn Fn() -> Option<Arc<dyn TokenCredential>> + Send + Sync>;
type OnEvent = Arc<dyn Fn(TokenEvent<'_>) + Send + Sync>;

struct Shared {
    credential: Mutex<Arc<dyn TokenCredential>>,
    tokens: Mutex<Tokens>,
}

/// The current state, and the fetch that will change it.
#[derive(Default)]
struct Tokens {
    state: State,
    fetch: Option<Fetch>,
}

impl EntraTokens {
    /// The scope of Azure OpenAI in the public cloud, and the default.
    ///
    /// Source: Microsoft Learn, "How to configure Azure OpenAI with Microsoft Entra ID".
    pub const COGNITIVE_SERVICES: &'static str = "https://cognitiveservices.azure.com/.default";

    /// The scope of Azure Managed Redis and Azure Cache for Redis, for
    /// `RedisStore::tokens` (feature `redis`).
    ///
    /// Source: Microsoft Learn, "Use Microsoft Entra ID for cache authentication with Azure Managed
    /// Redis".
    pub const REDIS: &'static str = "https://redis.azure.com/.default";

    /// Tokens from `credential`, for [`COGNITIVE_SERVICES`](Self::COGNITIVE_SERVICES).
    pub fn new(credential: Arc<dyn TokenCredential>) -> Self {
        Self::with(credential, None)
    }

    /// Tokens from the credential that `open` makes, which is called again when a resource rejects a
    /// token. It must not block: requests wait for it.
    ///
    /// # Errors
    ///
    /// If `open` fails. If it fails later, the current token and credential remain in use.
    pub fn opened_by<E>(
        open: impl Fn() -> Result<Arc<dyn TokenCredential>, E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        let credential = open()?;
        Ok(Self::with(credential, Some(Arc::new(move || open().ok()))))
    }

    fn with(credential: Arc<dyn TokenCredential>, open: Option<Open>) -> Self {
        let scope = Self::COGNITIVE_SERVICES.into();
        let config = Arc::new(Config { scope, open, secret: None, on_event: None });
        Self { config, shared: Arc::new(Shared::new(credential)) }
    }

    /// The scope to request tokens for: a different one in a sovereign cloud, such as
    /// `https://cognitiveservices.azure.us/.default`, or `https://ai.azure.com/.default` for
    /// endpoints of Azure AI Foundry. Drops what is cached for another scope.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<Arc<str>>) -> Self {
        Arc::make_mut(&mut self.config).scope = scope.into();
        let credential = Arc::clone(&lock(&self.shared.credential));
        self.shared = Arc::new(Shared::new(credential));
        self
    }

    /// Text that must not appear in errors, such as a client secret: an authority may repeat what it
    /// was sent. By default errors are shown unchanged.
    #[must_use]
    pub fn secret(mut self, secret: impl Into<Arc<str>>) -> Self {
        let secret = Some(secret.into()).filter(|secret: &Arc<str>| !secret.is_empty());
        Arc::make_mut(&mut self.config).secret = secret;
        self
    }

    /// Calls `on_event` with every event in the life of the tokens. By default none is reported.
    #[must_use]
    pub fn on_event(mut self, on_event: impl Fn(TokenEvent<'_>) + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.config).on_event = Some(Arc::new(on_event));
        self
    }
}

impl Config {
    fn report(&self, event: TokenEvent<'_>) {
        if let Some(on_event) = &self.on_event {
            on_event(event);
        }
    }
}

impl Shared {
    fn new(credential: Arc<dyn TokenCredential>) -> Self {
        Self { credential: Mutex::new(credential), tokens: Mutex::default() }
    }
}

impl TokenSource for EntraTokens {
    fn token(&self) -> TokenFuture {
        let mut tokens = lock(&self.shared.tokens);
        match tokens.state.ask(clock::now()) {
            Ask::Held(token) => TokenFuture::ready(token),
            Ask::Refresh(token) => {
                drop(self.fetch(&mut tokens.fetch));
                TokenFuture::ready(token)
            }
            Ask::Fetch => TokenFuture::fetching(self.fetch(&mut tokens.fetch).token()),
            Ask::Failed(reason) => TokenFuture::fetching(async move { Err(failed(&reason)) }),
        }
    }

    /// Many requests may have used the token: the first that reports it drops it, and all share the
    /// fetch that follows.
    fn rejected(&self, token: &AccessToken) {
        // Locked until the other credential is in place: the current one has the rejected token, and
        // would return it for a minute.
        let mut tokens = lock(&self.shared.tokens);
        let now = clock::now();
        if !tokens.state.is_worth_rejecting(token, now) {
            return;
        }
        if let Some(open) = &self.config.open {
            let Some(credential) = open() else { return };
            *lock(&self.shared.credential) = credential;
        }
        tokens.state.reject(now);
        drop(tokens);
        self.config.report(TokenEvent::Rejected);
    }
}

impl From<Arc<dyn TokenCredential>> for EntraTokens {
    fn from(credential: Arc<dyn TokenCredential>) -> Self {
        Self::new(credential)
    }
}

impl<C: TokenCredential + 'static> From<Arc<C>> for EntraTokens {
    fn from(credential: Arc<C>) -> Self {
        Self::new(credential)
    }
}

impl Backend {
    /// Authenticates with tokens of Microsoft Entra ID, from a credential of `azure_identity` or
    /// from an [`EntraTokens`] that several backends share. Needs the feature `entra`.
    ///
    /// ```no_run
    /// # use std::sync::Arc;
    /// # use azure_core::credentials::TokenCredential;
    /// use tower_spillover::Backend;
    ///
    /// # fn backend(credential: Arc<dyn TokenCredential>) -> Result<(), tower_spillover::ConfigError> {
    /// // `ManagedIdentityCredential::new(None)?` for example
    /// let east = Backend::new("east", "https://contoso-east.openai.azure.com")?.entra(credential);
    /// # drop(east);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn entra(self, tokens: impl Into<EntraTokens>) -> Self {
        self.bearer(tokens.into())
    }
}

impl fmt::Debug for EntraTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntraTokens").field("scope", &self.config.scope).finish_non_exhaustive()
    }
}

fn failed(reason: &str) -> TokenError {
    TokenError::new(reason.to_owned())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
