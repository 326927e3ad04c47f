//! What is asked of the gate, and whether it holds.

use crate::SimReport;

/// A bound on one figure of the gate in a world, over the mean of the seeds; of what must not be, over
/// the worst of them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Bar {
    /// So many points more of the weighted tokens that the PTU did not serve than with spilling on the
    /// first 429.
    TokensOverNative(f64),
    /// So many points of them more than with the reference rule.
    TokensOverReference(f64),
    /// So many points of them more than with the oracle.
    TokensOverOracle(f64),
    /// So many points of them more than in the world of this name.
    TokensOver(&'static str, f64),
    /// The mean of the latency added, in milliseconds.
    Mean(f64),
    /// That mean as a share of the reference rule's.
    MeanOfReference(f64),
    /// Attempts for each success.
    Attempts(f64),
    /// Attempts at the PTU for one request in any four seconds.
    Asks(f64),
    /// The median of the latency added to spilled requests, in milliseconds.
    SpilledP50(f64),
    /// How long after its `max_wait` a request is sent, in milliseconds.
    Over(f64),
    /// How long the PTU stands open while anybody waits: as long as news of it and an attempt take.
    Open,
    /// The 95th percentile of the latency added in an outage after its first `max_wait`, in
    /// milliseconds.
    OutageP95(f64),
    /// The time until the end of an outage is noticed, in milliseconds.
    Noticed(f64),
    /// Weighted tokens a minute that are spilled, at least.
    SpilledAMinute(f64),
}

/// What a bar may compare the gate with.
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

impl Bar {
    /// What is asked in every world: nobody who turns the gate on is worse off for it.
    ///
    /// The PTU's standing open is asked about where there is one process, since none knows how long
    /// those beside it wait. Where another application hammers the PTU, only who asks as often has as
    /// much of it as with the reference rule, so that nothing is asked about that beside a neighbour.
    pub const EVERYWHERE: [Self; 4] =
        [Self::TokensOverNative(0.1), Self::TokensOverReference(0.5), Self::Open, Self::Over(1.0)];

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
        // A tail of digits that means nothing decides nothing.
        Some(Verdict { asked, found, holds: found <= most + 1e-9 })
    }
}
