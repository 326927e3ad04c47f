//! Converts backend addresses from the notation of other gateways.

use http::Uri;

/// The base of a resource's paths, or a placeholder for an unknown one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) url: String,
    /// `http://` to another machine.
    pub(super) is_plain: bool,
}

impl Endpoint {
    /// Parses an address that may include a path of the API: `https://a.openai.azure.com/openai`.
    ///
    /// `None` if it is not an address, or contains a password or a query.
    pub(super) fn read(text: &str) -> Option<Self> {
        let whole = Self::of_other(text)?;
        let (scheme, rest) = whole.url.split_once("://")?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        // The gateway appends the API's paths itself.
        let base = path.find("/openai").filter(|at| {
            let rest = &path[at + "/openai".len()..];
            rest.is_empty() || rest.starts_with('/')
        });
        let path = path[..base.unwrap_or(path.len())].trim_end_matches('/');
        Some(Self { url: format!("{scheme}://{authority}{path}"), ..whole })
    }

    /// Parses the base address of another provider's API, including its path.
    pub(super) fn of_other(text: &str) -> Option<Self> {
        let uri: Uri = text.trim().parse().ok()?;
        let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme))?;
        let authority = uri.authority().filter(|it| !it.as_str().contains('@'))?;
        let path = uri.path().trim_end_matches('/');
        let is_here = matches!(authority.host(), "localhost" | "127.0.0.1" | "[::1]");
        Some(Self {
            url: format!("{scheme}://{authority}{path}"),
            is_plain: scheme == "http" && !is_here,
        })
    }

    /// A placeholder for an address that the source does not contain.
    pub(super) fn unknown(name: &str) -> Self {
        let name = super::draft::identifier(name, '-').to_ascii_lowercase();
        Self { url: format!("https://{name}.openai.azure.com"), is_plain: false }
    }

    /// The first label of its host: the name of a resource.
    pub(super) fn resource(&self) -> &str {
        let rest = self.url.split_once("://").map_or(&*self.url, |(_, rest)| rest);
        rest.split(['.', ':', '/']).next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_ends_where_paths_of_the_api_begin() {
        for (text, url) in [
            ("https://a.openai.azure.com/", Some("https://a.openai.azure.com")),
            ("https://a.openai.azure.com/openai", Some("https://a.openai.azure.com")),
            ("https://a.openai.azure.com/openai/v1/", Some("https://a.openai.azure.com")),
            ("https://a.b/openai/deployments/x/chat/completions", Some("https://a.b")),
            (
                "https://gateway.ai.cloudflare.com/v1/acc/azure-openai/r/d",
                Some("https://gateway.ai.cloudflare.com/v1/acc/azure-openai/r/d"),
            ),
            ("http://10.0.0.1:80", Some("http://10.0.0.1:80")),
            ("https://me:secret@a.b", None),
            ("os.environ/BASE", None),
            ("a.openai.azure.com", None),
            ("", None),
        ] {
            assert_eq!(Endpoint::read(text).map(|it| it.url).as_deref(), url, "{text}");
        }
        assert!(Endpoint::read("http://10.0.0.1").is_some_and(|it| it.is_plain));
        assert!(Endpoint::read("http://127.0.0.1:1").is_some_and(|it| !it.is_plain));
        assert_eq!(Endpoint::read("https://east-1.openai.azure.com").unwrap().resource(), "east-1");
    }
}
