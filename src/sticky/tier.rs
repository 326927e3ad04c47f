//! The backends behind a layer, so that a request can be pinned to one of their resources.

use std::{sync::Arc, time::Instant};

use http::Request;

use super::{Recalling, Sticky, StickyMatch, binding::Binding};
use crate::{TryCloneBody, backend::Residents};

/// A tier of a [`SmartFallbackLayer`](crate::SmartFallbackLayer) that can pin requests to one
/// resource: a [`RegionRotateLayer`](crate::RegionRotateLayer), or nested tiers.
///
/// A custom layer around one of them forwards both methods.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say which resources it sends requests to",
    label = "not a `StickyTier`",
    note = "a tier that keeps requests with a resource is a `RegionRotateLayer`, or a `SmartFallbackLayer` of two"
)]
pub trait StickyTier: Sized {
    /// The tier with `sticky`.
    #[must_use]
    fn with_sticky(self, sticky: Sticky) -> Self;

    /// The backends behind it.
    fn residents(&self) -> Residents;
}

/// The resources of two tiers.
#[derive(Clone, Debug)]
pub(crate) struct TierMap {
    sticky: Sticky,
    both: Residents,
    primary: Residents,
    fallback: Residents,
}

/// How a request that is pinned to a resource relates to two tiers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TierScope {
    /// The fallback does not have the resource.
    pub(crate) to_primary: bool,
    /// The primary does not have the resource.
    pub(crate) to_fallback: bool,
    /// The primary has other resources too, so that the state of this one does not speak for them.
    pub(crate) is_apart: bool,
}

impl TierMap {
    pub(crate) fn new(sticky: Sticky, primary: Residents, fallback: Residents) -> Self {
        Self { sticky, both: primary.clone().and(fallback.clone()), primary, fallback }
    }

    /// What to wait for before [`confine`](Self::confine), if a fleet's store has to be asked.
    #[inline]
    pub(crate) fn recall<B: TryCloneBody>(
        &self,
        request: &mut Request<B>,
    ) -> Option<Box<Recalling>> {
        self.sticky.recall_of(request, &self.both)
    }

    /// Finds what pins `request`, and leaves it in its extensions for the tiers.
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
    /// The resource that it is pinned to, if that is among `residents`.
    pub(super) fn within(self, residents: &Residents) -> Option<(Arc<str>, StickyMatch)> {
        self.held.filter(|(resource, _)| residents.holds(resource))
    }
}
