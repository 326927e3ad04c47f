//! What happens next, drawn from a word.

use crate::gate::core::Nanos;

/// Small numbers out of one word, which a generator draws and shrinks at little cost.
pub(super) struct Draw(pub(super) u64);

impl Draw {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        let drawn = self.0 % bound;
        self.0 /= bound;
        drawn as usize
    }

    pub(super) fn index<T>(&mut self, of: &[T]) -> Option<usize> {
        (!of.is_empty()).then(|| self.below(of.len()))
    }

    pub(super) fn rank(&mut self) -> u8 {
        [0, 0, 1, u8::MAX][self.below(4)]
    }

    /// Whole, so that sums are exact in any order.
    pub(super) fn cost(&mut self) -> f64 {
        [0.0, 1.0, 50.0, 200.0][self.below(4)] + self.below(10) as f64
    }

    pub(super) fn time(&mut self, longest: [Nanos; 4]) -> Nanos {
        let longest = longest[self.below(4)];
        (self.below(1 << 20) as Nanos * longest) >> 20
    }
}
