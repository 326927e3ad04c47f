//! Detects whether a half-closed client is still there.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{io::AsyncWrite, time::Sleep};

use crate::serve::{activity::Activity, clock};

/// Probes a client that sends nothing more while its request is in flight: it has half closed its
/// connection, or it has disconnected.
///
/// TCP cannot distinguish the two until something is written. So the probe writes an interim
/// response, which HTTP/1.1 clients must discard (RFC 9110 section 15.2): a client that has
/// disconnected resets the connection. A client that gets its answer first never sees the probe.
/// Clients that may still send are not probed: the `fetch` of Node.js fails on an interim response
/// that it did not ask for.
pub(super) struct Probe {
    next: Pin<Box<Sleep>>,
    probes: usize,
    /// The number of reads when the wait began.
    reads: usize,
}

impl Probe {
    pub(super) fn new(reads: usize) -> Self {
        Self { next: Box::pin(clock::sleep(PROBES[0])), probes: 0, reads }
    }

    /// Ready with an error when the client has disconnected.
    pub(super) fn poll<I: AsyncWrite + Unpin>(
        &mut self,
        io: &mut I,
        activity: &Activity,
        reads: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Error> {
        loop {
            ready!(self.next.as_mut().poll(cx));
            if reads != self.reads {
                // The client has sent something meanwhile.
                (self.reads, self.probes) = (reads, 0);
                self.next.as_mut().reset(clock::timer_now() + PROBES[0]);
                continue;
            }
            if activity.takes_interim() {
                // It is so short that it is written completely or not at all.
                match Pin::new(&mut *io).poll_write(cx, INTERIM) {
                    Poll::Ready(Ok(INTERIM_BYTES)) | Poll::Pending => {}
                    Poll::Ready(Ok(_)) => return Poll::Ready(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(Err(error)) => return Poll::Ready(error),
                }
                if let Poll::Ready(Err(error)) = Pin::new(&mut *io).poll_flush(cx) {
                    return Poll::Ready(error);
                }
            }
            self.probes += 1;
            let pause = PROBES.get(self.probes).copied().unwrap_or(LATER_PROBES);
            self.next.as_mut().reset(clock::timer_now() + pause);
        }
    }
}

const INTERIM: &[u8; INTERIM_BYTES] = b"HTTP/1.1 100 Continue\r\n\r\n";
const INTERIM_BYTES: usize = 25;
/// The first probe provokes a reset, which takes a round trip; the second one then fails.
const PROBES: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(250)];
const LATER_PROBES: Duration = Duration::from_secs(10);
