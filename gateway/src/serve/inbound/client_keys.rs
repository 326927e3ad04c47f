//! Maps keys, and names in tokens and certificates, to clients.

use std::{collections::HashMap, sync::Arc};

use http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use tower_spillover::Fleet;

use super::{caller::Caller, client_certificate::ClientCertificate};
use crate::{
    client_tokens::Claims,
    config::{CertificateName, Client, Clients, Identities},
    serve::routing::{allowed_models::AllowedModels, client_home::ClientHome},
};

/// The clients of a configuration.
#[derive(Debug)]
pub(crate) struct ClientKeys {
    /// A single anonymous client if no key is required.
    callers: Vec<Arc<Caller>>,
    /// The index of the client with a key of this hash.
    keys: HashMap<[u8; 32], u32>,
    /// The index of the client with a name in the configuration.
    places: HashMap<String, u32>,
    /// The index of the client with a name in certificates.
    certificates: HashMap<CertificateName, u32>,
    /// The index of the client with a name in tokens.
    names: HashMap<Kind, HashMap<String, u32>>,
    is_open: bool,
    are_apart: bool,
}

/// Where in a token a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Subject,
    Role,
    Group,
}

impl ClientKeys {
    /// Clients that are still configured with the same rate keep what they have used of it. The
    /// replicas of a `fleet` keep rates together.
    pub(crate) fn new(
        clients: &Clients,
        home: impl Fn(&str, &AllowedModels) -> ClientHome,
        before: Option<&Self>,
        fleet: Option<&Fleet>,
    ) -> Self {
        match clients {
            Clients::Open => {
                let caller = Arc::new(Caller::open(home));
                Self {
                    callers: vec![caller],
                    keys: HashMap::new(),
                    places: HashMap::new(),
                    certificates: HashMap::new(),
                    names: HashMap::new(),
                    is_open: true,
                    are_apart: false,
                }
            }
            Clients::Keyed(clients) => {
                let last = |client: &Client| Some(&**before?.named(&client.name)?);
                let callers =
                    clients.iter().map(|client| Caller::new(client, &home, last(client), fleet));
                let keys = (0..)
                    .zip(clients)
                    .flat_map(|(place, client)| client.keys.iter().map(move |key| (*key, place)));
                Self {
                    callers: callers.map(Arc::new).collect(),
                    keys: keys.collect(),
                    places: (0..)
                        .zip(clients)
                        .map(|(place, it)| (it.name.clone(), place))
                        .collect(),
                    certificates: certificates(clients),
                    names: names(clients),
                    is_open: false,
                    are_apart: clients.iter().any(|client| client.owner() != clients[0].owner()),
                }
            }
        }
    }

    /// Whether all requests belong to one client, so that there are no others to leave room for.
    pub(crate) fn is_alone(&self) -> bool {
        !self.is_open && self.callers.len() == 1
    }

    /// Whether some clients do not share stored objects.
    pub(crate) const fn are_apart(&self) -> bool {
        self.are_apart
    }

    /// Whether some client may see the operators' pages.
    pub(crate) fn may_operate(&self) -> bool {
        self.callers.iter().any(|caller| caller.may.operate)
    }

    /// The anonymous client, if no key is required.
    pub(crate) fn open(&self) -> Option<&Arc<Caller>> {
        self.callers.first().filter(|_| self.is_open)
    }

    /// The client with one of the names of a certificate.
    pub(crate) fn by_certificate(&self, certificate: &ClientCertificate) -> Option<&Arc<Caller>> {
        self.first(certificate.names().iter().filter_map(|name| self.certificates.get(name)))
    }

    /// The client of a token, by its subject, roles or groups.
    pub(crate) fn by_claims(&self, claims: &Claims) -> Option<&Arc<Caller>> {
        let subjects = claims.subjects().map(|name| (Kind::Subject, name));
        let roles = claims.roles().map(|name| (Kind::Role, name));
        let groups = claims.groups().map(|name| (Kind::Group, name));
        let all = subjects.chain(roles).chain(groups);
        self.first(all.filter_map(|(kind, name)| self.names.get(&kind)?.get(name)))
    }

    /// Of several clients, the first in the configuration.
    fn first<'a>(&self, places: impl Iterator<Item = &'a u32>) -> Option<&Arc<Caller>> {
        self.at(*places.min()?)
    }

    /// Looks the key's hash up. The time depends on the hash alone, from which a sender learns
    /// nothing of another key: similar keys do not have similar hashes.
    pub(crate) fn by_key(&self, key: &[u8]) -> Option<&Arc<Caller>> {
        let digest: [u8; 32] = Sha256::digest(key).into();
        self.at(*self.keys.get(&digest)?)
    }

    fn named(&self, name: &str) -> Option<&Arc<Caller>> {
        self.at(*self.places.get(name)?)
    }

    fn at(&self, place: u32) -> Option<&Arc<Caller>> {
        self.callers.get(usize::try_from(place).ok()?)
    }
}

fn certificates(clients: &[Client]) -> HashMap<CertificateName, u32> {
    let names = |client: &Client| client.identities.certificates.clone().into_iter();
    (0..)
        .zip(clients)
        .flat_map(|(place, client)| names(client).map(move |name| (name, place)))
        .collect()
}

fn names(clients: &[Client]) -> HashMap<Kind, HashMap<String, u32>> {
    let mut names = HashMap::<_, HashMap<_, _>>::new();
    for (place, client) in (0..).zip(clients) {
        let Identities { roles, groups, subjects, certificates: _ } = &client.identities;
        for (kind, list) in [(Kind::Subject, subjects), (Kind::Role, roles), (Kind::Group, groups)]
        {
            names.entry(kind).or_default().extend(list.iter().map(|name| (name.clone(), place)));
        }
    }
    names
}

/// The key in the headers, in any form that Azure's and OpenAI's libraries send.
pub(crate) fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(key) = headers.get("api-key") {
        return Some(key.as_bytes());
    }
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| key.trim_ascii())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use futures::FutureExt;
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
            group: None,
            keys: keys.iter().map(|key| Sha256::digest(key).into()).collect(),
            identities: Identities::default(),
            models: Some(vec!["gpt-4o".to_owned()]),
            class: None,
            requests_per_second: Some(2.0),
            concurrency: None,
            may: Permissions::default(),
        };
        ClientKeys::new(
            &Clients::Keyed(vec![client("a", &["a1", "a2"]), client("b", &["b1"])]),
            homeless,
            None,
            None,
        )
    }

    fn asked(name: &'static str, value: &'static str) -> Option<String> {
        let headers = HeaderMap::from_iter([(
            http::HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )]);
        presented(&headers).and_then(|key| table().by_key(key).map(|caller| caller.name.clone()))
    }

    #[test]
    fn any_key_of_a_client_lets_it_in_and_no_other() {
        assert_eq!(asked("api-key", "a2").as_deref(), Some("a"));
        assert_eq!(asked("authorization", "bearer b1").as_deref(), Some("b"));
        assert_eq!(asked("authorization", "Basic b1"), None);
        assert_eq!(asked("api-key", "a"), None);
        assert_eq!(asked("api-key", ""), None);
        assert!(presented(&HeaderMap::new()).is_none());
    }

    #[test]
    fn what_was_used_of_a_rate_survives_a_reload() {
        let before = table();
        #[expect(clippy::disallowed_methods, reason = "an instant to count from")]
        let now = Instant::now();
        let used = |table: &ClientKeys| {
            table.callers[0].take(now).now_or_never().is_some_and(|it| it.is_ok())
        };
        assert!(used(&before) && used(&before) && !used(&before));
        let client = Client {
            name: "a".to_owned(),
            group: None,
            keys: Vec::new(),
            identities: Identities::default(),
            models: None,
            class: None,
            requests_per_second: Some(2.0),
            concurrency: None,
            may: Permissions::default(),
        };
        let clients = Clients::Keyed(vec![client]);
        assert!(!used(&ClientKeys::new(&clients, homeless, Some(&before), None)));
    }
}
