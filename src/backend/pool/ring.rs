//! Maps a key to the same backend every time, at a cost that does not grow with their number.
//!
//! Every backend has points on a ring, as many as its weight demands, at places that its name alone
//! decides (D. Karger et al., "Consistent hashing and random trees", 1997). A key has [`PROBES`] places,
//! and belongs to the point that follows one of them most closely (B. Appleton, M. O'Reilly,
//! "Multi-probe consistent hashing", 2015): that evens out the gaps between points, as hundreds of
//! points of each backend would. A new backend takes over the keys to which one of its points is the
//! closest, and moves no other; the keys of one that is closed go to the next points.

use crate::random::split_mix;

/// The points of the backends of one priority.
#[derive(Debug)]
pub(super) struct Ring {
    /// In order.
    places: Box<[u64]>,
    /// The backend of each point.
    owners: Box<[u32]>,
    /// The first point at or after the beginning of each of equal parts of the ring.
    firsts: Box<[u32]>,
    /// How far to shift a place for the number of its part.
    shift: u32,
}

impl Ring {
    /// The ring of backends given as index, seed and weight; the seed identifies each in every
    /// process.
    pub(super) fn new(backends: &[(u32, u64, u32)]) -> Self {
        let all: u64 = backends.iter().map(|&(.., weight)| u64::from(weight)).sum();
        let most = (MAX_POINTS + POINTS * backends.len() as u64) / POINTS;
        // Halved as often as necessary, so that another backend seldom changes it.
        let halvings = (0..).find(|&times| all >> times <= most).unwrap_or(0);
        let mut points = Vec::new();
        for &(index, seed, weight) in backends {
            let count = ((u64::from(weight) * POINTS) >> halvings).max(1);
            points.extend((0..count).map(|number| (split_mix(seed ^ split_mix(number)), index)));
        }
        points.sort_unstable();
        let bits = points.len().next_power_of_two().trailing_zeros().max(1);
        let shift = u64::BITS - bits;
        let first = |part: u64| points.partition_point(|&(place, _)| place < part << shift) as u32;
        Self {
            firsts: (0..1 << bits).map(first).collect(),
            places: points.iter().map(|&(place, _)| place).collect(),
            owners: points.iter().map(|&(_, index)| index).collect(),
            shift,
        }
    }

    /// The backend of `key`, which is spread, among those that qualify. `None` also if none of the
    /// next [`STEPS`] points of any place does.
    pub(super) fn find(&self, key: u64, qualifies: impl Fn(usize) -> bool) -> Option<usize> {
        let nearest = self.places_of(key).map(|place| {
            let point = self.after(place);
            (self.places[point].wrapping_sub(place), point)
        });
        let owner = self.owner(nearest.min()?.1);
        if qualifies(owner) {
            return Some(owner);
        }
        let open = self.places_of(key).filter_map(|place| {
            let first = self.after(place);
            let points = (first..self.places.len()).chain(0..first).take(STEPS);
            let open = points.into_iter().find(|&point| qualifies(self.owner(point)))?;
            Some((self.places[open].wrapping_sub(place), open))
        });
        open.min().map(|(_, point)| self.owner(point))
    }

    fn places_of(&self, key: u64) -> impl Iterator<Item = u64> + use<> {
        (0..PROBES).map(move |number| split_mix(key.wrapping_add(number)))
    }

    /// The first point at or after `place`.
    fn after(&self, place: u64) -> usize {
        let mut point = self.firsts[(place >> self.shift) as usize] as usize;
        while self.places.get(point).is_some_and(|&other| other < place) {
            point += 1;
        }
        if point == self.places.len() { 0 } else { point }
    }

    fn owner(&self, point: usize) -> usize {
        self.owners[point] as usize
    }
}

/// This backend's score for the key, for when none is found on the ring: the backend with the highest
/// score gets it.
///
/// D. G. Thaler, C. V. Ravishankar, "Using name-based mappings to increase hit rates", 1998, with the
/// weights of C. Schindelhauer, G. Schomaker, "Weighted distributed hash tables", 2005: among
/// independent exponential variables divided by their weights, each is the smallest with the
/// probability of its weight.
pub(super) fn score(key: u64, seed: u64, weight: u32) -> f64 {
    let uniform = ((split_mix(key ^ seed) >> 11) as f64 + 0.5) / WHOLE;
    f64::from(weight) / -uniform.ln()
}

const WHOLE: f64 = (1_u64 << 53) as f64;
/// The places of a key. With 21, a backend with one point has at most a twentieth more than its share.
const PROBES: u64 = 21;
/// The points of a backend of weight 1, unless weights are large.
const POINTS: u64 = 16;
/// The most points, besides [`POINTS`] for each backend: 12 bytes each.
const MAX_POINTS: u64 = 1 << 14;
/// How many points after each place are looked at: more are closed only if nearly all are.
const STEPS: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::choice::Choice, *};
    use crate::hash::fnv1a;

    const KEYS: u64 = 4_000;

    fn choice(weights: &[u32]) -> Choice {
        Choice::new(&weights.iter().map(|&weight| (1, weight)).collect::<Vec<_>>())
    }

    fn seed(index: usize) -> u64 {
        fnv1a([format!("backend-{index}").as_bytes()])
    }

    fn place(choice: &Choice, key: u64, qualifies: impl Fn(usize) -> bool) -> Option<usize> {
        choice.by_key(key, seed, qualifies, |group| group)
    }

    /// Where each key starts in a group of these weights.
    fn places(weights: &[u32]) -> Vec<usize> {
        let choice = choice(weights);
        (0..KEYS).map(|key| place(&choice, split_mix(key), |_| true).expect("all open")).collect()
    }

    #[track_caller]
    fn takes_its_share_and_moves_no_other(weights: &[u32], added: u32) {
        let before = places(weights);
        let after = places(&[weights, &[added]].concat());
        let new = weights.len();
        let mut moved = 0;
        for (before, after) in before.into_iter().zip(after) {
            assert!(before == after || after == new);
            moved += u32::from(before != after);
        }
        let all = f64::from(added) + weights.iter().map(|&weight| f64::from(weight)).sum::<f64>();
        let share = f64::from(added) / all;
        // Five standard deviations of the draw, and of the ring.
        let of_draw = (share * (1.0 - share) / KEYS as f64).sqrt();
        let of_ring = RING_DEVIATION * share * (1.0 - share) / f64::from(added).sqrt();
        let off = (f64::from(moved) / KEYS as f64 - share).abs();
        assert!(off < 5.0 * of_draw.hypot(of_ring), "{moved} of {KEYS} for {added} of {all}");
    }

    /// The standard deviation of the share of a backend with [`POINTS`] points among many.
    const RING_DEVIATION: f64 = 0.05;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn a_backend_that_is_added_takes_its_share_and_moves_no_other_key(
            weights in prop::collection::vec(1_u32..10, 1..9),
            added in 1_u32..10,
        ) {
            takes_its_share_and_moves_no_other(&weights, added);
        }

        #[test]
        fn a_backend_that_rests_leaves_its_keys_to_the_next_and_moves_no_other(
            weights in prop::collection::vec(1_u32..10, 2..9),
            resting in prop::collection::vec(any::<bool>(), 9),
            key in any::<u64>(),
        ) {
            let choice = choice(&weights);
            let first = place(&choice, key, |index| !resting[index]);
            let all = (0..weights.len()).all(|index| resting[index]);
            prop_assert_eq!(first.is_none(), all);
            let Some(first) = first else { return Ok(()) };
            prop_assert!(!resting[first]);
            let second = place(&choice, key, |index| !resting[index] && index != first);
            prop_assert_ne!(second, Some(first));
            for closed in (0..weights.len()).filter(|&index| index != first) {
                let still = place(&choice, key, |index| !resting[index] && index != closed);
                prop_assert_eq!(still, Some(first));
            }
        }

        #[test]
        fn a_score_is_a_number(key in any::<u64>(), seed in any::<u64>(), weight in any::<u32>()) {
            prop_assert!(score(key, seed, weight).is_finite());
        }
    }

    #[test]
    fn the_same_holds_for_a_thousand_backends() {
        takes_its_share_and_moves_no_other(&[1; 999], 1);
        takes_its_share_and_moves_no_other(&[1; 999], 200);
        let mut counts = [0_u32; 1_000];
        let choice = choice(&[1; 1_000]);
        for key in 0..200_000 {
            counts[place(&choice, split_mix(key), |_| true).expect("all open")] += 1;
        }
        counts.sort_unstable();
        // 200 each, with a deviation of 14 from the draw alone.
        assert!(counts[10] > 140 && counts[989] < 260, "{} to {}", counts[10], counts[989]);
    }

    #[test]
    fn weights_hold_however_large_they_are() {
        for weights in [[1, 3], [1_000, 3_000], [1_000_000_000, 3_000_000_000]] {
            let second = places(&weights).into_iter().filter(|&index| index == 1).count();
            let share = second as f64 / KEYS as f64;
            assert!((share - 0.75).abs() < 0.06, "{share} with {weights:?}");
        }
    }

    #[test]
    fn a_later_priority_has_a_key_only_while_the_first_rests() {
        let choice = Choice::new(&[(1, 1), (2, 1_000)]);
        for key in 0..100 {
            let key = split_mix(key);
            assert_eq!(place(&choice, key, |_| true), Some(0));
            assert_eq!(place(&choice, key, |index| index > 0), Some(1));
            assert_eq!(place(&choice, key, |_| false), None);
        }
    }

    #[test]
    fn the_only_open_backend_of_many_has_all_keys() {
        let choice = choice(&[1; 300]);
        for key in 0..100 {
            assert_eq!(place(&choice, split_mix(key), |index| index == 299), Some(299));
        }
    }
}
