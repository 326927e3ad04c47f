//! A limit on the bytes that all requests of a process keep together.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;

/// A limit on the bytes of bodies kept at the same time, shared by all layers with a clone of it.
///
/// A body for which there is no room is forwarded while it arrives, and gets a single attempt. If its
/// model is needed, up to 64 KiB are read first, as much as a connection buffers anyway. Bytes count
/// from their arrival until their last copy is dropped, whatever holds it: a waiting request, or a
/// connection that writes. No request waits for room, so that uploads cannot wait for one another.
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

    /// Changes the limit. What is held already stays, even if it exceeds the new limit.
    pub fn set_limit(&self, limit: usize) {
        self.0.limit.store(limit, Relaxed);
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.0.limit.load(Relaxed)
    }

    /// The bytes held now.
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

/// One body's share of a total. Dropping it releases the bytes.
pub(super) struct Room {
    total: Option<ReplayTotal>,
    bytes: usize,
}

impl Room {
    pub(super) const fn of(total: Option<ReplayTotal>) -> Self {
        Self { total, bytes: 0 }
    }

    /// Reserves room for more bytes, if there is any.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let Some(total) = &self.total else { return true };
        let is_taken = total.take(bytes);
        self.bytes += if is_taken { bytes } else { 0 };
        is_taken
    }

    /// Ties the room to `data` and every copy of it.
    pub(super) fn hold(self, data: Bytes) -> Bytes {
        if self.bytes == 0 { data } else { Bytes::from_owner(CountedBytes { data, _room: self }) }
    }

    /// The room, to be tied to several pieces; `None` if they need not be counted.
    pub(super) fn share(self) -> Option<Arc<Self>> {
        (self.bytes > 0).then(|| Arc::new(self))
    }

    /// Ties a shared room to `data` and every copy of it.
    pub(super) fn hold_shared(room: &Arc<Self>, data: Bytes) -> Bytes {
        Bytes::from_owner(CountedBytes { data, _room: Arc::clone(room) })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(total) = &self.total {
            total.0.held.fetch_sub(self.bytes, Relaxed);
        }
    }
}

struct CountedBytes<R> {
    data: Bytes,
    _room: R,
}

impl<R> AsRef<[u8]> for CountedBytes<R> {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}
