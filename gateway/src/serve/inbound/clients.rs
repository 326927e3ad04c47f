//! Who is asking: keys, what each client may do, and how often.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderMap, StatusCode, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::{
    config::{Client, Clients, Permissions},
    serve::refusal::Refusal,
};

/// The clients of a configuration.
#[derive(Debug)]
pub(crate) struct Table {
    /// Only one, without keys, where anybody may come.
    callers: Vec<Arc<Caller>>,
    /// Every key with the place of its client.
    keys: Vec<([u8; 32], u32)>,
    is_open: bool,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) name: String,
    models: Option<Vec<String>>,
    pub(crate) class: Option<String>,
    pub(crate) may: Permissions,
    rate: Option<Rate>,
}

impl Table {
    /// A client that is still there, at the same rate, keeps what it has used of it.
    pub(crate) fn new(clients: &Clients, before: Option<&Self>) -> Self {
        match clients {
            Clients::Open => {
                Self { callers: vec![Arc::new(Caller::anybody())], keys: Vec::new(), is_open: true }
            }
            Clients::Keyed(clients) => {
                let callers = clients.iter().map(|client| Caller::new(client, before));
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

    /// Compares with every key, whichever fits, so that the time taken tells nothing.
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

impl Caller {
    pub(crate) fn may_use(&self, model: &str) -> bool {
        self.models.as_ref().is_none_or(|models| models.iter().any(|allowed| allowed == model))
    }

    /// Whether some models are not for this client.
    pub(crate) fn is_restricted(&self) -> bool {
        self.models.is_some()
    }

    /// Takes a request out of the client's rate.
    pub(crate) fn take(&self, now: Instant) -> Result<(), Refusal> {
        match &self.rate {
            None => Ok(()),
            Some(rate) => rate.take(now).map_err(|wait| {
                let limit = rate.per_second;
                Refusal::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "429",
                    format!("This client may send {limit} requests per second."),
                )
                .retry_after(wait)
            }),
        }
    }

    fn anybody() -> Self {
        let may =
            Permissions { max_wait: true, class: true, no_spill: true, trace: true, backend: true };
        Self { name: "open".to_owned(), models: None, class: None, may, rate: None }
    }

    fn new(client: &Client, before: Option<&Table>) -> Self {
        let rate = client.requests_per_second.map(|per_second| {
            let kept = before.and_then(|table| table.named(&client.name)?.rate.clone());
            kept.filter(|rate| rate.per_second.to_bits() == per_second.to_bits())
                .unwrap_or_else(|| Rate::new(per_second))
        });
        Self {
            name: client.name.clone(),
            models: client.models.clone(),
            class: client.class.clone(),
            may: client.may,
            rate,
        }
    }
}

/// A token bucket that holds one second's worth, and one request at least.
#[derive(Clone, Debug)]
struct Rate {
    per_second: f64,
    used: Arc<Mutex<Used>>,
}

#[derive(Debug, Default)]
struct Used {
    requests: f64,
    at: Option<Instant>,
}

impl Rate {
    fn new(per_second: f64) -> Self {
        Self { per_second: per_second.max(1e-6), used: Arc::default() }
    }

    /// When there is no room, tells when there will be.
    fn take(&self, now: Instant) -> Result<(), Duration> {
        let depth = self.per_second.max(1.0);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = used.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        used.at = Some(used.at.map_or(now, |at| at.max(now)));
        used.requests = (used.requests - passed * self.per_second).max(0.0);
        let above = used.requests + 1.0 - depth;
        if above > 1e-9 {
            return Err(Duration::try_from_secs_f64(above / self.per_second)
                .unwrap_or(Duration::from_secs(3_600)));
        }
        used.requests += 1.0;
        Ok(())
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
    use http::HeaderValue;

    use super::*;

    fn table() -> Table {
        let client = |name: &str, keys: &[&str]| Client {
            name: name.to_owned(),
            keys: keys.iter().map(|key| Sha256::digest(key).into()).collect(),
            models: Some(vec!["gpt-4o".to_owned()]),
            class: None,
            requests_per_second: Some(2.0),
            may: Permissions::default(),
        };
        Table::new(&Clients::Keyed(vec![client("a", &["a1", "a2"]), client("b", &["b1"])]), None)
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
    fn a_rate_refuses_until_exactly_the_time_it_names() {
        let rate = Rate::new(2.0);
        #[expect(clippy::disallowed_methods, reason = "an instant to count from")]
        let now = Instant::now();
        assert!(rate.take(now).is_ok() && rate.take(now).is_ok());
        assert_eq!(rate.take(now), Err(Duration::from_millis(500)));
        assert!(rate.take(now + Duration::from_millis(499)).is_err());
        assert!(rate.take(now + Duration::from_millis(500)).is_ok());
    }

    #[test]
    fn what_was_used_of_a_rate_survives_a_reload() {
        let before = table();
        #[expect(clippy::disallowed_methods, reason = "an instant to count from")]
        let now = Instant::now();
        let used = |table: &Table| table.callers[0].take(now).is_ok();
        assert!(used(&before) && used(&before) && !used(&before));
        let client = Client {
            name: "a".to_owned(),
            keys: Vec::new(),
            models: None,
            class: None,
            requests_per_second: Some(2.0),
            may: Permissions::default(),
        };
        assert!(!used(&Table::new(&Clients::Keyed(vec![client]), Some(&before))));
    }
}
