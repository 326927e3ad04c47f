//! Selects the proxy for a server.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use http::{Uri, uri::Scheme};
use hyper_util::client::proxy::matcher::Matcher;

use super::proxy::{OwnProxy, Proxy};

/// A server: its host in lower case, and its port.
pub(crate) type Place = (String, u16);

/// Selects proxies: first by the setting for a server, then by the environment.
#[derive(Clone, Debug)]
pub(crate) struct Proxies {
    own: Arc<BTreeMap<Place, OwnProxy>>,
    environment: EnvironmentProxies,
}

/// `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, also in lower case.
#[derive(Clone, Debug)]
pub(crate) struct EnvironmentProxies(Arc<Matcher>);

impl Proxies {
    pub(crate) fn new(own: BTreeMap<Place, OwnProxy>, environment: EnvironmentProxies) -> Self {
        Self { own: Arc::new(own), environment }
    }

    /// The proxy for `uri`.
    pub(super) fn of(&self, uri: &Uri) -> Option<Proxy> {
        match self.own.get(&place(uri)) {
            Some(OwnProxy::Straight) => None,
            Some(OwnProxy::Through(proxy)) => Some(proxy.clone()),
            None => self.environment.of(uri),
        }
    }
}

impl EnvironmentProxies {
    /// Reads the variables; `report` receives the invalid ones, with the problem.
    pub(crate) fn read(
        variable: impl Fn(&str) -> Option<String>,
        mut report: impl FnMut(&'static str, &'static str),
    ) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let mut proxy = |names: [&'static str; 2]| {
            let found = names.iter().find_map(|name| Some((*name, set(name)?)));
            let Some((name, value)) = found else { return String::new() };
            match Proxy::parse(&value) {
                Ok(_) => value.trim().to_owned(),
                Err(problem) => {
                    report(name, problem);
                    String::new()
                }
            }
        };
        let matcher = Matcher::builder()
            .https(proxy(["HTTPS_PROXY", "https_proxy"]))
            .http(proxy(["HTTP_PROXY", "http_proxy"]))
            .all(proxy(["ALL_PROXY", "all_proxy"]))
            .no(set("NO_PROXY").or_else(|| set("no_proxy")).unwrap_or_default());
        Self(Arc::new(matcher.build()))
    }

    /// The environment variables of this process.
    pub(crate) fn of_process() -> Self {
        Self::read(|name| std::env::var(name).ok(), |_, _| {})
    }

    /// Loopback and link-local addresses are reached directly: to a proxy they mean other machines,
    /// and Azure's metadata service would give it tokens.
    fn of(&self, uri: &Uri) -> Option<Proxy> {
        let host = uri.host()?;
        if is_near(host) { None } else { self.0.intercept(uri).map(Proxy::of) }
    }
}

/// The server of an address.
pub(crate) fn place(uri: &Uri) -> Place {
    let by_scheme = if uri.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 };
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    (host, uri.port_u16().unwrap_or(by_scheme))
}

fn is_near(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']).trim_end_matches('.');
    match host.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => {
            address.is_loopback() || address.is_link_local() || address.is_unspecified()
        }
        Ok(IpAddr::V6(address)) => {
            address.is_loopback() || address.is_unicast_link_local() || address.is_unspecified()
        }
        Err(_) => {
            host.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &'static [(&str, &str)]) -> EnvironmentProxies {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        EnvironmentProxies::read(variable, |name, problem| panic!("{name}: {problem}"))
    }

    fn way(proxies: &EnvironmentProxies, uri: &str) -> Option<String> {
        Some(proxies.of(&uri.parse().unwrap())?.address().authority()?.to_string())
    }

    #[test]
    fn the_scheme_chooses_the_variable_and_lower_case_is_heard_too() {
        let both = proxies(&[("HTTPS_PROXY", "http://s:1"), ("http_proxy", "p:2")]);
        assert_eq!(way(&both, "https://a.example").as_deref(), Some("s:1"));
        assert_eq!(way(&both, "http://a.example").as_deref(), Some("p:2"));
        let all =
            proxies(&[("all_proxy", "socks5://x:3"), ("HTTPS_PROXY", " "), ("https_proxy", "y:4")]);
        assert_eq!(way(&all, "http://a.example").as_deref(), Some("x:3"));
        assert_eq!(way(&all, "https://a.example").as_deref(), Some("y:4"), "an empty one is none");
        assert_eq!(way(&proxies(&[]), "https://a.example"), None);
    }

    #[test]
    fn no_proxy_names_domains_addresses_networks_or_everything() {
        let some = proxies(&[
            ("HTTPS_PROXY", "http://s:1"),
            ("NO_PROXY", "azure.com, .internal,10.0.0.0/8,192.168.1.7,fd00::/8"),
        ]);
        for straight in [
            "https://azure.com",
            "https://x.openai.AZURE.com",
            "https://a.internal:8443",
            "https://10.1.2.3",
            "https://192.168.1.7",
            "https://[fd00::1]",
        ] {
            assert_eq!(way(&some, straight), None, "{straight}");
        }
        for other in ["https://notazure.com", "https://11.0.0.1", "https://azure.com.example"] {
            assert!(way(&some, other).is_some(), "{other}");
        }
        let everything = proxies(&[("HTTPS_PROXY", "http://s:1"), ("no_proxy", "*")]);
        assert_eq!(way(&everything, "https://a.example"), None);
    }

    #[test]
    fn this_machine_and_its_link_need_no_entry_in_no_proxy() {
        let all = proxies(&[("ALL_PROXY", "http://s:1")]);
        for near in [
            "http://127.0.0.1:1",
            "http://localhost",
            "http://LOCALHOST.",
            "http://a.localhost",
            "https://[::1]",
            "http://169.254.169.254/metadata",
            "http://[fe80::1]",
            "http://[::ffff:127.0.0.1]",
            "http://127.1.2.3",
        ] {
            assert_eq!(way(&all, near), None, "{near}");
        }
        for far in ["http://localhost.example", "http://127.0.0.1.example", "http://128.0.0.1"] {
            assert!(way(&all, far).is_some(), "{far}");
        }
    }

    #[test]
    fn a_servers_own_setting_comes_before_the_environment() {
        let environment = proxies(&[("ALL_PROXY", "http://s:1"), ("NO_PROXY", "b.example")]);
        let own = [
            (("a.example".to_owned(), 443), OwnProxy::Straight),
            (("b.example".to_owned(), 443), OwnProxy::Through(Proxy::parse("q:2").unwrap())),
            (("127.0.0.1".to_owned(), 80), OwnProxy::Through(Proxy::parse("q:2").unwrap())),
        ];
        let proxies = Proxies::new(own.into(), environment);
        let way = |uri: &str| Some(proxies.of(&uri.parse().unwrap())?.to_string());
        assert_eq!(way("https://A.example"), None);
        assert_eq!(way("https://a.example:444").as_deref(), Some("proxy http://s:1"));
        assert_eq!(way("https://b.example").as_deref(), Some("proxy http://q:2"));
        assert_eq!(way("http://127.0.0.1").as_deref(), Some("proxy http://q:2"));
    }
}
