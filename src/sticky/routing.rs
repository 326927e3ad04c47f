//! Routes one request through a pool: to the resource that it is pinned to, or to its prompt cache.

use std::{sync::Arc, time::Instant};

use http::Request;

use super::{
    CacheAffinity, Recalling, Sticky, StickyMatch,
    binding::{Binding, LearnScope},
    id_learner::IdLearner,
};
use crate::{
    BackendPool, TryCloneBody, azure::ScannedBody, backend::TriedSet, body::ResponseTap,
    cooldown::Load,
};

/// A pool layer's settings for where requests belong.
#[derive(Clone, Debug, Default)]
pub(crate) struct RoutingConfig {
    pub(crate) sticky: Option<Sticky>,
    pub(crate) affinity: Option<CacheAffinity>,
}

/// Where one request belongs.
#[derive(Debug)]
pub(crate) struct Routing {
    held: Option<(Arc<str>, StickyMatch)>,
    key: Option<u64>,
    learn: Option<(Sticky, LearnScope)>,
}

impl RoutingConfig {
    /// The routing of `request`; `None` if it may go anywhere, and its answer has no ids to learn.
    #[inline]
    pub(crate) fn route<B: TryCloneBody>(
        &self,
        pool: &BackendPool,
        request: &mut Request<B>,
        now: Instant,
    ) -> Option<Box<Routing>> {
        if self.sticky.is_none() && self.affinity.is_none() {
            return None;
        }
        self.find(pool, request, now)
    }

    /// What to wait for before the request is routed, if its outermost layer has to ask a fleet's store.
    #[inline]
    pub(crate) fn recall<B: TryCloneBody>(
        &self,
        pool: &BackendPool,
        request: &mut Request<B>,
    ) -> Option<Box<Recalling>> {
        self.sticky.as_ref()?.recall_of(request, pool.residents())
    }

    #[inline(never)]
    fn find<B: TryCloneBody>(
        &self,
        pool: &BackendPool,
        request: &mut Request<B>,
        now: Instant,
    ) -> Option<Box<Routing>> {
        let mut routing = Routing { held: None, key: None, learn: None };
        if let Some(sticky) = &self.sticky {
            let residents = pool.residents();
            let binding = Binding::take(sticky, residents, request, now);
            if binding.learn != LearnScope::default() {
                routing.learn = Some((sticky.clone(), binding.learn));
            }
            routing.held = binding.within(residents);
        }
        if let Some(affinity) = self.affinity {
            routing.key = cache_key(affinity, request);
        }
        let is_needed = routing.held.is_some() || routing.key.is_some() || routing.learn.is_some();
        is_needed.then(|| Box::new(routing))
    }
}

/// The cache key of the prompt of a request in memory.
fn cache_key<B: TryCloneBody>(affinity: CacheAffinity, request: &Request<B>) -> Option<u64> {
    let content = request.body().content()?;
    let known = ScannedBody::fields(request.extensions(), &content);
    affinity.key_known(&content, known)
}

impl Routing {
    /// Why the request is pinned.
    pub(crate) fn held(&self) -> Option<StickyMatch> {
        self.held.as_ref().map(|(_, held)| *held)
    }

    /// An open backend that was not tried.
    pub(crate) fn choose(
        &self,
        pool: &BackendPool,
        tried: &TriedSet,
        now: Instant,
        draw: u64,
        load: &dyn Load,
    ) -> Option<usize> {
        pool.choose_on(self.resource(), self.key, tried, now, draw, load)
    }

    /// If none is open, an untried backend that fails but does not refuse.
    pub(crate) fn last_resort(
        &self,
        pool: &BackendPool,
        tried: &TriedSet,
        now: Instant,
        draw: u64,
        load: &dyn Load,
    ) -> Option<usize> {
        pool.last_resort_on(self.resource(), tried, now, draw, load)
    }

    /// The untried backend that reopens first.
    pub(crate) fn first_to_open(
        &self,
        pool: &BackendPool,
        tried: &TriedSet,
        load: &dyn Load,
    ) -> Option<usize> {
        pool.first_to_open_on(self.resource(), tried, load)
    }

    /// Whether the request may go to this backend.
    pub(crate) fn admits(&self, pool: &BackendPool, index: usize) -> bool {
        pool.is_on(self.resource(), index)
    }

    /// Learns from a successful answer of this backend.
    pub(crate) fn learner(&self, pool: &BackendPool, index: usize) -> Option<Box<dyn ResponseTap>> {
        let (sticky, learn) = self.learn.as_ref()?;
        let resource = pool.member(index).resource();
        Some(Box::new(IdLearner::new(sticky.clone(), resource, *learn)))
    }

    /// The only resource that the request may go to.
    fn resource(&self) -> Option<&str> {
        self.held.as_ref().map(|(resource, _)| &**resource)
    }
}
