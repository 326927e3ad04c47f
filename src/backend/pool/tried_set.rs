//! Which backends one request has been sent to already.

/// The backends that one request has been sent to already: a set of indices that does not allocate
/// for the first one, whatever its index, nor for any among 64 backends.
#[derive(Clone, Debug, Default)]
pub(crate) struct TriedSet {
    /// The word of the first index, which is stored first.
    origin: usize,
    first: u64,
    rest: Vec<u64>,
    len: usize,
}

impl TriedSet {
    pub(crate) fn insert(&mut self, index: usize) {
        if self.len == 0 {
            self.origin = index / 64;
        }
        if !self.contains(index) {
            self.len += 1;
        }
        *self.word_mut(index) |= bit(index);
    }

    pub(crate) fn remove(&mut self, index: usize) {
        if self.contains(index) {
            self.len -= 1;
            *self.word_mut(index) &= !bit(index);
        }
    }

    pub(crate) fn contains(&self, index: usize) -> bool {
        let word = match (index / 64) ^ self.origin {
            0 => self.first,
            word => self.rest.get(word - 1).copied().unwrap_or(0),
        };
        word & bit(index) != 0
    }

    /// The number of backends tried.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    fn word_mut(&mut self, index: usize) -> &mut u64 {
        let Some(word) = ((index / 64) ^ self.origin).checked_sub(1) else {
            return &mut self.first;
        };
        if self.rest.len() <= word {
            self.rest.resize(word + 1, 0);
        }
        &mut self.rest[word]
    }
}

const fn bit(index: usize) -> u64 {
    1 << (index % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_inserted_is_contained() {
        let mut tried = TriedSet::default();
        for index in [0, 63, 64, 999, 64] {
            tried.insert(index);
        }
        let contained: Vec<_> = (0..2_000).filter(|&index| tried.contains(index)).collect();
        assert_eq!(contained, [0, 63, 64, 999]);
        assert_eq!(tried.len(), 4, "the second 64 counts once");
        for index in [64, 64, 5_000, 1] {
            tried.remove(index);
        }
        assert!(!tried.contains(64) && tried.contains(63));
        assert_eq!(tried.len(), 3);
    }

    #[test]
    fn a_first_index_takes_no_memory_wherever_it_is() {
        let mut tried = TriedSet::default();
        tried.insert(999);
        assert_eq!(tried.rest.capacity(), 0);
        tried.insert(3);
        let contained: Vec<_> = (0..2_000).filter(|&index| tried.contains(index)).collect();
        assert_eq!(contained, [3, 999]);
    }
}
