//! How long a request may wait for its client, which has to send or to take something.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::Sleep;

use super::clock;

/// Waits for a client: for `limits.idle_timeout` at a time, and four times that in all, beyond what
/// 1 KiB a second takes. A client that sends or takes a byte now and then holds its place no longer than
/// one that is silent four times.
///
/// Its timer is made by the first wait: most of what is waited for is there.
#[derive(Debug)]
pub(crate) struct ClientPatience {
    longest: Duration,
    /// Of all waits together.
    left: Duration,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl ClientPatience {
    pub(crate) const fn new(longest: Duration) -> Self {
        Self { longest, left: longest.saturating_mul(WAITS), since: None, timer: None }
    }

    /// It is not, or no longer, the client that is waited for.
    pub(crate) fn rest(&mut self) {
        if let Some(since) = self.since.take() {
            let waited = clock::now().saturating_duration_since(since);
            self.left = self.left.saturating_sub(waited);
        }
    }

    /// So many bytes came, or went.
    pub(crate) fn passed(&mut self, bytes: u64) {
        self.rest();
        let earned = Duration::from_millis(bytes.saturating_mul(1_000) / SLOWEST);
        self.left = self.left.saturating_add(earned).min(self.longest.saturating_mul(WAITS));
    }

    /// The client is waited for; ready when that has been so for too long.
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

/// How many times over a client may be silent.
const WAITS: u32 = 4;
/// Bytes a second, in all. Apache asks for 500 of a request's body, and Kestrel for 240 each way.
const SLOWEST: u64 = 1 << 10;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How long a client of 10 s at a time is waited for that passes `bytes` every 9 s.
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
