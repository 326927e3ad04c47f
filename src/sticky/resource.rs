//! Tells resources apart by their endpoints.

use std::sync::Arc;

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
