//! Misconfigured backends: the status that showed it, and which request reports it.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
    time::Instant,
};

use http::StatusCode;

use super::BackendPool;
use crate::clock;

/// The status by which each backend was last found to be misconfigured. Valid only while the backend
/// is known to fail.
pub(super) struct Faults {
    /// Zero if it never was.
    statuses: Box<[AtomicU16]>,
    act: OnceLock<Act>,
}

type Act = Box<dyn Fn(&str, StatusCode) + Send + Sync>;

impl Faults {
    pub(super) fn new(len: usize) -> Self {
        let statuses = (0..len).map(|_| AtomicU16::new(0)).collect();
        Self { statuses, act: OnceLock::new() }
    }
}

impl BackendPool {
    /// Every backend's name with the status that showed it to be
    /// [misconfigured](crate::classify::Outcome::Misconfigured); `None` if it is not, or has served
    /// since. A misconfigured backend is called after all others, by one request at a time.
    pub fn misconfigured(&self) -> impl ExactSizeIterator<Item = (&str, Option<StatusCode>)> {
        let now = clock::now();
        self.names().enumerate().map(move |(index, name)| (name, self.fault(index, now)))
    }

    /// Calls `act` with the name of a backend that is found to be misconfigured and the status that
    /// shows it: once until the backend has served again, not for each request. For a log line. Only
    /// the first call counts, for all clones.
    pub fn on_misconfigured(&self, act: impl Fn(&str, StatusCode) + Send + Sync + 'static) {
        _ = self.shared.faults.act.set(Box::new(act));
    }

    /// The status by which the backend is known to be misconfigured.
    pub(crate) fn fault(&self, index: usize, now: Instant) -> Option<StatusCode> {
        let status = self.shared.faults.statuses[index].load(Ordering::Relaxed);
        let is_known = status != 0 && self.shared.cooldowns.failures(index, now) > 0;
        StatusCode::from_u16(status).ok().filter(|_| is_known)
    }

    /// `status` showed that the backend is misconfigured.
    pub(crate) fn note_fault(&self, index: usize, status: StatusCode) {
        let before = self.shared.faults.statuses[index].swap(status.as_u16(), Ordering::Relaxed);
        // If several requests find it concurrently, one reports it.
        if before != status.as_u16()
            && let Some(act) = self.shared.faults.act.get()
        {
            act(self.member(index).name(), status);
        }
    }

    /// The backend served a request, or fails in another way.
    pub(crate) fn forget_fault(&self, index: usize) {
        let status = &self.shared.faults.statuses[index];
        if status.load(Ordering::Relaxed) != 0 {
            status.store(0, Ordering::Relaxed);
        }
    }
}
