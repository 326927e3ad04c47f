//! Service tiers: which one a request selects, and the capacity a deployment has for each.

use std::time::Duration;

use crate::{Refusal, Standard, standard::Windows};

/// A service tier, as in the `service_tier` of a request and of its answer. `auto` is the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    Default,
    Flex,
    Priority,
}

impl Tier {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "auto" | "default" => Some(Self::Default),
            "flex" => Some(Self::Flex),
            "priority" => Some(Self::Priority),
            _ => None,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Flex => "flex",
            Self::Priority => "priority",
        }
    }
}

/// The capacity of a deployment's tiers, except the default one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiers {
    flex: Option<Windows>,
    priority: Option<Windows>,
}

/// Why a tier does not accept a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TierError {
    /// The deployment does not have this tier.
    Missing(Tier),
    Refused(Duration, Refusal),
}

impl Tiers {
    pub(crate) fn new(flex: Option<Standard>, priority: Option<Standard>) -> Self {
        Self { flex: flex.map(Windows::new), priority: priority.map(Windows::new) }
    }

    /// The tier that serves a request of `tokens`. Beyond its capacity, priority is served as
    /// default, and flex is refused.
    pub(crate) fn admit(
        &mut self,
        now: Duration,
        tier: Tier,
        tokens: u64,
    ) -> Result<Tier, TierError> {
        let capacity = match tier {
            Tier::Default => return Ok(tier),
            Tier::Flex => &mut self.flex,
            Tier::Priority => &mut self.priority,
        };
        let capacity = capacity.as_mut().ok_or(TierError::Missing(tier))?;
        match capacity.admit(now, tokens) {
            Ok(()) => Ok(tier),
            Err(_) if tier == Tier::Priority => Ok(Tier::Default),
            Err((wait, _)) => Err(TierError::Refused(wait, Refusal::Flex)),
        }
    }
}
