//! Addresses of other servers, in the form that the library accepts.

use http::uri::Authority;
use tower_spillover::{Backend, ConfigError};

use super::toml::Value;

impl<'a> Value<'a> {
    /// The address of a server. Never repeats an invalid one, because it may contain a password.
    pub(super) fn address(&self) -> Option<&'a str> {
        let text = self.text()?.trim();
        match Backend::new("probe", text) {
            Ok(_) => Some(text),
            Err(error) => {
                self.report(strip_field(&error));
                None
            }
        }
    }

    /// The address of a server that receives secrets: without TLS only on this machine, or if
    /// `allow_http` is set.
    pub(super) fn endpoint(&self, allow_http: bool, remedy: &str) -> Option<&'a str> {
        let text = self.address()?;
        if is_plain(text) && !allow_http && !is_loopback(text) {
            self.report(format!("would send keys over http:// to another machine; {remedy}"));
            return None;
        }
        Some(text)
    }
}

/// The library's message without its field prefix.
pub(super) fn strip_field(error: &ConfigError) -> String {
    let text = error.to_string();
    let problem = text.strip_prefix(error.field()).unwrap_or(&text).trim_start_matches(": ");
    problem.replacen(": ", "; ", 1)
}

fn is_plain(endpoint: &str) -> bool {
    endpoint.split_once("://").is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("http"))
}

pub(super) fn is_loopback(endpoint: &str) -> bool {
    let rest = endpoint.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for near in
            ["http://127.0.0.1:80", "HTTP://LocalHost/x", "http://[::1]:9", "http://127.9.9.9"]
        {
            assert!(is_plain(near) && is_loopback(near), "{near}");
        }
        for far in ["http://10.0.0.1", "http://127.0.0.1.example", "http://localhost.example"] {
            assert!(is_plain(far) && !is_loopback(far), "{far}");
        }
        assert!(!is_plain("https://example.com"));
    }
}
