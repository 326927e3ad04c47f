//! Random events, drawn from one word.

use std::time::Duration;

use super::{Kind, MAX_PASSING_NS, reference::Word};
use crate::gate::core::{Nanos, time::SECOND};

/// Small numbers drawn from one word, which proptest generates and shrinks cheaply.
pub(super) struct Draw(pub(super) u64);

/// The magnitude of costs and times.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Scale {
    Usual,
    Absurd,
}

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

    /// An event in usual proportions.
    pub(super) fn usual(&mut self) -> Kind {
        match self.below(19) {
            0..4 => Kind::Arrive,
            4 => Kind::ArrivePatient,
            5 => Kind::Pass,
            6..8 => Kind::LookNext,
            8 => Kind::LookAround,
            9 => Kind::Look,
            10..13 => Kind::Refuse,
            13 => Kind::Accept,
            14 => Kind::Lose,
            15 => Kind::End,
            16 => Kind::Leave,
            17 => Kind::PassBy,
            _ => Kind::RefuseLast,
        }
    }

    /// An event where hardly anything is admitted.
    pub(super) fn refusing(&mut self) -> Kind {
        match self.below(16) {
            0 => Kind::Arrive,
            1 => Kind::ArrivePatient,
            2 => Kind::Pass,
            3..9 => Kind::LookNext,
            9..15 => Kind::RefuseLast,
            _ => Kind::Accept,
        }
    }

    pub(super) fn refusal(&mut self, scale: Scale) -> Word {
        let hint = self.hint(scale);
        let draw = self.below(5) as f64 / 4.0;
        let (is_hinted, is_patient) = (self.below(4) > 0, self.below(4) == 0);
        Word { hint: is_hinted.then_some(hint), draw, deadline: 0, is_patient }
    }

    pub(super) fn rank(&mut self) -> u8 {
        [0, 0, 1, u8::MAX][self.below(4)]
    }

    /// Whole numbers, so that sums are exact in any order.
    pub(super) fn cost(&mut self, scale: Scale) -> f64 {
        let large = if scale == Scale::Absurd { 1e12 } else { 200.0 };
        [0.0, 1.0, 50.0, large][self.below(4)] + self.below(10) as f64
    }

    pub(super) fn max_wait(&mut self, scale: Scale) -> Nanos {
        let wait = self.time([0, SECOND / 20, 3 * SECOND, 30 * SECOND]);
        if scale == Scale::Absurd && self.below(3) == 0 { Nanos::MAX } else { wait }
    }

    pub(super) fn passing(&mut self, scale: Scale) -> Nanos {
        let time = self.time([SECOND / 1_000, SECOND / 20, SECOND / 2, 3 * SECOND]);
        if scale == Scale::Absurd && self.below(4) == 0 { MAX_PASSING_NS } else { time }
    }

    fn hint(&mut self, scale: Scale) -> Duration {
        let hint = self.time([0, SECOND / 20, SECOND, 6 * SECOND]);
        let hint = Duration::from_nanos(hint.unsigned_abs());
        match self.below(4) {
            0 if scale == Scale::Absurd => Duration::MAX,
            1 if scale == Scale::Absurd => Duration::from_secs(100_000),
            _ => hint,
        }
    }

    fn time(&mut self, longest: [Nanos; 4]) -> Nanos {
        let longest = longest[self.below(4)];
        (self.below(1 << 20) as Nanos * longest) >> 20
    }
}
