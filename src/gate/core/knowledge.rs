//! What a gate knows of its PTU, as callers see it.

use super::time::Nanos;

/// What a [`Gate`](crate::Gate) bases its decisions on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Knowledge {
    /// The PTU does not refuse: requests pass without being weighed or queued.
    #[default]
    Open,
    /// It refuses, and the drain rate is not known yet: hints are obeyed, and an attempt is made
    /// whenever the previous one was not refused.
    Learning,
    /// The drain rate was measured: it paces requests and predicts waits.
    Measured,
    /// Others fill the same PTU: the measured rate is the share that they leave.
    Shared,
    /// The PTU's hints do not fit the measurements: they are probed, or ignored if they are always
    /// the same.
    Doubting,
    /// Nothing was admitted for long, although attempts were made: requests spill on arrival, and one
    /// per second probes for the end of it.
    Outage,
}

impl Knowledge {
    /// The name in lower case, as metrics show it.
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

/// The figures behind a [`Knowledge`]. Times are in seconds, rates in weighted tokens per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Evidence {
    Open,
    /// Refusals so far, and the rate that they give for now.
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
    /// The hint that every refusal carries.
    ConstantHint {
        hint: f64,
    },
    /// For how long nothing was admitted, and how often the PTU refused meanwhile.
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
