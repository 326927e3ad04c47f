//! The one place of the library that draws random numbers.

use std::{
    cell::{Cell, RefCell},
    hash::{BuildHasher, RandomState},
};

use rand::{Rng, SeedableRng, rngs::SmallRng};

/// The random number that a request's decisions are made from: spread, not secret.
pub(crate) fn draw() -> u64 {
    match SEEDED.get() {
        None => GENERATOR.with_borrow_mut(SmallRng::next_u64),
        Some((seed, drawn)) => {
            SEEDED.set(Some((seed, drawn.wrapping_add(1))));
            split_mix(split_mix(seed) ^ split_mix(drawn))
        }
    }
}

/// A draw where one `is_needed`; zero otherwise, so that a simulation of nothing else repeats itself.
pub(crate) fn draw_if(is_needed: bool) -> u64 {
    if is_needed { draw() } else { 0 }
}

/// A draw as a number from 0 to 1.
pub(crate) fn share() -> f64 {
    const WHOLE: f64 = (1_u64 << 53) as f64;
    (draw() >> 11) as f64 / WHOLE
}

/// The next number after `number` in a sequence, or a hash of it (SplitMix64: G. L. Steele, D. Lea,
/// C. H. Flood, "Fast splittable pseudorandom number generators", 2014).
pub const fn split_mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

thread_local! {
    /// Starts elsewhere on every thread and in every process: `RandomState` has its keys from the
    /// operating system.
    static GENERATOR: RefCell<SmallRng> =
        RefCell::new(SmallRng::seed_from_u64(RandomState::new().hash_one(())));

    /// The seed and how many numbers were drawn from it.
    static SEEDED: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
}

/// While it lives, the layers on this thread draw from a seed instead of from entropy, so that a
/// simulation repeats exactly.
#[derive(Debug)]
pub struct SeededDraws {
    before: Option<(u64, u64)>,
}

impl SeededDraws {
    /// Draws from `seed` from now on.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { before: SEEDED.replace(Some((seed, 0))) }
    }
}

impl Drop for SeededDraws {
    fn drop(&mut self) {
        SEEDED.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layers_draw_the_same_numbers_in_every_run_of_a_seed() {
        let run = |seed| {
            let _seeded = SeededDraws::new(seed);
            [(); 4].map(|()| draw())
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert_ne!(draw(), draw(), "outside of a simulation they draw from entropy");
    }

    #[test]
    fn threads_draw_other_numbers_than_one_another() {
        let threads = [(); 8].map(|()| std::thread::spawn(draw));
        let mut drawn = threads.map(|thread| thread.join().expect("a number"));
        drawn.sort_unstable();
        assert!(drawn.windows(2).all(|pair| pair[0] != pair[1]), "{drawn:?}");
    }
}
