//! The active configuration, as shown by `/-/status` and `/metrics`.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use tower_spillover::{BackendPool, Gate, Sticky, smart_fallback::SpillBudget, wait::WaitQueue};

use crate::{
    config::{Clients, Config},
    fleet::RunningFleet,
    utilization::Utilizations,
};

/// One loaded configuration and the state built from it.
#[derive(Debug)]
pub struct Snapshot {
    pub config: Config,
    /// The names of the clients; none if no key is required.
    clients: HashSet<String>,
    /// By name; aliases have no entries.
    pub models: BTreeMap<String, Arc<RunningModel>>,
    /// Which resource stores which id, for all models.
    pub sticky: Sticky,
    pub(crate) fleet: Option<RunningFleet>,
}

impl Snapshot {
    pub fn new(
        config: Config,
        models: BTreeMap<String, Arc<RunningModel>>,
        sticky: Sticky,
        fleet: Option<RunningFleet>,
    ) -> Self {
        let clients = match &config.clients {
            Clients::Open => HashSet::new(),
            Clients::Keyed(clients) => clients.iter().map(|client| client.name.clone()).collect(),
        };
        Self { config, clients, models, sticky, fleet }
    }

    /// Whether the configuration has a client of this name.
    pub fn has_client(&self, name: &str) -> bool {
        self.clients.contains(name)
    }
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
