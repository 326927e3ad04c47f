//! The set of statuses that a layer treats as failures.

use std::fmt;

/// A set of statuses from 400 to 599, without those that have a meaning of their own.
#[derive(Clone, Copy)]
pub(super) struct StatusSet([u64; 4]);

impl StatusSet {
    pub(super) const NONE: Self = Self([0; 4]);

    /// Adds `status`, if it may be in the set.
    pub(super) const fn insert(&mut self, status: u16) {
        if let FIRST_STATUS..=LAST_STATUS = status
            && !matches!(status, 400..=404 | 410 | 413 | 429 | 529)
        {
            self.0[(status - FIRST_STATUS) as usize / 64] |= 1 << ((status - FIRST_STATUS) % 64);
        }
    }

    pub(super) fn contains(&self, status: u16) -> bool {
        let index = status.checked_sub(FIRST_STATUS).map_or(usize::MAX, usize::from);
        self.0.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    pub(super) const fn is_empty(&self) -> bool {
        let [first, second, third, fourth] = self.0;
        first | second | third | fourth == 0
    }
}

impl fmt::Debug for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries((FIRST_STATUS..=LAST_STATUS).filter(|status| self.contains(*status)))
            .finish()
    }
}

const FIRST_STATUS: u16 = 400;
const LAST_STATUS: u16 = 599;
