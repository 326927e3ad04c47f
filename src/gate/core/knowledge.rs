//! What a gate knows of its PTU, for those who look.

use super::time::Nanos;

/// What a [`Gate`](crate::Gate) goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Knowledge {
    /// The PTU does not refuse: requests pass unasked.
    #[default]
    Open,
    /// It refuses, and too little was seen yet to know how fast it drains: hints are obeyed, and
    /// attempts are made whenever the one before was not refused.
    Learning,
    /// The drain rate was measured: requests are paced and waits are predicted by it.
    Measured,
    /// Others fill the same PTU: the measured rate is the share that they leave.
    Shared,
    /// What the PTU says does not fit what was measured: its hints are probed, or taken for none where they
    /// are always the same.
    Doubting,
    /// Nothing was admitted for long, though it was asked for: who arrives spills at once, and one request
    /// a second asks whether it is over.
    Outage,
}

impl Knowledge {
    /// Its name in lower case, as metrics have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Learning => "learning",
            Self::Measured => "measured",
            Self::Shared => "shared",
            Self::Doubting => "doubting",
            Self::Outage => "outage",
        }
    }
}

/// The figures that speak for a [`Knowledge`]. Times are in seconds, rates in weighted tokens a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Evidence {
    Open,
    /// So many refusals so far, and the rate that they give for now.
    Learning {
        refusals: u32,
        rate: Option<f64>,
    },
    Measured {
        rate: f64,
    },
    /// The share of the last openings that others took.
    Shared {
        rate: f64,
        lost: f64,
    },
    /// A hint, and the time that the model expects in its place.
    DoubtedHint {
        hint: f64,
        expected: f64,
    },
    /// The hint that every refusal has.
    ConstantHint {
        hint: f64,
    },
    /// For how long nothing was admitted, and how often it was refused meanwhile.
    Outage {
        dry: f64,
        refusals: u32,
    },
}

impl Evidence {
    pub(crate) const fn knowledge(self) -> Knowledge {
        match self {
            Self::Open => Knowledge::Open,
            Self::Learning { .. } => Knowledge::Learning,
            Self::Measured { .. } => Knowledge::Measured,
            Self::Shared { .. } => Knowledge::Shared,
            Self::DoubtedHint { .. } | Self::ConstantHint { .. } => Knowledge::Doubting,
            Self::Outage { .. } => Knowledge::Outage,
        }
    }
}

/// What a gate knows, and since when.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Noted {
    knowledge: Knowledge,
    since: Nanos,
}

impl Noted {
    pub(super) fn note(&mut self, now: Nanos, knowledge: Knowledge) {
        if self.knowledge != knowledge {
            *self = Self { knowledge, since: now };
        }
    }

    pub(super) const fn since(&self) -> Nanos {
        self.since
    }
}
