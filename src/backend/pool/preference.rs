//! Chooses for requests that belong to one resource, or whose prompt some backend has in its cache.

use std::time::Instant;

use super::{BackendPool, NOT_FORCED, Residents, Tried};
use crate::cooldown::NextOpen;

/// Where a request would best be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Preference<'a> {
    /// The only resource that it may go to.
    pub(crate) resource: Option<&'a str>,
    /// What its prompt is cached by.
    pub(crate) key: Option<u64>,
}

impl BackendPool {
    /// An open backend that was not tried and that may have the request: for a first attempt the
    /// forced one if there is any, else the one that its key leads to, else any by `draw`.
    pub(crate) fn prefer(
        &self,
        preference: Preference<'_>,
        tried: &Tried,
        now: Instant,
        draw: u64,
    ) -> Option<usize> {
        let start = self.forced();
        let qualifies = |index: usize| {
            !tried.contains(index)
                && self.is_open(index, now)
                && self.is_preferred(preference, index)
        };
        if start != NOT_FORCED && tried.len() == 0 && qualifies(start) {
            return Some(start);
        }
        let choice = &self.shared.choice;
        match preference.key {
            Some(key) => choice.rendezvous(key, |index| self.member(index).seed(), qualifies),
            None => choice.draw(draw, qualifies),
        }
    }

    /// Whether the request may go to this backend.
    pub(crate) fn is_preferred(&self, preference: Preference<'_>, index: usize) -> bool {
        preference.resource.is_none_or(|resource| **self.member(index).resource() == *resource)
    }

    /// [`first_to_open`](Self::first_to_open) among those that may have the request.
    pub(crate) fn first_to_open_of(
        &self,
        preference: Preference<'_>,
        tried: &Tried,
        now: Instant,
    ) -> Option<usize> {
        let others = self.preferred(preference).filter(|&index| !tried.contains(index));
        self.shared.cooldowns.first_to_open(others, now)
    }

    /// When the first backend is open that may have the request.
    pub(crate) fn next_open_of(&self, preference: Preference<'_>, now: Instant) -> NextOpen {
        self.shared.cooldowns.next_open_of(self.preferred(preference), now)
    }

    /// The backends with their resources.
    pub(crate) fn residents(&self) -> &Residents {
        &self.shared.residents
    }

    fn preferred(&self, preference: Preference<'_>) -> impl Iterator<Item = usize> {
        (0..self.len()).filter(move |&index| self.is_preferred(preference, index))
    }
}
