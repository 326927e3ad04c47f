//! A client that sends nothing more while its request is being answered: it half closed its connection,
//! or it has gone.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{io::AsyncWrite, time::Sleep};

use crate::serve::{activity::Activity, clock};

/// The end of what a client sends, kept from hyper while a request is being answered: hyper takes it for
/// the end of the client.
///
/// TCP says the same of a client that closed its connection and of one that only half closed it, until
/// something is written. So an interim answer is, which HTTP/1.1 clients have to discard (RFC 9110 section
/// 15.2): one that has gone resets the connection, and the next write fails. A client that half closes
/// and gets its answer before that sees nothing of it.
pub(super) struct HalfClosed {
    next: Pin<Box<Sleep>>,
    probes: usize,
}

impl HalfClosed {
    pub(super) fn new() -> Self {
        Self { next: Box::pin(clock::sleep(PROBES[0])), probes: 0 }
    }

    /// Ready with an error when the client has gone.
    pub(super) fn poll<I: AsyncWrite + Unpin>(
        &mut self,
        io: &mut I,
        activity: &Activity,
        cx: &mut Context<'_>,
    ) -> Poll<io::Error> {
        loop {
            ready!(self.next.as_mut().poll(cx));
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
const PROBES: [Duration; 2] = [Duration::from_secs(1), Duration::from_millis(250)];
const LATER_PROBES: Duration = Duration::from_secs(10);
