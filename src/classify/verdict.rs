//! The rules of a provider: what its response heads mean, and where such rules are written down.

use std::time::SystemTime;

use http::{HeaderMap, StatusCode};

use super::{Limit, Outcome, Reason};

/// Says what a response head means, by the rules of whoever answers.
///
/// By default all layers read heads as Azure OpenAI writes them ([`Outcome::of`]). Rules of another
/// provider are given to its [`Backend`](crate::Backend::classify) or, where no pool is in the
/// stack, to the layer that reads its answers: [`InspectLayer`](crate::InspectLayer::classify),
/// [`WaitLayer`](crate::WaitLayer::classify),
/// [`SmartFallbackLayer`](crate::SmartFallbackLayer::classify),
/// [`FirstTokenLayer`](crate::FirstTokenLayer::classify) or
/// [`RetryAfterPolicy`](crate::RetryAfterPolicy::classify). [`Provider`](super::Provider) has rules for
/// those that are well known.
///
/// The layer that asks writes the verdict into the response: a 429 with the wait in
/// `retry-after-ms` and `retry-after`, and a [`Refusal`](super::Refusal). The layers around it read
/// that and need no rules, so that one pool can have backends of several providers.
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
/// Rules are asked for answers from status 400 on. A success pays one comparison of its status.
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

/// What a head was found to mean: the outcome and, of a refusal, what is known beside its hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Verdict {
    pub(super) outcome: Outcome,
    pub(super) reason: Reason,
    pub(super) limit: Option<Limit>,
}

impl Verdict {
    /// A verdict that gives no reason. [`Outcome::Late`] is no outcome of a head, and taken for
    /// [`Outcome::Answered`].
    pub const fn new(outcome: Outcome) -> Self {
        let outcome = match outcome {
            Outcome::Late => Outcome::Answered,
            outcome => outcome,
        };
        Self { outcome, reason: Reason::Unknown, limit: None }
    }

    /// Why. What a layer inside read in the body counts before it.
    #[must_use]
    pub const fn because(mut self, reason: Reason) -> Self {
        self.reason = reason;
        self
    }

    /// Which limit was exceeded. A refusal for [tokens](Limit::Tokens) closes the backend to requests
    /// that are as heavy as the one which met it, and to no lighter ones; any other closes it to all of
    /// their kind.
    #[must_use]
    pub fn of_limit(mut self, limit: impl Into<Option<Limit>>) -> Self {
        self.limit = limit.into();
        self
    }

    /// What became of the attempt.
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Why; [`Reason::Unknown`] where the head does not say.
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// Which limit was exceeded, where the head says so.
    pub const fn limit(&self) -> Option<Limit> {
        self.limit
    }
}

impl From<Outcome> for Verdict {
    fn from(outcome: Outcome) -> Self {
        Self::new(outcome)
    }
}
