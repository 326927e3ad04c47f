//! Which backends are behind a layer, so that a request can be held to one resource of them.

use std::{sync::Arc, time::Instant};

use http::Request;

use super::{Held, Sticky, binding::Binding};
use crate::TryCloneBody;

/// A tier of a [`SmartFallbackLayer`](crate::SmartFallbackLayer) that can hold requests to one
/// resource: a [`RegionRotateLayer`](crate::RegionRotateLayer), or tiers in their turn.
///
/// A layer of one's own around one of them passes both calls on to it.
pub trait StickyTier: Sized {
    /// The tier, with `sticky`.
    #[must_use]
    fn with_sticky(self, sticky: Sticky) -> Self;

    /// The backends behind it.
    fn residents(&self) -> Residents;
}

/// The backends behind a layer, with their resources.
#[derive(Clone, Debug, Default)]
pub struct Residents(Vec<(Arc<str>, Arc<str>)>);

/// The residents of two tiers.
#[derive(Clone, Debug)]
pub(crate) struct Split {
    sticky: Sticky,
    both: Residents,
    primary: Residents,
    fallback: Residents,
}

/// What two tiers are to know of a request that is held to a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Confined {
    /// The fallback does not have the resource.
    pub(crate) to_primary: bool,
    /// The primary does not have the resource.
    pub(crate) to_fallback: bool,
    /// The primary has others too: that this one is closed, or open, says nothing of them.
    pub(crate) is_apart: bool,
}

impl Residents {
    /// Backends by name and resource, in the order in which they are preferred.
    pub(crate) fn new(backends: impl IntoIterator<Item = (Arc<str>, Arc<str>)>) -> Self {
        Self(backends.into_iter().collect())
    }

    /// These, and then `others`.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    pub(super) fn holds(&self, resource: &str) -> bool {
        self.0.iter().any(|(_, other)| **other == *resource)
    }

    /// The resource of the backend with this name.
    pub(super) fn named(&self, name: &str) -> Option<Arc<str>> {
        self.0.iter().find(|(other, _)| **other == *name).map(|(_, of)| Arc::clone(of))
    }

    /// The resource of this backend or, without one, of the first.
    pub(super) fn default(&self, name: Option<&str>) -> Arc<str> {
        let first = || self.0.first().map_or_else(|| "".into(), |(_, of)| Arc::clone(of));
        name.and_then(|name| self.named(name)).unwrap_or_else(first)
    }
}

impl Split {
    pub(crate) fn new(sticky: Sticky, primary: Residents, fallback: Residents) -> Self {
        Self { sticky, both: primary.clone().and(fallback.clone()), primary, fallback }
    }

    /// Finds what `request` is held to, and leaves it in its extensions for the tiers.
    pub(crate) fn confine<B: TryCloneBody>(
        &self,
        request: &mut Request<B>,
        now: Instant,
    ) -> Confined {
        let binding = Binding::take(&self.sticky, &self.both, request, now);
        let held = binding.held.as_ref();
        let confined = held.map(|(resource, _)| self.of(resource)).unwrap_or_default();
        request.extensions_mut().insert(binding);
        confined
    }

    fn of(&self, resource: &str) -> Confined {
        let (primary, fallback) = (self.primary.holds(resource), self.fallback.holds(resource));
        Confined {
            to_primary: primary && !fallback,
            to_fallback: fallback && !primary,
            is_apart: primary && self.primary.0.iter().any(|(_, other)| **other != *resource),
        }
    }
}

impl Binding {
    /// What it is held to, if that is there.
    pub(super) fn within(self, residents: &Residents) -> Option<(Arc<str>, Held)> {
        self.held.filter(|(resource, _)| residents.holds(resource))
    }
}
