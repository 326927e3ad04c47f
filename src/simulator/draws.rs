//! Random numbers that are the same in every run of one seed.

use std::cell::Cell;

use rand::{SeedableRng, rngs::SmallRng};

thread_local! {
    /// Draws made so far and the seed, while a simulation runs on this thread.
    static DRAWS: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
}

/// While it lives, the layers on this thread draw from a seed instead of from entropy.
#[derive(Debug)]
pub(super) struct Seeded(Option<(u64, u64)>);

impl Seeded {
    pub(super) fn new(seed: u64) -> Self {
        Self(DRAWS.replace(Some((mix(seed, &[LAYERS]), 0))))
    }
}

impl Drop for Seeded {
    fn drop(&mut self) {
        DRAWS.set(self.0);
    }
}

/// The next number for the layers; `None` outside of a simulation.
pub(crate) fn seeded_draw() -> Option<u64> {
    let (seed, drawn) = DRAWS.get()?;
    DRAWS.set(Some((seed, drawn.wrapping_add(1))));
    Some(mix(seed, &[drawn]))
}

/// A number that depends on nothing but `seed` and `parts`, so that every policy meets the same
/// delays whatever it did before.
pub(super) fn mix(seed: u64, parts: &[u64]) -> u64 {
    parts.iter().fold(scramble(seed), |state, part| scramble(state ^ scramble(*part)))
}

/// `mix` as a uniform number in `0..1`.
pub(super) fn share(seed: u64, parts: &[u64]) -> f64 {
    const WHOLE: f64 = (1u64 << 53) as f64;
    (mix(seed, parts) >> 11) as f64 / WHOLE
}

/// A generator of its own for each `stream`.
pub(super) fn generator(seed: u64, stream: u64) -> SmallRng {
    SmallRng::seed_from_u64(mix(seed, &[stream]))
}

/// The finaliser of splitmix64.
const fn scramble(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Sets the layers' draws apart from those of the load and the network.
const LAYERS: u64 = 0x6c61_7965_7273;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layers_draw_the_same_numbers_in_every_run_of_a_seed() {
        let run = |seed| {
            let _seeded = Seeded::new(seed);
            [(); 4].map(|()| seeded_draw())
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert_eq!(seeded_draw(), None, "outside of a simulation they draw from entropy");
    }
}
