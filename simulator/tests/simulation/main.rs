//! The simulator: its figures agree with the model, and repeat exactly.

mod bars;
mod command;
mod degradation;
mod determinism;
mod failures;
mod fleet;
mod limited;
mod physics;
mod recovery;
mod worlds;

use std::time::Duration;

use spillover_simulator::{Load, Policy, SimReport, Simulation};

/// The policies without a gate.
const POLICIES: [Policy; 5] =
    [Policy::SpillFirst, Policy::Reference, Policy::RegionChain, Policy::Shared, Policy::Oracle];

/// A load of this many times the PTU, which serves 40 requests per second.
fn poisson(times: f64) -> Simulation {
    Simulation::new(Load::Poisson { rate: 40.0 * times })
        .ptu_fraction(1.0 / times)
        .warm_up(Duration::from_secs(10))
        .length(Duration::from_secs(20))
        .bucket_seconds(2.0)
}

fn run(simulation: &Simulation, policy: Policy) -> SimReport {
    simulation.run(policy).expect("settings that work")
}
