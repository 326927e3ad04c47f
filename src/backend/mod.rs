//! Backends, the pool that they share, and the rewriting of requests for them.

mod credential;
mod deployment_layer;
mod on_connect;
mod pool;
mod resource;
mod rewrite;
#[cfg(feature = "redis")]
mod store_tokens;
mod token;

use std::{fmt, sync::Arc};

#[cfg(fuzzing)]
pub(crate) use self::rewrite::{
    BackendTarget, parse_endpoint, replace_model, replace_model_field, rewrite_deployment,
    rewrite_uri,
};
pub use self::{
    credential::Credential,
    deployment_layer::{DeploymentLayer, WithDeployment},
    on_connect::OnConnect,
    pool::BackendPool,
    resource::{CommonResources, Residents},
    token::{AccessToken, TokenError, TokenFuture, TokenSource},
};
pub(crate) use self::{
    pool::{PreparedBackend, TriedSet},
    resource::resource_hash,
    rewrite::{Deployment, RequestReading, Unnameable, ask_for_default_tier},
};
use crate::{
    ConfigError,
    classify::{Classify, Provider, Rules},
};

/// One deployment on one Azure OpenAI resource, as a member of a [`BackendPool`].
///
/// ```
/// use tower_spillover::Backend;
///
/// # fn main() -> Result<(), tower_spillover::ConfigError> {
/// let sweden = Backend::new("sweden", "https://contoso-sweden.openai.azure.com")?
///     .deployment("gpt-4o")
///     .api_key("0123456789abcdef")
///     .weight(2);
/// assert!(!format!("{sweden:?}").contains("0123456789abcdef"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Backend {
    name: Arc<str>,
    region: Option<Arc<str>>,
    quota: Option<Arc<str>>,
    endpoint: rewrite::BackendTarget,
    credential: Option<Result<Credential, ConfigError>>,
    deployment: Option<String>,
    api_version: Option<String>,
    image_deployment: Option<String>,
    provider: Option<Provider>,
    rules: Option<Rules>,
    weight: u32,
    priority: u32,
}

impl Backend {
    /// A backend called `name` on the resource at `endpoint`.
    ///
    /// `endpoint` is the address shown by the Azure portal, `https://contoso.openai.azure.com`, or
    /// that of a gateway in front of it, with or without a base path. A trailing `/openai` or
    /// `/openai/v1` is removed, since requests bring it themselves. For another
    /// [provider](Self::provider) it is the base address given to OpenAI's clients,
    /// `https://api.openai.com/v1`.
    ///
    /// # Errors
    ///
    /// If `name` is empty or contains spaces, quotes or non-ASCII characters, or `endpoint` is not an
    /// `http` or `https` address with a host and nothing after its path.
    pub fn new(name: impl Into<Arc<str>>, endpoint: impl AsRef<str>) -> Result<Self, ConfigError> {
        let name = name.into();
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(ConfigError::new(
                "backend name",
                format!("{name:?} is not a name: use letters, digits and signs like `-`"),
            ));
        }
        let endpoint = rewrite::parse_endpoint(endpoint.as_ref())
            .map_err(|problem| field(&name, "endpoint", problem))?;
        Ok(Self {
            name,
            region: None,
            quota: None,
            endpoint,
            credential: None,
            deployment: None,
            api_version: None,
            image_deployment: None,
            provider: None,
            rules: None,
            weight: 1,
            priority: 1,
        })
    }

    /// The provider whose API this backend serves. Defaults to [`Provider::Azure`].
    ///
    /// It decides how refusals are read and where a request goes. Any provider but Azure has OpenAI's
    /// paths behind its endpoint: `/openai/v1/chat/completions` and
    /// `/openai/deployments/gpt-4o/chat/completions` both become `/v1/chat/completions`. The latter
    /// gets its deployment, or that of [`deployment`](Self::deployment), as the body's `model`, and
    /// loses `api-version`. The [key](Self::api_key) goes into the header that the provider expects.
    ///
    /// An endpoint without a path means `/v1`, and `/openai/v1` for `bedrock-runtime`.
    #[must_use]
    pub const fn provider(mut self, provider: Provider) -> Self {
        self.provider = Some(provider);
        self
    }

    /// The rules that classify this backend's refusals. Defaults to those of its
    /// [provider](Self::provider).
    #[must_use]
    pub fn classify(mut self, rules: impl Classify) -> Self {
        self.rules = Some(Rules::new(rules));
        self
    }

    /// The region, like `East US 2`. When the service has no capacity left for a model in a region
    /// (`no_capacity`), all backends of the pool with the same region and deployment cool down
    /// together.
    #[must_use]
    pub fn region(mut self, region: impl Into<Arc<str>>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// The quota that this backend shares with others of its pool, by any name.
    ///
    /// Azure counts tokens and requests per subscription, region, model and kind of deployment, so
    /// resources that agree in all four refuse together. Backends with the same quota name cool down
    /// together after a rate limit, and one request tries only one of them. By default each has its
    /// own quota. Failures are not shared.
    ///
    /// Source: Microsoft Learn, "Azure OpenAI quotas and limits".
    #[must_use]
    pub fn quota(mut self, quota: impl Into<Arc<str>>) -> Self {
        self.quota = Some(quota.into());
        self
    }

    /// The deployment that requests are addressed to. By default the caller's deployment name is
    /// kept, which suits resources with identical deployment names, as the Azure Architecture Center
    /// recommends.
    #[must_use]
    pub fn deployment(mut self, deployment: impl Into<String>) -> Self {
        self.deployment = Some(deployment.into());
        self
    }

    /// The key of the resource, sent as `api-key`, or as the [provider](Self::provider) expects it.
    #[must_use]
    pub fn api_key(mut self, key: impl AsRef<str>) -> Self {
        let credential = Credential::api_key(key.as_ref());
        self.credential = Some(credential.map_err(|error| error.of(&titled(&self.name))));
        self
    }

    /// A source of Microsoft Entra ID tokens, called for every attempt.
    #[must_use]
    pub fn bearer(self, source: impl TokenSource) -> Self {
        self.credential(Credential::bearer(source))
    }

    /// How to authenticate. There is no default: a pool rejects a backend without a credential, so
    /// that no caller's key is sent to a resource that it was not meant for.
    #[must_use]
    pub fn credential(mut self, credential: Credential) -> Self {
        self.credential = Some(Ok(credential));
        self
    }

    /// The `api-version` of classic paths (`/openai/deployments/...`). By default the caller's is
    /// kept. Requests of the v1 API carry none and get none.
    #[must_use]
    pub fn api_version(mut self, version: impl Into<String>) -> Self {
        self.api_version = Some(version.into());
        self
    }

    /// The deployment that the image generation tool uses here: replaces the caller's
    /// `x-ms-oai-image-generation-deployment` header, which names a deployment of one resource.
    #[must_use]
    pub fn image_deployment(mut self, deployment: impl Into<String>) -> Self {
        self.image_deployment = Some(deployment.into());
        self
    }

    /// The share of requests that start here, relative to the other backends of the same priority.
    /// Defaults to 1, equal shares.
    #[must_use]
    pub const fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// The priority group, 1 first, as in API Management's backend pools. A group is used only while
    /// every backend of the groups before it is cooling down. Defaults to 1.
    #[must_use]
    pub const fn priority(mut self, priority: u32) -> Self {
        self.priority = priority;
        self
    }

    /// The name of this backend.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rewrite::BackendTarget { scheme, authority, pasted: base, .. } = &self.endpoint;
        f.debug_struct("Backend")
            .field("name", &self.name)
            .field("region", &self.region)
            .field("quota", &self.quota)
            .field("provider", &self.provider.unwrap_or_default())
            .field("endpoint", &format_args!("{scheme}://{authority}{base}"))
            .field("credential", &self.credential)
            .field("deployment", &self.deployment)
            .field("api_version", &self.api_version)
            .field("weight", &self.weight)
            .field("priority", &self.priority)
            .finish_non_exhaustive()
    }
}

fn field(backend: &str, field: &str, problem: &str) -> ConfigError {
    ConfigError::new(field, problem).of(&titled(backend))
}

fn titled(backend: &str) -> String {
    format!("backend `{backend}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_backend_and_the_field_once_and_the_remedy() {
        let backend = || Backend::new("a", "https://a.example").expect("a backend");
        for (wrong, field, remedy) in [
            (backend(), "credential", "call `api_key`"),
            (backend().api_key("k\n"), "api_key", "trim line ends"),
            (backend().api_key("k").deployment(".."), "deployment", "use the deployment's name"),
            (backend().api_key("k").api_version("v 1"), "api_version", "write `2024-10-21`"),
        ] {
            let error = BackendPool::new([wrong]).expect_err("a wrong backend");
            assert_eq!(error.field(), format!("backend `a`: {field}"));
            let text = error.to_string();
            assert!(
                text.contains(remedy) && text.matches(&format!("{field}:")).count() == 1,
                "{text}"
            );
        }
    }
}
