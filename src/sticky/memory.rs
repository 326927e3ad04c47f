//! A bounded, expiring memory of which resource holds what.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

/// Which resource holds what, by a hash of its id.
///
/// Hashed with a key of its own, so that nobody can make ids that fall together; among as many as
/// fit, two do by chance once in a billion memories, and then a request goes to a resource that
/// does not know its id.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) capacity: usize,
    pub(super) longest_age: Duration,
    holders: HashMap<u64, Holder>,
    /// By their last use, oldest first; of an id that was used since, older entries stay behind.
    uses: VecDeque<(u64, u64)>,
    used: u64,
    hasher: RandomState,
}

#[derive(Debug)]
struct Holder {
    resource: Arc<str>,
    at: Instant,
    /// The number of the last use.
    used: u64,
}

impl Memory {
    pub(super) fn new(capacity: usize, longest_age: Duration) -> Self {
        Self {
            capacity,
            longest_age,
            holders: HashMap::new(),
            uses: VecDeque::new(),
            used: 0,
            hasher: RandomState::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.holders.len()
    }

    /// `id` is held by `resource`, as an answer of it shows.
    pub(super) fn learn(&mut self, id: &[u8], resource: &Arc<str>, now: Instant) {
        let id = self.hasher.hash_one(id);
        let used = self.note_use(id);
        let resource = Arc::clone(resource);
        self.holders.insert(id, Holder { resource, at: now, used });
        self.drop_expired(now);
        while self.holders.len() > self.capacity {
            self.drop_oldest();
        }
        self.compact();
    }

    /// The resource that holds `id`, which counts as a use of it.
    pub(super) fn find(&mut self, id: &[u8], now: Instant) -> Option<Arc<str>> {
        let id = self.hasher.hash_one(id);
        let holder = self.holders.get(&id)?;
        if now.saturating_duration_since(holder.at) >= self.longest_age {
            self.holders.remove(&id);
            return None;
        }
        let used = self.note_use(id);
        let holder = self.holders.get_mut(&id)?;
        (holder.at, holder.used) = (now, used);
        let resource = Arc::clone(&holder.resource);
        self.compact();
        Some(resource)
    }

    fn note_use(&mut self, id: u64) -> u64 {
        self.used = self.used.wrapping_add(1);
        self.uses.push_back((id, self.used));
        self.used
    }

    fn drop_expired(&mut self, now: Instant) {
        while let Some((id, used)) = self.uses.front() {
            let holder = self.holders.get(id).filter(|holder| holder.used == *used);
            let is_young =
                |holder: &Holder| now.saturating_duration_since(holder.at) < self.longest_age;
            if holder.is_some_and(is_young) {
                break;
            }
            self.drop_oldest();
        }
    }

    /// Takes the oldest use off, and its id unless that was used since.
    fn drop_oldest(&mut self) {
        let Some((id, used)) = self.uses.pop_front() else { return };
        if self.holders.get(&id).is_some_and(|holder| holder.used == used) {
            self.holders.remove(&id);
        }
    }

    /// Keeps the list of uses shorter than twice what is held, at a cost that is spread over as
    /// many uses.
    fn compact(&mut self) {
        if self.uses.len() > 2 * self.holders.len() + SPARE {
            let holders = &self.holders;
            self.uses.retain(|(id, used)| holders.get(id).is_some_and(|held| held.used == *used));
        }
    }
}

const SPARE: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn named(name: &str) -> Arc<str> {
        name.into()
    }

    #[test]
    fn the_id_that_was_used_longest_ago_makes_room() {
        let (mut memory, now) = (Memory::new(2, HOUR), clock::now());
        memory.learn(b"one", &named("east"), now);
        memory.learn(b"two", &named("west"), now);
        assert_eq!(memory.find(b"one", now).as_deref(), Some("east"));
        memory.learn(b"three", &named("east"), now);
        assert_eq!(memory.find(b"two", now), None);
        assert_eq!(memory.find(b"one", now).as_deref(), Some("east"));
        assert_eq!(memory.len(), 2);
    }

    #[test]
    fn an_id_is_forgotten_when_it_was_not_used_for_so_long() {
        let (mut memory, now) = (Memory::new(9, HOUR), clock::now());
        memory.learn(b"one", &named("east"), now);
        memory.learn(b"two", &named("east"), now);
        assert!(memory.find(b"one", now + HOUR / 2).is_some());
        assert!(memory.find(b"two", now + HOUR).is_none());
        assert!(memory.find(b"one", now + HOUR).is_some(), "its use counts");
        memory.learn(b"three", &named("east"), now + 2 * HOUR);
        assert_eq!(memory.len(), 1, "what has expired goes without being asked for");
    }

    #[test]
    fn an_id_that_is_seen_again_elsewhere_is_there() {
        let (mut memory, now) = (Memory::new(9, HOUR), clock::now());
        memory.learn(b"one", &named("east"), now);
        memory.learn(b"one", &named("west"), now);
        assert_eq!(memory.find(b"one", now).as_deref(), Some("west"));
        assert_eq!(memory.len(), 1);
    }

    proptest! {
        #[test]
        fn it_never_holds_more_than_fits_nor_lists_many_more_uses(
            capacity in 0_usize..40,
            steps in prop::collection::vec((any::<bool>(), 0_u8..60, 0_u64..600), 0..600),
        ) {
            let (mut memory, mut now) = (Memory::new(capacity, HOUR), clock::now());
            for (learns, id, seconds) in steps {
                now += Duration::from_secs(seconds);
                if learns {
                    memory.learn(&[id], &named("east"), now);
                    prop_assert_eq!(memory.find(&[id], now).is_some(), capacity > 0);
                } else {
                    memory.find(&[id], now);
                }
                prop_assert!(memory.len() <= capacity);
                prop_assert!(memory.uses.len() <= 2 * capacity + SPARE + 2);
            }
        }
    }
}
