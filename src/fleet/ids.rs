//! The rule of ids in a store. `redis/ids.lua`, `remember.lua` and `recall.lua` are the same rule.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::budget::micros;

/// Who holds the object with an id: hashes that are equal in all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdHolder {
    /// The resource.
    pub resource: u64,
    /// The client that owns it, if clients are kept apart. No other client may use the id.
    pub owner: Option<u64>,
}

/// The ids of a fleet, as a store keeps them: in generations, of which each is forgotten as a whole.
#[derive(Debug, Default)]
pub(crate) struct StoredIds {
    generations: BTreeMap<u64, HashMap<Box<[u8]>, IdHolder>>,
}

impl StoredIds {
    /// `id` is held like this at `now`, in microseconds. The first owner keeps it. Returns the holder that
    /// is kept.
    pub(crate) fn remember(
        &mut self,
        now: u64,
        age: Duration,
        id: Box<[u8]>,
        is: IdHolder,
    ) -> IdHolder {
        let kept = self.recall(now, age, &id);
        let is = match kept {
            Some(kept) if kept.owner.is_some() && kept.owner != is.owner => kept,
            _ => is,
        };
        self.generations.entry(generation(now, age)).or_default().insert(id, is);
        self.forget_before(generation(now, age).saturating_sub(GENERATIONS));
        is
    }

    /// Who holds `id`. Counts as a use.
    pub(crate) fn recall(&mut self, now: u64, age: Duration, id: &[u8]) -> Option<IdHolder> {
        let current = generation(now, age);
        let oldest = current.saturating_sub(GENERATIONS);
        let found = self.generations.range(oldest..=current).rev();
        let (generation, is) = found.filter_map(|(at, ids)| Some((*at, *ids.get(id)?))).next()?;
        if generation < current {
            self.generations.entry(current).or_default().insert(id.into(), is);
        }
        Some(is)
    }

    fn forget_before(&mut self, oldest: u64) {
        self.generations = self.generations.split_off(&oldest);
        while self.generations.values().map(HashMap::len).sum::<usize>() > MAX_IDS {
            self.generations.pop_first();
        }
    }
}

fn generation(now: u64, age: Duration) -> u64 {
    now / generation_us(age)
}

/// How long a generation lasts, in microseconds.
pub(crate) fn generation_us(age: Duration) -> u64 {
    (micros(age) / GENERATIONS).max(1_000_000)
}

/// An id is forgotten between its age and a quarter more after its last use: each quarter has a
/// generation, which needs no clock of its own for each id.
pub(crate) const GENERATIONS: u64 = 4;
/// Some 100 MiB in one process.
const MAX_IDS: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(400);
    const SECOND: u64 = 1_000_000;

    fn of(owner: Option<u64>) -> IdHolder {
        IdHolder { resource: 7, owner }
    }

    fn remember(ids: &mut StoredIds, at: u64, id: &[u8], is: IdHolder) {
        ids.remember(at * SECOND, AGE, id.into(), is);
    }

    #[test]
    fn an_id_is_kept_for_its_age_after_its_last_use_and_at_most_a_quarter_longer() {
        let mut ids = StoredIds::default();
        remember(&mut ids, 99, b"one", of(None));
        remember(&mut ids, 99, b"two", of(None));
        assert_eq!(ids.recall(499 * SECOND, AGE, b"one"), Some(of(None)));
        assert_eq!(ids.recall(500 * SECOND, AGE, b"two"), None);
        assert_eq!(ids.recall(899 * SECOND, AGE, b"one"), Some(of(None)), "it was used");
        remember(&mut ids, 2_000, b"three", of(None));
        assert_eq!(ids.generations.len(), 1, "what has expired is dropped");
    }

    #[test]
    fn the_first_owner_keeps_an_id_and_an_id_without_one_gets_it() {
        let mut ids = StoredIds::default();
        let moved = IdHolder { resource: 8, owner: Some(1) };
        for (written, expected) in [
            (of(None), of(None)),
            (of(Some(1)), of(Some(1))),
            (of(None), of(Some(1))),
            (of(Some(2)), of(Some(1))),
            (moved, moved),
        ] {
            remember(&mut ids, 150, b"one", written);
            assert_eq!(ids.recall(150 * SECOND, AGE, b"one"), Some(expected));
        }
        remember(&mut ids, 450, b"one", of(Some(2)));
        assert_eq!(ids.recall(450 * SECOND, AGE, b"one"), Some(moved), "of an older generation");
    }
}
