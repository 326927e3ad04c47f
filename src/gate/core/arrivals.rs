//! Arrival rates by rank, to predict how often a waiting request will be overtaken.

use super::time::{Nanos, seconds};

/// Smoothed cost per second that arrives, by rank.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// Unsorted; few ranks are ever used.
    ranks: Vec<RankRate>,
}

#[derive(Clone, Copy, Debug)]
struct RankRate {
    rank: u8,
    cost_per_second: f64,
    at: Nanos,
}

impl RankRate {
    fn at(&self, now: Nanos) -> f64 {
        self.cost_per_second
            * (-seconds(now.saturating_sub(self.at)).max(0.0) / ARRIVAL_WINDOW_S).exp()
    }
}

impl Arrivals {
    pub(super) fn on_arrival(&mut self, now: Nanos, rank: u8, cost: f64) {
        let known = self.ranks.iter().position(|known| known.rank == rank);
        let index = known.unwrap_or_else(|| {
            self.ranks.push(RankRate { rank, cost_per_second: 0.0, at: now });
            self.ranks.len() - 1
        });
        let known = &mut self.ranks[index];
        known.cost_per_second = known.at(now) + cost / ARRIVAL_WINDOW_S;
        known.at = now;
    }

    /// The cost per second of all ranks more urgent than `rank`.
    pub(super) fn before(&self, now: Nanos, rank: u8) -> f64 {
        let urgent = self.ranks.iter().filter(|other| other.rank < rank);
        urgent.map(|other| other.at(now)).sum()
    }
}

// The table in `core/mod.rs` shows the effect of halving and doubling this.

/// Time constant of the arrival rates, in seconds.
pub(super) const ARRIVAL_WINDOW_S: f64 = 10.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::core::time::SECOND;

    #[test]
    fn what_is_more_urgent_is_counted_and_forgotten() {
        let mut arrivals = Arrivals::default();
        for tenth in 0..600 {
            arrivals.on_arrival(tenth * SECOND / 10, 0, 50.0);
        }
        let now = 60 * SECOND;
        let urgent = arrivals.before(now, 1);
        assert!((urgent - 500.0).abs() < 10.0, "{urgent}");
        assert_eq!(arrivals.before(now, 0), 0.0, "its own rank waits in line");
        assert!(arrivals.before(now + 60 * SECOND, 1) < 2.0);
    }
}
