//! How much all requests of a process may keep together.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;

/// How many bytes of bodies may be kept at the same time, by all layers that have a clone of it.
///
/// A body for which there is no room is sent on while it arrives, and gets a single attempt; only as
/// much of it is read first as a connection buffers anyway, 64 KiB, where its model is looked for.
/// Bytes count from their arrival until the last copy of them is dropped, whatever holds it: a request
/// that waits, a connection that writes. Nobody waits for room, so that uploads cannot wait for one
/// another.
#[derive(Clone)]
pub struct ReplayTotal(Arc<Total>);

struct Total {
    limit: AtomicUsize,
    held: AtomicUsize,
}

impl ReplayTotal {
    /// Room for `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Total { limit: AtomicUsize::new(limit), held: AtomicUsize::new(0) }))
    }

    /// Makes it room for `limit` bytes. What is held already stays, even if that is more.
    pub fn set_limit(&self, limit: usize) {
        self.0.limit.store(limit, Relaxed);
    }

    /// The most bytes that may be held.
    pub fn limit(&self) -> usize {
        self.0.limit.load(Relaxed)
    }

    /// How many bytes are held.
    pub fn held(&self) -> usize {
        self.0.held.load(Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let limit = self.limit();
        let taken = |held: usize| held.checked_add(bytes).filter(|&held| held <= limit);
        self.0.held.fetch_update(Relaxed, Relaxed, taken).is_ok()
    }
}

impl fmt::Debug for ReplayTotal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (held, limit) = (self.held(), self.limit());
        f.debug_struct("ReplayTotal").field("held", &held).field("limit", &limit).finish()
    }
}

/// What one body holds of a total. Dropping it gives that back.
pub(super) struct Room {
    total: Option<ReplayTotal>,
    bytes: usize,
}

impl Room {
    pub(super) const fn of(total: Option<ReplayTotal>) -> Self {
        Self { total, bytes: 0 }
    }

    /// Takes room for some more bytes, if there is.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let Some(total) = &self.total else { return true };
        let is_taken = total.take(bytes);
        self.bytes += if is_taken { bytes } else { 0 };
        is_taken
    }

    /// `data`, which holds the room from now on, in every copy of it.
    pub(super) fn hold(self, data: Bytes) -> Bytes {
        if self.bytes == 0 { data } else { Bytes::from_owner(Held { data, _room: self }) }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(total) = &self.total {
            total.0.held.fetch_sub(self.bytes, Relaxed);
        }
    }
}

struct Held {
    data: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}
