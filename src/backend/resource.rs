//! The resources that backends are on, told apart by their endpoints.

use std::sync::Arc;

/// The backends behind a layer, with their resources.
#[derive(Clone, Debug, Default)]
pub struct Residents(Vec<(Arc<str>, Arc<str>)>);

impl Residents {
    /// Backends by name and resource, in the order in which they are preferred.
    pub(crate) fn new(backends: impl IntoIterator<Item = (Arc<str>, Arc<str>)>) -> Self {
        Self(backends.into_iter().collect())
    }

    /// These, and then `others`.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    pub(crate) fn holds(&self, resource: &str) -> bool {
        self.0.iter().any(|(_, other)| **other == *resource)
    }

    /// Whether there are backends on any other resource.
    pub(crate) fn holds_others(&self, resource: &str) -> bool {
        self.0.iter().any(|(_, other)| **other != *resource)
    }

    /// The resource of the backend with this name.
    pub(crate) fn named(&self, name: &str) -> Option<Arc<str>> {
        self.0.iter().find(|(other, _)| **other == *name).map(|(_, of)| Arc::clone(of))
    }

    /// The resource of this backend or, without one, of the first.
    pub(crate) fn default(&self, name: Option<&str>) -> Arc<str> {
        let first = || self.0.first().map_or_else(|| "".into(), |(_, of)| Arc::clone(of));
        name.and_then(|name| self.named(name)).unwrap_or_else(first)
    }
}

/// What a resource is called, of which these are the endpoint's authority and base path.
///
/// One Azure resource answers to a host in each of several domains, and everything that it holds is
/// there under all of them. Of any other endpoint, a gateway's, the whole address counts.
pub(crate) fn resource(authority: &str, base: &str) -> Arc<str> {
    let authority = authority.to_ascii_lowercase();
    let authority = authority.strip_suffix(":443").unwrap_or(&authority);
    match DOMAINS.iter().find_map(|domain| authority.strip_suffix(domain)) {
        Some(name) => format!("{name}{}", DOMAINS[0]).into(),
        None => format!("{authority}{base}").into(),
    }
}

/// Azure page "Azure OpenAI in Foundry Models v1 API", and the older domain of Azure AI services.
const DOMAINS: [&str; 3] =
    [".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_the_same_in_each_of_its_domains() {
        for authority in [
            "contoso.openai.azure.com",
            "Contoso.OpenAI.azure.com:443",
            "contoso.services.ai.azure.com",
            "contoso.cognitiveservices.azure.com",
        ] {
            for base in ["", "/api/projects/p"] {
                assert_eq!(&*resource(authority, base), "contoso.openai.azure.com");
            }
        }
        assert_ne!(
            resource("fabrikam.openai.azure.com", ""),
            resource("contoso.openai.azure.com", "")
        );
    }

    #[test]
    fn behind_a_gateway_the_base_path_tells_resources_apart() {
        assert_ne!(resource("apim.net", "/east"), resource("apim.net", "/west"));
        assert_ne!(resource("127.0.0.1:8080", ""), resource("127.0.0.1:8081", ""));
        assert_eq!(&*resource("APIM.net", "/East"), "apim.net/East");
    }
}
