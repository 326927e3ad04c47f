//! Passwords that end, such as access tokens: which one a connection has, and the next one.

use std::{sync::Arc, time::Duration};

use futures_core::future::BoxFuture;
use redis::{ErrorKind, RedisError, Value, aio::MultiplexedConnection};
use tokio::sync::Mutex;

use super::courier::before;
use crate::clock;

/// Where passwords come from that end before the process does.
pub(crate) trait PasswordSource: Send + Sync {
    /// One that is valid now, or why there is none. It may have to be fetched first.
    fn password(&self) -> BoxFuture<'static, Result<Box<str>, String>>;

    /// The store refused `password`: the next one should be another one.
    fn rejected(&self, password: &str);
}

/// A user and where the passwords come from.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) user: Option<Box<str>>,
    pub(super) source: Arc<dyn PasswordSource>,
}

/// The password that a connection has, which is replaced before it ends.
pub(super) struct Renewal {
    credentials: Credentials,
    /// The last one that the servers accepted or refused.
    last: Mutex<Box<str>>,
}

impl Credentials {
    /// A password that is valid now.
    pub(super) async fn password(&self) -> Result<Box<str>, RedisError> {
        let failed = |reason| (ErrorKind::AuthenticationFailed, NO_PASSWORD, reason).into();
        let source = self.source.password();
        before(clock::now() + MAX_FETCH, async { source.await.map_err(failed) }).await
    }

    /// The server answered a connection with `error`.
    pub(super) fn on_error(&self, password: &str, error: &RedisError) {
        let is_refused = error.kind() == ErrorKind::AuthenticationFailed
            || matches!(error.code(), Some("WRONGPASS" | "NOAUTH"));
        if is_refused {
            self.source.rejected(password);
        }
    }

    /// What makes sure that a connection with `password` has a valid one.
    pub(super) fn renewal(self, password: Box<str>) -> Renewal {
        Renewal { credentials: self, last: Mutex::new(password) }
    }
}

impl Renewal {
    /// Authenticates the connections anew if the source has another password by now. A failure ends
    /// nothing: the password before is valid until its own end, and the next beat tries again.
    pub(super) async fn renew(&self, servers: Vec<MultiplexedConnection>) {
        // One that takes longer than a beat is still under way.
        let Ok(mut last) = self.last.try_lock() else { return };
        let Ok(password) = self.credentials.password().await else { return };
        if *last == password {
            return;
        }
        for mut server in servers {
            let mut command = redis::cmd("AUTH");
            if let Some(user) = &self.credentials.user {
                command.arg(&**user);
            }
            let answer = command.arg(&*password).query_async::<Value>(&mut server).await;
            if let Err(error) = answer {
                // One that is refused would be refused at each beat.
                if error.is_connection_dropped() || error.is_timeout() || error.is_io_error() {
                    return;
                }
                self.credentials.on_error(&password, &error);
                break;
            }
        }
        *last = password;
    }
}

const NO_PASSWORD: &str = "there is no password to connect with";
/// A source may try more than once.
const MAX_FETCH: Duration = Duration::from_secs(30);
