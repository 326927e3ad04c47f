//! The emulator's leaky bucket, with all its future corrections known.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

/// A bucket that knows when each admission's estimate will be corrected.
///
/// Times are in seconds and never go back; levels are in weighted tokens.
#[derive(Debug)]
pub(super) struct KnownBucket {
    rate: f64,
    capacity: f64,
    level: f64,
    now: f64,
    /// Future changes of the rate, the next one last.
    changes: Vec<(f64, f64)>,
    seconds: f64,
    corrections: BinaryHeap<Reverse<Correction>>,
}

#[derive(Clone, Copy, Debug)]
struct Correction {
    at: f64,
    tokens: f64,
}

impl KnownBucket {
    pub(super) fn new(rate: f64, seconds: f64) -> Self {
        Self {
            rate,
            capacity: rate * seconds,
            level: 0.0,
            now: 0.0,
            changes: Vec::new(),
            seconds,
            corrections: BinaryHeap::new(),
        }
    }

    /// Schedules changes of the rate, and with it of the capacity.
    pub(super) fn change(&mut self, mut changes: Vec<(f64, f64)>) {
        changes.sort_by(|a, b| b.0.total_cmp(&a.0));
        self.changes = changes;
    }

    /// Advances until the level is below the capacity, assuming no further admissions, or until
    /// `limit`; returns whether it is below.
    pub(super) fn opens_by(&mut self, limit: f64) -> bool {
        while self.level >= self.capacity {
            // One nanosecond more: the service refuses at exactly 100 %.
            let mut until = self.now + (self.level - self.capacity) / self.rate + 1e-9;
            if let Some(Reverse(next)) = self.corrections.peek() {
                until = until.min(next.at);
            }
            if let Some((at, _)) = self.changes.last() {
                until = until.min(*at);
            }
            self.advance(until.min(limit));
            if until > limit {
                return self.level < self.capacity;
            }
        }
        true
    }

    /// Adds `estimate` to the level now, and schedules its `correction` for the time `at`.
    pub(super) fn admit(&mut self, estimate: f64, at: f64, correction: f64) {
        self.level += estimate;
        self.corrections.push(Reverse(Correction { at, tokens: correction }));
    }

    /// Advances to `until`, applying the corrections that fall due on the way.
    pub(super) fn advance(&mut self, until: f64) {
        while let Some(Reverse(next)) = self.corrections.peek().copied()
            && next.at <= until
        {
            self.corrections.pop();
            self.drain(next.at);
            self.level = (self.level + next.tokens).max(0.0);
        }
        self.drain(until);
    }

    pub(super) fn now(&self) -> f64 {
        self.now
    }

    pub(super) fn level(&self) -> f64 {
        self.level
    }

    fn drain(&mut self, until: f64) {
        while let Some(&(at, rate)) = self.changes.last()
            && at <= until
        {
            self.changes.pop();
            self.fall(at);
            (self.rate, self.capacity) = (rate, rate * self.seconds);
        }
        self.fall(until);
    }

    fn fall(&mut self, until: f64) {
        if until > self.now {
            self.level = (self.level - (until - self.now) * self.rate).max(0.0);
            self.now = until;
        }
    }
}

impl Ord for Correction {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.total_cmp(&other.at).then(self.tokens.total_cmp(&other.tokens))
    }
}

impl PartialOrd for Correction {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Correction {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Correction {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_when_the_overshoot_has_drained() {
        let mut bucket = KnownBucket::new(1_000.0, 3.0);
        bucket.advance(1.0);
        assert!(bucket.opens_by(1.0), "it is open already");
        bucket.admit(7_000.0, 100.0, -2_000.0);
        assert!(!bucket.opens_by(4.5));
        assert_eq!((bucket.now(), bucket.level()), (4.5, 3_500.0));
        assert!(bucket.opens_by(9.0));
        assert!((bucket.now() - 5.0).abs() < 1e-6, "(7000 - 3000) / 1000 after 1 s");
    }

    #[test]
    fn another_rate_on_the_way_opens_it_later_or_sooner() {
        for (rate, opens) in [(500.0, 9.0), (2_000.0, 2.0)] {
            let mut bucket = KnownBucket::new(1_000.0, 3.0);
            bucket.change(vec![(2.0, rate)]);
            bucket.admit(7_000.0, 100.0, 0.0);
            assert!(bucket.opens_by(f64::INFINITY));
            // 5,000 are left at 2 s, beside a capacity of 1,500 or 6,000.
            assert!((bucket.now() - opens).abs() < 1e-6, "{}", bucket.now());
        }
    }

    #[test]
    fn a_correction_on_the_way_opens_it_sooner() {
        let mut bucket = KnownBucket::new(1_000.0, 3.0);
        bucket.admit(7_000.0, 2.0, -1_500.0);
        assert!(bucket.opens_by(f64::INFINITY));
        assert!((bucket.now() - 2.5).abs() < 1e-6);
        bucket.admit(1_000.0, 2.6, -5_000.0);
        bucket.advance(2.6);
        assert_eq!(bucket.level(), 0.0, "a correction below nothing leaves nothing");
    }
}
