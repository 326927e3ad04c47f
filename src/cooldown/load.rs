//! The properties of a request that a refusal can depend on: kind of traffic, and weight.

use std::num::NonZeroU32;

/// A request, as far as a refusal can be about it. Called only while something is cooling down.
pub(crate) trait Load {
    fn traffic(&self) -> Traffic;

    /// How heavy it is, by the tokens that it may use.
    fn weight(&self) -> Weight;
}

/// A kind of traffic, which the service limits separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// Tokens of the default service tier: chat, responses, completions, embeddings, and anything
    /// unknown.
    Tokens,
    /// Tokens of `service_tier: flex`.
    Flex,
    /// Tokens of `service_tier: priority`.
    Priority,
    Images,
    Speech,
    Transcription,
    Video,
    /// Objects stored by the resource: files, uploads, vector stores, batches.
    Stored,
    /// Reading, polling, listing, cancelling and deleting: the service does not count these towards
    /// any limit.
    Free,
}

impl Traffic {
    /// In the order of their numbers, which processes of different versions must agree on.
    pub(super) const ALL: [Self; 9] = [
        Self::Tokens,
        Self::Flex,
        Self::Priority,
        Self::Images,
        Self::Speech,
        Self::Transcription,
        Self::Video,
        Self::Stored,
        Self::Free,
    ];

    /// Whether it uses the resource's storage, not a deployment.
    pub(crate) const fn is_of_resource(self) -> bool {
        matches!(self, Self::Stored | Self::Free)
    }
}

/// How heavy a request is, in steps of a third of a power of two of its tokens, from 64 up.
///
/// All requests below 64 tokens share one weight; nearly every request is heavier. The highest weight
/// also stands for an unknown number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Weight(u8);

impl Weight {
    /// The number of weights; the last begins at 2^27 tokens, 128 choices of a million each.
    pub(super) const COUNT: usize = 64;
    pub(crate) const HEAVIEST: Self = Self(63);

    /// The weight of a request of this many tokens.
    pub(crate) fn of(tokens: f64) -> Self {
        // The cast saturates, and maps NaN to 0.
        Self(((tokens.max(1.0).log2() - LIGHTEST_LOG2) * STEPS_PER_DOUBLING).clamp(0.0, 63.0) as u8)
    }

    pub(super) const fn at(index: usize) -> Self {
        Self(index as u8)
    }

    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }

    /// The lightest weight that a refusal of this one applies to: two thirds of its tokens are
    /// included, half are not.
    pub(crate) const fn least_alike(self) -> Self {
        Self(self.0.saturating_sub(2))
    }

    /// The fewest tokens of this weight; `None` for the lightest, which has no lower limit.
    pub(crate) fn tokens(self) -> Option<NonZeroU32> {
        let tokens = (LIGHTEST_LOG2 + f64::from(self.0) / STEPS_PER_DOUBLING).exp2() as u32;
        NonZeroU32::new(tokens).filter(|_| self.0 > 0)
    }
}

const LIGHTEST_LOG2: f64 = 6.0;
const STEPS_PER_DOUBLING: f64 = 3.0;

/// A request of known kind and weight.
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
