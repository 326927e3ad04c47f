//! The source of bearer tokens: one small trait, called for every attempt.

use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::future::BoxFuture;
use http::HeaderValue;

type BoxError = Box<dyn Error + Send + Sync>;

/// A source of Microsoft Entra ID access tokens.
///
/// It is called for every attempt of every request. Caching and refreshing ahead of expiry are up to
/// the source: while it has a valid token, it returns [`TokenFuture::ready`], which costs nothing.
///
/// ```
/// use tower_spillover::backend::{AccessToken, TokenFuture, TokenSource};
///
/// struct Fixed(AccessToken);
///
/// impl TokenSource for Fixed {
///     fn token(&self) -> TokenFuture {
///         TokenFuture::ready(self.0.clone())
///     }
/// }
///
/// let source = Fixed(AccessToken::new("eyJ0eXAi")?);
/// assert_eq!(format!("{:?}", source.0), "AccessToken(..)");
/// # Ok::<(), tower_spillover::backend::TokenError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no source of access tokens",
    label = "not a `TokenSource`",
    note = "for a credential of `azure_identity` use `Backend::entra`, of the feature `entra`",
    note = "a token that never ends is a key: use `Backend::api_key`"
)]
pub trait TokenSource: Send + Sync + 'static {
    /// A token that is valid now, or will be once the future resolves.
    fn token(&self) -> TokenFuture;

    /// A resource rejected `token`, which came from this source, with a 401: the source should return
    /// another one from now on, if it can. The request is then sent once more to the same backend.
    ///
    /// Many requests may report the same token, so a source that fetches a new one should do so once
    /// for all of them, and not for a token that it has already replaced. Does nothing by default.
    fn rejected(&self, token: &AccessToken) {
        let _ = token;
    }
}

/// An access token, ready to be sent. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(HeaderValue);

/// A token that is ready or being fetched; returned by [`TokenSource::token`].
pub struct TokenFuture(TokenState);

enum TokenState {
    Ready(Option<AccessToken>),
    Fetching(BoxFuture<'static, Result<AccessToken, TokenError>>),
}

/// Why a token could not be obtained. The backend is deferred, and another one is tried.
#[derive(Debug)]
pub struct TokenError(BoxError);

impl AccessToken {
    /// A token as the token endpoint returned it, without `Bearer `.
    ///
    /// # Errors
    ///
    /// If it is empty or has characters that a header cannot carry.
    pub fn new(token: &str) -> Result<Self, TokenError> {
        if token.is_empty() {
            return Err(TokenError::new("the access token is empty"));
        }
        let mut value = HeaderValue::from_str(&format!("{BEARER}{token}")).map_err(|_| {
            TokenError::new("the access token has characters that a header cannot carry")
        })?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// The token itself.
    #[cfg(feature = "redis")]
    pub(super) fn secret(&self) -> &str {
        self.0.to_str().ok().and_then(|it| it.strip_prefix(BEARER)).unwrap_or_default()
    }

    pub(super) fn into_header(self) -> HeaderValue {
        self.0
    }
}

impl TokenFuture {
    /// A token that is available now. Does not allocate.
    pub const fn ready(token: AccessToken) -> Self {
        Self(TokenState::Ready(Some(token)))
    }

    /// A token that has to be fetched first.
    pub fn fetching(
        fetch: impl Future<Output = Result<AccessToken, TokenError>> + Send + 'static,
    ) -> Self {
        Self(TokenState::Fetching(Box::pin(fetch)))
    }

    pub(crate) const fn is_ready(&self) -> bool {
        matches!(self.0, TokenState::Ready(_))
    }

    /// The token, if it is available now.
    pub(crate) const fn get_ready(&self) -> Option<&AccessToken> {
        match &self.0 {
            TokenState::Ready(token) => token.as_ref(),
            TokenState::Fetching(_) => None,
        }
    }
}

impl Future for TokenFuture {
    type Output = Result<AccessToken, TokenError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            TokenState::Ready(token) => {
                Poll::Ready(Ok(token.take().expect("a token future is not polled again")))
            }
            TokenState::Fetching(fetch) => fetch.as_mut().poll(cx),
        }
    }
}

impl TokenError {
    /// Wraps the reason.
    pub fn new(reason: impl Into<BoxError>) -> Self {
        Self(reason.into())
    }

    /// Without the words that every such error begins with.
    #[cfg(feature = "entra")]
    pub(crate) fn reason(&self) -> &(dyn Error + Send + Sync) {
        &*self.0
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(..)")
    }
}

impl fmt::Debug for TokenFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            TokenState::Ready(_) => "TokenFuture::Ready(..)",
            TokenState::Fetching(_) => "TokenFuture::Fetching(..)",
        })
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no access token: {}", self.0)
    }
}

const BEARER: &str = "Bearer ";

impl Error for TokenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}
