//! Finds out whether a client that sends nothing more is still there.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{io::AsyncWrite, time::Sleep};

use crate::serve::{activity::Activity, clock};

/// What is written now and then to a client that sends nothing more while its request is being answered:
/// it half closed its connection, or it has gone.
///
/// TCP says the same of both until something is written. So an interim answer is, which HTTP/1.1 clients
/// have to discard (RFC 9110 section 15.2): one that has gone resets the connection. A client that gets
/// its answer before that sees nothing of it. One that may go on sending is never written to: the `fetch`
/// of Node.js fails at an interim answer that it did not ask for.
pub(super) struct Probe {
    next: Pin<Box<Sleep>>,
    probes: usize,
    /// How many there were when this began to wait.
    reads: usize,
}

impl Probe {
    pub(super) fn new(reads: usize) -> Self {
        Self { next: Box::pin(clock::sleep(PROBES[0])), probes: 0, reads }
    }

    /// Ready with an error when the client has gone.
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
                // It was heard meanwhile.
                (self.reads, self.probes) = (reads, 0);
                self.next.as_mut().reset(clock::timer_now() + PROBES[0]);
                continue;
            }
            if activity.takes_interim() {
                // As short as it is, it goes out whole or not at all.
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
/// The first is answered by a reset, which takes a round trip, and the second one fails.
const PROBES: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(250)];
const LATER_PROBES: Duration = Duration::from_secs(10);
