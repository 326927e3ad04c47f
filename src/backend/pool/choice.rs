//! Chooses the backend of the next attempt: weighted, open, untried, of the first open priority.

use std::{ops::Range, sync::OnceLock, time::Instant};

use super::{
    TriedSet,
    alias::{self, Column},
    ring::{Ring, score},
};
use crate::{
    cooldown::{Cooldowns, Load},
    random::split_mix,
};

/// Draws before falling back to a scan of all backends. While most are open the first draw fits; with
/// half of the weight cooling down, fifteen of sixteen requests need no more.
const MAX_DRAWS: usize = 4;

/// The backends of one pool by priority, prepared for choosing.
#[derive(Debug)]
pub(super) struct Choice {
    /// The index range of each priority.
    groups: Box<[Range<usize>]>,
    /// An alias table for each group, one after the other.
    columns: Box<[Column]>,
    weights: Box<[u32]>,
    /// One of each group, made for the first request with a key.
    rings: OnceLock<Box<[Ring]>>,
}

impl Choice {
    /// Prepares a choice among backends given as priority and weight, sorted by priority.
    pub(super) fn new(backends: &[(u32, u32)]) -> Self {
        let weights: Box<[u32]> = backends.iter().map(|&(_, weight)| weight).collect();
        let (mut groups, mut columns) = (Vec::new(), Vec::new());
        for group in backends.chunk_by(|a, b| a.0 == b.0) {
            let group = columns.len()..columns.len() + group.len();
            columns.extend(alias::table(&weights[group.clone()]));
            groups.push(group);
        }
        Self { groups: groups.into(), columns: columns.into(), weights, rings: OnceLock::new() }
    }

    /// An open, untried backend of the first priority that has one.
    ///
    /// The first draw fits while all are open, in constant time. Every qualifying backend has the
    /// share of its weight: a rejected draw is repeated, and the final scan also draws by weight.
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
        let qualifies = |index| !tried.contains(index) && is_open(index);
        self.draw(draw, qualifies, |group| cooldowns.perhaps_open(group, now, load))
    }

    /// A qualifying backend of the first priority that has one. Of a range, only the `candidates`
    /// may qualify.
    #[inline]
    pub(super) fn draw<C: Iterator<Item = usize>>(
        &self,
        draw: u64,
        qualifies: impl Fn(usize) -> bool,
        candidates: impl Fn(Range<usize>) -> C,
    ) -> Option<usize> {
        self.groups.iter().find_map(|group| {
            let mut draw = draw;
            let table = &self.columns[group.clone()];
            for _ in 0..MAX_DRAWS.min(table.len()) {
                let index = group.start + alias::pick(table, draw);
                if qualifies(index) {
                    return Some(index);
                }
                draw = split_mix(draw);
            }
            self.scan(candidates(group.clone()).filter(|&index| qualifies(index)), draw)
        })
    }

    /// The qualifying backend that `key` maps to, of the first priority that has one; `seed`
    /// identifies each backend. Of a range, only the `candidates` may qualify.
    pub(super) fn by_key<C: Iterator<Item = usize>>(
        &self,
        key: u64,
        seed: impl Fn(usize) -> u64,
        qualifies: impl Fn(usize) -> bool,
        candidates: impl Fn(Range<usize>) -> C,
    ) -> Option<usize> {
        let rings = self.rings.get_or_init(|| {
            let backend = |index: usize| (index as u32, seed(index), self.weights[index]);
            let ring =
                |group: &Range<usize>| Ring::new(&group.clone().map(backend).collect::<Vec<_>>());
            self.groups.iter().map(ring).collect()
        });
        let score = |index: usize| score(key, seed(index), self.weights[index]);
        self.groups.iter().zip(rings).find_map(|(group, ring)| {
            ring.find(key, &qualifies).or_else(|| {
                let open = candidates(group.clone()).filter(|&index| qualifies(index));
                let scores = open.map(|index| (index, score(index)));
                let best = scores.max_by(|(_, one), (_, other)| one.total_cmp(other));
                best.map(|(index, _)| index)
            })
        })
    }

    /// One of the `qualifying` backends of a group, by weight.
    #[inline(never)]
    fn scan(&self, qualifying: impl Iterator<Item = usize>, draw: u64) -> Option<usize> {
        // One pass: each qualifying backend takes over with the probability of its weight among those
        // seen so far, which leaves each with its share of the total.
        let (mut chosen, mut total, mut draw) = (None, 0u64, draw);
        for index in qualifying {
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

/// `draw` scaled to `0..limit` without modulo bias.
fn below(draw: u64, limit: u64) -> u64 {
    u64::try_from((u128::from(draw) * u128::from(limit)) >> 64).expect("less than `limit`")
}
