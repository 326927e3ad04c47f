//! Which backends are behind a layer, so that a request can be held to one resource of them.

use std::{sync::Arc, time::Instant};

use http::Request;

use super::{Sticky, StickyMatch, binding::Binding};
use crate::{TryCloneBody, backend::Residents};

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

/// The residents of two tiers.
#[derive(Clone, Debug)]
pub(crate) struct TierMap {
    sticky: Sticky,
    both: Residents,
    primary: Residents,
    fallback: Residents,
}

/// What two tiers are to know of a request that is held to a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TierScope {
    /// The fallback does not have the resource.
    pub(crate) to_primary: bool,
    /// The primary does not have the resource.
    pub(crate) to_fallback: bool,
    /// The primary has others too: that this one is closed, or open, says nothing of them.
    pub(crate) is_apart: bool,
}

impl TierMap {
    pub(crate) fn new(sticky: Sticky, primary: Residents, fallback: Residents) -> Self {
        Self { sticky, both: primary.clone().and(fallback.clone()), primary, fallback }
    }

    /// Finds what `request` is held to, and leaves it in its extensions for the tiers.
    pub(crate) fn confine<B: TryCloneBody>(
        &self,
        request: &mut Request<B>,
        now: Instant,
    ) -> TierScope {
        let binding = Binding::take(&self.sticky, &self.both, request, now);
        let held = binding.held.as_ref();
        let confined = held.map(|(resource, _)| self.of(resource)).unwrap_or_default();
        request.extensions_mut().insert(binding);
        confined
    }

    fn of(&self, resource: &str) -> TierScope {
        let (primary, fallback) = (self.primary.holds(resource), self.fallback.holds(resource));
        TierScope {
            to_primary: primary && !fallback,
            to_fallback: fallback && !primary,
            is_apart: primary && self.primary.holds_others(resource),
        }
    }
}

impl Binding {
    /// What it is held to, if that is there.
    pub(super) fn within(self, residents: &Residents) -> Option<(Arc<str>, StickyMatch)> {
        self.held.filter(|(resource, _)| residents.holds(resource))
    }
}
