//! Rewrites a query: one `api-version`, none of the caller's keys, and the deployment of a session.

use crate::azure::percent;

/// Names of the caller's keys in a query: those of Azure, API Management, Functions, OAuth and
/// others. None of them is a parameter of the API.
pub(crate) const CALLER_KEYS: &[&str] = &[
    "access-token",
    "access_token",
    "api-key",
    "api_key",
    "apikey",
    "authorization",
    "code",
    "key",
    "ocp-apim-subscription-key",
    "subscription-key",
    "subscription_key",
    "token",
    "x-api-key",
];

/// The same, and the parameters of Azure's paths only.
pub(crate) const CALLER_KEYS_AND_VERSION: &[&str] = &{
    let mut names = [API_VERSION; CALLER_KEYS.len() + 1];
    let mut index = 0;
    while index < CALLER_KEYS.len() {
        names[index] = CALLER_KEYS[index];
        index += 1;
    }
    names
};

/// Parameters of Azure's paths only.
pub(crate) const VERSION: &[&str] = &[API_VERSION];

/// The changes to a query. All other pairs stay byte for byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueryEdit<'a> {
    /// The new `api-version`; `None` keeps the caller's.
    pub(super) version: Option<&'a str>,
    /// Names of pairs to remove.
    pub(super) dropped: &'static [&'static str],
    /// Set if the query names the deployment.
    pub(super) model: Option<QueryModel<'a>>,
}

/// The deployment in the query of a realtime session.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueryModel<'a> {
    /// `deployment` in a classic query, `model` in one of v1; the service gets only this one.
    pub(super) name: &'static str,
    /// Percent-encoded.
    pub(super) deployment: &'a str,
}

impl QueryEdit<'_> {
    /// Whether `query` would change.
    pub(super) fn changes(self, query: &str) -> bool {
        self.model.is_some()
            || self.version.is_some_and(|version| !is_said(query, version))
            || query.split('&').any(|pair| self.drops(pair))
    }

    /// Emits `?` and the changed query, or nothing if that is empty. The version replaces the first
    /// `api-version`, or goes to the end; further ones are dropped.
    pub(super) fn write(self, query: &str, emit: &mut impl FnMut(&str)) {
        let mut separator = "?";
        let mut unsaid = self.version;
        for pair in query.split('&').filter(|_| !query.is_empty()) {
            let name = name_of(pair);
            if self.drops(pair) || self.model.is_some_and(|_| names_model(name)) {
                continue;
            } else if self.version.is_none() || !is_read_as(name, API_VERSION) {
                emit(separator);
                emit(pair);
            } else if let Some(version) = unsaid.take() {
                write_version(separator, version, emit);
            } else {
                continue;
            }
            separator = "&";
        }
        if let Some(version) = unsaid {
            write_version(separator, version, emit);
            separator = "&";
        }
        if let Some(QueryModel { name, deployment }) = self.model {
            [separator, name, "=", deployment].into_iter().for_each(emit);
        }
    }

    /// Some servers treat a semicolon like an ampersand.
    fn drops(self, pair: &str) -> bool {
        pair.split(';').map(name_of).any(|given| {
            let given = given.strip_prefix(b"+").unwrap_or(given);
            // Hardly any name is encoded, so that is not looked up once per key.
            let is_plain = !given.contains(&b'%');
            self.dropped.iter().any(|name| match is_plain {
                true => given.eq_ignore_ascii_case(name.as_bytes()),
                false => is_read_as(given, name),
            })
        })
    }
}

fn names_model(name: &[u8]) -> bool {
    is_read_as(name, "deployment") || is_read_as(name, "model")
}

/// Whether `query` has `version` already, once and in the plain spelling.
fn is_said(query: &str, version: &str) -> bool {
    let mut pairs = query.split('&').filter(|pair| is_read_as(name_of(pair), API_VERSION));
    let plain = pairs
        .next()
        .and_then(|pair| pair.strip_prefix(API_VERSION))
        .and_then(|rest| rest.strip_prefix('='));
    plain == Some(version) && pairs.next().is_none()
}

fn write_version(separator: &str, version: &str, emit: &mut impl FnMut(&str)) {
    emit(separator);
    emit(API_VERSION);
    emit("=");
    emit(version);
}

/// The name of a pair, as written.
fn name_of(pair: &str) -> &[u8] {
    pair.split_once('=').map_or(pair, |(given, _)| given).as_bytes()
}

/// Whether the service would read the `given` name as this one. Generous, because two versions in one
/// query, or a key in the wrong place, are worse than a lost misspelling: ASP.NET query names ignore
/// case, and `%2D` is `-`.
fn is_read_as(given: &[u8], name: &str) -> bool {
    if given.len() == name.len() {
        return given.eq_ignore_ascii_case(name.as_bytes());
    }
    given.contains(&b'%')
        && percent::decode(given)
            .map(|byte| byte.to_ascii_lowercase())
            .eq(name.bytes().map(|byte| byte.to_ascii_lowercase()))
}

const API_VERSION: &str = "api-version";

#[cfg(test)]
mod tests {
    use super::*;

    const VERSIONED: QueryEdit<'_> =
        QueryEdit { version: Some("2025-01-01"), dropped: &[], model: None };
    const KEYLESS: QueryEdit<'_> = QueryEdit { version: None, dropped: CALLER_KEYS, model: None };

    fn written(edit: QueryEdit<'_>, query: &str) -> String {
        let mut text = String::new();
        edit.write(query, &mut |piece| text.push_str(piece));
        text
    }

    #[test]
    fn a_session_names_the_deployment_of_the_backend_once() {
        let model = Some(QueryModel { name: "deployment", deployment: "rt%20east" });
        let edit = QueryEdit { model, ..VERSIONED };
        for (query, expected) in [
            ("", "?api-version=2025-01-01&deployment=rt%20east"),
            ("deployment=a&x=1", "?x=1&api-version=2025-01-01&deployment=rt%20east"),
            (
                "Model=a&api-version=1&%64eployment=b",
                "?api-version=2025-01-01&deployment=rt%20east",
            ),
        ] {
            assert_eq!(written(edit, query), expected, "{query}");
        }
    }

    #[test]
    fn the_first_version_is_replaced_in_its_place_and_later_ones_go() {
        for (query, expected) in [
            ("", "?api-version=2025-01-01"),
            ("a=1", "?a=1&api-version=2025-01-01"),
            ("api-version=2023-05-15", "?api-version=2025-01-01"),
            ("api-version=2023-05-15&a=1", "?api-version=2025-01-01&a=1"),
            ("a=1&api-version=x&b=%20&b=2", "?a=1&api-version=2025-01-01&b=%20&b=2"),
            ("api-version=x&a=1&api-version=y&b", "?api-version=2025-01-01&a=1&b"),
            ("api-version", "?api-version=2025-01-01"),
            ("api-version=", "?api-version=2025-01-01"),
            ("API-Version=x&api%2Dversion=y&%61pi%2dversion=z", "?api-version=2025-01-01"),
            (
                "x-api-version=1&api-version-x=2",
                "?x-api-version=1&api-version-x=2&api-version=2025-01-01",
            ),
            ("api%2-version=1", "?api%2-version=1&api-version=2025-01-01"),
            ("api%2Dversio%=1", "?api%2Dversio%=1&api-version=2025-01-01"),
            ("a=api-version=1", "?a=api-version=1&api-version=2025-01-01"),
        ] {
            assert_eq!(written(VERSIONED, query), expected, "{query}");
        }
    }

    #[test]
    fn only_one_plain_pair_says_the_version() {
        assert!(is_said("api-version=2025-01-01", "2025-01-01"));
        assert!(is_said("a=1&api-version=2025-01-01&b", "2025-01-01"));
        for query in [
            "",
            "a=2025-01-01",
            "api-version",
            "api-version=2024-10-21",
            "api-version=2025-01-01&api-version=2025-01-01",
            "API-version=2025-01-01",
            "api%2Dversion=2025-01-01",
        ] {
            assert!(!is_said(query, "2025-01-01"), "{query}");
        }
    }

    #[test]
    fn keys_go_and_all_else_stays() {
        for (query, expected) in [
            ("api-key=x", ""),
            ("subscription-key", ""),
            ("a=1&API-Key=x&api-version=y&Subscription%2Dkey=z&&b", "?a=1&api-version=y&&b"),
            ("api-key=x&a", "?a"),
            ("a&api-key=x", "?a"),
            ("Api_Key=x&AUTHORIZATION=y&access_token=z&a", "?a"),
            ("code=x&key=y&OCP-Apim-Subscription-Key=z&a", "?a"),
            ("a=1;api-key=x&b=%3B", "?b=%3B"),
            ("after=k&limit=2&include[]=x&model=m&%6Bey=1", "?after=k&limit=2&include[]=x&model=m"),
        ] {
            assert_eq!(written(KEYLESS, query), expected, "{query}");
            assert!(KEYLESS.changes(query), "{query}");
        }
        for kept in ["", "a", "a=api-key", "api-key2=3", "after=token", "codes=1", "api-version"] {
            assert!(!KEYLESS.changes(kept), "{kept}");
        }
        let both = QueryEdit { dropped: CALLER_KEYS, ..VERSIONED };
        assert_eq!(written(both, "api-key=x&api-version=1&a"), "?api-version=2025-01-01&a");
        assert!(both.changes("api-version=2025-01-01&api-key"));
        assert!(!VERSIONED.changes("api-version=2025-01-01&api-key"));
    }
}
