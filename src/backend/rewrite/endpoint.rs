//! Reads the endpoint of a resource as a user pastes it.

use std::{error::Error, fmt};

use http::uri::{Authority, PathAndQuery, Scheme};

/// Why a text is not an endpoint. Holds no part of the text, which may contain a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndpointError {
    /// There is no `scheme://`.
    MissingScheme,
    /// The scheme is neither `http` nor `https`.
    UnsupportedScheme,
    /// There is a `user:password@` before the host.
    UserInfo,
    /// There is a `?query`.
    Query,
    /// There is a `#fragment`.
    Fragment,
    /// There is no host.
    EmptyHost,
    /// The host has characters that no host has.
    InvalidHost,
    /// The port is not a number from 1 to 65535.
    InvalidPort,
    /// The base path has characters that have to be percent-encoded, or is longer than a URI.
    InvalidPath,
    /// The path goes on after `/openai/v1` or into `/openai/deployments`: it names an operation.
    Operation,
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MissingScheme => "has no scheme: write it as `https://contoso.openai.azure.com`",
            Self::UnsupportedScheme => "its scheme is neither `https` nor `http`: use `https`",
            Self::UserInfo => {
                "has user information before its host: remove everything up to the \
                 `@` and configure a credential"
            }
            Self::Query => {
                "has a query: remove everything from the `?` on and configure the \
                 api-version by itself"
            }
            Self::Fragment => "has a fragment: remove everything from the `#` on",
            Self::EmptyHost => "has no host: write it as `https://contoso.openai.azure.com`",
            Self::InvalidHost => {
                "its host is not valid: use the resource's host name or an IP address"
            }
            Self::InvalidPort => {
                "its port is not valid: use a number from 1 to 65535 or none, without `:`"
            }
            Self::InvalidPath => {
                "its path is not valid: percent-encode it and keep it under 64 KiB"
            }
            Self::Operation => {
                "goes on after `/openai`: cut it off before `/openai` and configure \
                 the deployment by itself"
            }
        })
    }
}

impl Error for EndpointError {}

/// A resource's endpoint, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) scheme: Scheme,
    pub(crate) authority: Authority,
    /// Empty or `/base/path`, no slash at its end.
    pub(crate) base: Box<str>,
}

/// Parses an endpoint as a user pastes it. White space around it, slashes at its end, and one
/// `/openai` or `/openai/v1` at its end are cut off.
///
/// # Errors
///
/// Names the first thing that is wrong, with its remedy.
pub(crate) fn parse_endpoint(text: &str) -> Result<Endpoint, EndpointError> {
    let (scheme, rest) = text.trim().split_once("://").ok_or(EndpointError::MissingScheme)?;
    let scheme = match scheme {
        "" => return Err(EndpointError::MissingScheme),
        _ if scheme.eq_ignore_ascii_case("https") => Scheme::HTTPS,
        _ if scheme.eq_ignore_ascii_case("http") => Scheme::HTTP,
        _ => return Err(EndpointError::UnsupportedScheme),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let authority = parse_authority(authority)?;
    if path.contains('#') {
        return Err(EndpointError::Fragment);
    }
    if path.contains('?') {
        return Err(EndpointError::Query);
    }
    Ok(Endpoint { scheme, authority, base: parse_base(path)?.into() })
}

fn parse_authority(text: &str) -> Result<Authority, EndpointError> {
    if text.contains('@') {
        return Err(EndpointError::UserInfo);
    }
    if text.is_empty() || text.starts_with(':') || text.starts_with("[]") {
        return Err(EndpointError::EmptyHost);
    }
    let authority: Authority = text.parse().map_err(|_| EndpointError::InvalidHost)?;
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok(authority),
        None => Err(EndpointError::InvalidHost),
        // `u16::from_str` accepts a `+`, a port does not (RFC 3986, section 3.2.3).
        Some(digits) if digits.starts_with('+') => Err(EndpointError::InvalidPort),
        Some(digits) => match digits.parse::<u16>() {
            Ok(1..) => Ok(authority),
            Ok(0) | Err(_) => Err(EndpointError::InvalidPort),
        },
    }
}

fn parse_base(path: &str) -> Result<&str, EndpointError> {
    let path = path.trim_end_matches('/');
    let base = ["/openai/v1", "/openai"]
        .iter()
        .find_map(|suffix| path.strip_suffix(suffix))
        .unwrap_or(path)
        .trim_end_matches('/');
    let segments = format!("{base}/");
    if ["/openai/deployments/", "/openai/v1/"].iter().any(|start| segments.contains(start)) {
        return Err(EndpointError::Operation);
    }
    if base.is_empty() || PathAndQuery::try_from(base).is_ok() {
        Ok(base)
    } else {
        Err(EndpointError::InvalidPath)
    }
}

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
            let Endpoint { scheme: s, authority: a, base: b } =
                parse_endpoint(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((s.as_str(), a.as_str(), &*b), (scheme, authority, base), "{text}");
        }
    }

    #[test]
    fn an_endpoint_that_would_be_misread_is_refused_by_name() {
        use EndpointError as E;
        for (text, error) in [
            ("", E::MissingScheme),
            ("contoso.openai.azure.com", E::MissingScheme),
            ("contoso.openai.azure.com:443/openai", E::MissingScheme),
            ("//contoso.openai.azure.com", E::MissingScheme),
            ("://contoso.openai.azure.com", E::MissingScheme),
            ("wss://contoso.openai.azure.com", E::UnsupportedScheme),
            ("https//x://contoso", E::UnsupportedScheme),
            ("https://user:pw@contoso.openai.azure.com", E::UserInfo),
            ("https://@contoso.openai.azure.com", E::UserInfo),
            ("https://contoso.openai.azure.com?api-version=2024-10-21", E::Query),
            ("https://contoso.openai.azure.com/?", E::Query),
            ("https://contoso.openai.azure.com/#top", E::Fragment),
            ("https://contoso.openai.azure.com#top?x", E::Fragment),
            ("https://", E::EmptyHost),
            ("https:///openai", E::EmptyHost),
            ("https://:443", E::EmptyHost),
            ("https://[]:443", E::EmptyHost),
            ("https://con toso", E::InvalidHost),
            ("https://[::1", E::InvalidHost),
            ("https://[::1]x", E::InvalidHost),
            ("https://contoso:", E::InvalidPort),
            ("https://contoso:0", E::InvalidPort),
            ("https://contoso:+80", E::InvalidPort),
            ("https://contoso:65536", E::InvalidPort),
            ("https://contoso:https", E::InvalidPort),
            ("https://contoso/team a", E::InvalidPath),
            ("https://contoso/openai/deployments/gpt-4o/chat/completions", E::Operation),
            ("https://contoso/openai/deployments", E::Operation),
            ("https://contoso/openai/v1/chat/completions", E::Operation),
            ("https://contoso/openai/v1/openai", E::Operation),
        ] {
            assert_eq!(parse_endpoint(text).unwrap_err(), error, "{text}");
        }
        let long = format!("https://contoso/{}", "a".repeat(70_000));
        assert_eq!(parse_endpoint(&long).unwrap_err(), E::InvalidPath);
    }

    #[test]
    fn an_error_never_repeats_the_password() {
        let error = parse_endpoint("https://user:hunter2@contoso").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics_and_gives_a_usable_base(text in "(https?://)?\\PC{0,40}") {
            if let Ok(Endpoint { authority, base, .. }) = parse_endpoint(&text) {
                prop_assert!(!authority.host().is_empty());
                prop_assert!(base.is_empty() || base.starts_with('/') && !base.ends_with('/'));
                let path = format!("{base}/");
                prop_assert!(PathAndQuery::try_from(path).is_ok());
            }
        }
    }
}
