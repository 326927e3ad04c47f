//! Access tokens as passwords of a fleet's store.

use std::sync::Arc;

use futures_core::future::BoxFuture;

use super::{AccessToken, TokenSource};
use crate::fleet::{PasswordSource, RedisStore};

impl RedisStore {
    /// Uses access tokens as passwords, as Azure Managed Redis wants them: the
    /// [`user`](Self::user) is then the object id of the identity, and the tokens are for the scope
    /// [`EntraTokens::REDIS`](crate::entra::EntraTokens::REDIS). Replaces a
    /// [`password`](Self::password).
    ///
    /// ```no_run
    /// # use std::sync::Arc;
    /// # use azure_core::credentials::TokenCredential;
    /// use tower_spillover::{entra::EntraTokens, fleet::RedisStore};
    ///
    /// # fn store(credential: Arc<dyn TokenCredential>) -> Result<(), tower_spillover::ConfigError> {
    /// let store = RedisStore::new("rediss://contoso.westeurope.redis.azure.net:10000")?
    ///     .user("00000000-0000-0000-0000-000000000000")
    ///     .tokens(EntraTokens::new(credential).scope(EntraTokens::REDIS));
    /// # drop(store);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The source is asked at each connection, for 30 s at most, and every two seconds from then on: once it
    /// returns another token, open connections are authenticated with that one. It has to return one
    /// before the last one ends, and has memory of it, as [`EntraTokens`](crate::entra::EntraTokens)
    /// has. A token that the store refuses is reported to [`TokenSource::rejected`]. Without a token the
    /// store is out of use, as with a wrong password. Sentinels get none.
    ///
    /// The source runs on the store's thread, in a tokio runtime of that thread.
    #[must_use]
    pub fn tokens(self, source: impl TokenSource) -> Self {
        self.passwords(Arc::new(Passwords(source)))
    }
}

/// Tokens as passwords.
struct Passwords<S>(S);

impl<S: TokenSource> PasswordSource for Passwords<S> {
    fn password(&self) -> BoxFuture<'static, Result<Box<str>, String>> {
        let token = self.0.token();
        Box::pin(async move {
            let token = token.await.map_err(|error| error.to_string())?;
            Ok(token.secret().into())
        })
    }

    fn rejected(&self, password: &str) {
        if let Ok(token) = AccessToken::new(password) {
            self.0.rejected(&token);
        }
    }
}
