//! Access tokens as the passwords of a store, which change while it is in use.

use std::sync::{Arc, Mutex};

use spillover_testing::redis::Server;
use tower_spillover::{
    backend::{AccessToken, TokenError, TokenFuture, TokenSource},
    fleet::RedisStore,
};

use super::Process;
use crate::clock::{pause, until};

/// The token of now, or why there is none.
#[derive(Clone)]
pub(super) struct Tokens(Arc<Mutex<Result<&'static str, &'static str>>>, Arc<Mutex<Vec<String>>>);

impl Tokens {
    pub(super) fn of(token: &'static str) -> Self {
        Self(Arc::new(Mutex::new(Ok(token))), Arc::default())
    }

    fn become_now(&self, token: Result<&'static str, &'static str>) {
        *self.0.lock().unwrap() = token;
    }

    /// How many were rejected.
    fn rejected(&self) -> usize {
        self.1.lock().unwrap().len()
    }
}

impl TokenSource for Tokens {
    fn token(&self) -> TokenFuture {
        match *self.0.lock().unwrap() {
            Ok(token) => TokenFuture::ready(AccessToken::new(token).unwrap()),
            Err(reason) => TokenFuture::fetching(async move { Err(TokenError::new(reason)) }),
        }
    }

    fn rejected(&self, token: &AccessToken) {
        let current = self.0.lock().unwrap().map(|token| AccessToken::new(token).unwrap());
        assert_eq!(current.ok().as_ref(), Some(token), "it is told of the token that it gave");
        self.1.lock().unwrap().push(format!("{token:?}"));
    }
}

/// How often a connection was authenticated anew, and how often that failed.
fn authentications(server: &Server) -> (u32, u32) {
    let stats = server.command(&["INFO", "commandstats"]);
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_auth:"));
    let number = |name: &str| {
        let fields = line.unwrap_or_default().split(',');
        let mut values = fields.filter_map(|it| it.strip_prefix(name)?.strip_prefix('='));
        values.next().map_or(0, |it| it.parse().unwrap())
    };
    (number("calls"), number("failed_calls"))
}

#[tokio::test]
async fn an_open_connection_gets_the_next_token_and_a_refused_one_is_replaced() {
    let Some(server) = Server::start(&[]) else { return };
    server.allow("token-1", &[]);
    let acl = |change: &str| {
        assert_eq!(server.command(&["ACL", "SETUSER", "spillover", change]), "+OK");
    };
    // As Azure does with connections whose token has ended.
    let end = || drop(server.command(&["CLIENT", "KILL", "USER", "spillover"]));
    let tokens = Tokens::of("token-1");
    let store = RedisStore::new(&server.url()).unwrap().user("spillover").tokens(tokens.clone());
    let process = Process::new(store, 1_000_000);
    let reason = || process.store.status().unwrap().reason.unwrap_or_default().to_string();
    until(|| process.fleet.is_up()).await;

    acl(">token-2");
    tokens.become_now(Ok("token-2"));
    until(|| authentications(&server).0 > 0).await;
    acl("<token-1");
    assert_eq!((authentications(&server), tokens.rejected()), ((1, 0), 0));

    // One that is refused changes nothing for the open connection, and is not tried at each beat.
    tokens.become_now(Ok("token-3"));
    until(|| tokens.rejected() > 0).await;
    pause(2_500).await;
    assert_eq!((authentications(&server), tokens.rejected()), ((2, 1), 1));
    assert_eq!(*process.changes.lock().unwrap(), [true]);

    // A connection needs a valid one.
    end();
    until(|| tokens.rejected() > 2).await;
    assert!(process.call().await.0.is_success());
    let text = reason();
    assert!(text.contains("WRONGPASS") && !text.contains("token-"), "{text}");
    tokens.become_now(Ok("token-2"));
    until(|| process.fleet.is_up()).await;

    tokens.become_now(Err("the authority is away"));
    end();
    until(|| reason().contains("the authority is away")).await;
    assert!(process.call().await.0.is_success());
    pause(600).await;
    tokens.become_now(Ok("token-2"));
    until(|| process.fleet.is_up()).await;
    assert_eq!(*process.changes.lock().unwrap(), [true, false, true, false, true]);
    assert!(process.call().await.0.is_success());
}
