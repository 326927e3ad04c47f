//! The backends of a pool that a refusal of one of them applies to, too.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
};

use super::PreparedBackend;
use crate::classify::Scope;

/// The backends with the same quota, and those with the same region and deployment, found once for
/// all refusals.
pub(super) struct Peers {
    by_quota: Groups,
    by_region: Groups,
}

/// Groups of backends that have something in common.
struct Groups {
    /// The group of each backend, if it is in one.
    of: Box<[Option<u32>]>,
    groups: Box<[Box<[usize]>]>,
}

impl Peers {
    pub(super) fn new(members: &[PreparedBackend]) -> Self {
        let region = |member: &PreparedBackend| {
            let region = letters(member.region()?).collect::<Vec<_>>();
            Some((region, member.deployment().map(str::to_owned)))
        };
        Self {
            by_quota: Groups::new(members.iter().map(|member| member.quota().map(str::to_owned))),
            by_region: Groups::new(members.iter().map(region)),
        }
    }

    /// The backends that a refusal of this one with that scope applies to, other than itself.
    pub(super) fn of(&self, index: usize, scope: Scope) -> impl Iterator<Item = usize> {
        let group = match scope {
            Scope::Request => &[],
            Scope::Quota => self.by_quota.of(index),
            Scope::Region => self.by_region.of(index),
        };
        group.iter().copied().filter(move |&peer| peer != index)
    }
}

impl Groups {
    /// Groups the backends by key, in order; those without a key are in none.
    fn new<K: Eq + Hash>(keys: impl ExactSizeIterator<Item = Option<K>>) -> Self {
        let (mut ids, mut groups) = (HashMap::new(), Vec::<Vec<usize>>::new());
        let mut of = Vec::with_capacity(keys.len());
        for (index, key) in keys.enumerate() {
            let id = key.map(|key| match ids.entry(key) {
                Entry::Occupied(id) => *id.get(),
                Entry::Vacant(id) => {
                    groups.push(Vec::new());
                    *id.insert(groups.len() - 1)
                }
            });
            if let Some(id) = id {
                groups[id].push(index);
            }
            of.push(id.map(|id| u32::try_from(id).expect("fewer groups than backends")));
        }
        Self { of: of.into(), groups: groups.into_iter().map(Into::into).collect() }
    }

    fn of(&self, index: usize) -> &[usize] {
        self.of[index].map_or(&[], |group| &self.groups[group as usize])
    }
}

/// A region's label without what may differ: the service writes `East US 2` for `eastus2`.
fn letters(label: &str) -> impl Iterator<Item = u8> {
    label.bytes().filter(|byte| *byte != b' ').map(|byte| byte.to_ascii_lowercase())
}
