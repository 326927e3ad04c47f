//! Activity of a connection: recorded by its requests and its I/O, read by its idle watchdog.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use futures::task::AtomicWaker;
use http::Version;

use super::{delivery::Delivery, upload_rest::UploadRest};

/// Activity of a connection, read by its idle watchdog.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// Requests in flight.
    requests: AtomicUsize,
    /// Requests begun so far.
    begun: AtomicUsize,
    /// Whether bytes were read after the end of the last request.
    is_heard: AtomicBool,
    /// Whether the reader waits for more bytes, so that no bytes are left unparsed.
    awaits_bytes: AtomicBool,
    /// Counts client progress (reads and accepted writes) while no request is in flight.
    moves: AtomicUsize,
    /// HTTP/2, where more than requests is read.
    is_multiplexed: AtomicBool,
    /// Whether the client does not accept what is written.
    is_stuck: AtomicBool,
    /// Whether an event of a stream was passed on since [`take_event`](Self::take_event).
    has_event: AtomicBool,
    /// The delivery of the current answer on HTTP/1.1.
    delivery: Arc<Delivery>,
    /// The delivery of the stream begun last on HTTP/2, until its task takes it.
    of_stream: Mutex<Option<Arc<Delivery>>>,
    /// Bytes left of the current body on HTTP/1.1, `u64::MAX` if the length is unknown.
    upload_left: AtomicU64,
    /// The rest of a body that was answered before its end, if it is short.
    pub(crate) upload_rest: UploadRest,
    /// Whether a request's body was abandoned before its end.
    is_body_left: AtomicBool,
    /// HTTP/1.1, whose clients accept interim responses, and no byte of an answer has been written.
    takes_interim: AtomicBool,
    /// Whether the client has half closed the connection and waits for an answer.
    is_half_closed: AtomicBool,
    /// Whether it has half closed the connection, although not all it sent has been read.
    has_finished: AtomicBool,
    /// Wakes a body that waits for more.
    upload: AtomicWaker,
    is_tunnel: AtomicBool,
    tunnel: Mutex<Option<Tunnel>>,
}

/// Takes over a connection when HTTP on it has ended.
pub(crate) struct Tunnel(pub(crate) Pin<Box<dyn Future<Output = ()> + Send>>);

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tunnel")
    }
}

/// A request in flight on a connection.
#[derive(Debug)]
pub(crate) struct Busy {
    activity: Arc<Activity>,
    pub(crate) delivery: Arc<Delivery>,
}

impl Activity {
    pub(crate) fn begin(self: Arc<Self>, version: Version) -> Busy {
        self.requests.fetch_add(1, Relaxed);
        self.begun.fetch_add(1, Relaxed);
        let delivery = if version == Version::HTTP_2 {
            self.is_multiplexed.store(true, Relaxed);
            let delivery = Arc::<Delivery>::default();
            *self.of_stream() = Some(Arc::clone(&delivery));
            delivery
        } else {
            Arc::clone(&self.delivery)
        };
        self.takes_interim.store(version == Version::HTTP_11, Relaxed);
        Busy { activity: self, delivery }
    }

    /// The delivery of the current answer on HTTP/1.1.
    pub(crate) fn delivery(&self) -> Arc<Delivery> {
        Arc::clone(&self.delivery)
    }

    /// The delivery of the stream begun last.
    pub(crate) fn take_delivery(&self) -> Option<Arc<Delivery>> {
        self.of_stream().take()
    }

    fn of_stream(&self) -> MutexGuard<'_, Option<Arc<Delivery>>> {
        self.of_stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a read, or that there was nothing to read.
    pub(crate) fn note_read(&self, is_pending: bool) {
        self.awaits_bytes.store(is_pending, Relaxed);
        if !is_pending {
            self.is_heard.store(true, Relaxed);
            if self.is_multiplexed.load(Relaxed) {
                self.moves.fetch_add(1, Relaxed);
            }
        }
    }

    /// Records that the bytes of a request have been consumed. On HTTP/1.1 the next read only
    /// happens when no bytes are left over, such as a part of the next head.
    fn end_request(&self) {
        self.is_heard.store(!self.awaits_bytes.load(Relaxed), Relaxed);
    }

    /// Records that the client accepted some of what it was sent.
    pub(crate) fn note_taken(&self) {
        self.moves.fetch_add(1, Relaxed);
    }

    pub(crate) fn moves(&self) -> usize {
        self.moves.load(Relaxed)
    }

    /// Records a write, or that it was not possible.
    pub(crate) fn note_written(&self, is_stuck: bool) {
        if is_stuck != self.is_stuck.load(Relaxed) {
            self.is_stuck.store(is_stuck, Relaxed);
        }
    }

    /// Records that an event of a stream is to be written. On HTTP/2, streams share a connection.
    fn note_event(&self) {
        if self.is_http_1() {
            self.has_event.store(true, Relaxed);
        }
    }

    /// Whether an event was passed on since the last call.
    pub(crate) fn take_event(&self) -> bool {
        // Most writes are of other answers: a read costs less than a swap.
        self.has_event.load(Relaxed) && self.has_event.swap(false, Relaxed)
    }

    /// Records that part of an answer was written.
    pub(crate) fn note_answer(&self) {
        if self.takes_interim.load(Relaxed) {
            self.takes_interim.store(false, Relaxed);
        }
    }

    /// Whether an interim response can be written now.
    pub(crate) fn takes_interim(&self) -> bool {
        self.takes_interim.load(Relaxed) && !self.is_stuck()
    }

    /// Whether exactly one request is in flight and its client may send nothing more.
    pub(crate) fn is_exchange(&self) -> bool {
        !self.is_idle() && self.is_http_1()
    }

    /// Records that the client sends nothing more, although some of it may not have been read yet.
    pub(crate) fn note_finished(&self) {
        self.has_finished.store(true, Relaxed);
    }

    /// Whether the client of a request in flight sends nothing more, so that it may have
    /// disconnected.
    pub(crate) fn may_have_gone(&self) -> bool {
        let is_over = self.is_half_closed.load(Relaxed) || self.has_finished.load(Relaxed);
        is_over && self.is_exchange()
    }

    /// Records that the client sends nothing more.
    pub(crate) fn half_close(&self) {
        self.is_half_closed.store(true, Relaxed);
        self.upload.wake();
    }

    /// Whether a body that needs more bytes will get none; wakes when that becomes true.
    pub(crate) fn is_upload_over(&self, cx: &mut Context<'_>) -> bool {
        self.upload.register(cx.waker());
        self.is_half_closed.load(Relaxed)
    }

    /// Records how many bytes the current body on HTTP/1.1 has left.
    pub(crate) fn note_upload_left(&self, bytes: u64) {
        self.upload_left.store(bytes, Relaxed);
    }

    /// Whether the connection cannot be reused after the current answer: on HTTP/1.1, if too much
    /// of a body would have to be read before the next request, or nothing more can arrive.
    pub(crate) fn is_last_exchange(&self) -> bool {
        self.is_http_1()
            && (self.is_half_closed.load(Relaxed)
                || self.upload_left.load(Relaxed) > UploadRest::MAX_BYTES)
    }

    /// Waits for rests of bodies; ready each time one has been discarded.
    pub(crate) fn poll_upload_rest(&self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.upload_rest.poll_discard(cx));
        self.end_request();
        Poll::Ready(())
    }

    /// Records that a request's body is no longer read.
    pub(crate) fn note_body_left(&self) {
        self.is_body_left.store(true, Relaxed);
    }

    /// Whether the client may still be sending bytes that will not be read: a request's body, or an
    /// invalid head.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.is_body_left.load(Relaxed) || self.is_head_begun()
    }

    /// Ends HTTP on the connection with the answer to this request.
    pub(crate) fn become_tunnel(&self, tunnel: Tunnel) {
        self.is_tunnel.store(true, Relaxed);
        *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
    }

    /// Takes the tunnel that follows HTTP. It holds a request of this connection, so it must be
    /// taken.
    pub(crate) fn take_tunnel(&self) -> Option<Tunnel> {
        self.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The number of requests so far.
    pub(crate) fn begun(&self) -> usize {
        self.begun.load(Relaxed)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.requests.load(Relaxed) == 0
    }

    /// Whether a request's head may have begun. On HTTP/2 more than requests is read.
    pub(crate) fn is_head_begun(&self) -> bool {
        self.is_http_1() && self.is_heard.load(Relaxed)
    }

    fn is_http_1(&self) -> bool {
        !self.is_multiplexed.load(Relaxed) && !self.is_tunnel.load(Relaxed)
    }

    pub(crate) fn is_stuck(&self) -> bool {
        self.is_stuck.load(Relaxed)
    }
}

impl Busy {
    /// Records that an event of the answer is to be written.
    pub(crate) fn note_event(&self) {
        self.activity.note_event();
    }

    /// The activity of its connection.
    pub(crate) fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.activity)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // On HTTP/2, the delivery continues until the client has accepted the whole answer.
        if Arc::ptr_eq(&self.delivery, &self.activity.delivery) {
            self.delivery.await_backend();
        }
        self.activity.end_request();
        self.activity.requests.fetch_sub(1, Relaxed);
    }
}
