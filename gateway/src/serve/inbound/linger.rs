//! Closing a connection so that its last answer arrives.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    time::Sleep,
};

use crate::serve::clock;

/// The time and the bytes left for a client to stop sending.
///
/// Closing a socket that has unread bytes resets the connection, and a client that is still sending
/// loses an answer that it has not read yet (RFC 9112 section 9.6). So if a request was answered
/// before its end, read and discard what the client sends for a while.
pub(super) struct Linger {
    end: Pin<Box<Sleep>>,
    silence: Pin<Box<Sleep>>,
    bytes: usize,
}

impl Linger {
    pub(super) fn new() -> Self {
        Self {
            end: Box::pin(clock::sleep(LINGER_TIME)),
            silence: Box::pin(clock::sleep(LINGER_SILENCE)),
            bytes: LINGER_BYTES,
        }
    }

    /// Ready when the client has closed too, or the time or the bytes are used up.
    pub(super) fn poll<I: AsyncRead + Unpin>(
        &mut self,
        io: &mut I,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let mut room = [0; 8 << 10];
        for _ in 0..READS_PER_POLL {
            if self.end.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut buf = ReadBuf::new(&mut room);
            let Poll::Ready(read) = Pin::new(&mut *io).poll_read(cx, &mut buf) else {
                return self.silence.as_mut().poll(cx);
            };
            let length = buf.filled().len();
            if read.is_err() || length == 0 || length > self.bytes {
                return Poll::Ready(());
            }
            self.bytes -= length;
            self.silence.as_mut().reset(clock::timer_now() + LINGER_SILENCE);
        }
        // Give other connections a turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// In total, and without receiving a byte. nginx uses 30 s and 5 s.
const LINGER_TIME: Duration = Duration::from_secs(10);
const LINGER_SILENCE: Duration = Duration::from_secs(2);
/// Twice the default limit on bodies.
const LINGER_BYTES: usize = 64 << 20;
const READS_PER_POLL: usize = 32;
