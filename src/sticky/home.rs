//! Where objects without references are kept: one resource per client.

use std::{fmt, sync::Arc};

use http::{HeaderMap, header};

use crate::{
    backend::{CommonResources, Residents},
    hash::fnv1a,
};

/// The client of a request, so that what it creates or lists has one home: a request extension.
///
/// Everything of one client is kept on one resource. The client's name and the names of the resources
/// alone decide which: it is the same in every process, after a restart, and whatever is refused
/// meanwhile. A new resource takes over its share of the clients, and moves no other. Without the
/// extension, clients are distinguished by their `api-key`, or by a bearer token that is not a JWT,
/// which would change every hour; clients that send neither share one home.
///
/// ```
/// use tower_spillover::sticky::Home;
///
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(Home::of("team-a"));
/// ```
#[derive(Clone)]
pub struct Home {
    key: u64,
    /// The resource, if it was fixed for several stacks.
    resource: Option<Arc<str>>,
    /// Whether the client owns what it makes.
    is_owner: bool,
}

impl Home {
    /// The home of the client with this name.
    pub fn of(client: &str) -> Self {
        Self { key: fnv1a([client.as_bytes()]), resource: None, is_owner: false }
    }

    /// The home of a client that owns what it makes; see
    /// [`Sticky::ownership`](super::Sticky::ownership).
    #[must_use]
    pub fn owned(self) -> Self {
        Self { is_owner: true, ..self }
    }

    /// The key of the client's objects, if it owns them.
    pub(super) fn owner(&self) -> Option<u64> {
        self.is_owner.then_some(self.key)
    }

    /// One home for all of these stacks: a resource of the first that most of the others also have.
    ///
    /// For a process that has several stacks with one memory, one for each model, so that a file
    /// uploaded through the first can be used in the others. A stack without that resource has its
    /// own home for the client.
    #[must_use]
    pub fn among(self, stacks: &CommonResources) -> Self {
        Self { resource: stacks.home(self.key).cloned(), ..self }
    }

    /// Whether it is fixed, and all of these stacks have its resource.
    pub fn is_in_all(&self, stacks: &CommonResources) -> bool {
        self.resource.as_ref().is_some_and(|resource| stacks.all_have(resource))
    }

    /// The home of the client that sends these headers.
    pub(super) fn of_sender(headers: &HeaderMap) -> Self {
        let key = headers.get("api-key").map(|key| key.as_bytes()).or_else(|| bearer(headers));
        Self { key: fnv1a(key), resource: None, is_owner: false }
    }

    /// The resource that it is on, among these.
    pub(super) fn within(self, residents: &Residents) -> Arc<str> {
        let settled = self.resource.filter(|resource| residents.holds(resource));
        let own = || CommonResources::of([residents]).home(self.key).cloned();
        settled.or_else(own).unwrap_or_else(|| "".into())
    }
}

/// The bearer token, if it stays the same from request to request.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    let token = scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim_ascii())?;
    (!token.starts_with(JWT)).then_some(token)
}

/// Shows no hash, which may be that of a key.
impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Home").field("resource", &self.resource).finish_non_exhaustive()
    }
}

const SCHEME: &[u8] = b"Bearer ";
/// Base64url of `{"`, with which a JWT header begins (RFC 7519, section 3.1).
const JWT: &[u8] = b"eyJ";

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn key(name: &'static str, value: &'static str) -> u64 {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        Home::of_sender(&headers).key
    }

    #[test]
    fn a_client_is_identified_by_a_key_and_not_by_a_token_that_changes() {
        let anonymous = Home::of_sender(&HeaderMap::new()).key;
        assert_eq!(key("api-key", "a"), key("authorization", "bearer  a "));
        assert_ne!(key("api-key", "a"), key("api-key", "b"));
        assert_ne!(key("api-key", "a"), anonymous);
        for (name, value) in [
            ("authorization", "Bearer eyJ0eXAi.x.y"),
            ("authorization", "Basic a"),
            ("authorization", "Bea"),
            ("x-api-key", "a"),
        ] {
            assert_eq!(key(name, value), anonymous, "{value}");
        }
    }

    #[test]
    fn a_home_prints_no_key() {
        let home = Home::of("0123456789abcdef");
        assert_eq!(format!("{home:?}"), "Home { resource: None, .. }");
    }

    fn stack(pools: &[&[&str]]) -> Residents {
        let pool = |names: &&[&str]| {
            Residents::new(names.iter().map(|name| ((*name).into(), (*name).into())))
        };
        pools.iter().map(pool).reduce(Residents::and).unwrap_or_default()
    }

    /// The homes of a hundred clients, without duplicates.
    fn homes(stacks: &[Residents]) -> Vec<String> {
        let of = |client: u32| {
            Home::of(&client.to_string()).among(&CommonResources::of(stacks)).resource
        };
        let mut all: Vec<_> = (0..100).map(|client| of(client).unwrap().to_string()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    #[test]
    fn a_home_is_where_most_models_are_and_then_where_it_can_spill() {
        let (all, east) = (["east", "north", "west"], ["east"]);
        for (stacks, expected) in [
            (vec![stack(&[&all])], &all[..]),
            // Two deployments of one resource are one home.
            (vec![stack(&[&["a", "a", "a", "b"]])], &["a", "b"]),
            (vec![stack(&[&["ptu", "east"], &all])], &east),
            (vec![stack(&[&["ptu"], &["east"]])], &["east", "ptu"]),
            (vec![stack(&[&["a", "b"], &["a"]]), stack(&[&["b"]])], &["b"]),
            (vec![stack(&[&["a", "b"]]), stack(&[&["c"]]), stack(&[&["b"]])], &["b"]),
            // Only the first has it, whatever the others share.
            (vec![stack(&[&["a"]]), stack(&[&["b"]]), stack(&[&["b"]])], &["a"]),
        ] {
            assert_eq!(homes(&stacks), expected, "{stacks:?}");
        }
        assert_eq!(Home::of("a").among(&CommonResources::of([])).resource, None);
        assert_eq!(&*Home::of("a").within(&Residents::default()), "");
    }

    #[test]
    fn a_resource_that_is_added_takes_its_share_of_the_clients_and_moves_no_other() {
        let names = ["a", "b", "c", "d"];
        let (before, after) = (stack(&[&names[..3]]), stack(&[&names]));
        let reversed = stack(&[&["d", "c", "b", "a"]]);
        let mut shares = [0; 4];
        for client in 0..1_000 {
            let home = || Home::of(&format!("client-{client}"));
            let (was, is) = (home().within(&before), home().within(&after));
            assert!(was == is || &*is == "d", "{was} {is}");
            assert_eq!(home().within(&reversed), is, "their order does not matter");
            shares[names.iter().position(|name| *name == &*is).unwrap()] += 1;
        }
        assert!(shares.iter().all(|share| (190..310).contains(share)), "{shares:?}");
        // Processes agree only while this stays the same.
        let first = |client: u32| Home::of(&format!("client-{client}")).within(&after);
        assert_eq!((0..8).map(first).collect::<Vec<_>>().concat(), "bcddddcc");
    }
}
