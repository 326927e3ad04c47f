//! What happens on a connection, noted by its requests and bytes, for the task that watches it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use http::Version;

/// What is going on on a connection, for the task that watches it.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// Requests under way.
    requests: AtomicUsize,
    /// How many there have been.
    begun: AtomicUsize,
    /// Whether something was heard since the last request ended.
    is_heard: AtomicBool,
    /// HTTP/2, on which more than requests is heard.
    is_multiplexed: AtomicBool,
    /// Whether the client does not take what it is sent.
    is_stuck: AtomicBool,
}

/// A request under way on a connection.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Activity>);

impl Activity {
    pub(crate) fn begin(self: Arc<Self>, version: Version) -> Busy {
        self.requests.fetch_add(1, Relaxed);
        self.begun.fetch_add(1, Relaxed);
        if version == Version::HTTP_2 {
            self.is_multiplexed.store(true, Relaxed);
        }
        Busy(self)
    }

    /// Something was read.
    pub(crate) fn note_read(&self) {
        self.is_heard.store(true, Relaxed);
    }

    /// Something was written, or could not be.
    pub(crate) fn note_written(&self, is_stuck: bool) {
        if is_stuck != self.is_stuck.load(Relaxed) {
            self.is_stuck.store(is_stuck, Relaxed);
        }
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
        self.is_heard.load(Relaxed) && !self.is_multiplexed.load(Relaxed)
    }

    pub(crate) fn is_stuck(&self) -> bool {
        self.is_stuck.load(Relaxed)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.is_heard.store(false, Relaxed);
        self.0.requests.fetch_sub(1, Relaxed);
    }
}
