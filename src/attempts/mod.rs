//! An attempt budget that all layers share for one request.

mod layer;

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use http::Extensions;

pub use self::layer::{LimitAttempts, LimitAttemptsLayer};

/// The number of attempts that all layers together may make for one request: a request extension.
///
/// Each layer has limits of its own, and they multiply: three retries of a tier of four regions are
/// twelve attempts. This budget counts every request that leaves the innermost layer. Once it is
/// spent, each layer returns its last refusal. The first attempt of a request is always made.
///
/// Clones share the count. [`LimitAttemptsLayer`] gives every request a budget.
///
/// ```
/// use tower_spillover::AttemptBudget;
///
/// let attempts = AttemptBudget::at_most(4);
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(attempts.clone());
/// // ... send it, then see what is left:
/// assert_eq!(attempts.left(), 4);
/// ```
#[derive(Clone, Debug)]
pub struct AttemptBudget {
    left: Arc<AtomicU32>,
    /// Whether an outer layer has already counted the coming attempt. It cannot know whether an inner
    /// layer makes more of them.
    is_reserved: bool,
    /// Whether the request may be sent twice, and has a `Twin` with the state of both. Kept here
    /// because inner layers look up this extension anyway.
    has_twin: bool,
}

impl AttemptBudget {
    /// At most `attempts`, and at least one.
    pub fn at_most(attempts: u32) -> Self {
        Self {
            left: Arc::new(AtomicU32::new(attempts.max(1))),
            is_reserved: false,
            has_twin: false,
        }
    }

    /// The number of attempts left.
    pub fn left(&self) -> u32 {
        self.left.load(Ordering::Relaxed)
    }

    pub(crate) fn any_left(&self) -> bool {
        self.left() > 0
    }

    pub(crate) const fn has_twin(&self) -> bool {
        self.has_twin
    }

    pub(crate) const fn set_twin(&mut self) {
        self.has_twin = true;
    }

    /// Whether a request with these extensions has no attempts left.
    pub(crate) fn is_spent(overrides: &Extensions) -> bool {
        overrides.get().is_some_and(|budget: &Self| !budget.any_left())
    }

    /// Counts the attempt that a layer is about to make of a request with these extensions;
    /// `is_sent`: the layer has made others before.
    pub(crate) fn count(overrides: &mut Extensions, is_sent: bool) {
        if let Some(budget) = overrides.get_mut::<Self>() {
            if is_sent { budget.reserve() } else { budget.reserve_first() }
        }
    }

    /// Counts the first attempt of a layer, unless an outer layer has counted it.
    fn reserve_first(&mut self) {
        if !self.is_reserved {
            self.reserve();
        }
    }

    /// Counts an attempt on behalf of the inner layers.
    pub(crate) fn reserve(&mut self) {
        self.is_reserved = self.take();
    }

    /// Counts an attempt that was made, unless an outer layer has.
    #[cfg(feature = "retry")]
    pub(crate) fn count_uncounted(&self) {
        if !self.is_reserved {
            _ = self.take();
        }
    }

    /// An attempt that an outer layer counted is not made.
    pub(crate) fn give_back(&self) {
        if self.is_reserved {
            self.left.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes an attempt, if one is left. The first attempt of a request is made even without.
    fn take(&self) -> bool {
        let take = |left: u32| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_counted_once_however_many_layers_pass_it_on() {
        let attempts = AttemptBudget::at_most(3);
        let mut outer = attempts.clone();
        outer.reserve_first();
        let mut inner = outer.clone();
        inner.reserve_first();
        assert_eq!(attempts.left(), 2);
        inner.reserve();
        assert_eq!(attempts.left(), 1, "the second one of the inner layer is its own");
    }

    #[test]
    fn what_was_not_taken_is_not_given_back() {
        // Requests that share a budget, such as those of one agent.
        let attempts = AttemptBudget::at_most(0);
        let (mut one, mut other) = (attempts.clone(), attempts.clone());
        one.reserve_first();
        other.reserve_first();
        other.give_back();
        assert_eq!(attempts.left(), 0);
    }

    #[test]
    fn an_attempt_that_is_not_made_is_given_back() {
        let attempts = AttemptBudget::at_most(1);
        let mut outer = attempts.clone();
        outer.reserve_first();
        assert!(!attempts.any_left());
        outer.give_back();
        attempts.give_back();
        assert_eq!(attempts.left(), 1, "what was not counted is not given back");
    }
}
