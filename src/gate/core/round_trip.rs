//! How long refusals take: the network's share, the usual latency, and the longest.

use super::time::{MILLISECOND, Nanos, SECOND};

/// Latencies of refusals; all zero until the first one.
#[derive(Clone, Debug, Default)]
pub(super) struct RoundTrip {
    /// The network round trip: about the shortest latency.
    network: Nanos,
    usual: Nanos,
    /// The mean deviation from the usual latency.
    deviation: Nanos,
    longest: Nanos,
}

impl RoundTrip {
    pub(super) const fn new() -> Self {
        Self { network: 0, usual: 0, deviation: 0, longest: 0 }
    }

    /// A refusal came back `took` after its attempt was sent.
    pub(super) fn on_refused(&mut self, took: Nanos) {
        let took = took.max(0);
        let near = took.min(MAX_NETWORK_NS);
        // Longer samples include connecting and queueing. The minimum may grow a little at each
        // refusal, so that it follows a route that became longer.
        self.network = match self.network {
            0 => near,
            known => near.min(known + known / NETWORK_GROWTH_DIVISOR),
        };
        (self.usual, self.deviation) = match self.usual {
            0 => (took, took / 2),
            known => {
                let off = (took - known).abs();
                let deviation = self.deviation + (off - self.deviation) / DEVIATION_DIVISOR;
                (known + (took - known) / USUAL_DIVISOR, deviation)
            }
        };
        self.longest = took.max(self.longest - (self.longest - took) / LONGEST_DECAY_DIVISOR);
    }

    /// Half a round trip.
    pub(super) const fn one_way(&self) -> Nanos {
        self.network / 2
    }

    pub(super) const fn network(&self) -> Nanos {
        self.network
    }

    pub(super) const fn usual(&self) -> Nanos {
        self.usual
    }

    /// How long an attempt must go unrefused to count as admitted: the usual latency and four mean
    /// deviations, as TCP waits for an acknowledgement (RFC 6298). Refusals that vary widely are not
    /// waited for any longer than one and a half usual ones.
    pub(super) fn silence(&self) -> Nanos {
        let slow = self.usual + SILENCE_DEVIATIONS * self.deviation;
        slow.min(self.usual * SILENCE_HALF_TRIPS / 2).max(MIN_SILENCE_NS)
    }

    /// The part of a request's time reserved for a refusal and a spill.
    pub(super) fn spill_reserve(&self) -> Nanos {
        let slowest = self.longest + self.longest / RESERVE_MARGIN_DIVISOR;
        slowest.max(self.network * SILENCE_HALF_TRIPS / 2)
    }
}

// The table in `core/mod.rs` shows the effect of halving and doubling these.

/// Clamp: anything longer counts as latency of the server, which decided early on. A slow refusal
/// that counts as distance makes each attempt too early by half of it, and each hint end too late.
const MAX_NETWORK_NS: Nanos = 100 * MILLISECOND;
/// Each refusal may raise the network round trip by one part in this many.
const NETWORK_GROWTH_DIVISOR: Nanos = 16;
/// The usual latency averages about this many refusals.
const USUAL_DIVISOR: Nanos = 16;
/// The mean deviation averages about this many refusals.
const DEVIATION_DIVISOR: Nanos = 8;
/// Each refusal lowers the longest latency by one part in this many of what it exceeds the new one
/// by.
const LONGEST_DECAY_DIVISOR: Nanos = 512;
/// The reserve exceeds the longest latency by one part in this many.
const RESERVE_MARGIN_DIVISOR: Nanos = 16;
/// How long silence must last, in mean deviations beyond the usual latency.
const SILENCE_DEVIATIONS: Nanos = 4;
/// How long it lasts at most, in half usual latencies: a refusal takes two.
const SILENCE_HALF_TRIPS: Nanos = 3;
/// The shortest silence that counts, because a single refusal may be slow.
const MIN_SILENCE_NS: Nanos = SECOND / 50;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = MILLISECOND;

    fn after(latencies: &[Nanos]) -> RoundTrip {
        let mut trip = RoundTrip::new();
        for ms in latencies {
            trip.on_refused(ms * MS);
        }
        trip
    }

    #[test]
    fn the_network_takes_about_the_shortest_latency_and_may_become_slower() {
        assert_eq!(after(&[45, 30, 90]).network(), 30 * MS + 30 * MS / 16);
        let slower = after(&[[30; 1].as_slice(), &[60; 30]].concat());
        assert_eq!(slower.network(), 60 * MS);
    }

    #[test]
    fn a_refusal_that_took_seconds_is_a_slow_server_and_no_far_network() {
        let slow = after(&[2_000]);
        assert_eq!((slow.one_way(), slow.silence()), (50 * MS, 3_000 * MS));
        assert!(slow.spill_reserve() > 2_000 * MS, "the next one may take as long");
    }

    #[test]
    fn the_less_latencies_vary_the_sooner_silence_tells() {
        assert_eq!(after(&[100]).silence(), 150 * MS, "nothing is known of their differences");
        let regular = after(&[100; 50]);
        assert!(regular.silence() < 101 * MS, "{}", regular.silence());
        let silence = after(&[[90, 110].as_slice(); 50].concat()).silence();
        assert!((110 * MS..145 * MS).contains(&silence), "later than the latest: {silence}");
        let wild = after(&[[10, 190].as_slice(); 50].concat());
        assert_eq!(wild.silence(), wild.usual() * 3 / 2);
    }

    #[test]
    fn the_reserve_remembers_a_slow_refusal_for_hundreds() {
        let one_in_fifty = after(&[[2_000; 1].as_slice(), &[30; 50]].concat());
        assert!(one_in_fifty.spill_reserve() > 1_850 * MS, "{}", one_in_fifty.spill_reserve());
        let forgotten = after(&[[2_000; 1].as_slice(), &[30; 4_000]].concat());
        assert!(forgotten.spill_reserve() < 60 * MS, "{}", forgotten.spill_reserve());
    }

    #[test]
    fn before_the_first_refusal_nothing_is_kept_back() {
        assert_eq!(RoundTrip::new().spill_reserve(), 0);
        assert_eq!(RoundTrip::new().silence(), MIN_SILENCE_NS);
    }
}
