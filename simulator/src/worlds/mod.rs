//! Worlds: named settings to compare policies in, with the requirements on the gate in each.

mod bar;
mod list;

pub use self::bar::{Bar, Others, Verdict};

use std::time::Duration;

use super::{Load, SimReport, Simulation, Trace};

/// A setting to compare policies in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct World {
    /// Its name, in lower case with hyphens.
    pub name: &'static str,
    /// How it differs from the [base](Self::all), in a few words.
    pub about: &'static str,
    /// The setting, except for the seed.
    pub simulation: Simulation,
    /// The requirements on the gate here, in addition to those of every world.
    pub bars: Vec<Bar>,
    /// What an independent rig around the same layers measured here.
    pub rig: Option<Rig>,
}

/// Shares of weighted tokens that another rig spilled, in percent: the policies have to come in the
/// same order, at roughly the same size.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Rig {
    /// Spilling on the first 429.
    pub native: Option<f64>,
    /// The reference rule.
    pub reference: Option<f64>,
    /// The gate as it was in November 2026.
    pub gate: Option<f64>,
    /// The upper bound.
    pub oracle: Option<f64>,
}

impl World {
    /// All worlds, including those of the trace if there is one.
    ///
    /// Unless stated otherwise: ten requests per second in bursts; a PTU that drains the mean of
    /// the drawn requests, with a bucket of 3 s; `max_wait` of 4 s; unlimited Standard; one
    /// process, no warm-up, 15 minutes.
    pub fn all(trace: Option<&Trace>) -> Vec<Self> {
        list::all(trace)
    }

    /// Whether others use the same PTU, so that yielding and competing differ.
    pub const fn is_contended(&self) -> bool {
        self.simulation.is_contended()
    }

    /// The requirements on the gate in this world and what was found, the general requirements
    /// first.
    pub fn judge(&self, gate: &SimReport, others: &Others<'_>) -> Vec<Verdict> {
        let is_asked = |bar: &&Bar| match bar {
            Bar::Open => self.simulation.is_alone(),
            Bar::TokensOverReference(_) => !self.simulation.has_neighbour(),
            _ => true,
        };
        let everywhere = Bar::EVERYWHERE.iter().filter(is_asked);
        everywhere.chain(&self.bars).filter_map(|bar| bar.judge(gate, others)).collect()
    }

    fn new(name: &'static str, about: &'static str, simulation: Simulation) -> Self {
        Self { name, about, simulation, bars: Vec::new(), rig: None }
    }

    fn bars(mut self, bars: impl IntoIterator<Item = Bar>) -> Self {
        self.bars.extend(bars);
        self
    }

    /// In percent, 0 if not measured.
    fn rig(mut self, [native, reference, gate, oracle]: [f64; 4]) -> Self {
        let told = |figure: f64| (figure > 0.0).then_some(figure);
        self.rig = Some(Rig {
            native: told(native),
            reference: told(reference),
            gate: told(gate),
            oracle: told(oracle),
        });
        self
    }
}

/// The load and the PTU that all worlds vary.
fn base() -> Simulation {
    around(Load::Bursty { rate: 10.0 })
}

fn around(load: Load) -> Simulation {
    Simulation::new(load)
        .ptu_fraction_of_drawn(1.0)
        .bucket_seconds(3.0)
        .warm_up(Duration::ZERO)
        .length(Duration::from_secs(15 * 60))
}
