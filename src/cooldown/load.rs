//! By what a backend distinguishes requests when it refuses: their kind of traffic, and their weight.

use std::num::NonZeroU32;

/// A request, as far as a refusal can be about it. Both are asked for only where something rests.
pub(crate) trait Load {
    /// Its kind.
    fn traffic(&self) -> Traffic;

    /// How heavy it is, by the tokens that it may take.
    fn weight(&self) -> Weight;
}

/// A kind of traffic, which the service limits apart from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// Tokens of the default service tier: chat, responses, completions, embeddings, and whatever is
    /// not known.
    Tokens,
    /// Tokens of `service_tier: flex`.
    Flex,
    /// Tokens of `service_tier: priority`.
    Priority,
    Images,
    Speech,
    Transcription,
    Video,
    /// What a resource is to keep: files, uploads, vector stores, batches.
    Stored,
    /// Reading, polling, listing, cancelling and deleting: the service counts none of it as anything
    /// that it refuses other requests for.
    Free,
}

impl Traffic {
    /// Whether it asks for nothing of a deployment, but for what the resource keeps.
    pub(crate) const fn is_of_resource(self) -> bool {
        matches!(self, Self::Stored | Self::Free)
    }
}

/// How heavy a request is: a third of a power of two of its tokens, from 64 up.
///
/// Below 64 tokens all are alike: nearly every request is heavier. The highest stands for what is not
/// known as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Weight(u8);

impl Weight {
    /// The number of weights; the last begins at 2^27 tokens, 128 choices of a million each.
    pub(super) const COUNT: usize = 64;
    pub(crate) const HEAVIEST: Self = Self(63);

    /// The weight of a request of so many tokens.
    pub(crate) fn of(tokens: f64) -> Self {
        // It saturates, and NaN is 0.
        Self(((tokens.max(1.0).log2() - LIGHTEST) * STEPS).clamp(0.0, 63.0) as u8)
    }

    pub(super) const fn at(index: usize) -> Self {
        Self(index as u8)
    }

    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }

    /// The lightest weight that a refusal of this one is about. What has half of its tokens, or fewer,
    /// is lighter; what has two thirds is not.
    pub(crate) const fn least_alike(self) -> Self {
        Self(self.0.saturating_sub(2))
    }

    /// The fewest tokens of this weight; `None` for the lightest, which has no lower limit.
    pub(crate) fn tokens(self) -> Option<NonZeroU32> {
        let tokens = (LIGHTEST + f64::from(self.0) / STEPS).exp2() as u32;
        NonZeroU32::new(tokens).filter(|_| self.0 > 0)
    }
}

const LIGHTEST: f64 = 6.0;
const STEPS: f64 = 3.0;

/// Of a request that is known to be of this kind and weight.
impl Load for (Traffic, Weight) {
    fn traffic(&self) -> Traffic {
        self.0
    }

    fn weight(&self) -> Weight {
        self.1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn half_of_the_tokens_is_lighter_and_two_thirds_are_alike(tokens in 128.0..1e8_f64) {
            let refused = Weight::of(tokens).least_alike();
            prop_assert!(Weight::of(tokens / 2.0) < refused);
            prop_assert!(Weight::of(tokens * 0.64) >= refused);
            let least = refused.tokens().map_or(0, NonZeroU32::get);
            prop_assert!(Weight::of(f64::from(least) + 1.0) >= refused);
        }
    }

    #[test]
    fn any_number_has_a_weight() {
        for (tokens, weight) in [
            (f64::NAN, 0),
            (-1.0, 0),
            (0.0, 0),
            (63.0, 0),
            (64.0, 0),
            (128.0, 3),
            (1e12, 63),
            (f64::INFINITY, 63),
        ] {
            assert_eq!(Weight::of(tokens), Weight(weight), "{tokens}");
        }
    }
}
