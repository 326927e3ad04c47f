//! Limits how long a request waits for its client to send or to accept something.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::Sleep;

use super::clock;

/// Waits for a client: at most `limits.idle_timeout` at a time, and four times that in total,
/// beyond the time that the bytes take at 1 KiB/s. A client that trickles single bytes holds its
/// place no longer than one that is silent four times.
///
/// The first wait creates the timer: most data is already there.
#[derive(Debug)]
pub(crate) struct ClientPatience {
    longest: Duration,
    /// The time left for all waits together.
    left: Duration,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl ClientPatience {
    pub(crate) const fn new(longest: Duration) -> Self {
        Self { longest, left: longest.saturating_mul(MAX_IDLE_PERIODS), since: None, timer: None }
    }

    /// Stops the timer: the request no longer waits for its client.
    pub(crate) fn rest(&mut self) {
        if let Some(since) = self.since.take() {
            let waited = clock::now().saturating_duration_since(since);
            self.left = self.left.saturating_sub(waited);
        }
    }

    /// Records that bytes were received or accepted.
    pub(crate) fn passed(&mut self, bytes: u64) {
        self.rest();
        let earned = Duration::from_millis(bytes.saturating_mul(1_000) / MIN_BYTES_PER_SECOND);
        self.left =
            self.left.saturating_add(earned).min(self.longest.saturating_mul(MAX_IDLE_PERIODS));
    }

    /// Waits for the client; ready when that has lasted too long.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let longest = self.longest.min(self.left);
        let timer = self.timer.get_or_insert_with(|| Box::pin(clock::sleep(longest)));
        if self.since.is_none() {
            self.since = Some(clock::now());
            timer.as_mut().reset(clock::timer_now() + longest);
        }
        timer.as_mut().poll(cx)
    }
}

/// The total time, in multiples of the idle timeout.
const MAX_IDLE_PERIODS: u32 = 4;
/// The minimum average rate, in bytes per second. Apache requires 500 for a request's body, and
/// Kestrel 240 in each direction.
const MIN_BYTES_PER_SECOND: u64 = 1 << 10;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How long a client with a timeout of 10 s is waited for if it passes `bytes` every 9 s.
    async fn waited(bytes: u64) -> u64 {
        let mut patience = ClientPatience::new(10 * SECOND);
        let begun = clock::timer_now();
        for _ in 0..100 {
            let end = poll_fn(|cx| patience.poll(cx));
            if clock::timeout(9 * SECOND, end).await.is_ok() {
                break;
            }
            patience.passed(bytes);
        }
        begun.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_trickles_is_waited_for_in_all_and_one_that_goes_on_is_not_cut() {
        let mut silent = ClientPatience::new(10 * SECOND);
        assert!(clock::timeout(11 * SECOND, poll_fn(|cx| silent.poll(cx))).await.is_ok());
        assert_eq!(waited(0).await, waited(1).await);
        assert!(waited(9 << 10).await >= 890);
    }
}
