//! A prepared backend: turns a request into one for its resource, and for no other.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Version, header};

use super::super::{
    Backend,
    credential::{Credential, Kind},
    field,
    resource::resource,
    rewrite::{self, BackendTarget, Deployment, Paths, RequestReading, Unnameable},
    token::{AccessToken, TokenFuture},
};
use super::origin;
use crate::{
    ConfigError, TryCloneBody,
    classify::{Provider, Rules, Scope},
    hash::fnv1a,
};

/// A prepared backend: everything that it writes into requests is built once.
pub(crate) struct PreparedBackend {
    name: Arc<str>,
    region: Option<Arc<str>>,
    quota: Option<Arc<str>>,
    name_header: HeaderValue,
    /// The name of its resource, independent of the deployment.
    resource: Arc<str>,
    /// Identifies it in hashes, equally in every process.
    seed: u64,
    target: BackendTarget,
    host: HeaderValue,
    credential: Kind,
    /// The header that the key goes into.
    key_header: HeaderName,
    image_deployment: Option<HeaderValue>,
    /// The API version that the provider requires, for callers that name none.
    version: Option<(HeaderName, HeaderValue)>,
    rules: Rules,
}

impl PreparedBackend {
    pub(super) fn new(backend: Backend) -> Result<Self, ConfigError> {
        let name = backend.name;
        let Credential(mut credential) = backend.credential.unwrap_or_else(|| {
            Err(field(
                &name,
                "credential",
                "is missing: call `api_key`, `bearer`, or `credential` with \
                 `Credential::passthrough()`",
            ))
        })?;
        let deployment = backend.deployment.map(|value| deployment(&name, &value)).transpose()?;
        let api_version = backend.api_version.map(|value| version(&name, value)).transpose()?;
        let images = backend.image_deployment;
        let image_deployment =
            images.map(|value| header_value(&name, "image_deployment", &value)).transpose()?;
        let mut target = BackendTarget { deployment, api_version, ..backend.endpoint };
        origin::direct(&mut target, backend.provider, &credential)
            .map_err(|(wrong, problem)| field(&name, wrong, &problem))?;
        let provider = backend.provider.unwrap_or_default();
        if image_deployment.is_some() && target.paths == Paths::OpenAi {
            let problem = format!("is Azure's: leave it out with the provider `{provider}`");
            return Err(field(&name, "image_deployment", &problem));
        }
        let key_header = match provider {
            Provider::Azure => API_KEY,
            Provider::Anthropic => X_API_KEY,
            _ => {
                if let Kind::ApiKey(key) = &mut credential {
                    *key = as_bearer(key);
                }
                header::AUTHORIZATION
            }
        };
        let anthropic = provider == Provider::Anthropic;
        let rules = || match provider {
            Provider::Azure => Rules::AZURE,
            provider => Rules::new(provider),
        };
        Ok(Self {
            host: header_value(&name, "endpoint", target.authority.as_str())?,
            name_header: header_value(&name, "name", &name)?,
            resource: resource(target.authority.as_str(), &target.base),
            seed: fnv1a([name.as_bytes()]),
            target,
            credential,
            key_header,
            image_deployment,
            version: anthropic.then_some((ANTHROPIC_VERSION, ANTHROPIC_DATE)),
            rules: backend.rules.unwrap_or_else(rules),
            region: backend.region,
            quota: backend.quota,
            name,
        })
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn quota(&self) -> Option<&str> {
        self.quota.as_deref()
    }

    /// The deployment that requests are addressed to, unless it is the caller's.
    pub(crate) fn deployment(&self) -> Option<&str> {
        self.target.deployment.as_ref().map(|deployment| &**deployment.name())
    }

    /// Whether a refusal of this backend with that scope applies to `other`, too.
    pub(super) fn shares(&self, scope: Scope, other: &Self) -> bool {
        match scope {
            Scope::Request => false,
            Scope::Quota => self.quota.is_some() && self.quota == other.quota,
            Scope::Region => {
                let regions = self.region.as_ref().zip(other.region.as_ref());
                regions.is_some_and(|(own, other)| is_one_region(own, other))
                    && self.deployment() == other.deployment()
            }
        }
    }

    pub(crate) fn resource(&self) -> &Arc<str> {
        &self.resource
    }

    pub(super) const fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn name_header(&self) -> &HeaderValue {
        &self.name_header
    }

    /// The token to wait for before an attempt; `None` if the credential needs no waiting.
    pub(crate) fn token(&self) -> Option<TokenFuture> {
        match &self.credential {
            Kind::Bearer(source) => Some(source.token()),
            Kind::ApiKey(_) | Kind::Passthrough | Kind::None => None,
        }
    }

    /// Whether it forwards the caller's credential.
    pub(crate) const fn is_callers(&self) -> bool {
        matches!(self.credential, Kind::Passthrough)
    }

    /// The rules that classify its answers.
    pub(crate) const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Whether it has OpenAI's paths and none of Azure's.
    const fn is_foreign(&self) -> bool {
        matches!(self.target.paths, Paths::OpenAi)
    }

    /// The resource rejected the token of an attempt.
    pub(crate) fn reject(&self, token: &AccessToken) {
        if let Kind::Bearer(source) = &self.credential {
            source.rejected(token);
        }
    }

    /// Readdresses `request` to this backend: scheme, authority, `Host`, base path, deployment,
    /// `api-version`, HTTP version and every credential together, so that nothing of another resource
    /// remains. `token` belongs to this attempt, if the credential has tokens.
    pub(crate) fn address<B: TryCloneBody>(
        &self,
        request: &mut Request<B>,
        token: Option<AccessToken>,
        reading: &mut RequestReading,
    ) -> Result<(), Unnameable> {
        let spillover = self.spillover_of_caller(request);
        rewrite::rewrite_request(request, &self.target, reading)?;
        // The HTTP version of the incoming request does not apply to the outgoing one, and hyper-util
        // refuses to send an HTTP/2 request over HTTP/1.1.
        *request.version_mut() = Version::default();
        self.address_headers(request.headers_mut(), token);
        if let Some(spillover) = spillover {
            request.headers_mut().insert(SPILLOVER, spillover);
        }
        Ok(())
    }

    /// The native spillover deployment named by a caller who authenticates itself and addresses this
    /// resource. For all others the header is removed.
    fn spillover_of_caller<B>(&self, request: &Request<B>) -> Option<HeaderValue> {
        if !matches!(self.credential, Kind::Passthrough) || self.is_foreign() {
            return None;
        }
        let spillover = request.headers().get(SPILLOVER)?;
        let is_host = match request.uri().authority() {
            Some(authority) => *authority == self.target.authority,
            None => request.headers().get(header::HOST) == Some(&self.host),
        };
        // If several resources share a host, the base path distinguishes them.
        let is_here = is_host && request.uri().path().starts_with(&*self.target.base);
        is_here.then(|| spillover.clone())
    }

    fn address_headers(&self, headers: &mut HeaderMap, token: Option<AccessToken>) {
        let credential = self.header(token);
        if !self.replace_headers(headers, credential.as_ref()) {
            self.rebuild_headers(headers, credential);
        }
        if let Some((name, version)) = &self.version {
            headers.entry(name).or_insert_with(|| version.clone());
        }
    }

    /// The credential header of an attempt; `None` if the caller's own headers are forwarded, or none
    /// is needed.
    fn header(&self, token: Option<AccessToken>) -> Option<(HeaderName, HeaderValue)> {
        match (&self.credential, token) {
            (Kind::Passthrough | Kind::None, _) => None,
            (_, Some(token)) => Some((header::AUTHORIZATION, token.into_header())),
            (Kind::ApiKey(key), None) => Some((self.key_header.clone(), key.clone())),
            (Kind::Bearer(_), None) => unreachable!("a bearer attempt has its token"),
        }
    }

    /// Replaces every header in place, which suffices if each is present exactly once; returns
    /// whether that was so.
    fn replace_headers(
        &self,
        headers: &mut HeaderMap,
        credential: Option<&(HeaderName, HeaderValue)>,
    ) -> bool {
        let (mut hosts, mut credentials) = (0, usize::from(credential.is_none()));
        for (name, value) in headers.iter_mut() {
            match (HeaderRole::of(name), credential) {
                (HeaderRole::Other, _) => {}
                (HeaderRole::Credential, None) if self.is_callers() => {}
                (HeaderRole::Account, _) if !self.is_foreign() || self.is_callers() => {}
                (HeaderRole::Host, _) => {
                    value.clone_from(&self.host);
                    hosts += 1;
                }
                (HeaderRole::Credential, Some((wanted, credential))) if name == wanted => {
                    value.clone_from(credential);
                    credentials += 1;
                }
                (HeaderRole::Images, _)
                    if self.image_deployment.is_none() && !self.is_foreign() => {}
                (
                    HeaderRole::Credential
                    | HeaderRole::Account
                    | HeaderRole::Images
                    | HeaderRole::Resource,
                    _,
                ) => {
                    return false;
                }
            }
        }
        hosts <= 1 && credentials == 1
    }

    /// Removes everything before setting anything, so that a repeated header leaves no second value,
    /// and a full map has room for the new ones without growing.
    fn rebuild_headers(
        &self,
        headers: &mut HeaderMap,
        credential: Option<(HeaderName, HeaderValue)>,
    ) {
        let names_host = headers.contains_key(header::HOST);
        let names_images = self.image_deployment.is_some() && headers.contains_key(IMAGES);
        let foreign = |name: &&HeaderName| match HeaderRole::of(name) {
            HeaderRole::Host | HeaderRole::Resource => true,
            HeaderRole::Credential => !self.is_callers(),
            HeaderRole::Account => self.is_foreign() && !self.is_callers(),
            HeaderRole::Images => names_images || self.is_foreign(),
            HeaderRole::Other => false,
        };
        while let Some(name) = headers.keys().find(foreign).cloned() {
            headers.remove(name);
        }
        if names_host {
            headers.insert(header::HOST, self.host.clone());
        }
        if let Some(deployment) = self.image_deployment.clone().filter(|_| names_images) {
            headers.insert(IMAGES, deployment);
        }
        if let Some((name, value)) = credential {
            headers.insert(name, value);
        }
    }
}

/// Whether two labels name the same region: the service writes `East US 2` for `eastus2`.
fn is_one_region(one: &str, other: &str) -> bool {
    letters(one).eq(letters(other))
}

fn letters(label: &str) -> impl Iterator<Item = u8> {
    label.bytes().filter(|byte| *byte != b' ').map(|byte| byte.to_ascii_lowercase())
}

fn deployment(backend: &str, value: &str) -> Result<Deployment, ConfigError> {
    Deployment::new(value).ok_or_else(|| {
        field(
            backend,
            "deployment",
            "is empty, `.` or `..`, or has control characters: use the deployment's name",
        )
    })
}

fn version(backend: &str, value: String) -> Result<Box<str>, ConfigError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if !value.is_empty() && value.bytes().all(plain) {
        Ok(value.into_boxed_str())
    } else {
        Err(field(backend, "api_version", "is not a version: write `2024-10-21`"))
    }
}

fn header_value(backend: &str, what: &str, value: &str) -> Result<HeaderValue, ConfigError> {
    HeaderValue::from_str(value)
        .map_err(|_| field(backend, what, "has characters that a header cannot carry"))
}

/// How a header relates to the resource that it is sent to.
enum HeaderRole {
    Host,
    /// Caller credentials. The cookie may be API Management's `APIM-Backend-Affinity` or a session;
    /// no backend may see it.
    Credential,
    /// The organization and project at OpenAI that the caller's own key belongs to.
    Account,
    /// The deployment that the image generation tool uses.
    Images,
    /// Headers with a meaning only at the resource or gateway that the caller addressed: the native
    /// spillover deployment, and API Management's subscription keys.
    Resource,
    Other,
}

impl HeaderRole {
    fn of(name: &HeaderName) -> Self {
        match name.as_str() {
            "host" => Self::Host,
            "api-key" | "authorization" | "cookie" | "proxy-authorization" | "x-api-key" => {
                Self::Credential
            }
            "openai-organization" | "openai-project" => Self::Account,
            "x-ms-oai-image-generation-deployment" => Self::Images,
            "x-ms-spillover-deployment" => Self::Resource,
            name if name.starts_with("ocp-apim-") => Self::Resource,
            _ => Self::Other,
        }
    }
}

/// The value of `Authorization` with this key.
fn as_bearer(key: &HeaderValue) -> HeaderValue {
    let bearer = [b"Bearer ", key.as_bytes()].concat();
    let mut value = HeaderValue::from_bytes(&bearer).expect("a key is a header value");
    value.set_sensitive(true);
    value
}

const API_KEY: HeaderName = HeaderName::from_static("api-key");
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");
/// The only version since it was introduced (Anthropic's page "Versions").
const ANTHROPIC_DATE: HeaderValue = HeaderValue::from_static("2023-06-01");
const SPILLOVER: HeaderName = HeaderName::from_static("x-ms-spillover-deployment");
const IMAGES: HeaderName = HeaderName::from_static("x-ms-oai-image-generation-deployment");

impl fmt::Debug for PreparedBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreparedBackend")
            .field("name", &self.name)
            .field("region", &self.region)
            .field("quota", &self.quota)
            .field("target", &self.target)
            .field("credential", &Credential(self.credential.clone()))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(credential: Credential, image_deployment: Option<&str>) -> PreparedBackend {
        let backend = Backend::new("b", "https://b.net:8443").expect("an endpoint");
        let mut backend = backend.credential(credential);
        backend.image_deployment = image_deployment.map(Into::into);
        PreparedBackend::new(backend).expect("a valid backend")
    }

    fn foreign(provider: Provider, credential: Credential) -> PreparedBackend {
        let backend = Backend::new("b", "https://b.net:8443").expect("an endpoint");
        PreparedBackend::new(backend.provider(provider).credential(credential)).expect("a backend")
    }

    #[test]
    fn a_key_goes_into_the_header_that_its_provider_reads() {
        for (provider, name, value) in [
            (Provider::Azure, "api-key", "k"),
            (Provider::OpenAi, "authorization", "Bearer k"),
            (Provider::Anthropic, "x-api-key", "k"),
            (Provider::Bedrock, "authorization", "Bearer k"),
            (Provider::Mistral, "authorization", "Bearer k"),
            (Provider::Http, "authorization", "Bearer k"),
        ] {
            let mut headers: HeaderMap = NAMES
                .iter()
                .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("caller's")))
                .collect();
            let backend = foreign(provider, Credential::api_key("k").unwrap());
            backend.address_headers(&mut headers, None);
            for credential in ["api-key", "authorization", "x-api-key", "cookie"] {
                let expected = (credential == name).then_some(value);
                let sent = headers.get(credential);
                assert_eq!(
                    sent.map(HeaderValue::as_bytes),
                    expected.map(str::as_bytes),
                    "{provider}"
                );
                assert!(sent.is_none_or(HeaderValue::is_sensitive), "{provider}");
            }
            let is_azure = provider == Provider::Azure;
            assert_eq!(headers.contains_key("openai-organization"), is_azure, "{provider}");
            let version = headers.get("anthropic-version");
            assert_eq!(version.is_some(), provider == Provider::Anthropic, "{provider}");
        }
        let mut named = HeaderMap::new();
        named.insert(ANTHROPIC_VERSION, HeaderValue::from_static("2099-01-01"));
        let claude = foreign(Provider::Anthropic, Credential::none());
        claude.address_headers(&mut named, None);
        assert_eq!(named["anthropic-version"], "2099-01-01");
    }

    fn sorted(headers: &HeaderMap) -> Vec<(&str, &[u8], bool)> {
        let line = |(name, value)| {
            let (name, value): (&HeaderName, &HeaderValue) = (name, value);
            (name.as_str(), value.as_bytes(), value.is_sensitive())
        };
        let mut lines: Vec<_> = headers.iter().map(line).collect();
        lines.sort_unstable();
        lines
    }

    const NAMES: &[&str] = &[
        "host",
        "api-key",
        "x-api-key",
        "openai-organization",
        "authorization",
        "cookie",
        "x-ms-oai-image-generation-deployment",
        "x-ms-spillover-deployment",
        "ocp-apim-subscription-key",
        "content-type",
        "x-request-id",
    ];

    proptest! {
        #[test]
        fn headers_replaced_in_their_place_are_those_of_a_rebuilt_head(
            names in prop::collection::vec(prop::sample::select(NAMES), 0..6),
            kind in 0..7,
            image_deployment in prop_oneof![Just(None), Just(Some("dalle"))],
        ) {
            let token = AccessToken::new("t").unwrap();
            let (member, token) = match kind {
                3 => (member(Credential::none(), image_deployment), None),
                4 => (foreign(Provider::OpenAi, Credential::api_key("key").unwrap()), None),
                5 => (foreign(Provider::Anthropic, Credential::api_key("key").unwrap()), None),
                6 => (foreign(Provider::Http, Credential::none()), None),
                0 => (member(Credential::api_key("key").unwrap(), image_deployment), None),
                1 => (member(Credential::passthrough(), image_deployment), None),
                _ => (member(Credential::api_key("unused").unwrap(), image_deployment), Some(token)),
            };
            let mut headers = HeaderMap::new();
            for name in names {
                headers.append(name, HeaderValue::from_static("the caller's"));
            }
            let (mut replaced, mut rebuilt) = (headers.clone(), headers);
            if !member.replace_headers(&mut replaced, member.header(token.clone()).as_ref()) {
                member.rebuild_headers(&mut replaced, member.header(token.clone()));
            }
            member.rebuild_headers(&mut rebuilt, member.header(token));
            prop_assert_eq!(sorted(&replaced), sorted(&rebuilt));
        }
    }
}
