//! A resource's configuration: its name, keys, deployments and outages.

use std::{fmt, time::Duration};

use crate::{Deployment, Outage};

/// One Azure OpenAI resource: a host name, a region, keys and deployments.
pub struct Resource {
    pub(crate) name: String,
    pub(crate) region: String,
    pub(crate) keys: Vec<String>,
    pub(crate) tokens: Vec<String>,
    pub(crate) deployments: Vec<Deployment>,
    pub(crate) prompt_cache: Option<Duration>,
    pub(crate) outages: Vec<Outage>,
    pub(crate) keep_alive: bool,
    pub(crate) http2_streams: Option<u32>,
    pub(crate) creations_per_minute: Option<u64>,
    pub(crate) reads_per_minute: Option<u64>,
}

impl Resource {
    /// A resource with this name: in process it has the hosts `name`, `name.openai.azure.com`,
    /// `name.services.ai.azure.com` and `name.cognitiveservices.azure.com`, case-insensitive.
    ///
    /// It starts in `East US`, without deployments and without keys; a resource without keys and
    /// tokens accepts every request.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            region: "East US".to_owned(),
            keys: Vec::new(),
            tokens: Vec::new(),
            deployments: Vec::new(),
            prompt_cache: None,
            outages: Vec::new(),
            keep_alive: true,
            http2_streams: None,
            creations_per_minute: None,
            reads_per_minute: None,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The display name of the region, sent as `x-ms-region`.
    #[must_use]
    pub fn region(mut self, display_name: impl Into<String>) -> Self {
        self.region = display_name.into();
        self
    }

    /// Adds a key, accepted as `api-key: KEY` and as `Authorization: Bearer KEY`, which SDKs send
    /// on v1 paths.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.keys.push(key.into());
        self
    }

    /// Adds an Entra ID token, accepted only as `Authorization: Bearer TOKEN`. Several resources
    /// may have the same token.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.tokens.push(token.into());
        self
    }

    /// Caches prompt prefixes, in steps of 1,024 tokens, until they have been unused for `keep`.
    /// Prompts with the same `prompt_cache_key` and model share a cache; if requests specify their
    /// prompt size, all prompts of one key count as having the same prefix. Off by default.
    ///
    /// The service keeps them for minutes, at most for a day (Azure page "Prompt caching"), and
    /// resources do not share caches.
    #[must_use]
    pub const fn prompt_cache(mut self, keep: Duration) -> Self {
        self.prompt_cache = Some(keep);
        self
    }

    /// Adds an outage; none by default.
    #[must_use]
    pub fn outage(mut self, outage: Outage) -> Self {
        self.outages.push(outage);
        self
    }

    /// Closes each HTTP/1.1 connection after one answer, so that every request has to connect. By
    /// default connections stay open, as with the service.
    #[must_use]
    pub const fn closes_connections(mut self) -> Self {
        self.keep_alive = false;
        self
    }

    /// Limits the concurrent requests on one HTTP/2 connection, and resets those beyond with
    /// `REFUSED_STREAM` (RFC 9113 section 5.1.2). Defaults to hyper's limit, 200.
    #[must_use]
    pub const fn http2_streams(mut self, streams: u32) -> Self {
        self.http2_streams = Some(streams);
        self
    }

    /// Limits the requests per minute that create stored objects: files, parts of uploads, vector
    /// stores, conversations and the like; over the same windows as
    /// [`requests_per_minute`](crate::Standard::requests_per_minute). Unlimited by default.
    #[must_use]
    pub const fn creations_per_minute(mut self, requests: u64) -> Self {
        self.creations_per_minute = Some(requests);
        self
    }

    /// Limits the requests per minute that read, list, cancel or delete stored objects. They use no
    /// quota of a deployment. Unlimited by default.
    #[must_use]
    pub const fn reads_per_minute(mut self, requests: u64) -> Self {
        self.reads_per_minute = Some(requests);
        self
    }

    /// Adds a deployment.
    #[must_use]
    pub fn deployment(mut self, deployment: Deployment) -> Self {
        self.deployments.push(deployment);
        self
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Shows the number of keys and tokens, never their values.
        f.debug_struct("Resource")
            .field("name", &self.name)
            .field("region", &self.region)
            .field("keys", &self.keys.len())
            .field("tokens", &self.tokens.len())
            .field("deployments", &self.deployments)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_prints_no_key() {
        let resource = Resource::new("east").key("key-east").token("jwt-east");
        let printed = format!("{resource:?}");
        assert!(printed.contains("keys: 1"), "{printed}");
        assert!(!printed.contains("key-east") && !printed.contains("jwt-east"), "{printed}");
    }
}
