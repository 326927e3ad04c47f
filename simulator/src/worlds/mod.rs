//! Worlds: named settings in which policies are compared, with what is asked of the gate in each.

mod list;

use std::time::Duration;

use super::{Load, SimReport, Simulation, Trace};

/// A setting in which policies are compared.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct World {
    /// Its name, in lower case with hyphens.
    pub name: &'static str,
    /// What is unlike the [base](Self::all), in a few words.
    pub about: &'static str,
    /// The setting, but for seed.
    pub simulation: Simulation,
    /// What is asked of the gate here, beside what is asked everywhere.
    pub bars: Vec<Bar>,
    /// What an independent rig around the same layers had found here.
    pub rig: Option<Rig>,
}

/// Shares of weighted tokens that were spilled, in percent, with another rig: an order of policies to
/// be met, and a rough size.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Rig {
    /// Spilling on the first 429.
    pub native: Option<f64>,
    /// The reference rule.
    pub reference: Option<f64>,
    /// The gate as it was in November 2026.
    pub gate: Option<f64>,
    /// The bound.
    pub oracle: Option<f64>,
}

/// A bound on one figure of the gate in a world, over the mean of the seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Bar {
    /// Weighted tokens that the PTU did not serve, in percent.
    Tokens(f64),
    /// So many points of them more than in the world of this name.
    TokensOver(&'static str, f64),
    /// So many points of them more than with the reference rule.
    TokensOverReference(f64),
    /// So many points of them more than with the oracle.
    TokensOverOracle(f64),
    /// The mean of the latency added, in milliseconds.
    Mean(f64),
    /// That mean as a share of the reference rule's.
    MeanOfReference(f64),
    /// Attempts for each success.
    Attempts(f64),
    /// The median of the latency added to spilled requests, in milliseconds.
    SpilledP50(f64),
    /// The 95th percentile of the latency added in an outage after its first `max_wait`, in
    /// milliseconds.
    OutageP95(f64),
    /// Weighted tokens a minute that are spilled, at least.
    SpilledAMinute(f64),
    /// The time until the end of an outage is noticed, in milliseconds.
    Noticed(f64),
}

impl World {
    /// All worlds, those of a trace if there is one.
    ///
    /// Where nothing else is said: ten requests a second in bursts, a PTU that drains the mean of what was drawn, with
    /// a bucket of 3 s; `max_wait` of 4 s; Standard is ample; one process, no warming up, 15 minutes.
    pub fn all(trace: Option<&Trace>) -> Vec<Self> {
        list::all(trace)
    }

    /// Whether one process has the PTU to itself as far as it can: what the PTU is open for while it
    /// waits is its own doing.
    pub fn is_alone(&self) -> bool {
        self.simulation.is_alone()
    }

    fn new(name: &'static str, about: &'static str, simulation: Simulation) -> Self {
        Self { name, about, simulation, bars: Vec::new(), rig: None }
    }

    fn bars(mut self, bars: impl IntoIterator<Item = Bar>) -> Self {
        self.bars.extend(bars);
        self
    }

    /// In percent, 0 where it was not told.
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

/// The load and the PTU that worlds are variations of.
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

/// What one bar says of the gate.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Verdict {
    /// What was asked, in words.
    pub asked: String,
    /// What was found, in the unit of the bar.
    pub found: f64,
    /// Whether it holds.
    pub holds: bool,
}

/// What a bar may compare the gate with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Others<'a> {
    /// The reference rule in the same world.
    pub reference: Option<&'a SimReport>,
    /// The oracle in the same world.
    pub oracle: Option<&'a SimReport>,
    /// The gate in the world that the bar [names](Bar::elsewhere).
    pub elsewhere: Option<&'a SimReport>,
}

impl Bar {
    /// The world that it compares with, if it does.
    pub const fn elsewhere(&self) -> Option<&'static str> {
        match self {
            Self::TokensOver(world, _) => Some(world),
            _ => None,
        }
    }

    /// What this bar says of the `gate` among `others`; nothing when what it compares with is not
    /// there.
    pub fn judge(&self, gate: &SimReport, others: &Others<'_>) -> Option<Verdict> {
        let tokens = |report: &SimReport| 100.0 * report.beside_ptu;
        let outage = gate.outages.first();
        let over = |other: &SimReport| tokens(gate) - tokens(other);
        let (asked, found, most) = match *self {
            Self::Tokens(most) => (format!("tokens <= {most} %"), tokens(gate), most),
            Self::TokensOver(world, points) => {
                (format!("tokens <= {world} {points:+}"), over(others.elsewhere?), points)
            }
            Self::TokensOverReference(points) => {
                (format!("tokens <= reference {points:+}"), over(others.reference?), points)
            }
            Self::TokensOverOracle(points) => {
                (format!("tokens <= oracle {points:+}"), over(others.oracle?), points)
            }
            Self::Mean(most) => (format!("mean <= {most} ms"), gate.added.mean, most),
            Self::MeanOfReference(most) => {
                let share = gate.added.mean / others.reference?.added.mean;
                (format!("mean <= {most} of reference"), share, most)
            }
            Self::Attempts(most) => {
                (format!("attempts <= {most}"), gate.attempts_per_success, most)
            }
            Self::SpilledP50(most) => (
                format!("spilled p50 <= {most} ms"),
                gate.spilled_added_p50_ms.unwrap_or(0.0),
                most,
            ),
            Self::OutageP95(most) => (format!("p95 out <= {most} ms"), outage?.added_p95_ms, most),
            Self::SpilledAMinute(least) => {
                let found = gate.spilled_tokens_a_minute;
                let asked = format!("{least:.0} tokens a minute spilled");
                return Some(Verdict { asked, found, holds: found >= least });
            }
            Self::Noticed(most) => {
                let after = outage?.noticed_after_ms.unwrap_or(f64::INFINITY);
                (format!("noticed <= {most} ms"), after, most)
            }
        };
        Some(Verdict { asked, found, holds: found <= most + 1e-9 })
    }
}
