//! The active configuration, as shown by `/-/status` and `/metrics`.

use std::{collections::BTreeMap, sync::Arc};

use tower_spillover::{BackendPool, Gate, Sticky, smart_fallback::SpillBudget, wait::WaitQueue};

use crate::{config::Config, utilization::Utilizations};

/// One loaded configuration and the state built from it.
#[derive(Debug)]
pub struct Snapshot {
    pub config: Config,
    /// By name; aliases have no entries.
    pub models: BTreeMap<String, Arc<RunningModel>>,
    /// Which resource stores which id, for all models.
    pub sticky: Sticky,
}

/// A model's shared state.
#[derive(Debug)]
pub struct RunningModel {
    pub name: String,
    /// If it has a PTU tier.
    pub gate: Option<Gate>,
    pub ptu: Option<BackendPool>,
    pub standard: Option<BackendPool>,
    /// Requests that wait for Standard to reopen.
    pub standard_queue: WaitQueue,
    pub spill_budget: Option<SpillBudget>,
    /// The utilization that its PTUs report.
    pub utilizations: Utilizations,
}
