//! The settings that a run needs, checked.

use std::time::Duration;

use super::{
    Deal,
    draws::{mix, share},
    load::Traffic,
};
use spillover_emulator::{Deployment, Emulator, Fault, Pace, Ptu, Resource, Standard};
use tower_spillover::ConfigError;

/// How large the PTU is.
#[derive(Clone, Copy, Debug)]
pub(super) enum PtuSize {
    /// A share of the load's mean.
    Fraction(f64),
    /// Weighted tokens a second.
    Rate(f64),
}

/// The settings of a run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    /// Weighted tokens a second.
    pub(super) ptu_rate: f64,
    pub(super) bucket_seconds: f64,
    pub(super) max_wait: Duration,
    pub(super) processes: usize,
    pub(super) deal: Deal,
    pub(super) standard_rate: Option<f64>,
    /// The share of the attempts that a deployment answers with 500.
    pub(super) failures: f64,
    pub(super) pace: Pace,
    pub(super) standing: Duration,
    /// Whether refusals say how long to wait.
    pub(super) hints: bool,
    /// Whether answers say what they used.
    pub(super) usage: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            seed: 1,
            ptu_rate: 1.0,
            bucket_seconds: 10.0,
            max_wait: Duration::from_secs(4),
            processes: 1,
            deal: Deal::RoundRobin,
            standard_rate: None,
            failures: 0.0,
            pace: Pace {
                first_token: Duration::from_millis(200),
                per_token: Duration::from_millis(5),
            },
            standing: Duration::from_secs(20),
            hints: true,
            usage: true,
        }
    }
}

impl Plan {
    pub(super) fn complete(
        &self,
        seed: u64,
        size: PtuSize,
        traffic: &Traffic,
    ) -> Result<Self, ConfigError> {
        let ptu_rate = match size {
            PtuSize::Rate(rate) => within("ptu_rate", rate, 1e-3, 1e8)?,
            PtuSize::Fraction(share) => {
                let rate = within("ptu_fraction", share, 1e-3, 1e3)? * traffic.mean_load;
                within("ptu_fraction times the mean load", rate, 1e-3, 1e8)?
            }
        };
        within("bucket_seconds", self.bucket_seconds, 1e-3, 86_400.0)?;
        within("processes", self.processes as f64, 1.0, 4_096.0)?;
        within("max_wait in seconds", self.max_wait.as_secs_f64(), 0.0, 86_400.0)?;
        within("standing in seconds", self.standing.as_secs_f64(), 0.1, 86_400.0)?;
        within("failures", self.failures, 0.0, 1.0)?;
        if let Some(rate) = self.standard_rate {
            within("standard_rate", rate, 1.0, 1e8)?;
        }
        Ok(Self { seed, ptu_rate, ..self.clone() })
    }

    /// The process that request number `index` arrives at.
    pub(super) fn process(&self, index: usize) -> usize {
        match self.deal {
            Deal::RoundRobin => index % self.processes,
            Deal::Random => {
                (mix(self.seed, &[DEAL, index as u64]) % self.processes as u64) as usize
            }
        }
    }

    /// The time of one way to or from `server`: half its round trip, give or take a fifth, the
    /// same for every policy.
    pub(super) fn delay(&self, server: usize, request: usize, leg: u64) -> Duration {
        let jitter = 0.8 + 0.4 * share(self.seed, &[DELAY, request as u64, leg]);
        (ROUND_TRIPS[server] / 2).mul_f64(jitter)
    }

    /// The PTU, the first Standard deployment beside it, and two more regions.
    pub(super) fn emulator(&self) -> Emulator {
        let standard = match self.standard_rate {
            None => Standard::unlimited(),
            Some(rate) => Standard::tokens_per_minute((rate * 60.0 / 3.0) as u64),
        };
        let slower = Pace {
            first_token: self.pace.first_token.mul_f64(1.3),
            per_token: self.pace.per_token.mul_f64(1.3),
        };
        let ptu = Ptu::new(self.ptu_rate).bucket_seconds(self.bucket_seconds);
        let failing = |deployment: Deployment| match self.failures {
            0.0 => deployment,
            share => deployment.fails(share, Fault::status(500)),
        };
        let ptu = failing(Deployment::ptu(PTU, ptu).pace(self.pace));
        let regions = RESOURCES.map(|name| {
            let standard = Deployment::standard(STANDARD, standard).pace(slower);
            Resource::new(name).deployment(failing(standard))
        });
        let [first, rest @ ..] = regions;
        Emulator::new([first.deployment(ptu)].into_iter().chain(rest)).seed(self.seed)
    }
}

fn within(field: &str, value: f64, low: f64, high: f64) -> Result<f64, ConfigError> {
    if (low..=high).contains(&value) {
        return Ok(value);
    }
    Err(ConfigError::new(field, format!("is {value}: use a number from {low} to {high}")))
}

/// The deployment names; every resource calls its Standard deployment alike.
pub(super) const PTU: &str = "gpt-4o-ptu";
pub(super) const STANDARD: &str = "gpt-4o";
/// The resources: the first one has the PTU too.
pub(super) const RESOURCES: [&str; 3] = ["contoso-east", "contoso-central", "contoso-west"];
/// Servers by number: the PTU, then the regions in the order of their resources.
pub(super) const PTU_SERVER: usize = 0;
pub(super) const SERVERS: usize = 1 + RESOURCES.len();
/// To the PTU and its region, a region in the same country, one abroad.
const ROUND_TRIPS: [Duration; SERVERS] = [
    Duration::from_millis(30),
    Duration::from_millis(30),
    Duration::from_millis(60),
    Duration::from_millis(90),
];
const DEAL: u64 = 10;
const DELAY: u64 = 11;
