//! Random numbers that are the same in every run of one seed.

use rand::{SeedableRng, rngs::SmallRng};

use tower_spillover::random::{SeededDraws, split_mix};

/// Makes the layers on this thread draw from `seed` until the guard is dropped.
pub(super) fn seed_layers(seed: u64) -> SeededDraws {
    SeededDraws::new(mix(seed, &[LAYERS]))
}

/// A number that depends only on `seed` and `parts`, so that every policy sees the same delays
/// whatever it did before.
pub(super) fn mix(seed: u64, parts: &[u64]) -> u64 {
    parts.iter().fold(split_mix(seed), |state, part| split_mix(state ^ split_mix(*part)))
}

/// `mix` as a uniform number in `0..1`.
pub(super) fn share(seed: u64, parts: &[u64]) -> f64 {
    const WHOLE: f64 = (1u64 << 53) as f64;
    (mix(seed, parts) >> 11) as f64 / WHOLE
}

/// An independent generator for each `stream`.
pub(super) fn generator(seed: u64, stream: u64) -> SmallRng {
    SmallRng::seed_from_u64(mix(seed, &[stream]))
}

/// Separates the layers' draws from those of the load and the network.
const LAYERS: u64 = 0x6c61_7965_7273;
