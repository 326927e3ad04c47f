//! Chooses the backend of the next attempt: weighted, open, untried, of the first open priority.

use std::{ops::Range, time::Instant};

use super::{
    TriedSet,
    alias::{self, Column},
    rendezvous::score,
};
use crate::{
    cooldown::{Cooldowns, Load},
    random::split_mix,
};

/// Draws before the backends are looked at one by one. While most are open the first draw fits;
/// with half of the weight resting, fifteen requests in sixteen need no more.
const DRAWS: usize = 4;

/// The backends of one pool by priority, ready to be chosen from.
#[derive(Debug)]
pub(super) struct Choice {
    /// The backends of each priority; they stand side by side.
    groups: Box<[Range<usize>]>,
    /// An alias table for each group, side by side as well.
    columns: Box<[Column]>,
    weights: Box<[u32]>,
}

impl Choice {
    /// A choice among backends that are sorted by the first of each pair, their priority; the
    /// second is the weight.
    pub(super) fn new(backends: &[(u32, u32)]) -> Self {
        let weights: Box<[u32]> = backends.iter().map(|&(_, weight)| weight).collect();
        let (mut groups, mut columns) = (Vec::new(), Vec::new());
        for group in backends.chunk_by(|a, b| a.0 == b.0) {
            let group = columns.len()..columns.len() + group.len();
            columns.extend(alias::table(&weights[group.clone()]));
            groups.push(group);
        }
        Self { groups: groups.into(), columns: columns.into(), weights }
    }

    /// An open backend that was not tried, of the first priority that has one.
    ///
    /// The first draw fits while all are open, in constant time. Every backend has the share of
    /// its weight among those that qualify: a rejected draw is repeated, and the scan that ends
    /// the repeating draws by weight too.
    #[inline]
    pub(super) fn choose(
        &self,
        cooldowns: &Cooldowns,
        tried: &TriedSet,
        now: Instant,
        draw: u64,
        load: &dyn Load,
    ) -> Option<usize> {
        let is_open = cooldowns.open_at(now, load);
        self.draw(draw, |index| !tried.contains(index) && is_open(index))
    }

    /// One of the backends that qualify, of the first priority that has one.
    #[inline]
    pub(super) fn draw(&self, draw: u64, qualifies: impl Fn(usize) -> bool) -> Option<usize> {
        self.groups.iter().find_map(|group| {
            let mut draw = draw;
            let table = &self.columns[group.clone()];
            for _ in 0..DRAWS.min(table.len()) {
                let index = group.start + alias::pick(table, draw);
                if qualifies(index) {
                    return Some(index);
                }
                draw = split_mix(draw);
            }
            self.scan(group.clone(), draw, &qualifies)
        })
    }

    /// The backend that `key` leads to among those that qualify, of the first priority that has
    /// one; backends are told apart by a `seed` each.
    pub(super) fn rendezvous(
        &self,
        key: u64,
        seed: impl Fn(usize) -> u64,
        qualifies: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let score = |index: usize| score(key, seed(index), self.weights[index]);
        self.groups.iter().find_map(|group| {
            let scores = group.clone().filter(|&index| qualifies(index));
            scores
                .map(|index| (index, score(index)))
                .max_by(|(_, one), (_, other)| one.total_cmp(other))
                .map(|(index, _)| index)
        })
    }

    fn scan(
        &self,
        group: Range<usize>,
        draw: u64,
        qualifies: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        // One pass: each qualifying backend takes over with the probability of its weight among
        // those seen so far, which leaves every one with its share of the whole.
        let (mut chosen, mut total, mut draw) = (None, 0u64, draw);
        for index in group.filter(|&index| qualifies(index)) {
            let weight = u64::from(self.weights[index]);
            total += weight;
            draw = split_mix(draw);
            if below(draw, total) < weight {
                chosen = Some(index);
            }
        }
        chosen
    }
}

/// `draw` scaled to `0..limit`, without the bias that a remainder would have.
fn below(draw: u64, limit: u64) -> u64 {
    u64::try_from((u128::from(draw) * u128::from(limit)) >> 64).expect("less than `limit`")
}
