//! A URI for another backend or deployment: only the requested parts change.
#![no_main]

use http::Uri;
use libfuzzer_sys::fuzz_target;
use tower_spillover::fuzzing::{self, Target};

// One line each: URI, deployment, endpoint, api-version.
fuzz_target!(|text: &str| {
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (uri, deployment, endpoint, version) = (line(), line(), line(), line());
    let Ok(uri) = uri.parse::<Uri>() else { return };
    let (_, id) = fuzzing::operation(uri.path());
    assert!(id.is_none_or(|id| uri.path().split('/').any(|segment| segment == id)));
    another_deployment(&uri, deployment);
    let keeps_keys = text.len().is_multiple_of(2);
    let endpoint = if endpoint.is_empty() { "https://contoso.openai.azure.com" } else { endpoint };
    if let Some(target) = Target::new(endpoint, deployment, version, keeps_keys) {
        let plain =
            version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
        let version = if plain { version } else { "" };
        another_backend(&uri, &target, deployment, version, keeps_keys);
    }
});

fn another_deployment(uri: &Uri, name: &str) {
    let Some(rewritten) = fuzzing::rewrite_deployment(uri, name) else { return };
    let place = deployment(uri.path());
    let Some(new) = rewritten else {
        let given = place.and_then(|place| uri.path().split('/').nth(place));
        let is_it =
            given.is_none_or(|given| decoded(given).is_some_and(|it| it == name.as_bytes()));
        assert!(is_it, "nothing was to be changed");
        return;
    };
    let place = place.expect("a path with a deployment");
    let (before, after): (Vec<_>, Vec<_>) =
        (uri.path().split('/').collect(), new.path().split('/').collect());
    assert_eq!(before.len(), after.len());
    for (at, (before, after)) in before.iter().zip(&after).enumerate() {
        if at == place {
            assert_eq!(decoded(after).expect("valid escapes"), name.as_bytes());
        } else {
            assert_eq!(before, after, "another segment");
        }
    }
    assert_eq!((uri.scheme(), uri.authority()), (new.scheme(), new.authority()));
    assert_eq!(uri.query(), new.query());
    assert_eq!(new.to_string().parse::<Uri>().expect("a URI"), new);
    assert_eq!(fuzzing::rewrite_deployment(&new, name), Some(None), "a second time");
}

fn another_backend(uri: &Uri, target: &Target, name: &str, version: &str, keeps_keys: bool) {
    let new = target.rewrite(uri);
    assert_eq!(new.authority().map(|it| it.as_str()), Some(target.authority()));
    assert_eq!(new.to_string().parse::<Uri>().expect("a URI"), new);

    let path = match uri.path() {
        "" | "*" => "/",
        path => path,
    };
    let segments: Vec<_> = path.split('/').collect();
    let openai = segments.iter().position(|segment| *segment == "openai");
    let place = deployment(path);
    let mut expected = target.base().to_owned();
    for (at, segment) in segments.iter().enumerate().skip(openai.unwrap_or(0)) {
        // A path begins with a slash, so its first segment is empty.
        if at > 0 {
            expected.push('/');
        }
        let new = new.path().strip_prefix(&expected).map(|rest| rest.split('/').next());
        let new = new.flatten().expect("as long as the path that was given");
        if place == Some(at) && !name.is_empty() {
            assert_eq!(decoded(new).expect("valid escapes"), name.as_bytes());
        } else {
            assert_eq!(new, *segment);
        }
        expected.push_str(new);
    }
    assert_eq!(new.path(), expected, "nothing follows");

    let is_classic = openai.is_some_and(|at| segments.get(at + 1) != Some(&"v1"));
    let versions = |uri: &Uri| pairs(uri).filter(|(key, _)| key == b"api-version").count();
    if is_classic && !version.is_empty() {
        assert_eq!(versions(&new), 1);
        assert!(pairs(&new).any(|(key, value)| key == b"api-version" && value == version));
    }
    assert!(keeps_keys || !whole_pairs(&new).any(has_key), "a key for another host");
    // A session's query names its deployment.
    let is_session = segments.contains(&"realtime");
    let is_other = |pair: &&str| !has_key(pair) && name_of(pair) != b"api-version";
    let others =
        |uri: &Uri| whole_pairs(uri).filter(is_other).map(str::to_owned).collect::<Vec<_>>();
    let has_changed = uri.query() != new.query();
    assert!(!has_changed || is_session || others(uri) == others(&new), "other pairs stay");

    let base_is_plain = target.base().split('/').all(|segment| segment != "openai");
    if openai.is_some() && base_is_plain {
        assert_eq!(target.rewrite(&new), new, "a second time");
    }
}

/// The pairs of a query, as written.
fn whole_pairs(uri: &Uri) -> impl Iterator<Item = &str> {
    uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty())
}

/// The name of a pair as a server reads it.
fn name_of(pair: &str) -> Vec<u8> {
    let given = pair.split('=').next().unwrap_or_default();
    decoded(given).unwrap_or_else(|| given.as_bytes().to_vec()).to_ascii_lowercase()
}

/// Whether it contains a credential of the caller; some servers treat a semicolon as an ampersand.
fn has_key(pair: &str) -> bool {
    pair.split(';').map(|it| name_of(it.strip_prefix('+').unwrap_or(it))).any(|name| {
        let name = name.as_slice();
        KEYS.iter().any(|key| key.as_bytes() == name)
    })
}

const KEYS: [&str; 13] = [
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

/// The segment that names the deployment.
fn deployment(path: &str) -> Option<usize> {
    let segments: Vec<_> = path.split('/').collect();
    let openai = segments.iter().position(|segment| *segment == "openai")?;
    let is_classic = segments.get(openai + 1) == Some(&"deployments");
    (is_classic && segments.get(openai + 2).is_some_and(|it| !it.is_empty())).then_some(openai + 2)
}

/// The pairs of a query, names as a server reads them.
fn pairs(uri: &Uri) -> impl Iterator<Item = (Vec<u8>, &str)> {
    let query = uri.query().unwrap_or_default();
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key).unwrap_or_else(|| key.into()).to_ascii_lowercase(), value)
    })
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            decoded.push(u8::try_from(high << 4 | low).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    Some(decoded)
}
