//! Maps a key to the same backend every time, by weighted rendezvous hashing.

use crate::random::split_mix;

/// This backend's score for the key; the backend with the highest score gets it.
///
/// D. G. Thaler, C. V. Ravishankar, "Using name-based mappings to increase hit rates", 1998, with the
/// weights of C. Schindelhauer, G. Schomaker, "Weighted distributed hash tables", 2005: among
/// independent exponential variables divided by their weights, each is the smallest with the
/// probability of its weight. A new backend takes over the keys for which its score is the highest,
/// and moves no other.
pub(super) fn score(key: u64, seed: u64, weight: u32) -> f64 {
    let uniform = ((split_mix(key ^ seed) >> 11) as f64 + 0.5) / WHOLE;
    f64::from(weight) / -uniform.ln()
}

const WHOLE: f64 = (1_u64 << 53) as f64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::choice::Choice, *};
    use crate::hash::fnv1a;

    /// Where each of a thousand keys starts in a group of these weights.
    fn places(weights: &[u32]) -> Vec<usize> {
        let choice = Choice::new(&weights.iter().map(|&weight| (1, weight)).collect::<Vec<_>>());
        let seed = |index: usize| fnv1a([format!("backend-{index}").as_bytes()]);
        let place = |key| choice.rendezvous(split_mix(key), seed, |_| true).expect("all are open");
        (0..KEYS).map(place).collect()
    }

    const KEYS: u64 = 2_000;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn a_backend_that_is_added_takes_its_share_and_moves_no_other_key(
            mut weights in prop::collection::vec(1_u32..10, 1..9),
            added in 1_u32..10,
        ) {
            let before = places(&weights);
            weights.push(added);
            let after = places(&weights);
            let new = weights.len() - 1;
            let mut moved = 0;
            for (before, after) in before.into_iter().zip(after) {
                prop_assert!(before == after || after == new);
                moved += u32::from(before != after);
            }
            let share = f64::from(added) / f64::from(weights.iter().sum::<u32>());
            // Five standard deviations.
            let tolerance = 5.0 * (share * (1.0 - share) / KEYS as f64).sqrt();
            prop_assert!((f64::from(moved) / KEYS as f64 - share).abs() < tolerance);
        }

        #[test]
        fn a_backend_that_rests_leaves_its_keys_to_the_next_and_moves_no_other(
            weights in prop::collection::vec(1_u32..10, 2..9),
            key in any::<u64>(),
        ) {
            let choice = Choice::new(&weights.iter().map(|&w| (1, w)).collect::<Vec<_>>());
            let seed = |index: usize| fnv1a([format!("backend-{index}").as_bytes()]);
            let first = choice.rendezvous(key, seed, |_| true).expect("all are open");
            let second = choice.rendezvous(key, seed, |index| index != first).expect("more");
            prop_assert_ne!(first, second);
            for closed in (0..weights.len()).filter(|&index| index != first) {
                prop_assert_eq!(choice.rendezvous(key, seed, |index| index != closed), Some(first));
            }
        }

        #[test]
        fn a_score_is_a_number(key in any::<u64>(), seed in any::<u64>(), weight in any::<u32>()) {
            prop_assert!(score(key, seed, weight).is_finite());
        }
    }

    #[test]
    fn a_later_priority_has_a_key_only_while_the_first_rests() {
        let choice = Choice::new(&[(1, 1), (2, 1_000)]);
        for key in 0..100 {
            assert_eq!(choice.rendezvous(key, |index| index as u64, |_| true), Some(0));
            assert_eq!(choice.rendezvous(key, |index| index as u64, |index| index > 0), Some(1));
            assert_eq!(choice.rendezvous(key, |index| index as u64, |_| false), None);
        }
    }
}
