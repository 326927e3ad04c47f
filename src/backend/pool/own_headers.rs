//! The headers of requests to one backend: its host, its credential, and nothing of another's.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::super::{credential::Kind, token::AccessToken};
use crate::classify::Provider;

/// What a backend writes into the headers of requests, built once.
pub(super) struct OwnHeaders {
    host: HeaderValue,
    credential: Kind,
    /// The header that the key or token goes into.
    credential_header: HeaderName,
    image_deployment: Option<HeaderValue>,
    /// The API version that the provider requires, for callers that name none.
    version: Option<(HeaderName, HeaderValue)>,
    /// Whether headers of Azure have no meaning here.
    is_foreign: bool,
}

impl OwnHeaders {
    pub(super) fn new(
        host: HeaderValue,
        mut credential: Kind,
        image_deployment: Option<HeaderValue>,
        provider: Provider,
    ) -> Self {
        let credential_header = match (&mut credential, provider) {
            (Kind::ApiKey(_), Provider::Azure) => API_KEY,
            (Kind::ApiKey(_), Provider::Anthropic) => X_API_KEY,
            (Kind::ApiKey(key), _) => {
                *key = as_bearer(key);
                header::AUTHORIZATION
            }
            (Kind::Bearer(_) | Kind::Passthrough | Kind::None, _) => header::AUTHORIZATION,
        };
        let is_anthropic = provider == Provider::Anthropic;
        Self {
            host,
            credential,
            credential_header,
            image_deployment,
            version: is_anthropic.then_some((ANTHROPIC_VERSION, ANTHROPIC_DATE)),
            is_foreign: provider != Provider::Azure,
        }
    }

    pub(super) const fn host(&self) -> &HeaderValue {
        &self.host
    }

    pub(super) const fn credential(&self) -> &Kind {
        &self.credential
    }

    /// Whether the caller's credential is forwarded.
    pub(super) const fn is_callers(&self) -> bool {
        matches!(self.credential, Kind::Passthrough)
    }

    /// Makes `headers` those of an attempt at this backend. `token` belongs to the attempt, if the
    /// credential has tokens.
    pub(super) fn address(&self, headers: &mut HeaderMap, token: Option<AccessToken>) {
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
    fn header(&self, token: Option<AccessToken>) -> Option<(&HeaderName, HeaderValue)> {
        match (&self.credential, token) {
            (Kind::Passthrough | Kind::None, _) => None,
            (_, Some(token)) => Some((&self.credential_header, token.into_header())),
            (Kind::ApiKey(key), None) => Some((&self.credential_header, key.clone())),
            (Kind::Bearer(_), None) => unreachable!("a bearer attempt has its token"),
        }
    }

    /// Replaces every header in place, which suffices if each is present exactly once; returns
    /// whether that was so.
    fn replace_headers(
        &self,
        headers: &mut HeaderMap,
        credential: Option<&(&HeaderName, HeaderValue)>,
    ) -> bool {
        let (mut hosts, mut credentials) = (0, usize::from(credential.is_none()));
        for (name, value) in headers.iter_mut() {
            match (HeaderRole::of(name), credential) {
                (HeaderRole::Other, _) => {}
                (HeaderRole::Credential, None) if self.is_callers() => {}
                (HeaderRole::Account, _) if !self.is_foreign || self.is_callers() => {}
                (HeaderRole::Host, _) => {
                    value.clone_from(&self.host);
                    hosts += 1;
                }
                (HeaderRole::Credential, Some((wanted, credential))) if name == *wanted => {
                    value.clone_from(credential);
                    credentials += 1;
                }
                (HeaderRole::Images, _) if self.image_deployment.is_none() && !self.is_foreign => {}
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
        credential: Option<(&HeaderName, HeaderValue)>,
    ) {
        let names_host = headers.contains_key(header::HOST);
        let names_images = self.image_deployment.is_some() && headers.contains_key(IMAGES);
        let foreign = |name: &&HeaderName| match HeaderRole::of(name) {
            HeaderRole::Host | HeaderRole::Resource => true,
            HeaderRole::Credential => !self.is_callers(),
            HeaderRole::Account => self.is_foreign && !self.is_callers(),
            HeaderRole::Images => names_images || self.is_foreign,
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
            headers.insert(name.clone(), value);
        }
    }
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
const IMAGES: HeaderName = HeaderName::from_static("x-ms-oai-image-generation-deployment");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::backend::{Credential, TokenFuture, TokenSource};

    fn of(provider: Provider, credential: Credential, images: Option<&'static str>) -> OwnHeaders {
        let host = HeaderValue::from_static("b.net:8443");
        OwnHeaders::new(host, credential.0, images.map(HeaderValue::from_static), provider)
    }

    struct Unasked;

    impl TokenSource for Unasked {
        fn token(&self) -> TokenFuture {
            unreachable!("the token is there")
        }
    }

    fn key(key: &str) -> Credential {
        Credential::api_key(key).expect("a key")
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
            of(provider, key("k"), None).address(&mut headers, None);
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
        of(Provider::Anthropic, Credential::none(), None).address(&mut named, None);
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
            let azure = |credential| of(Provider::Azure, credential, image_deployment);
            let (own, token) = match kind {
                0 => (azure(key("key")), None),
                1 => (azure(Credential::passthrough()), None),
                2 => (azure(Credential::none()), None),
                3 => (of(Provider::OpenAi, key("key"), None), None),
                4 => (of(Provider::Anthropic, key("key"), None), None),
                5 => (of(Provider::Http, Credential::passthrough(), None), None),
                _ => (azure(Credential::bearer(Unasked)), Some(token)),
            };
            let mut headers = HeaderMap::new();
            for name in names {
                headers.append(name, HeaderValue::from_static("the caller's"));
            }
            let (mut replaced, mut rebuilt) = (headers.clone(), headers);
            if !own.replace_headers(&mut replaced, own.header(token.clone()).as_ref()) {
                own.rebuild_headers(&mut replaced, own.header(token.clone()));
            }
            own.rebuild_headers(&mut rebuilt, own.header(token));
            prop_assert_eq!(sorted(&replaced), sorted(&rebuilt));
        }
    }
}
