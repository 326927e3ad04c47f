//! Choices for requests that belong to one resource, or whose prompt a backend has in its cache.

use std::time::Instant;

use super::{BackendPool, NOT_FORCED, Residents, TriedSet};
use crate::cooldown::Load;

impl BackendPool {
    /// An open, untried backend that the request may use, according to [`is_on`](Self::is_on). A
    /// first attempt gets the forced backend if there is one, else the one that `key` maps to, which
    /// has its prompt cached, else any by `draw`.
    pub(crate) fn choose_on(
        &self,
        resource: Option<&str>,
        key: Option<u64>,
        tried: &TriedSet,
        now: Instant,
        draw: u64,
        load: &dyn Load,
    ) -> Option<usize> {
        let start = self.forced();
        let qualifies = |index: usize| {
            !tried.contains(index) && self.is_open(index, now, load) && self.is_on(resource, index)
        };
        if start != NOT_FORCED && tried.len() == 0 && qualifies(start) {
            return Some(start);
        }
        let (choice, candidates) =
            (&self.shared.choice, |group| self.perhaps_open(group, now, load));
        match key {
            Some(key) => {
                choice.by_key(key, |index| self.member(index).seed(), qualifies, candidates)
            }
            None => choice.draw(draw, qualifies, candidates),
        }
    }

    /// [`last_resort`](Self::last_resort) among the backends that the request may use.
    #[cold]
    pub(crate) fn last_resort_on(
        &self,
        resource: Option<&str>,
        tried: &TriedSet,
        now: Instant,
        draw: u64,
        load: &dyn Load,
    ) -> Option<usize> {
        let refuses = self.shared.cooldowns.refusing_at(now, load);
        let qualifies =
            |index: usize| !tried.contains(index) && !refuses(index) && self.is_on(resource, index);
        let candidates = |group| self.perhaps_open(group, now, load);
        // A closed pool has none, and answers every request itself.
        if !candidates(0..self.len()).any(qualifies) {
            return None;
        }
        let choice = &self.shared.choice;
        // A misconfigured backend will not serve, however often it is called.
        let may_serve = |index: usize| qualifies(index) && self.fault(index, now).is_none();
        choice
            .draw(draw, may_serve, candidates)
            .or_else(|| choice.draw(draw, qualifies, candidates))
    }

    /// Whether this backend is on `resource`, or the request is not limited to one.
    pub(crate) fn is_on(&self, resource: Option<&str>, index: usize) -> bool {
        resource.is_none_or(|resource| **self.member(index).resource() == *resource)
    }

    /// [`first_to_open`](Self::first_to_open) among the backends that the request may use.
    pub(crate) fn first_to_open_on(
        &self,
        resource: Option<&str>,
        tried: &TriedSet,
        load: &dyn Load,
    ) -> Option<usize> {
        let others = self.all_on(resource).filter(|&index| !tried.contains(index));
        self.shared.cooldowns.first_to_open(others, load)
    }

    /// The backends with their resources.
    pub(crate) fn residents(&self) -> &Residents {
        &self.shared.residents
    }

    fn all_on(&self, resource: Option<&str>) -> impl Iterator<Item = usize> {
        (0..self.len()).filter(move |&index| self.is_on(resource, index))
    }
}
