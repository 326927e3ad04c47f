//! A configuration at work: what `/-/status` and `/metrics` look at.

use std::{collections::BTreeMap, sync::Arc};

use tower_spillover::{BackendPool, Gate, Sticky, smart_fallback::SpillBudget, wait::WaitQueue};

use crate::{config::Config, utilization::Utilizations};

/// One loaded configuration and what it made.
#[derive(Debug)]
pub struct Snapshot {
    pub config: Config,
    /// By name; aliases are not repeated here.
    pub models: BTreeMap<String, Arc<RunningModel>>,
    /// Where ids are, whichever model they were seen under.
    pub sticky: Sticky,
}

/// A model's shared memory.
#[derive(Debug)]
pub struct RunningModel {
    pub name: String,
    /// Where it has a PTU tier.
    pub gate: Option<Gate>,
    pub ptu: Option<BackendPool>,
    pub standard: Option<BackendPool>,
    /// Those that wait for Standard to reopen.
    pub standard_queue: WaitQueue,
    pub spill_budget: Option<SpillBudget>,
    /// How full its PTUs say that they are.
    pub utilizations: Utilizations,
}
