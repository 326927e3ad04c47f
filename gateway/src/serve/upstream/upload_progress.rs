//! Upload timeout accounting: whether the client or the backend is waited for while a body streams.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Since when a backend has had everything of a request that has arrived. Clones belong to one
/// request.
#[derive(Clone, Debug)]
pub(crate) struct UploadProgress {
    begun: Instant,
    /// In milliseconds after that, or [`OF_CLIENT`].
    since: Arc<AtomicU64>,
}

impl UploadProgress {
    pub(crate) fn begin(now: Instant) -> Self {
        Self { begun: now, since: Arc::default() }
    }

    /// The upload waits for the client.
    pub(crate) fn await_client(&self) {
        self.since.store(OF_CLIENT, Relaxed);
    }

    /// The backend has received another part.
    pub(crate) fn await_backend(&self, now: Instant) {
        let since = now.saturating_duration_since(self.begun).as_millis();
        self.since.store(u64::try_from(since).unwrap_or(OF_CLIENT), Relaxed);
    }

    /// How much longer the backend may take, out of `longest`; `None` if that is over.
    pub(crate) fn left(&self, longest: Duration, now: Instant) -> Option<Duration> {
        let since = match self.since.load(Relaxed) {
            OF_CLIENT => return Some(longest),
            since => Duration::from_millis(since),
        };
        let waited = now.saturating_duration_since(self.begun).saturating_sub(since);
        longest.checked_sub(waited).filter(|left| !left.is_zero())
    }
}

const OF_CLIENT: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::clock;

    #[test]
    fn the_time_that_a_client_takes_is_not_the_backends() {
        let (now, second) = (clock::now(), Duration::from_secs(1));
        let progress = UploadProgress::begin(now);
        assert_eq!(progress.left(3 * second, now + second), Some(2 * second));
        progress.await_client();
        assert_eq!(progress.left(3 * second, now + 9 * second), Some(3 * second));
        progress.clone().await_backend(now + 9 * second);
        assert_eq!(progress.left(3 * second, now + 10 * second), Some(2 * second));
        assert_eq!(progress.left(3 * second, now + 12 * second), None);
    }
}
