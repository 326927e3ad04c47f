//! Outages of a resource's listener: restarts, and refused connections.

use std::time::Duration;

use crate::registry::scramble;

/// A period in which a resource's listener is closed. Times count from the creation of the
/// [`Emulator`](crate::Emulator).
///
/// Over a socket, connections are refused. In process, and where resources share a port, the
/// service fails with [`EmulatorError::Down`](crate::EmulatorError::Down).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outage(Kind);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Once { at: Duration, lasts: Duration },
    Every { period: Duration, lasts: Duration },
    Share(f64),
}

impl Outage {
    /// One restart, which begins `at`. Cuts open connections over a socket, and the answers in
    /// flight on them.
    pub const fn at(at: Duration, lasts: Duration) -> Self {
        Self(Kind::Once { at, lasts })
    }

    /// A restart at the end of each `period` (at least a millisecond), which cuts connections like
    /// [`Outage::at`].
    pub fn every(period: Duration, lasts: Duration) -> Self {
        Self(Kind::Every { period: period.max(Duration::from_millis(1)), lasts })
    }

    /// Refuses a share of new connections, 0 to 1, and cuts none: closes the listener in that share
    /// of two-millisecond slices, each drawn independently from the emulator's
    /// [seed](crate::Emulator::seed).
    ///
    /// Affects only new connections:
    /// [`Resource::closes_connections`](crate::Resource::closes_connections) makes every request
    /// open one.
    ///
    /// # Panics
    ///
    /// If `share` is not between 0 and 1.
    pub fn share(share: f64) -> Self {
        assert!((0.0..=1.0).contains(&share), "a share of connections lies between 0 and 1");
        Self(Kind::Share(share))
    }

    /// Whether it cuts open connections.
    pub(crate) const fn cuts(&self) -> bool {
        !matches!(self.0, Kind::Share(_))
    }

    /// When it ends, if it is active.
    fn ends(&self, seed: u64, now: Duration) -> Option<Duration> {
        match self.0 {
            Kind::Once { at, lasts } => (at <= now).then_some(at.saturating_add(lasts)),
            Kind::Every { period, lasts } => {
                let turn = now.as_nanos() / period.as_nanos();
                let begun = at_turn(period, turn);
                (turn > 0).then_some(begun.saturating_add(lasts))
            }
            Kind::Share(share) => {
                let slice = slice_of(now);
                is_closed(share, seed, slice).then(|| SLICE.saturating_mul(slice.saturating_add(1)))
            }
        }
        .filter(|end| *end > now)
    }

    /// When it next begins; for a share, or when to call this again if that is earlier.
    fn begins(&self, seed: u64, now: Duration) -> Option<Duration> {
        match self.0 {
            Kind::Once { at, .. } => (at > now).then_some(at),
            Kind::Every { period, .. } => {
                Some(at_turn(period, now.as_nanos() / period.as_nanos() + 1))
            }
            Kind::Share(share) if share > 0.0 => {
                let next = slice_of(now).saturating_add(1);
                let last = next.saturating_add(MAX_SLICES_AHEAD);
                let found = (next..last).find(|slice| is_closed(share, seed, *slice));
                Some(SLICE.saturating_mul(found.unwrap_or(last)))
            }
            Kind::Share(_) => None,
        }
    }
}

/// All outages of one resource.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outages<'a> {
    outages: &'a [Outage],
    seed: u64,
}

impl<'a> Outages<'a> {
    pub(crate) const NONE: Self = Self { outages: &[], seed: 0 };

    pub(crate) const fn new(outages: &'a [Outage], seed: u64) -> Self {
        Self { outages, seed }
    }

    /// When the active outages end, and whether one of them cuts connections.
    pub(crate) fn now(&self, now: Duration) -> Option<(Duration, bool)> {
        let on = self
            .outages
            .iter()
            .filter_map(|outage| outage.ends(self.seed, now).map(|end| (end, outage.cuts())));
        on.reduce(|(end, cuts), (other, also)| (end.max(other), cuts || also))
    }

    /// When to check again, if none is active.
    pub(crate) fn next(&self, now: Duration) -> Option<Duration> {
        self.outages.iter().filter_map(|outage| outage.begins(self.seed, now)).min()
    }
}

fn slice_of(now: Duration) -> u32 {
    u32::try_from(now.as_nanos() / SLICE.as_nanos()).unwrap_or(u32::MAX)
}

fn at_turn(period: Duration, turn: u128) -> Duration {
    period.saturating_mul(u32::try_from(turn).unwrap_or(u32::MAX))
}

fn is_closed(share: f64, seed: u64, slice: u32) -> bool {
    let draw = scramble(seed ^ scramble(u64::from(slice)));
    (draw as f64) < share * u64::MAX as f64
}

/// Shorter than the time between two connections of most tests, so that each has its own draw;
/// longer than closing and binding take.
const SLICE: Duration = Duration::from_millis(2);
/// Two seconds.
const MAX_SLICES_AHEAD: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_restart_begins_and_ends_when_it_says() {
        let outages = [Outage::at(ms(500), ms(300)), Outage::every(ms(10_000), ms(20))];
        let outages = Outages::new(&outages, 7);
        assert_eq!((outages.now(ms(499)), outages.next(ms(0))), (None, Some(ms(500))));
        assert_eq!(outages.now(ms(500)), Some((ms(800), true)));
        assert_eq!(outages.now(ms(800)), None);
        assert_eq!(outages.next(ms(800)), Some(ms(10_000)));
        assert_eq!(outages.now(ms(10_019)), Some((ms(10_020), true)));
        assert_eq!(outages.now(ms(10_020)), None);
        assert_eq!(outages.next(ms(10_020)), Some(ms(20_000)));
    }

    #[test]
    fn a_share_of_slices_is_closed_and_another_seed_closes_others() {
        let outages = [Outage::share(0.1)];
        let closed = |seed| {
            let outages = Outages::new(&outages, seed);
            (0..10_000).filter(move |slice| outages.now(ms(slice * 2 + 1)).is_some())
        };
        let count = closed(1).count();
        assert!((900..1_100).contains(&count), "{count} of 10,000");
        assert!(closed(1).eq(closed(1)) && !closed(1).eq(closed(2)));
        let outages = Outages::new(&outages, 1);
        let first = closed(1).find(|slice| *slice > 0).unwrap();
        assert_eq!(outages.next(ms(0)), Some(ms(first * 2)));
        assert_eq!(outages.now(ms(first * 2)), Some((ms(first * 2 + 2), false)));
    }

    #[test]
    fn absurd_times_end_somewhere() {
        for outage in [
            Outage::at(Duration::MAX, Duration::MAX),
            Outage::every(Duration::ZERO, Duration::MAX),
            Outage::share(0.0),
            Outage::share(1.0),
        ] {
            for now in [Duration::ZERO, ms(7), Duration::MAX] {
                let outages = [outage];
                let outages = Outages::new(&outages, 0);
                let _ = (outages.now(now), outages.next(now));
            }
        }
    }
}
