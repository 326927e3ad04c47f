//! What happens on a connection, noted by its requests and bytes, for the task that watches it.

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

/// What is going on on a connection, for the task that watches it.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// Requests under way.
    requests: AtomicUsize,
    /// How many there have been.
    begun: AtomicUsize,
    /// Whether something was heard that the last request did not end with.
    is_heard: AtomicBool,
    /// Whether more is waited for, so that nothing that was read is left over.
    awaits_bytes: AtomicBool,
    /// Counts what the client has a part in while no request is under way.
    moves: AtomicUsize,
    /// HTTP/2, on which more than requests is heard.
    is_multiplexed: AtomicBool,
    /// Whether the client does not take what it is sent.
    is_stuck: AtomicBool,
    /// Of the answer under way on HTTP/1.1.
    delivery: Arc<Delivery>,
    /// Of the stream that was begun last on HTTP/2, until its task takes it.
    of_stream: Mutex<Option<Arc<Delivery>>>,
    /// Bytes that the body under way on HTTP/1.1 still has, `u64::MAX` where nothing says how many.
    upload_left: AtomicU64,
    /// Of a body that was answered before its end, and has little left.
    pub(crate) upload_rest: UploadRest,
    /// Whether the body of a request was given up before its end.
    is_body_left: AtomicBool,
    /// HTTP/1.1, whose clients know interim answers, and nothing of an answer has been written.
    takes_interim: AtomicBool,
    /// Whether the client sends nothing more, and waits for an answer.
    is_half_closed: AtomicBool,
    /// Whether it does, though not all that it sent was read.
    has_finished: AtomicBool,
    /// Of a body that waits for more.
    upload: AtomicWaker,
    is_tunnel: AtomicBool,
    tunnel: Mutex<Option<Tunnel>>,
}

/// What a connection is used for once HTTP is over on it.
pub(crate) struct Tunnel(pub(crate) Pin<Box<dyn Future<Output = ()> + Send>>);

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tunnel")
    }
}

/// A request under way on a connection.
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

    /// Of the answer under way on HTTP/1.1.
    pub(crate) fn delivery(&self) -> Arc<Delivery> {
        Arc::clone(&self.delivery)
    }

    /// Of the stream that was begun last.
    pub(crate) fn take_delivery(&self) -> Option<Arc<Delivery>> {
        self.of_stream().take()
    }

    fn of_stream(&self) -> MutexGuard<'_, Option<Arc<Delivery>>> {
        self.of_stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was read, or nothing is there to be.
    pub(crate) fn note_read(&self, is_pending: bool) {
        self.awaits_bytes.store(is_pending, Relaxed);
        if !is_pending {
            self.is_heard.store(true, Relaxed);
            if self.is_multiplexed.load(Relaxed) {
                self.moves.fetch_add(1, Relaxed);
            }
        }
    }

    /// What was read of a request has been taken. On HTTP/1.1 more is read only when nothing is left
    /// over, such as a part of the next head.
    fn end_request(&self) {
        self.is_heard.store(!self.awaits_bytes.load(Relaxed), Relaxed);
    }

    /// The client took some of what it was sent.
    pub(crate) fn note_taken(&self) {
        self.moves.fetch_add(1, Relaxed);
    }

    pub(crate) fn moves(&self) -> usize {
        self.moves.load(Relaxed)
    }

    /// Something was written, or could not be.
    pub(crate) fn note_written(&self, is_stuck: bool) {
        if is_stuck != self.is_stuck.load(Relaxed) {
            self.is_stuck.store(is_stuck, Relaxed);
        }
    }

    /// Some of an answer was written.
    pub(crate) fn note_answer(&self) {
        if self.takes_interim.load(Relaxed) {
            self.takes_interim.store(false, Relaxed);
        }
    }

    /// Whether an interim answer can be written now.
    pub(crate) fn takes_interim(&self) -> bool {
        self.takes_interim.load(Relaxed) && !self.is_stuck()
    }

    /// Whether one request is being answered whose client may have said all that it will.
    pub(crate) fn is_exchange(&self) -> bool {
        !self.is_idle() && self.is_http_1()
    }

    /// The client sends nothing more, and some of what it sent may not be read yet.
    pub(crate) fn note_finished(&self) {
        self.has_finished.store(true, Relaxed);
    }

    /// Whether a client whose request is being answered sends nothing more, so that it may have gone.
    pub(crate) fn may_have_gone(&self) -> bool {
        let is_over = self.is_half_closed.load(Relaxed) || self.has_finished.load(Relaxed);
        is_over && self.is_exchange()
    }

    /// The client sends nothing more.
    pub(crate) fn half_close(&self) {
        self.is_half_closed.store(true, Relaxed);
        self.upload.wake();
    }

    /// Whether a body for which more is needed gets no more; wakes when that becomes so.
    pub(crate) fn is_upload_over(&self, cx: &mut Context<'_>) -> bool {
        self.upload.register(cx.waker());
        self.is_half_closed.load(Relaxed)
    }

    /// How much the body under way on HTTP/1.1 still has.
    pub(crate) fn note_upload_left(&self, bytes: u64) {
        self.upload_left.store(bytes, Relaxed);
    }

    /// Whether the client cannot go on after the answer under way: on HTTP/1.1, where too much of a body
    /// is left to be read before the next request, or no more can come.
    pub(crate) fn is_last_exchange(&self) -> bool {
        self.is_http_1()
            && (self.is_half_closed.load(Relaxed)
                || self.upload_left.load(Relaxed) > UploadRest::MOST_BYTES)
    }

    /// Waits for rests of bodies, and is ready whenever one has been discarded.
    pub(crate) fn poll_upload_rest(&self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.upload_rest.poll_discard(cx));
        self.end_request();
        Poll::Ready(())
    }

    /// The body of a request is read no further.
    pub(crate) fn note_body_left(&self) {
        self.is_body_left.store(true, Relaxed);
    }

    /// Whether the client may still be sending what is not read any more: the body of a request, or a
    /// head that could not be.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.is_body_left.load(Relaxed) || self.is_head_begun()
    }

    /// HTTP ends on the connection with the answer to this request.
    pub(crate) fn become_tunnel(&self, tunnel: Tunnel) {
        self.is_tunnel.store(true, Relaxed);
        *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
    }

    /// What comes after HTTP. It holds a request of this connection, so that it has to be taken.
    pub(crate) fn take_tunnel(&self) -> Option<Tunnel> {
        self.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// How many requests there have been.
    pub(crate) fn begun(&self) -> usize {
        self.begun.load(Relaxed)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.requests.load(Relaxed) == 0
    }

    /// Whether the head of a request may have begun. On HTTP/2 more than requests is read.
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
    /// What happens on its connection.
    pub(crate) fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.activity)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // On HTTP/2 its stream goes on until the client has taken all of the answer.
        if Arc::ptr_eq(&self.delivery, &self.activity.delivery) {
            self.delivery.await_backend();
        }
        self.activity.end_request();
        self.activity.requests.fetch_sub(1, Relaxed);
    }
}
