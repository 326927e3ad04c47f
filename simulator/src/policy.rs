//! The policies that are compared, by name.

use std::{fmt, str::FromStr};

use tower_spillover::ConfigError;

/// How requests share the PTU and Standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Policy {
    /// Spills on the first 429, like Azure's native spillover.
    SpillFirst,
    /// The reference script: waits while `elapsed + retry_after <= max_wait`, and keeps no state
    /// between requests.
    Reference,
    /// The reference region chain: picks randomly among the PTU and three regions; after a 429 it
    /// picks another one, after the waits of API Management's `retry`, ignoring `retry-after`.
    RegionChain,
    /// The layers with shared cooldowns only.
    Shared,
    /// The layers with the gate.
    Gate,
    /// The layers with the gate and its standing-queue control.
    GateStanding,
    /// The same, but [competing](tower_spillover::gate::Contention::Compete) for the PTU. Not in
    /// [`Policy::ALL`]: alone on a PTU it behaves like [`GateStanding`](Self::GateStanding).
    GateCompete,
    /// The upper bound: a queue that knows the bucket exactly, without a network.
    Oracle,
    /// The upper bound with standing-queue control. Not in [`Policy::ALL`].
    OracleStanding,
}

impl Policy {
    /// The policies selected by `all`.
    pub const ALL: [Self; 7] = [
        Self::SpillFirst,
        Self::Reference,
        Self::RegionChain,
        Self::Shared,
        Self::Gate,
        Self::GateStanding,
        Self::Oracle,
    ];

    /// The name in reports and on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SpillFirst => "spill-first",
            Self::Reference => "reference",
            Self::RegionChain => "region-chain",
            Self::Shared => "shared",
            Self::Gate => "gate",
            Self::GateStanding => "gate-standing",
            Self::GateCompete => "gate-compete",
            Self::Oracle => "oracle",
            Self::OracleStanding => "oracle-standing",
        }
    }

    /// Every policy.
    fn known() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().chain([Self::GateCompete, Self::OracleStanding])
    }

    /// Whether `max_wait` affects it.
    pub const fn waits(self) -> bool {
        !matches!(self, Self::SpillFirst | Self::RegionChain)
    }

    /// Whether it estimates costs from request bodies.
    pub(super) const fn weighs(self) -> bool {
        matches!(self, Self::Gate | Self::GateStanding | Self::GateCompete)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Policy {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        Self::known().find(|policy| policy.name() == name).ok_or_else(|| {
            let known = Self::known().map(Self::name).collect::<Vec<_>>().join(", ");
            ConfigError::new("policy", format!("none is called `{name}`: use `all` or {known}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_is_found_by_its_name() {
        for policy in Policy::known() {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        let error = "oracles".parse::<Policy>().unwrap_err();
        assert!(error.to_string().contains("region-chain"), "{error}");
    }
}
