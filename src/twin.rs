//! Two concurrent sendings of one request: where each of them is, and its outcome.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::Extensions;

use crate::{AttemptBudget, served::Attempt};

/// One of two sendings of a request: an extension, looked up only if the request's [`AttemptBudget`]
/// says that it exists.
///
/// Inner pools write where the sending is; the layer that started both reads it. One task polls both,
/// so that the locks are never contended.
#[derive(Clone, Debug)]
pub(crate) struct Twin {
    pair: Arc<TwinState>,
    is_second: bool,
}

#[derive(Debug)]
struct TwinState {
    /// When the request arrived; the times of attempts count from it.
    arrival: Instant,
    courses: [Mutex<Progress>; 2],
}

/// The progress of one sending.
#[derive(Debug, Default)]
struct Progress {
    /// The pool and the backend that were sent the request and have not answered, with the attempt as
    /// recorded if it remains unanswered.
    under_way: Option<(usize, usize, Attempt)>,
    ended: Vec<Attempt>,
    /// The number of attempts started.
    begun: u32,
}

impl Twin {
    /// The first sending of a request that arrives now.
    pub(crate) fn first(arrival: Instant) -> Self {
        Self {
            pair: Arc::new(TwinState { arrival, courses: Default::default() }),
            is_second: false,
        }
    }

    /// The other sending of the same request.
    pub(crate) fn other(&self) -> Self {
        Self { pair: Arc::clone(&self.pair), is_second: !self.is_second }
    }

    /// Whether it was started because the other one was late.
    pub(crate) const fn is_second(&self) -> bool {
        self.is_second
    }

    /// Stores it in the `extensions` of its request.
    pub(crate) fn insert_in(self, extensions: &mut Extensions) {
        extensions.get_or_insert_with(|| AttemptBudget::at_most(u32::MAX)).set_twin();
        extensions.insert(self);
    }

    /// The twin of a request with this `budget`.
    pub(crate) fn of(budget: &AttemptBudget, extensions: &Extensions) -> Option<Self> {
        budget.has_twin().then(|| extensions.get().cloned()).flatten()
    }

    /// The time from the arrival to `at`.
    pub(crate) fn since_arrival(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.pair.arrival)
    }

    /// Records that `backend` of `pool` is sent the request. With nested pools, the innermost counts.
    pub(crate) fn begin(&self, pool: usize, backend: usize, attempt: Attempt) {
        let mut course = self.course();
        course.under_way = Some((pool, backend, attempt));
        course.begun = course.begun.wrapping_add(1);
    }

    /// Records the outcome of the current attempt.
    pub(crate) fn end(&self, attempt: Attempt) {
        let mut course = self.course();
        if let Some((_, _, begun)) = course.under_way.take() {
            course.ended.push(attempt.begun(begun.at()));
        }
    }

    /// The backend of `pool` that has the other sending now.
    pub(crate) fn taken_by_other(&self, pool: usize) -> Option<usize> {
        let other = self.other();
        let course = other.course();
        let (at, backend, _) = course.under_way.as_ref()?;
        (*at == pool).then_some(*backend)
    }

    /// The number of the current attempt, if there is one.
    pub(crate) fn under_way(&self) -> Option<u32> {
        let course = self.course();
        course.under_way.is_some().then_some(course.begun)
    }

    /// Whether any backend was sent it.
    pub(crate) fn was_sent(&self) -> bool {
        self.course().begun > 0
    }

    /// Its attempts.
    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        let course = self.course();
        let under_way = course.under_way.iter().map(|(_, _, attempt)| attempt);
        course.ended.iter().chain(under_way).cloned().collect()
    }

    fn course(&self) -> MutexGuard<'_, Progress> {
        self.pair.courses[usize::from(self.is_second)]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
