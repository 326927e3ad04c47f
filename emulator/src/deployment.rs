//! What a deployment is made of: its capacity, its tiers, and what goes wrong on it.

use std::time::Duration;

use crate::{
    Fault, Pace, Ptu, Standard,
    ask::{DEFAULT_MAX_TOKENS, MOST_TOKENS},
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

    /// What a request is reckoned with that states no `max_tokens` (10 million at most), and the most
    /// that is drawn for it; a completion that it names is not cut to that. Defaults to 16, as for the
    /// service's oldest operation; what the service assumes for others is not public.
    #[must_use]
    pub const fn default_max_tokens(mut self, tokens: u64) -> Self {
        self.default_max_tokens = if tokens < MOST_TOKENS { tokens } else { MOST_TOKENS };
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
