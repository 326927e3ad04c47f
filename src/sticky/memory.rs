//! A bounded, expiring memory of which resource holds what.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

/// Which resource holds what, and who owns it, by a hash of its id.
///
/// Keyed hash, so that collisions cannot be forged. Among as many ids as fit, two collide by chance
/// once in a billion memories, and then a request goes to a resource that does not know its id.
#[derive(Debug)]
pub(super) struct Memory {
    /// Per owner: no client's ids displace those of another.
    pub(super) capacity: usize,
    pub(super) longest_age: Duration,
    holders: HashMap<u64, Holder>,
    owners: HashMap<Option<u64>, Uses>,
    used: u64,
    hasher: RandomState,
}

#[derive(Debug)]
struct Holder {
    resource: Arc<str>,
    owner: Option<u64>,
    at: Instant,
    /// The sequence number of the last use.
    used: u64,
}

/// The ids of one owner.
#[derive(Debug, Default)]
struct Uses {
    /// By last use, oldest first. Older entries of an id that was used since stay behind.
    queue: VecDeque<(u64, u64)>,
    /// The number of ids held.
    held: usize,
}

/// What is known of an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Its resource; the asker owns it, or there is no asker.
    Own(Arc<str>),
    /// Its resource only.
    Unowned(Arc<str>),
    Others,
    Unknown,
}

impl Memory {
    pub(super) fn new(capacity: usize, longest_age: Duration) -> Self {
        Self {
            capacity,
            longest_age,
            holders: HashMap::new(),
            owners: HashMap::new(),
            used: 0,
            hasher: RandomState::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.holders.len()
    }

    /// `resource` holds `id`, as its answer to `owner` shows. The first owner keeps it.
    pub(super) fn learn(
        &mut self,
        id: &[u8],
        resource: &Arc<str>,
        owner: Option<u64>,
        now: Instant,
    ) {
        let id = self.hasher.hash_one(id);
        let known = self.young(id, now).map(|holder| holder.owner);
        if known.is_some_and(|known| known.is_some() && known != owner) {
            return;
        }
        self.forget(id);
        let used = self.note_use(id, owner);
        let resource = Arc::clone(resource);
        self.holders.insert(id, Holder { resource, owner, at: now, used });
        self.uses(owner).held += 1;
        self.drop_expired(owner, now);
        while self.uses(owner).held > self.capacity {
            self.drop_oldest(owner);
        }
        self.compact(owner);
    }

    /// What `asker` may know of `id`. Counts as a use, unless the id is another client's. Without an
    /// asker, every id is its own.
    pub(super) fn find(&mut self, id: &[u8], asker: Option<u64>, now: Instant) -> Found {
        let id = self.hasher.hash_one(id);
        let Some(holder) = self.young(id, now) else {
            self.forget(id);
            return Found::Unknown;
        };
        let (owner, resource) = (holder.owner, Arc::clone(&holder.resource));
        if asker.is_some() && owner.is_some() && asker != owner {
            return Found::Others;
        }
        let used = self.note_use(id, owner);
        if let Some(holder) = self.holders.get_mut(&id) {
            (holder.at, holder.used) = (now, used);
        }
        self.compact(owner);
        if asker == owner || asker.is_none() {
            Found::Own(resource)
        } else {
            Found::Unowned(resource)
        }
    }

    fn young(&self, id: u64, now: Instant) -> Option<&Holder> {
        let holder = self.holders.get(&id)?;
        (now.saturating_duration_since(holder.at) < self.longest_age).then_some(holder)
    }

    fn uses(&mut self, owner: Option<u64>) -> &mut Uses {
        self.owners.entry(owner).or_default()
    }

    fn forget(&mut self, id: u64) {
        if let Some(holder) = self.holders.remove(&id) {
            self.uses(holder.owner).held -= 1;
        }
    }

    fn note_use(&mut self, id: u64, owner: Option<u64>) -> u64 {
        self.used = self.used.wrapping_add(1);
        let used = self.used;
        self.uses(owner).queue.push_back((id, used));
        used
    }

    fn drop_expired(&mut self, owner: Option<u64>, now: Instant) {
        while let Some(&(id, used)) = self.uses(owner).queue.front() {
            if self.young(id, now).is_some_and(|holder| holder.used == used) {
                break;
            }
            self.drop_oldest(owner);
        }
    }

    /// Removes the oldest use, and its id unless that was used since.
    fn drop_oldest(&mut self, owner: Option<u64>) {
        let Some((id, used)) = self.uses(owner).queue.pop_front() else { return };
        if self.holders.get(&id).is_some_and(|holder| holder.used == used) {
            self.forget(id);
        }
    }

    /// Keeps the list of uses shorter than twice the ids held, at an amortised constant cost per use.
    fn compact(&mut self, owner: Option<u64>) {
        let holders = &self.holders;
        let uses = self.owners.entry(owner).or_default();
        if uses.queue.len() > 2 * uses.held + SPARE {
            uses.queue.retain(|(id, used)| holders.get(id).is_some_and(|held| held.used == *used));
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
        memory.learn(b"one", &named("east"), None, now);
        memory.learn(b"two", &named("west"), None, now);
        assert_eq!(memory.find(b"one", None, now), Found::Own(named("east")));
        memory.learn(b"three", &named("east"), None, now);
        assert_eq!(memory.find(b"two", None, now), Found::Unknown);
        assert_eq!(memory.find(b"one", None, now), Found::Own(named("east")));
        assert_eq!(memory.len(), 2);
    }

    #[test]
    fn an_id_is_forgotten_when_it_was_not_used_for_so_long() {
        let (mut memory, now) = (Memory::new(9, HOUR), clock::now());
        memory.learn(b"one", &named("east"), None, now);
        memory.learn(b"two", &named("east"), None, now);
        assert!(memory.find(b"one", None, now + HOUR / 2) != Found::Unknown);
        assert!(memory.find(b"two", None, now + HOUR) == Found::Unknown);
        assert!(memory.find(b"one", None, now + HOUR) != Found::Unknown, "its use counts");
        memory.learn(b"three", &named("east"), None, now + 2 * HOUR);
        assert_eq!(memory.len(), 1, "what has expired goes without being asked for");
    }

    #[test]
    fn an_id_that_is_seen_again_elsewhere_is_there() {
        let (mut memory, now) = (Memory::new(9, HOUR), clock::now());
        memory.learn(b"one", &named("east"), None, now);
        memory.learn(b"one", &named("west"), None, now);
        assert_eq!(memory.find(b"one", None, now), Found::Own(named("west")));
        assert_eq!(memory.len(), 1);
    }

    #[test]
    fn one_owner_s_ids_are_not_shown_to_another_and_make_none_of_its_go() {
        let (mut memory, now) = (Memory::new(2, HOUR), clock::now());
        let (east, [a, b]) = (named("east"), [Some(1), Some(2)]);
        memory.learn(b"one", &east, a, now);
        for id in 0..9_u8 {
            memory.learn(&[id], &east, b, now);
        }
        assert_eq!(memory.find(b"one", a, now), Found::Own(Arc::clone(&east)));
        assert_eq!(memory.find(b"one", b, now), Found::Others);
        assert_eq!(memory.find(b"two", b, now), Found::Unknown);
        assert_eq!(memory.len(), 3);
        memory.learn(b"one", &east, b, now);
        memory.learn(b"one", &east, None, now);
        assert_eq!(memory.find(b"one", a, now), Found::Own(Arc::clone(&east)), "it is the first's");
        memory.learn(b"listed", &east, None, now);
        assert_eq!(memory.find(b"listed", b, now), Found::Unowned(Arc::clone(&east)));
        memory.learn(b"listed", &east, b, now);
        assert_eq!(memory.find(b"listed", a, now), Found::Others);
        assert_eq!(memory.find(b"one", a, now + HOUR), Found::Unknown);
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
                    memory.learn(&[id], &named("east"), None, now);
                    prop_assert_eq!(memory.find(&[id], None, now) != Found::Unknown, capacity > 0);
                } else {
                    memory.find(&[id], None, now);
                }
                prop_assert!(memory.len() <= capacity);
                prop_assert!(memory.uses(None).queue.len() <= 2 * capacity + SPARE + 2);
            }
        }
    }
}
