//! The time that all attempts of one request may take together.

use std::time::{Duration, Instant};

use http::Extensions;
use tower_spillover::Deadline;

/// A request extension: when the last attempt has to be over, its body included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeLimit(Instant);

impl TimeLimit {
    /// Has a request end within `timeout`: no wait of the layers goes beyond that, and no attempt of the
    /// client below them.
    pub(crate) fn begin(extensions: &mut Extensions, timeout: Duration) {
        let Some(end) = now().checked_add(timeout) else { return };
        extensions.insert(Self(end));
        let earlier = extensions.get::<Deadline>().is_some_and(|deadline| deadline.0 <= end);
        if !earlier {
            extensions.insert(Deadline(end));
        }
    }

    /// What is left for an attempt.
    pub(crate) fn left(self) -> Duration {
        self.0.saturating_duration_since(now())
    }
}

#[expect(clippy::disallowed_methods, reason = "the one clock read of this crate")]
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_later_attempt_has_what_is_left() {
        let mut extensions = Extensions::new();
        TimeLimit::begin(&mut extensions, Duration::from_secs(5));
        let limit: TimeLimit = *extensions.get().expect("a limit");
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(limit.left(), Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(limit.left(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_layers_are_given_the_earlier_of_both_deadlines() {
        let mut extensions = Extensions::new();
        let earlier = Deadline(now() + Duration::from_secs(2));
        extensions.insert(earlier);
        TimeLimit::begin(&mut extensions, Duration::from_secs(5));
        assert_eq!(extensions.get(), Some(&earlier));
        TimeLimit::begin(&mut extensions, Duration::from_secs(1));
        assert_eq!(extensions.get(), Some(&Deadline(now() + Duration::from_secs(1))));
        TimeLimit::begin(&mut extensions, Duration::MAX);
        assert_eq!(extensions.get(), Some(&Deadline(now() + Duration::from_secs(1))), "endless");
    }
}
