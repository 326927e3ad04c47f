//! Custom rules for response heads: the trait, and its verdict.

use std::time::SystemTime;

use http::{HeaderMap, StatusCode};

use super::{Limit, Outcome, Reason};

/// Classifies a response head by the rules of the service that sent it.
///
/// By default all layers read heads as Azure OpenAI writes them ([`Outcome::of`]). Set the rules of
/// another provider on its [`Backend`](crate::Backend::classify) or, without a pool in the stack, on
/// the layer that reads its answers: [`InspectLayer`](crate::InspectLayer::classify),
/// [`WaitLayer`](crate::WaitLayer::classify),
/// [`SmartFallbackLayer`](crate::SmartFallbackLayer::classify),
/// [`FirstTokenLayer`](crate::FirstTokenLayer::classify) or
/// [`RetryAfterPolicy`](crate::RetryAfterPolicy::classify). [`Provider`](super::Provider) has rules
/// for well-known providers.
///
/// The layer that applies the rules writes the verdict into the response: a 429 with the wait in
/// `retry-after-ms` and `retry-after`, and a [`Refusal`](super::Refusal). The layers around it read
/// those and need no rules, so that one pool can have backends of several providers.
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use http::{HeaderMap, StatusCode};
/// use tower_spillover::{
///     Backend,
///     classify::{Classify, Hint, Outcome, Provider, Verdict},
/// };
///
/// /// A server that says 420 when it is full.
/// struct EnhanceYourCalm;
///
/// impl Classify for EnhanceYourCalm {
///     fn classify(
///         &self,
///         status: StatusCode,
///         headers: &HeaderMap,
///         now: &dyn Fn() -> SystemTime,
///     ) -> Verdict {
///         match status.as_u16() {
///             420 => Outcome::Throttled(Hint::After(Duration::from_secs(2))).into(),
///             _ => Provider::Http.classify(status, headers, now),
///         }
///     }
/// }
///
/// # fn main() -> Result<(), tower_spillover::ConfigError> {
/// let backend = Backend::new("own", "https://llm.example/v1")?
///     .provider(Provider::Http)
///     .classify(EnhanceYourCalm)
///     .api_key("key");
/// # drop(backend);
/// # Ok(())
/// # }
/// ```
///
/// # Cost
///
/// Rules are called for answers from status 400 on. A success costs one comparison of its status.
pub trait Classify: Send + Sync + 'static {
    /// The meaning of a head with this `status`, which is 400 or more, and these `headers`.
    ///
    /// `now` is for dates; a head without one needs no clock.
    fn classify(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        now: &dyn Fn() -> SystemTime,
    ) -> Verdict;
}

/// The meaning of a head: the outcome and, for a refusal, details besides its hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Verdict {
    pub(super) outcome: Outcome,
    pub(super) reason: Reason,
    pub(super) limit: Option<Limit>,
}

impl Verdict {
    /// A verdict without a reason. [`Outcome::Late`] cannot be the outcome of a head, and becomes
    /// [`Outcome::Answered`].
    pub const fn new(outcome: Outcome) -> Self {
        let outcome = match outcome {
            Outcome::Late => Outcome::Answered,
            outcome => outcome,
        };
        Self { outcome, reason: Reason::Unknown, limit: None }
    }

    /// Sets the reason. A reason that an inner layer read in the body takes precedence.
    #[must_use]
    pub const fn because(mut self, reason: Reason) -> Self {
        self.reason = reason;
        self
    }

    /// Sets the limit that was exceeded. A refusal for [tokens](Limit::Tokens) closes the backend to
    /// requests as heavy as the one that met it, and not to lighter ones; any other closes it to all
    /// requests of that kind.
    #[must_use]
    pub fn of_limit(mut self, limit: impl Into<Option<Limit>>) -> Self {
        self.limit = limit.into();
        self
    }

    /// The outcome of the attempt.
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The reason; [`Reason::Unknown`] if the head does not say.
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// The limit that was exceeded, if the head says so.
    pub const fn limit(&self) -> Option<Limit> {
        self.limit
    }
}

impl From<Outcome> for Verdict {
    fn from(outcome: Outcome) -> Self {
        Self::new(outcome)
    }
}
