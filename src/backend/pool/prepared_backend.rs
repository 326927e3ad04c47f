//! A prepared backend: turns a request into one for its resource, and for no other.

use std::{collections::HashMap, fmt, sync::Arc};

use http::{HeaderName, HeaderValue, Request, Version, header};

use super::super::{
    Backend,
    credential::{Credential, Kind},
    field,
    resource::resource,
    rewrite::{self, BackendTarget, Deployment, KnownPaths, Paths, RequestReading, Unnameable},
    token::{AccessToken, TokenFuture},
};
use super::{origin, own_headers::OwnHeaders};
use crate::{
    ConfigError, TryCloneBody,
    classify::{Provider, Rules},
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
    /// Shared by all backends of the pool whose targets agree.
    known_paths: Arc<KnownPaths>,
    headers: OwnHeaders,
    rules: Rules,
}

impl PreparedBackend {
    pub(super) fn new(backend: Backend) -> Result<Self, ConfigError> {
        let name = backend.name;
        let Credential(credential) = backend.credential.unwrap_or_else(|| {
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
        let rules = || match provider {
            Provider::Azure => Rules::AZURE,
            provider => Rules::new(provider),
        };
        let host = header_value(&name, "endpoint", target.authority.as_str())?;
        Ok(Self {
            headers: OwnHeaders::new(host, credential, image_deployment, provider),
            name_header: header_value(&name, "name", &name)?,
            resource: resource(target.authority.as_str(), &target.base),
            seed: fnv1a([name.as_bytes()]),
            target,
            known_paths: Arc::default(),
            rules: backend.rules.unwrap_or_else(rules),
            region: backend.region,
            quota: backend.quota,
            name,
        })
    }

    /// Has `backends` remember together what paths become, where it is the same for several.
    pub(super) fn share_paths(backends: &mut [Self]) {
        let mut shared = HashMap::new();
        for backend in backends {
            let known = shared.entry(backend.target.of_paths());
            backend.known_paths = Arc::clone(known.or_default());
        }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    pub(super) fn quota(&self) -> Option<&str> {
        self.quota.as_deref()
    }

    /// The deployment that requests are addressed to, unless it is the caller's.
    pub(crate) fn deployment(&self) -> Option<&str> {
        self.target.deployment.as_ref().map(|deployment| &**deployment.name())
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
        match self.headers.credential() {
            Kind::Bearer(source) => Some(source.token()),
            Kind::ApiKey(_) | Kind::Passthrough | Kind::None => None,
        }
    }

    /// Whether it forwards the caller's credential.
    pub(crate) const fn is_callers(&self) -> bool {
        self.headers.is_callers()
    }

    /// The rules that classify its answers.
    pub(crate) const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The resource rejected the token of an attempt.
    pub(crate) fn reject(&self, token: &AccessToken) {
        if let Kind::Bearer(source) = self.headers.credential() {
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
        rewrite::rewrite_request(request, &self.target, &self.known_paths, reading)?;
        // The HTTP version of the incoming request does not apply to the outgoing one, and hyper-util
        // refuses to send an HTTP/2 request over HTTP/1.1.
        *request.version_mut() = Version::default();
        self.headers.address(request.headers_mut(), token);
        if let Some(spillover) = spillover {
            request.headers_mut().insert(SPILLOVER, spillover);
        }
        Ok(())
    }

    /// The native spillover deployment named by a caller who authenticates itself and addresses this
    /// resource. For all others the header is removed.
    fn spillover_of_caller<B>(&self, request: &Request<B>) -> Option<HeaderValue> {
        if !self.is_callers() || self.target.paths == Paths::OpenAi {
            return None;
        }
        let spillover = request.headers().get(SPILLOVER)?;
        let is_host = match request.uri().authority() {
            Some(authority) => *authority == self.target.authority,
            None => request.headers().get(header::HOST) == Some(self.headers.host()),
        };
        // If several resources share a host, the base path distinguishes them.
        let is_here = is_host && request.uri().path().starts_with(&*self.target.base);
        is_here.then(|| spillover.clone())
    }
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

const SPILLOVER: HeaderName = HeaderName::from_static("x-ms-spillover-deployment");

impl fmt::Debug for PreparedBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreparedBackend")
            .field("name", &self.name)
            .field("region", &self.region)
            .field("quota", &self.quota)
            .field("target", &self.target)
            .field("credential", &Credential(self.headers.credential().clone()))
            .finish_non_exhaustive()
    }
}
