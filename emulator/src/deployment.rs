//! A deployment's configuration: capacity, tiers, and failures.

use std::time::Duration;

use crate::{
    Fault, Pace, Ptu, Standard,
    ask::{DEFAULT_MAX_TOKENS, MAX_STATED_TOKENS},
};

/// One deployment of a model: provisioned or Standard.
#[derive(Clone, Debug)]
pub struct Deployment {
    pub(crate) name: String,
    pub(crate) model: String,
    pub(crate) capacity: Capacity,
    pub(crate) pace: Pace,
    pub(crate) default_max_tokens: u64,
    pub(crate) spillover: Option<String>,
    pub(crate) hides_throttles: bool,
    pub(crate) media_per_minute: Option<u64>,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) filters_prompts: bool,
    pub(crate) failures: Vec<(f64, Fault)>,
    pub(crate) flex: Option<Standard>,
    pub(crate) priority: Option<Standard>,
}

/// The quota of a deployment.
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

    /// The model name in answers. Defaults to the deployment's name.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = model.into();
        self
    }

    /// How fast it answers. Defaults to immediately, so that tests take no time.
    #[must_use]
    pub const fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// The completion limit of requests without `max_tokens` (10 million at most): the estimate
    /// uses it, and drawn completions stay below it; an exact completion that the request specifies
    /// is not cut. Defaults to 16, as for the service's oldest operation; the service's value for
    /// others is not public.
    #[must_use]
    pub const fn default_max_tokens(mut self, tokens: u64) -> Self {
        self.default_max_tokens =
            if tokens < MAX_STATED_TOKENS { tokens } else { MAX_STATED_TOKENS };
        self
    }

    /// Azure's native spillover: a request that this deployment does not answer with 200 goes to
    /// `deployment` of the same resource (Azure page "Manage traffic with spillover"). A request
    /// can ask for the same with the header `x-ms-spillover-deployment`. Off by default.
    #[must_use]
    pub fn spillover(mut self, deployment: impl Into<String>) -> Self {
        self.spillover = Some(deployment.into());
        self
    }

    /// Refuses streamed v1 responses inside an event stream of status 200, as observed on the
    /// service, instead of with a plain 429. Off by default.
    #[must_use]
    pub const fn hides_throttles(mut self) -> Self {
        self.hides_throttles = true;
        self
    }

    /// Limits the requests per minute that create images, sounds or videos, over the same windows
    /// as [`requests_per_minute`](Standard::requests_per_minute); the service's defaults are 2 to
    /// 9. They do not use the deployment's other quota, and reading their results is free.
    /// Unlimited by default.
    #[must_use]
    pub const fn media_per_minute(mut self, requests: u64) -> Self {
        self.media_per_minute = Some(requests);
        self
    }

    /// Sends an event into a stream after this much silence (at least a millisecond): `keepalive`
    /// into streams of responses, as the service does after 30 s, a comment into others. Off by
    /// default.
    #[must_use]
    pub fn keepalive(mut self, silence: Duration) -> Self {
        self.keepalive = Some(silence.max(Duration::from_millis(1)));
        self
    }

    /// Begins each chat stream with a chunk without choices that has the content filter's results
    /// for the prompt, as deployments with default filters do. Off by default.
    #[must_use]
    pub const fn filters_prompts(mut self) -> Self {
        self.filters_prompts = true;
        self
    }

    /// Offers the service tier `flex`, with this capacity in addition to the deployment's quota.
    /// When the capacity is used up, requests of the tier are refused with
    /// [`Refusal::Flex`](crate::Refusal::Flex), and others are not (Azure page "Flex processing").
    /// Without the tier, which is the default, they get 400.
    #[must_use]
    pub const fn flex(mut self, capacity: Standard) -> Self {
        self.flex = Some(capacity);
        self
    }

    /// Offers the service tier `priority`, with this capacity; requests beyond it are served as
    /// default, which the answer's `service_tier` states. Without the tier, which is the default,
    /// such requests get 400.
    #[must_use]
    pub const fn priority(mut self, capacity: Standard) -> Self {
        self.priority = Some(capacity);
        self
    }

    /// Applies `fault` to a share of the requests, drawn independently from the emulator's
    /// [seed](crate::Emulator::seed): 0.01 is one in a hundred. A fault from a
    /// [script](crate::Emulator::script) takes precedence. May be called for several faults, whose
    /// shares add up; none by default.
    ///
    /// # Panics
    ///
    /// If the shares add up to more than 1, or one is negative or NaN.
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
            default_max_tokens: DEFAULT_MAX_TOKENS,
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
