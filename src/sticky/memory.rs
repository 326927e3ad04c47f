//! A bounded, expiring memory of which resource holds what.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState},
    mem,
    time::{Duration, Instant},
};

use crate::fleet::IdHolder;

/// Which resource holds what, and who owns it, by a hash of its id.
///
/// Keyed hash, so that collisions cannot be forged. Among as many ids as fit, two collide by chance
/// once in a billion memories, and then a request goes to a resource that does not know its id.
#[derive(Debug)]
pub(super) struct Memory {
    /// Per owner: no client's ids displace those of another.
    pub(super) capacity: usize,
    pub(super) longest_age: Duration,
    holders: ByHash<Holder>,
    owners: HashMap<Option<u64>, Uses>,
    used: u64,
    hasher: RandomState,
}

/// Values by a keyed hash, which is not hashed again.
type ByHash<V> = HashMap<u64, V, BuildHasherDefault<Hashed>>;

#[derive(Default)]
struct Hashed(u64);

#[derive(Debug)]
struct Holder {
    is: IdHolder,
    at: Instant,
    /// The sequence number of the last use.
    used: u64,
    /// When the fleet's store had it last, as far as this process knows.
    stored: Option<Instant>,
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
    /// Its resource, as a hash; the asker owns it, or there is no asker.
    Own(u64),
    /// Its resource only.
    Unowned(u64),
    Others,
    Unknown,
}

impl Found {
    /// Whether the fleet's store may know more: a list shows the resource of an object, and not its
    /// owner.
    pub(super) const fn is_to_be_recalled(&self, asker: Option<u64>) -> bool {
        match self {
            Self::Unknown => true,
            Self::Unowned(_) => asker.is_some(),
            Self::Own(_) | Self::Others => false,
        }
    }
}

/// When an id is to be written to the fleet's store.
#[derive(Clone, Copy, Debug)]
pub(super) struct WritePolicy {
    /// What was written before concerns another store.
    pub(super) since: Instant,
    /// An id that is in use is written again after this time, so that the store does not forget it,
    /// and learns it again if it lost its data.
    pub(super) interval: Duration,
}

impl Memory {
    pub(super) fn new(capacity: usize, longest_age: Duration) -> Self {
        Self {
            capacity,
            longest_age,
            holders: ByHash::default(),
            owners: HashMap::new(),
            used: 0,
            hasher: RandomState::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.holders.len()
    }

    /// The same for equal ids in this process, and for nothing else that is likely.
    pub(super) fn hash(&self, id: &[u8]) -> u64 {
        self.hasher.hash_one(id)
    }

    /// `id` is held like this, as an answer to its owner shows. The first owner keeps it.
    pub(super) fn learn(&mut self, id: &[u8], is: IdHolder, now: Instant) {
        self.learn_hashed(self.hash(id), is, now);
    }

    /// The same for an id with this hash.
    pub(super) fn learn_hashed(&mut self, id: u64, is: IdHolder, now: Instant) {
        let longest_age = self.longest_age;
        let is_young = |at| now.saturating_duration_since(at) < longest_age;
        let used = self.used.wrapping_add(1);
        let mut holder = Holder { is, at: now, used, stored: None };
        let is_held = match self.holders.entry(id) {
            Entry::Vacant(entry) => {
                entry.insert(holder);
                false
            }
            Entry::Occupied(mut entry) => {
                let known = entry.get_mut();
                if is_young(known.at) {
                    if known.is.owner.is_some() && known.is.owner != is.owner {
                        return;
                    }
                    holder.stored = known.stored.filter(|_| known.is == is);
                }
                let owner = mem::replace(known, holder).is.owner;
                if owner != is.owner {
                    self.uses(owner).held -= 1;
                }
                owner == is.owner
            }
        };
        self.used = used;
        let uses = self.owners.entry(is.owner).or_default();
        uses.held += usize::from(!is_held);
        uses.queue.push_back((id, used));
        // The oldest are forgotten when they expire, and when there are too many.
        while let Some(&(id, used)) = uses.queue.front() {
            let held = self.holders.get(&id).filter(|holder| holder.used == used);
            if held.is_some_and(|holder| is_young(holder.at)) && uses.held <= self.capacity {
                break;
            }
            if held.is_some() {
                self.holders.remove(&id);
                uses.held -= 1;
            }
            uses.queue.pop_front();
        }
        uses.compact(&self.holders);
    }

    /// What `asker` may know of `id`. Counts as a use, unless the id is another client's. Without an
    /// asker, every id is its own.
    pub(super) fn find(&mut self, id: &[u8], asker: Option<u64>, now: Instant) -> Found {
        let id = self.hash(id);
        let Some(holder) = self.young(id, now) else {
            self.forget(id);
            return Found::Unknown;
        };
        let IdHolder { owner, resource } = holder.is;
        if asker.is_some() && owner.is_some() && asker != owner {
            return Found::Others;
        }
        self.used = self.used.wrapping_add(1);
        let used = self.used;
        if let Some(holder) = self.holders.get_mut(&id) {
            (holder.at, holder.used) = (now, used);
        }
        let uses = self.owners.entry(owner).or_default();
        uses.queue.push_back((id, used));
        uses.compact(&self.holders);
        if asker == owner || asker.is_none() {
            Found::Own(resource)
        } else {
            Found::Unowned(resource)
        }
    }

    /// The holder of `id`, if it is to be written to the fleet's store now.
    pub(super) fn unwritten(
        &self,
        id: &[u8],
        policy: WritePolicy,
        now: Instant,
    ) -> Option<IdHolder> {
        let holder = self.holders.get(&self.hash(id))?;
        let is_stored = holder.stored.is_some_and(|at| {
            at >= policy.since && now.saturating_duration_since(at) < policy.interval
        });
        (!is_stored).then_some(holder.is)
    }

    /// The fleet's store keeps `id` like this. If another client owns it there, it does here, too.
    pub(super) fn note_stored(&mut self, id: &[u8], is: IdHolder, now: Instant) {
        let hash = self.hash(id);
        let Some(known) = self.holders.get(&hash).map(|holder| holder.is) else { return };
        if known.owner != is.owner {
            if is.owner.is_none() {
                // Written before this process knew the owner.
                return;
            }
            self.forget(hash);
            self.learn(id, is, now);
        }
        if let Some(holder) = self.holders.get_mut(&hash) {
            holder.stored = Some(now);
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
            self.uses(holder.is.owner).held -= 1;
        }
    }
}

impl Uses {
    /// Keeps the queue shorter than twice the ids held, at an amortised constant cost per use.
    fn compact(&mut self, holders: &ByHash<Holder>) {
        if self.queue.len() > 2 * self.held + SPARE {
            self.queue.retain(|(id, used)| holders.get(id).is_some_and(|held| held.used == *used));
        }
    }
}

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a hash is one word")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

const SPARE: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    const HOUR: Duration = Duration::from_secs(3_600);

    const EAST: u64 = 1;
    const WEST: u64 = 2;

    fn at(resource: u64, owner: Option<u64>) -> IdHolder {
        IdHolder { resource, owner }
    }

    #[test]
    fn the_id_that_was_used_longest_ago_makes_room() {
        let (mut memory, now) = (Memory::new(2, HOUR), clock::now());
        memory.learn(b"one", at(EAST, None), now);
        memory.learn(b"two", at(WEST, None), now);
        assert_eq!(memory.find(b"one", None, now), Found::Own(EAST));
        memory.learn(b"three", at(EAST, None), now);
        assert_eq!(memory.find(b"two", None, now), Found::Unknown);
        assert_eq!(memory.find(b"one", None, now), Found::Own(EAST));
        assert_eq!(memory.len(), 2);
    }

    #[test]
    fn an_id_is_forgotten_when_it_was_not_used_for_so_long() {
        let (mut memory, now) = (Memory::new(9, HOUR), clock::now());
        memory.learn(b"one", at(EAST, None), now);
        memory.learn(b"two", at(EAST, None), now);
        assert!(memory.find(b"one", None, now + HOUR / 2) != Found::Unknown);
        assert!(memory.find(b"two", None, now + HOUR) == Found::Unknown);
        assert!(memory.find(b"one", None, now + HOUR) != Found::Unknown, "its use counts");
        memory.learn(b"three", at(EAST, None), now + 2 * HOUR);
        assert_eq!(memory.len(), 1, "what has expired goes without being asked for");
    }

    #[test]
    fn an_id_that_is_seen_again_elsewhere_is_there() {
        let (mut memory, now) = (Memory::new(9, HOUR), clock::now());
        memory.learn(b"one", at(EAST, None), now);
        memory.learn(b"one", at(WEST, None), now);
        assert_eq!(memory.find(b"one", None, now), Found::Own(WEST));
        assert_eq!(memory.len(), 1);
    }

    #[test]
    fn one_owner_s_ids_are_not_shown_to_another_and_make_none_of_its_go() {
        let (mut memory, now) = (Memory::new(2, HOUR), clock::now());
        let [a, b] = [Some(1), Some(2)];
        memory.learn(b"one", at(EAST, a), now);
        for id in 0..9_u8 {
            memory.learn(&[id], at(EAST, b), now);
        }
        assert_eq!(memory.find(b"one", a, now), Found::Own(EAST));
        assert_eq!(memory.find(b"one", b, now), Found::Others);
        assert_eq!(memory.find(b"two", b, now), Found::Unknown);
        assert_eq!(memory.len(), 3);
        memory.learn(b"one", at(EAST, b), now);
        memory.learn(b"one", at(EAST, None), now);
        assert_eq!(memory.find(b"one", a, now), Found::Own(EAST), "it is the first's");
        memory.learn(b"listed", at(EAST, None), now);
        assert_eq!(memory.find(b"listed", b, now), Found::Unowned(EAST));
        memory.learn(b"listed", at(EAST, b), now);
        assert_eq!(memory.find(b"listed", a, now), Found::Others);
        assert_eq!(memory.find(b"one", a, now + HOUR), Found::Unknown);
    }

    #[test]
    fn what_the_store_keeps_counts_but_takes_no_owner_away() {
        let (mut memory, now) = (Memory::new(9, HOUR), clock::now());
        let policy = WritePolicy { since: now, interval: HOUR / 4 };
        memory.learn(b"one", at(EAST, Some(1)), now);
        assert_eq!(memory.unwritten(b"one", policy, now), Some(at(EAST, Some(1))));
        memory.note_stored(b"one", at(EAST, None), now);
        assert_eq!(memory.find(b"one", Some(1), now), Found::Own(EAST));
        assert_eq!(memory.unwritten(b"one", policy, now), Some(at(EAST, Some(1))));
        memory.note_stored(b"one", at(WEST, Some(2)), now);
        assert_eq!(memory.find(b"one", Some(1), now), Found::Others);
        assert_eq!(memory.find(b"one", Some(2), now), Found::Own(WEST));
        assert_eq!(memory.unwritten(b"one", policy, now), None);
        assert_eq!(memory.unwritten(b"one", policy, now + HOUR / 4), Some(at(WEST, Some(2))));
        let of_another = WritePolicy { since: now + HOUR / 8, ..policy };
        assert!(memory.unwritten(b"one", of_another, now + HOUR / 8).is_some());
        memory.note_stored(b"two", at(EAST, None), now);
        assert_eq!((memory.unwritten(b"two", policy, now), memory.len()), (None, 1));
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
                    memory.learn(&[id], at(EAST, None), now);
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
