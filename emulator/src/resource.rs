//! What the emulator is made of: resources, their deployments and how fast those answer.

use std::{fmt, time::Duration};

use crate::{Fault, Outage, Ptu, Standard};

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
    /// A resource called `name`: in process it answers to the hosts `name`,
    /// `name.openai.azure.com`, `name.services.ai.azure.com` and `name.cognitiveservices.azure.com`,
    /// whatever the case.
    ///
    /// It starts in `East US`, without deployments and without keys; a resource without keys and
    /// tokens lets everybody in.
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

    /// Adds a key, accepted as `api-key: KEY` and, as SDKs send it on v1 paths, as
    /// `Authorization: Bearer KEY`.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.keys.push(key.into());
        self
    }

    /// Adds an Entra ID token, accepted as `Authorization: Bearer TOKEN` only. One token may belong
    /// to several resources.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.tokens.push(token.into());
        self
    }

    /// Caches how prompts begin, in steps of 1,024 tokens, for so long after their last use. Prompts
    /// of one `prompt_cache_key` and one model share a cache; where a request names its prompt's
    /// size, all of one key are taken to begin alike. Off by default.
    ///
    /// The service keeps them for minutes, at most for a day (Azure page "Prompt caching"), and
    /// what is cached in one resource is not in another.
    #[must_use]
    pub const fn prompt_cache(mut self, keep: Duration) -> Self {
        self.prompt_cache = Some(keep);
        self
    }

    /// Adds a time when nobody can connect; without any the resource is always there.
    #[must_use]
    pub fn outage(mut self, outage: Outage) -> Self {
        self.outages.push(outage);
        self
    }

    /// Closes each HTTP/1.1 connection after one answer, so that every request has to connect. Kept
    /// open by default, as the service does.
    #[must_use]
    pub const fn closes_connections(mut self) -> Self {
        self.keep_alive = false;
        self
    }

    /// Takes so many requests at the same time on one HTTP/2 connection, and resets those beyond with
    /// `REFUSED_STREAM` (RFC 9113 section 5.1.2). Defaults to hyper's limit, 200.
    #[must_use]
    pub const fn http2_streams(mut self, streams: u32) -> Self {
        self.http2_streams = Some(streams);
        self
    }

    /// Takes so many requests a minute that create what it keeps: files, parts of uploads, vector
    /// stores, conversations and the like; judged as
    /// [`requests_per_minute`](Standard::requests_per_minute) are. No limit by default.
    #[must_use]
    pub const fn creations_per_minute(mut self, requests: u64) -> Self {
        self.creations_per_minute = Some(requests);
        self
    }

    /// Takes so many requests a minute that read, list, cancel or delete what it keeps. They cost a
    /// deployment nothing. No limit by default.
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
        // Keys and tokens are counted, never printed.
        f.debug_struct("Resource")
            .field("name", &self.name)
            .field("region", &self.region)
            .field("keys", &self.keys.len())
            .field("tokens", &self.tokens.len())
            .field("deployments", &self.deployments)
            .finish()
    }
}

/// One deployment of a model: provisioned or Standard.
#[derive(Clone, Debug)]
pub struct Deployment {
    pub(crate) name: String,
    pub(crate) model: String,
    pub(crate) capacity: Capacity,
    pub(crate) pace: Pace,
    pub(crate) spillover: Option<String>,
    pub(crate) hides_throttles: bool,
    pub(crate) media_per_minute: Option<u64>,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) filters_prompts: bool,
    pub(crate) failures: Vec<(f64, Fault)>,
    pub(crate) flex: Option<Standard>,
    pub(crate) priority: Option<Standard>,
}

/// What limits a deployment.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Capacity {
    Ptu(Ptu),
    Standard(Standard),
}

impl Deployment {
    /// A provisioned deployment.
    pub fn ptu(name: impl Into<String>, ptu: Ptu) -> Self {
        Self::new(name.into(), Capacity::Ptu(ptu))
    }

    /// A Standard (pay-as-you-go) deployment.
    pub fn standard(name: impl Into<String>, standard: Standard) -> Self {
        Self::new(name.into(), Capacity::Standard(standard))
    }

    /// The model name that answers carry. Defaults to the deployment's name.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = model.into();
        self
    }

    /// How fast it answers. Defaults to at once, so that tests take no time.
    #[must_use]
    pub const fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// Azure's own spillover: what this deployment does not answer with 200 goes to `deployment` of
    /// the same resource (Azure page "Manage traffic with spillover"). A request can ask for the
    /// same with the header `x-ms-spillover-deployment`. Off by default.
    #[must_use]
    pub fn spillover(mut self, deployment: impl Into<String>) -> Self {
        self.spillover = Some(deployment.into());
        self
    }

    /// Refuses streamed v1 responses inside an event stream of status 200, as the service has been
    /// seen to do, instead of with a plain 429. Off by default.
    #[must_use]
    pub const fn hides_throttles(mut self) -> Self {
        self.hides_throttles = true;
        self
    }

    /// Takes so many requests a minute that create images, sounds or videos, judged as
    /// [`requests_per_minute`](Standard::requests_per_minute) are; the service's defaults are 2 to 9.
    /// They cost none of the deployment's other quota, and reading their results costs nothing. No
    /// limit by default.
    #[must_use]
    pub const fn media_per_minute(mut self, requests: u64) -> Self {
        self.media_per_minute = Some(requests);
        self
    }

    /// Sends an event into each stream that was silent for so long (at least a millisecond): a
    /// `keepalive` into those of responses, as the service does after 30 s, a comment into others. Off
    /// by default.
    #[must_use]
    pub fn keepalive(mut self, silence: Duration) -> Self {
        self.keepalive = Some(silence.max(Duration::from_millis(1)));
        self
    }

    /// Begins each stream of chat with a chunk that has no choices but what the content filter says
    /// of the prompt, as deployments with default filters do. Off by default.
    #[must_use]
    pub const fn filters_prompts(mut self) -> Self {
        self.filters_prompts = true;
        self
    }

    /// Has the service tier `flex`, with this capacity besides the deployment's quota: once that is
    /// used up, requests of the tier are refused with [`Refusal::Flex`](crate::Refusal::Flex) and
    /// others are not (Azure page "Flex processing"). Without it, as by default, they get 400.
    #[must_use]
    pub const fn flex(mut self, capacity: Standard) -> Self {
        self.flex = Some(capacity);
        self
    }

    /// Has the service tier `priority`, with this capacity: what is beyond it is served as default,
    /// which the answer's `service_tier` says. Without it, as by default, such requests get 400.
    #[must_use]
    pub const fn priority(mut self, capacity: Standard) -> Self {
        self.priority = Some(capacity);
        self
    }

    /// Spoils a share of the requests, each by a draw of its own from the emulator's
    /// [seed](crate::Emulator::seed): 0.01 is one in a hundred. Requests that a
    /// [script](crate::Emulator::script) has a fault for are left to it. May be called for several
    /// faults, whose shares add up; none by default.
    ///
    /// # Panics
    ///
    /// When the shares add up to more than 1, or one is negative or not a number.
    #[must_use]
    pub fn fails(mut self, share: f64, fault: Fault) -> Self {
        let sum = self.failures.iter().map(|(share, _)| share).sum::<f64>() + share;
        assert!(share >= 0.0 && sum <= 1.0 + 1e-9, "shares of requests lie between 0 and 1");
        self.failures.push((share, fault));
        self
    }

    fn new(name: String, capacity: Capacity) -> Self {
        Self {
            model: name.clone(),
            name,
            capacity,
            pace: Pace::default(),
            spillover: None,
            hides_throttles: false,
            media_per_minute: None,
            keepalive: None,
            filters_prompts: false,
            failures: Vec::new(),
            flex: None,
            priority: None,
        }
    }
}

/// The time an answer takes. The default is none at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// From the arrival of a request to its first generated token.
    pub first_token: Duration,
    /// Between two generated tokens.
    pub per_token: Duration,
}

impl Pace {
    /// When `tokens` tokens are there, counted from the arrival; zero tokens take as long as one.
    pub(crate) fn time_for(&self, tokens: u64) -> Duration {
        let more = u32::try_from(tokens.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first_token.saturating_add(self.per_token.saturating_mul(more))
    }

    /// How many tokens are there `age` after the arrival.
    pub(crate) fn tokens_by(&self, age: Duration) -> u64 {
        let Some(generating) = age.checked_sub(self.first_token) else {
            return 0;
        };
        let more =
            generating.as_nanos().checked_div(self.per_token.as_nanos()).unwrap_or(u128::MAX);
        u64::try_from(more).unwrap_or(u64::MAX).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_counts_the_first_token_once() {
        let pace =
            Pace { first_token: Duration::from_millis(300), per_token: Duration::from_millis(20) };
        assert_eq!(pace.time_for(0), Duration::from_millis(300));
        assert_eq!(pace.time_for(1), Duration::from_millis(300));
        assert_eq!(pace.time_for(11), Duration::from_millis(500));
        assert_eq!(pace.tokens_by(Duration::from_millis(299)), 0);
        assert_eq!(pace.tokens_by(Duration::from_millis(300)), 1);
        assert_eq!(pace.tokens_by(Duration::from_millis(499)), 10);
        assert_eq!(Pace::default().tokens_by(Duration::ZERO), u64::MAX);
    }

    #[test]
    fn a_resource_prints_no_key() {
        let resource = Resource::new("east").key("key-east").token("jwt-east");
        let printed = format!("{resource:?}");
        assert!(printed.contains("keys: 1"), "{printed}");
        assert!(!printed.contains("key-east") && !printed.contains("jwt-east"), "{printed}");
    }
}
