//! The queue of a fleet: urgent ranks first, first in, first out within a rank.

use std::collections::BTreeMap;

/// Ranks that the queue distinguishes.
pub(crate) const MAX_RANK: u8 = 7;
pub(super) const RANKS: usize = MAX_RANK as usize + 1;

/// A waiting request. Instants are in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) cost: f64,
    /// When its process looks again.
    pub(super) look: f64,
    /// The latest time at which it leaves the queue.
    pub(super) latest: f64,
}

/// Waiting requests by rank and order.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue(BTreeMap<(u8, u64), Waiting>);

impl Queue {
    /// Returns whether it was not there before.
    pub(super) fn put(&mut self, rank: u8, order: f64, waiting: Waiting) -> bool {
        self.0.insert((rank, order as u64), waiting).is_none()
    }

    /// Returns whether it was there.
    pub(super) fn remove(&mut self, rank: u8, order: f64) -> bool {
        self.0.remove(&(rank, order as u64)).is_some()
    }

    pub(super) fn contains(&self, rank: u8, order: f64) -> bool {
        self.0.contains_key(&(rank, order as u64))
    }

    pub(super) fn head(&self) -> Option<(u8, f64, Waiting)> {
        self.0.first_key_value().map(|(&(rank, order), waiting)| (rank, order as f64, *waiting))
    }

    /// The number of requests ahead of one that waits.
    pub(super) fn ahead(&self, rank: u8, order: f64) -> f64 {
        self.0.range(..(rank, order as u64)).count() as f64
    }

    /// The requests ahead of a new one of `rank`, in order.
    pub(super) fn ahead_of(&self, rank: u8) -> impl Iterator<Item = &Waiting> {
        self.0.range(..=(rank, u64::MAX)).map(|(_, waiting)| waiting)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
