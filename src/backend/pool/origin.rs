//! Where requests for a provider go, and what cannot work there.

use super::super::{
    credential::Kind,
    rewrite::{BackendTarget, CALLER_KEYS_AND_VERSION, Paths, VERSION},
};
use crate::classify::Provider;

/// Adapts `target` to a provider's paths, and rejects endpoints of other providers. `None` means
/// Azure by default.
///
/// # Errors
///
/// The field that cannot work with this provider, and why.
pub(super) fn direct(
    target: &mut BackendTarget,
    provider: Option<Provider>,
    credential: &Kind,
) -> Result<(), (&'static str, String)> {
    let host = target.authority.host().to_ascii_lowercase();
    let owner = owner(&host, &target.pasted);
    let endpoint = |problem: String| Err(("endpoint", problem));
    if let Some(owner) = owner.filter(|owner| !goes_with(provider.unwrap_or_default(), *owner)) {
        return endpoint(match owner {
            Provider::Azure => {
                "is of Azure, whose paths are its own: leave the provider out".to_owned()
            }
            owner => format!("is an address of another provider: set the provider to `{owner}`"),
        });
    }
    if is_operation(&target.pasted) {
        return endpoint("goes on with an operation: cut that off, behind `/v1`".to_owned());
    }
    match provider {
        None if target.base.ends_with("/v1") => endpoint(
            "ends in `/v1`, where Azure has `/openai/v1`: set the provider to `openai` or whose it is, \
             or to `azure` where a gateway's own path ends so"
                .to_owned(),
        ),
        None | Some(Provider::Azure) => {
            if let Kind::Passthrough = credential {
                target.dropped = &[];
            }
            Ok(())
        }
        Some(provider) => foreign(target, provider, &host, credential),
    }
}

fn foreign(
    target: &mut BackendTarget,
    provider: Provider,
    host: &str,
    credential: &Kind,
) -> Result<(), (&'static str, String)> {
    if target.api_version.is_some() {
        let problem = format!("is Azure's: leave it out with the provider `{provider}`");
        return Err(("api_version", problem));
    }
    if let (Provider::Bedrock, Kind::ApiKey(key)) = (provider, credential)
        && [b"AKIA", b"ASIA"].iter().any(|start| key.as_bytes().starts_with(*start))
    {
        let problem = "is an access key of AWS, which signs requests (SigV4), as is not done here: use a \
                       Bedrock API key";
        return Err(("api_key", problem.to_owned()));
    }
    target.paths = Paths::OpenAi;
    target.base = match &*target.pasted {
        // Private endpoints have a name of their own before it.
        "" if host.contains("bedrock-runtime") => "/openai/v1".into(),
        "" => "/v1".into(),
        pasted => pasted.into(),
    };
    target.dropped =
        if let Kind::Passthrough = credential { VERSION } else { CALLER_KEYS_AND_VERSION };
    Ok(())
}

/// The provider behind a well-known address.
fn owner(host: &str, path: &str) -> Option<Provider> {
    let is_of = |domain: &str| {
        host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    if is_of("api.openai.com") {
        Some(Provider::OpenAi)
    } else if is_of("api.anthropic.com") || is_of("services.ai.azure.com") && is_claude(path) {
        Some(Provider::Anthropic)
    } else if is_of("api.mistral.ai") {
        Some(Provider::Mistral)
    } else if host.contains("bedrock-") && (is_of("amazonaws.com") || is_of("api.aws")) {
        Some(Provider::Bedrock)
    } else if AZURE.iter().any(|domain| is_of(domain)) {
        Some(Provider::Azure)
    } else {
        None
    }
}

/// Foundry has Anthropic's API next to OpenAI's.
fn is_claude(path: &str) -> bool {
    path == "/anthropic" || path.starts_with("/anthropic/")
}

/// Whether requests for a provider can be served at an address of `owner`. Plain HTTP is valid for
/// any server, and so is Azure, whose v1 API accepts requests of OpenAI's clients.
fn goes_with(provider: Provider, owner: Provider) -> bool {
    provider == owner || provider == Provider::Http
}

/// Whether a path ends with an operation, which requests bring themselves.
fn is_operation(path: &str) -> bool {
    OPERATIONS.iter().any(|operation| path.ends_with(operation))
}

/// The domains of Azure, and those of its clouds for governments.
const AZURE: [&str; 5] = [
    "openai.azure.com",
    "services.ai.azure.com",
    "cognitiveservices.azure.com",
    "openai.azure.us",
    "openai.azure.cn",
];
const OPERATIONS: [&str; 5] =
    ["/chat/completions", "/completions", "/responses", "/embeddings", "/messages"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backend, BackendPool};

    fn problem(endpoint: &str, provider: Option<Provider>) -> Option<String> {
        let mut backend = Backend::new("b", endpoint).expect("an address").api_key("key");
        if let Some(provider) = provider {
            backend = backend.provider(provider);
        }
        BackendPool::new([backend]).err().map(|error| error.to_string())
    }

    #[test]
    fn an_address_goes_with_its_own_provider_and_a_remedy_with_any_other() {
        use Provider::{Anthropic, Azure, Bedrock, Http, Mistral, OpenAi};
        for (endpoint, good) in [
            ("https://api.openai.com/v1", &[OpenAi, Http][..]),
            ("https://eu.api.openai.com", &[OpenAi, Http]),
            ("https://api.anthropic.com", &[Anthropic, Http]),
            ("https://api.mistral.ai/v1/", &[Mistral, Http]),
            ("https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1", &[Bedrock, Http]),
            ("https://bedrock-mantle.us-east-1.api.aws/v1", &[Bedrock, Http]),
            ("https://contoso.openai.azure.com", &[Azure, Http]),
            ("https://contoso.openai.azure.us", &[Azure, Http]),
            ("https://contoso.services.ai.azure.com/anthropic", &[Anthropic, Http]),
            ("https://llm.example/api/v1", &Provider::ALL),
            ("https://notapi.openai.com.example", &Provider::ALL),
        ] {
            for provider in Provider::ALL {
                let problem = problem(endpoint, Some(provider));
                assert_eq!(problem.is_none(), good.contains(&provider), "{endpoint} {provider}");
                if let Some(problem) = problem {
                    assert!(
                        problem.contains("endpoint") && problem.contains("provider"),
                        "{problem}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_address_in_the_form_of_open_ai_s_needs_a_word_about_the_provider() {
        for endpoint in
            ["https://api.openai.com/v1", "https://llm.example/v1", "http://a.net/x/v1/"]
        {
            let problem = problem(endpoint, None).expect(endpoint);
            assert!(problem.contains("set the provider to `openai`"), "{problem}");
        }
        for endpoint in ["https://a.net/x/openai/v1", "https://a.net/v10", "https://a.net/v1/team"]
        {
            assert_eq!(problem(endpoint, None), None);
        }
    }

    #[test]
    fn what_has_no_meaning_at_a_provider_is_refused_by_its_field() {
        let backend =
            || Backend::new("b", "https://llm.example/v1").unwrap().api_key("AKIAEXAMPLE");
        for (backend, field) in [
            (backend().provider(Provider::OpenAi).api_version("2024-10-21"), "api_version"),
            (backend().provider(Provider::Mistral).image_deployment("dalle"), "image_deployment"),
            (backend().provider(Provider::Bedrock), "api_key"),
        ] {
            let error = BackendPool::new([backend]).expect_err(field);
            assert_eq!(error.field(), format!("backend `b`: {field}"));
            assert!(!error.to_string().contains("AKIA"), "{error}");
        }
        let pasted = problem("https://api.openai.com/v1/chat/completions", Some(Provider::OpenAi));
        assert!(pasted.is_some_and(|problem| problem.contains("cut that off")));
    }

    #[test]
    fn without_a_path_requests_go_where_the_provider_documents_it() {
        for (host, provider, base) in [
            ("api.openai.com", Provider::OpenAi, "/v1"),
            ("bedrock-runtime.eu-west-1.amazonaws.com", Provider::Bedrock, "/openai/v1"),
            (
                "vpce-0a1b.bedrock-runtime.eu-west-1.vpce.amazonaws.com",
                Provider::Bedrock,
                "/openai/v1",
            ),
            ("bedrock-mantle.eu-west-1.api.aws", Provider::Bedrock, "/v1"),
            ("vllm:8000", Provider::Http, "/v1"),
        ] {
            let endpoint = format!("http://{host}");
            let mut target = super::super::super::rewrite::parse_endpoint(&endpoint).unwrap();
            direct(&mut target, Some(provider), &Kind::None).unwrap();
            assert_eq!(&*target.base, base, "{host}");
        }
    }
}
