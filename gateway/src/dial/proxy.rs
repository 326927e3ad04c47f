//! One proxy: its address, and its credentials.

use std::fmt;

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

/// A proxy that opens tunnels: by CONNECT over HTTP or HTTPS, or by SOCKS 5, with names resolved at
/// the proxy.
#[derive(Clone)]
pub(crate) struct Proxy(Intercept);

/// The configured proxy for one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OwnProxy {
    /// A direct connection, whatever the environment contains.
    Straight,
    Through(Proxy),
}

impl Proxy {
    /// Parses a proxy's URL, which may contain a user and a password.
    ///
    /// # Errors
    ///
    /// The problem and the remedy, without any part of the URL.
    pub(crate) fn parse(url: &str) -> Result<Self, &'static str> {
        let wrong = "is not the address of a proxy; write it like http://proxy.example:3128";
        let url = url.trim();
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let scheme = scheme.to_ascii_lowercase();
        if !["http", "https", "socks5", "socks5h"].contains(&&*scheme) {
            return Err("has a scheme that is not supported; use http, https or socks5");
        }
        let uri: Uri = format!("{scheme}://{rest}").parse().map_err(|_| wrong)?;
        let host = uri.host().unwrap_or_default();
        let place = uri.authority().and_then(|authority| authority.as_str().rsplit('@').next());
        let is_place = place.is_some_and(|place| place == host || uri.port_u16().is_some());
        if host.is_empty() || !is_place || !matches!(uri.path(), "" | "/") || uri.query().is_some()
        {
            return Err(wrong);
        }
        let matcher = Matcher::builder().all(uri.to_string()).build();
        matcher.intercept(&Uri::from_static("https://any.example")).map(Self).ok_or(wrong)
    }

    pub(super) const fn of(found: Intercept) -> Self {
        Self(found)
    }

    /// Whether the URL contains a user or a password.
    pub(crate) fn has_credentials(&self) -> bool {
        self.authorization().is_some() || self.user().is_some()
    }

    /// The address for a connector, to which SOCKS is a plain connection.
    pub(super) fn address(&self) -> Uri {
        let uri = self.0.uri();
        if !self.is_socks() {
            return uri.clone();
        }
        let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(1080));
        let plain = Uri::builder().scheme("http").authority(format!("{host}:{port}"));
        plain.path_and_query("/").build().unwrap_or_else(|_| uri.clone())
    }

    pub(super) fn is_socks(&self) -> bool {
        self.0.uri().scheme_str().is_some_and(|scheme| scheme.starts_with("socks"))
    }

    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.0.basic_auth()
    }

    pub(super) fn user(&self) -> Option<(&str, &str)> {
        self.0.raw_auth()
    }
}

impl PartialEq for Proxy {
    fn eq(&self, other: &Self) -> bool {
        self.0.uri() == other.0.uri()
            && self.authorization() == other.authorization()
            && self.user() == other.user()
    }
}

impl Eq for Proxy {}

/// Shows the address, without the user and the password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uri = self.0.uri();
        let (scheme, authority) = (uri.scheme_str().unwrap_or_default(), uri.authority());
        write!(f, "proxy {scheme}://{}", authority.map_or("", |authority| authority.as_str()))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_shown_without_its_user_and_password() {
        for url in ["http://me:canary%40@proxy.example:3128", "socks5h://me:canary@proxy.example"] {
            let proxy = Proxy::parse(url).unwrap();
            assert!(proxy.has_credentials());
            let shown = format!("{proxy} {proxy:?} {:?}", OwnProxy::Through(proxy.clone()));
            assert!(shown.contains("proxy.example") && !shown.contains("canary"), "{shown}");
            assert!(!shown.contains("me:"), "{shown}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_repeating_it() {
        for url in [
            "",
            "http://",
            "ftp://proxy",
            "socks4://proxy",
            "http://proxy/path",
            "proxy:port",
            "http://proxy?x",
            "http://a b",
        ] {
            assert!(Proxy::parse(url).is_err(), "{url}");
        }
        for url in ["proxy:3128", "proxy.example", "HTTP://proxy", "https://proxy/", "socks5://p"] {
            assert!(Proxy::parse(url).is_ok(), "{url}");
        }
        let address = |url| Proxy::parse(url).unwrap().address().to_string();
        assert_eq!(address("socks5://p"), "http://p:1080/");
        assert_eq!(address("proxy:3128"), "http://proxy:3128/");
    }
}
