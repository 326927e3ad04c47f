//! The utilization that a model's PTUs report.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The last level that each PTU of a model reported (`azure-openai-deployment-utilization`), as a
/// share of its limit. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Utilizations(Arc<BTreeMap<String, Mutex<Option<Reported>>>>);

#[derive(Clone, Copy, Debug)]
struct Reported {
    share: f64,
    at: Instant,
}

impl Utilizations {
    /// For backends with these names.
    pub fn new<'a>(backends: impl IntoIterator<Item = &'a str>) -> Self {
        let backends = backends.into_iter().map(|name| (name.to_owned(), Mutex::default()));
        Self(Arc::new(backends.collect()))
    }

    /// Records the level in an answer at `at`, unless a later one is known. Ignores backends that
    /// are not PTUs.
    pub fn note(&self, backend: &str, share: f64, at: Instant) {
        let Some(last) = self.0.get(backend) else { return };
        // It has tenths of a percent; further digits are rounding noise.
        let share = (share * 1e4).round() / 1e4;
        let mut last = lock(last);
        if last.is_none_or(|last| last.at <= at) {
            *last = Some(Reported { share, at });
        }
    }

    /// The level of a backend, if an answer of the last minute had it.
    pub fn of(&self, backend: &str, now: Instant) -> Option<f64> {
        let last = (*lock(self.0.get(backend)?))?;
        (now.saturating_duration_since(last.at) <= MAX_LEVEL_AGE).then_some(last.share)
    }

    /// The levels in answers of the last minute, by backend.
    pub fn current(&self, now: Instant) -> impl Iterator<Item = (&str, f64)> {
        self.0.keys().filter_map(move |name| Some((&**name, self.of(name, now)?)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bucket that was full a minute ago has drained, or its PTU has answered again.
const MAX_LEVEL_AGE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_that_of_the_latest_answer_and_is_forgotten_after_a_minute() {
        let reported = Utilizations::new(["ptu-east", "ptu-west"]);
        #[expect(clippy::disallowed_methods, reason = "an instant to count from")]
        let start = Instant::now();
        let second = Duration::from_secs(1);
        reported.note("ptu-east", 1.016, start + second);
        reported.note("ptu-east", 0.5, start);
        reported.note("sweden", 0.5, start);
        let at = |now| reported.current(now).collect::<Vec<_>>();
        assert_eq!(at(start + second), [("ptu-east", 1.016)]);
        assert_eq!(at(start + 61 * second), [("ptu-east", 1.016)]);
        assert_eq!(at(start + 62 * second), []);
    }
}
