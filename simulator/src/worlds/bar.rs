//! The requirements on the gate, and whether it meets them.

use crate::SimReport;

/// An upper bound on one figure of the gate in a world, averaged over the seeds; figures with a
/// limit use the worst seed.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Bar {
    /// Percentage points more of the weighted tokens not served by the PTU than with spilling on
    /// the first 429.
    TokensOverNative(f64),
    /// Percentage points more of those tokens than with the reference rule.
    TokensOverReference(f64),
    /// Percentage points more of those tokens than with the oracle.
    TokensOverOracle(f64),
    /// Percentage points more of those tokens than in the world of this name.
    TokensOver(&'static str, f64),
    /// The mean added latency, in milliseconds.
    Mean(f64),
    /// The mean added latency as a share of the reference rule's.
    MeanOfReference(f64),
    /// Attempts per success.
    Attempts(f64),
    /// Attempts at the PTU for one request in any four seconds.
    Asks(f64),
    /// The median added latency of spilled requests, in milliseconds.
    SpilledP50(f64),
    /// How long after its `max_wait` a request is sent, in milliseconds.
    Over(f64),
    /// How long the PTU stands open while a request waits: at most the time that news of it and one
    /// attempt take.
    Open,
    /// The 95th percentile of the added latency in an outage, after its first `max_wait`, in
    /// milliseconds.
    OutageP95(f64),
    /// The time until the end of an outage is noticed, in milliseconds.
    Noticed(f64),
    /// Weighted tokens spilled per minute (a lower bound).
    SpilledAMinute(f64),
}

/// The reports that a bar may compare the gate with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Others<'a> {
    /// Spilling on the first 429 in the same world.
    pub native: Option<&'a SimReport>,
    /// The reference rule in the same world.
    pub reference: Option<&'a SimReport>,
    /// The oracle in the same world.
    pub oracle: Option<&'a SimReport>,
    /// The gate in the world that the bar [names](Bar::elsewhere).
    pub elsewhere: Option<&'a SimReport>,
}

/// The result of one bar.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Verdict {
    /// The requirement, in words.
    pub asked: String,
    /// The figure found, in the unit of the bar.
    pub found: f64,
    /// Whether the requirement is met.
    pub holds: bool,
}

impl Bar {
    /// Required in every world: the gate never makes a caller worse off.
    ///
    /// The time that the PTU stands open is only required for a single process, since processes do
    /// not know how long the others' requests wait. Beside another application, the tokens are not
    /// compared with the reference rule: if that application hammers the PTU, only a client that
    /// retries as often gets as much of it.
    pub const EVERYWHERE: [Self; 4] =
        [Self::TokensOverNative(0.1), Self::TokensOverReference(0.5), Self::Open, Self::Over(1.0)];

    /// The world that it compares with, if any.
    pub const fn elsewhere(&self) -> Option<&'static str> {
        match self {
            Self::TokensOver(world, _) => Some(world),
            _ => None,
        }
    }

    /// Judges the `gate` against `others`; `None` if the report to compare with is missing.
    pub fn judge(&self, gate: &SimReport, others: &Others<'_>) -> Option<Verdict> {
        let over = |other: &SimReport| 100.0 * (gate.beside_ptu - other.beside_ptu);
        let outage = gate.outages.first();
        let (asked, found, most) = match *self {
            Self::TokensOverNative(points) => {
                (format!("tokens <= native {points:+}"), over(others.native?), points)
            }
            Self::TokensOverReference(points) => {
                (format!("tokens <= reference {points:+}"), over(others.reference?), points)
            }
            Self::TokensOverOracle(points) => {
                (format!("tokens <= oracle {points:+}"), over(others.oracle?), points)
            }
            Self::TokensOver(world, points) => {
                (format!("tokens <= {world} {points:+}"), over(others.elsewhere?), points)
            }
            Self::Mean(most) => (format!("mean <= {most} ms"), gate.added.mean, most),
            Self::MeanOfReference(most) => {
                let share = gate.added.mean / others.reference?.added.mean;
                (format!("mean <= {most} of reference"), share, most)
            }
            Self::Attempts(most) => {
                (format!("attempts <= {most}"), gate.attempts_per_success, most)
            }
            Self::Asks(most) => (format!("asks <= {most}"), f64::from(gate.most_asks), most),
            Self::SpilledP50(most) => {
                let found = gate.spilled_added_p50_ms.unwrap_or(0.0);
                (format!("spilled p50 <= {most} ms"), found, most)
            }
            Self::Over(most) => (format!("over <= {most} ms"), gate.last_dispatch_over_ms, most),
            Self::Open => {
                let open = gate.longest_open?;
                (format!("open <= {:.0} ms", open.limit_ms), open.longest_ms, open.limit_ms)
            }
            Self::OutageP95(most) => {
                (format!("p95 in outage <= {most} ms"), outage?.added_p95_ms, most)
            }
            Self::Noticed(most) => {
                let after = outage?.noticed_after_ms.unwrap_or(f64::INFINITY);
                (format!("noticed <= {most} ms"), after, most)
            }
            Self::SpilledAMinute(least) => {
                let found = gate.spilled_tokens_a_minute;
                let asked = format!("{least:.0} tokens a minute spilled");
                return Some(Verdict { asked, found, holds: found >= least });
            }
        };
        // Ignore rounding errors.
        Some(Verdict { asked, found, holds: found <= most + 1e-9 })
    }
}
