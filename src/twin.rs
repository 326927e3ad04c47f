//! Two sendings of one request that run side by side: where each of them is, and what came of it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::Extensions;

use crate::{AttemptBudget, served::Attempt};

/// One of two sendings of a request: an extension, which is looked up where the request's
/// [`AttemptBudget`] says that there is one.
///
/// The pools inside write where it is, the layer that started both reads it. Both are polled by one
/// task, so that the locks are never contended.
#[derive(Clone, Debug)]
pub(crate) struct Twin {
    pair: Arc<Pair>,
    is_second: bool,
}

#[derive(Debug)]
struct Pair {
    /// When the request arrived, from which the times of attempts count.
    arrival: Instant,
    courses: [Mutex<Course>; 2],
}

/// What became of one sending so far.
#[derive(Debug, Default)]
struct Course {
    /// The pool and the backend that were sent the request and did not answer yet, with the attempt
    /// as it is recorded if nothing comes of it.
    under_way: Option<(usize, usize, Attempt)>,
    ended: Vec<Attempt>,
    /// How many attempts were begun.
    begun: u32,
}

impl Twin {
    /// The first sending of a request that arrives now.
    pub(crate) fn first(arrival: Instant) -> Self {
        Self { pair: Arc::new(Pair { arrival, courses: Default::default() }), is_second: false }
    }

    /// The other sending of the same request.
    pub(crate) fn other(&self) -> Self {
        Self { pair: Arc::clone(&self.pair), is_second: !self.is_second }
    }

    /// Whether it began since the other one was late.
    pub(crate) const fn is_second(&self) -> bool {
        self.is_second
    }

    /// Leaves it in the `extensions` of its request.
    pub(crate) fn insert_in(self, extensions: &mut Extensions) {
        extensions.get_or_insert_with(|| AttemptBudget::at_most(u32::MAX)).set_twin();
        extensions.insert(self);
    }

    /// That of a request with this `budget`.
    pub(crate) fn of(budget: &AttemptBudget, extensions: &Extensions) -> Option<Self> {
        budget.has_twin().then(|| extensions.get().cloned()).flatten()
    }

    /// How long after the arrival this was.
    pub(crate) fn since_arrival(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.pair.arrival)
    }

    /// Notes that `backend` of `pool` is sent the request. Of pools inside of pools the innermost counts.
    pub(crate) fn begin(&self, pool: usize, backend: usize, attempt: Attempt) {
        let mut course = self.course();
        course.under_way = Some((pool, backend, attempt));
        course.begun = course.begun.wrapping_add(1);
    }

    /// Notes what the attempt under way came to.
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

    /// The number of the attempt under way, if there is one.
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

    fn course(&self) -> MutexGuard<'_, Course> {
        self.pair.courses[usize::from(self.is_second)]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
