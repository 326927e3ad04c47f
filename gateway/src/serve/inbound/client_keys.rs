//! Checks the key that a client sends.

use std::sync::Arc;

use http::{HeaderMap, StatusCode, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::caller::Caller;
use crate::{
    config::{Client, Clients},
    serve::{
        refusal::Refusal,
        routing::{allowed_models::AllowedModels, client_home::ClientHome},
    },
};

/// The clients of a configuration.
#[derive(Debug)]
pub(crate) struct ClientKeys {
    /// Only one, without keys, where no key is required.
    callers: Vec<Arc<Caller>>,
    /// Every key with the place of its client.
    keys: Vec<([u8; 32], u32)>,
    is_open: bool,
}

impl ClientKeys {
    /// A client that is still there, at the same rate, keeps what it has used of it.
    pub(crate) fn new(
        clients: &Clients,
        home: impl Fn(&str, &AllowedModels) -> ClientHome,
        before: Option<&Self>,
    ) -> Self {
        match clients {
            Clients::Open => {
                let caller = Arc::new(Caller::open(home));
                Self { callers: vec![caller], keys: Vec::new(), is_open: true }
            }
            Clients::Keyed(clients) => {
                let last = |client: &Client| Some(&**before?.named(&client.name)?);
                let callers = clients.iter().map(|client| Caller::new(client, &home, last(client)));
                let keys = (0..)
                    .zip(clients)
                    .flat_map(|(place, client)| client.keys.iter().map(move |key| (*key, place)));
                Self {
                    callers: callers.map(Arc::new).collect(),
                    keys: keys.collect(),
                    is_open: false,
                }
            }
        }
    }

    /// Finds out who sent these headers.
    pub(crate) fn admit(&self, headers: &HeaderMap) -> Result<&Arc<Caller>, Refusal> {
        let found = if self.is_open {
            self.callers.first()
        } else {
            presented(headers).and_then(|key| self.caller_of(key))
        };
        found.ok_or_else(|| {
            Refusal::new(
                StatusCode::UNAUTHORIZED,
                "401",
                "Access denied due to invalid subscription key. Send a key of this gateway as \
                 api-key, or as Authorization: Bearer.",
            )
        })
    }

    /// Compares with every key, so that the time does not depend on which one fits.
    fn caller_of(&self, key: &[u8]) -> Option<&Arc<Caller>> {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let mut found = u32::MAX;
        for (known, place) in &self.keys {
            let same: Choice = known.ct_eq(&digest);
            found.conditional_assign(place, same);
        }
        self.callers.get(usize::try_from(found).ok()?)
    }

    fn named(&self, name: &str) -> Option<&Arc<Caller>> {
        self.callers.iter().find(|caller| caller.name == name)
    }
}

/// The key that a client shows, as Azure's and OpenAI's libraries send theirs.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(key) = headers.get("api-key") {
        return Some(key.as_bytes());
    }
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| key.trim_ascii())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use http::HeaderValue;
    use tower_spillover::sticky::Home;

    use super::*;
    use crate::config::Permissions;

    fn homeless(client: &str, _: &AllowedModels) -> ClientHome {
        ClientHome { home: Home::of(client), model: None }
    }

    fn table() -> ClientKeys {
        let client = |name: &str, keys: &[&str]| Client {
            name: name.to_owned(),
            keys: keys.iter().map(|key| Sha256::digest(key).into()).collect(),
            models: Some(vec!["gpt-4o".to_owned()]),
            class: None,
            requests_per_second: Some(2.0),
            may: Permissions::default(),
        };
        ClientKeys::new(
            &Clients::Keyed(vec![client("a", &["a1", "a2"]), client("b", &["b1"])]),
            homeless,
            None,
        )
    }

    fn asked(name: &'static str, value: &'static str) -> Option<String> {
        let headers = HeaderMap::from_iter([(
            http::HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )]);
        table().admit(&headers).ok().map(|caller| caller.name.clone())
    }

    #[test]
    fn any_key_of_a_client_lets_it_in_and_no_other() {
        assert_eq!(asked("api-key", "a2").as_deref(), Some("a"));
        assert_eq!(asked("authorization", "bearer b1").as_deref(), Some("b"));
        assert_eq!(asked("authorization", "Basic b1"), None);
        assert_eq!(asked("api-key", "a"), None);
        assert_eq!(asked("api-key", ""), None);
        assert!(table().admit(&HeaderMap::new()).is_err());
    }

    #[test]
    fn what_was_used_of_a_rate_survives_a_reload() {
        let before = table();
        #[expect(clippy::disallowed_methods, reason = "an instant to count from")]
        let now = Instant::now();
        let used = |table: &ClientKeys| table.callers[0].take(now).is_ok();
        assert!(used(&before) && used(&before) && !used(&before));
        let client = Client {
            name: "a".to_owned(),
            keys: Vec::new(),
            models: None,
            class: None,
            requests_per_second: Some(2.0),
            may: Permissions::default(),
        };
        let clients = Clients::Keyed(vec![client]);
        assert!(!used(&ClientKeys::new(&clients, homeless, Some(&before))));
    }
}
