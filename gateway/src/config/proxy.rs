//! Reads the proxies for backends, from the file and from the environment.

use std::collections::BTreeMap;

use http::Uri;

use super::{
    parse_context::ParseContext,
    toml::{Section, Value},
};
use crate::dial::{EnvironmentProxies, OwnProxy, Place, Proxy, place};

/// The proxies that backends set for their servers; several backends can have one server.
#[derive(Default)]
pub(super) struct ServerProxies {
    pub(super) own: BTreeMap<Place, OwnProxy>,
    /// The first backend that set it.
    owners: BTreeMap<Place, String>,
}

impl ServerProxies {
    /// Reads a backend's `proxy`.
    pub(super) fn read(&mut self, section: &mut Section<'_>, endpoint: Option<&str>) {
        let Some(value) = section.get("proxy") else { return };
        let server = endpoint.and_then(|endpoint| Some(place(&endpoint.parse::<Uri>().ok()?)));
        let (Some(proxy), Some(place)) = (proxy(&value), server) else { return };
        match self.own.get(&place) {
            Some(other) if *other != proxy => {
                let owner = &self.owners[&place];
                value.report(format!(
                    "differs from {owner}, which has the same server; use one proxy for both"
                ));
            }
            Some(_) => {}
            None => {
                self.owners.insert(place.clone(), value.key.clone());
                self.own.insert(place, proxy);
            }
        }
    }
}

fn proxy(value: &Value<'_>) -> Option<OwnProxy> {
    let text = value.text()?.trim();
    if text == "none" {
        return Some(OwnProxy::Straight);
    }
    let is_reference = text.starts_with("env:") || text.starts_with("file:");
    let proxy = match is_reference {
        true => Proxy::parse(value.secret()?.expose()),
        false => Proxy::parse(text),
    };
    let proxy = proxy.map_err(|problem| value.report(problem)).ok()?;
    if proxy.has_credentials() && !is_reference {
        value.report(
            "contains a user; keep the whole URL out of this file, as env:NAME or file:PATH",
        );
    }
    Some(OwnProxy::Through(proxy))
}

/// Reports environment variables that cannot be used.
pub(super) fn check_environment(context: &ParseContext<'_>) {
    let variable = |name: &str| context.variable(name);
    EnvironmentProxies::read(variable, |name, problem| {
        context.report(0..0, name, format!("of the environment {problem}"));
    });
}
