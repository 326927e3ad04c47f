//! Parses the endpoint of a resource as a user pastes it.

use http::uri::{Authority, PathAndQuery, Scheme};

use super::{BackendTarget, Paths, query::CALLER_KEYS};

/// The target at an endpoint as a user pastes it. Surrounding white space, trailing slashes, and one
/// trailing `/openai` or `/openai/v1` are removed.
///
/// # Errors
///
/// States the problem first, then its remedy, and repeats no part of the text, which may contain a
/// password.
pub(crate) fn parse_endpoint(text: &str) -> Result<BackendTarget, &'static str> {
    let (scheme, rest) = text.trim().split_once("://").ok_or(MISSING_SCHEME)?;
    let scheme = match scheme {
        "" => return Err(MISSING_SCHEME),
        _ if scheme.eq_ignore_ascii_case("https") => Scheme::HTTPS,
        _ if scheme.eq_ignore_ascii_case("http") => Scheme::HTTP,
        _ => return Err(UNSUPPORTED_SCHEME),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let authority = parse_authority(authority)?;
    if path.contains('#') {
        return Err(FRAGMENT);
    }
    if path.contains('?') {
        return Err(QUERY);
    }
    Ok(BackendTarget {
        scheme,
        authority,
        base: parse_base(path)?.into(),
        pasted: path.trim_end_matches('/').into(),
        paths: Paths::Azure,
        deployment: None,
        api_version: None,
        dropped: CALLER_KEYS,
    })
}

fn parse_authority(text: &str) -> Result<Authority, &'static str> {
    if text.contains('@') {
        return Err(USER_INFO);
    }
    if text.is_empty() || text.starts_with(':') || text.starts_with("[]") {
        return Err(EMPTY_HOST);
    }
    let authority: Authority = text.parse().map_err(|_| INVALID_HOST)?;
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok(authority),
        None => Err(INVALID_HOST),
        // `u16::from_str` accepts a `+`, a port does not (RFC 3986, section 3.2.3).
        Some(digits) if digits.starts_with('+') => Err(INVALID_PORT),
        Some(digits) => match digits.parse::<u16>() {
            Ok(1..) => Ok(authority),
            Ok(0) | Err(_) => Err(INVALID_PORT),
        },
    }
}

fn parse_base(path: &str) -> Result<&str, &'static str> {
    let path = path.trim_end_matches('/');
    let base = ["/openai/v1", "/openai"]
        .iter()
        .find_map(|suffix| path.strip_suffix(suffix))
        .unwrap_or(path)
        .trim_end_matches('/');
    let segments = format!("{base}/");
    if ["/openai/deployments/", "/openai/v1/"].iter().any(|start| segments.contains(start)) {
        return Err(OPERATION);
    }
    if base.is_empty() || PathAndQuery::try_from(base).is_ok() {
        Ok(base)
    } else {
        Err(INVALID_PATH)
    }
}

const MISSING_SCHEME: &str = "has no scheme: write it as `https://contoso.openai.azure.com`";
const UNSUPPORTED_SCHEME: &str = "its scheme is neither `https` nor `http`: use `https`";
const USER_INFO: &str = "has user information before its host: remove everything up to the `@` and \
                         configure a credential";
const QUERY: &str = "has a query: remove everything from the `?` on and configure the api-version by \
                     itself";
const FRAGMENT: &str = "has a fragment: remove everything from the `#` on";
const EMPTY_HOST: &str = "has no host: write it as `https://contoso.openai.azure.com`";
const INVALID_HOST: &str = "its host is not valid: use the resource's host name or an IP address";
const INVALID_PORT: &str =
    "its port is not valid: use a number from 1 to 65535 or none, without `:`";
const INVALID_PATH: &str = "its path is not valid: percent-encode it and keep it under 64 KiB";
/// The path continues after `/openai/v1` or into `/openai/deployments`.
const OPERATION: &str = "goes on after `/openai`: cut it off before `/openai` and configure the \
                         deployment by itself";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_endpoint_is_read_as_it_is_pasted() {
        for (text, scheme, authority, base) in [
            ("https://contoso.openai.azure.com", "https", "contoso.openai.azure.com", ""),
            ("https://contoso.openai.azure.com/", "https", "contoso.openai.azure.com", ""),
            (" HTTPS://contoso.openai.azure.com// \n", "https", "contoso.openai.azure.com", ""),
            ("https://c.openai.azure.com/openai", "https", "c.openai.azure.com", ""),
            ("https://c.openai.azure.com/openai/", "https", "c.openai.azure.com", ""),
            ("https://c.openai.azure.com/openai/v1", "https", "c.openai.azure.com", ""),
            ("https://c.services.ai.azure.com/openai/v1/", "https", "c.services.ai.azure.com", ""),
            ("http://127.0.0.1:8080", "http", "127.0.0.1:8080", ""),
            ("http://[::1]:8080/openai", "http", "[::1]:8080", ""),
            ("https://apim.azure-api.net/team-a/", "https", "apim.azure-api.net", "/team-a"),
            (
                "https://apim.azure-api.net/team/a/openai/v1",
                "https",
                "apim.azure-api.net",
                "/team/a",
            ),
            ("https://apim.azure-api.net/myopenai", "https", "apim.azure-api.net", "/myopenai"),
            (
                "https://apim.azure-api.net/openai/east",
                "https",
                "apim.azure-api.net",
                "/openai/east",
            ),
            ("https://apim.azure-api.net/openai/openai", "https", "apim.azure-api.net", "/openai"),
            ("https://a.net/x/openai/v10", "https", "a.net", "/x/openai/v10"),
            ("https://a.net/api/projects/p", "https", "a.net", "/api/projects/p"),
        ] {
            let BackendTarget { scheme: s, authority: a, base: b, .. } =
                parse_endpoint(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((s.as_str(), a.as_str(), &*b), (scheme, authority, base), "{text}");
        }
    }

    #[test]
    fn an_endpoint_that_would_be_misread_is_refused_by_name() {
        for (text, error) in [
            ("", MISSING_SCHEME),
            ("contoso.openai.azure.com", MISSING_SCHEME),
            ("contoso.openai.azure.com:443/openai", MISSING_SCHEME),
            ("//contoso.openai.azure.com", MISSING_SCHEME),
            ("://contoso.openai.azure.com", MISSING_SCHEME),
            ("wss://contoso.openai.azure.com", UNSUPPORTED_SCHEME),
            ("https//x://contoso", UNSUPPORTED_SCHEME),
            ("https://user:pw@contoso.openai.azure.com", USER_INFO),
            ("https://@contoso.openai.azure.com", USER_INFO),
            ("https://contoso.openai.azure.com?api-version=2024-10-21", QUERY),
            ("https://contoso.openai.azure.com/?", QUERY),
            ("https://contoso.openai.azure.com/#top", FRAGMENT),
            ("https://contoso.openai.azure.com#top?x", FRAGMENT),
            ("https://", EMPTY_HOST),
            ("https:///openai", EMPTY_HOST),
            ("https://:443", EMPTY_HOST),
            ("https://[]:443", EMPTY_HOST),
            ("https://con toso", INVALID_HOST),
            ("https://[::1", INVALID_HOST),
            ("https://[::1]x", INVALID_HOST),
            ("https://contoso:", INVALID_PORT),
            ("https://contoso:0", INVALID_PORT),
            ("https://contoso:+80", INVALID_PORT),
            ("https://contoso:65536", INVALID_PORT),
            ("https://contoso:https", INVALID_PORT),
            ("https://contoso/team a", INVALID_PATH),
            ("https://contoso/openai/deployments/gpt-4o/chat/completions", OPERATION),
            ("https://contoso/openai/deployments", OPERATION),
            ("https://contoso/openai/v1/chat/completions", OPERATION),
            ("https://contoso/openai/v1/openai", OPERATION),
        ] {
            assert_eq!(parse_endpoint(text).unwrap_err(), error, "{text}");
        }
        let long = format!("https://contoso/{}", "a".repeat(70_000));
        assert_eq!(parse_endpoint(&long).unwrap_err(), INVALID_PATH);
    }

    #[test]
    fn an_error_never_repeats_the_password() {
        let error = parse_endpoint("https://user:hunter2@contoso").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics_and_gives_a_usable_base(text in "(https?://)?\\PC{0,40}") {
            if let Ok(BackendTarget { authority, base, .. }) = parse_endpoint(&text) {
                prop_assert!(!authority.host().is_empty());
                prop_assert!(base.is_empty() || base.starts_with('/') && !base.ends_with('/'));
                let path = format!("{base}/");
                prop_assert!(PathAndQuery::try_from(path).is_ok());
            }
        }
    }
}
