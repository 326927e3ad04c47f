//! Counts requests in flight, in total and per client, for the concurrency limits.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// A count of requests; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Concurrency(Arc<AtomicUsize>);

/// One request in flight, counted until dropped.
#[derive(Debug)]
pub(crate) struct ConcurrencyPermit {
    _all: Counted,
    _own: Counted,
}

/// The part of all places that one client may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ClientLimit {
    Count(usize),
    /// This share of its own and the free places together, so of all places while no other client
    /// uses any. Several clients that take as many as they can get share equally and leave room:
    /// a client with few requests always finds a place.
    Share(f64),
}

impl ClientLimit {
    /// Whether a client with this many requests may have one of these free places.
    fn allows(self, used: usize, free: usize) -> bool {
        match self {
            Self::Count(most) => used < most,
            Self::Share(share) => (used as f64) < share / (1.0 - share) * free as f64,
        }
    }
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// All places are taken.
    All,
    /// The client has as many requests as it may have.
    Client(usize),
}

impl Concurrency {
    /// Takes one of `limit` places for a client, whose own count is `own`. The limits are arguments
    /// because a reload changes them.
    ///
    /// # Errors
    ///
    /// If there is no place for it.
    pub(crate) fn enter(
        &self,
        own: &Self,
        limit: usize,
        of_client: ClientLimit,
    ) -> Result<ConcurrencyPermit, Full> {
        loop {
            let (all, used_by_client) = (self.0.load(Relaxed), own.0.load(Relaxed));
            let free = limit.saturating_sub(all);
            if free == 0 {
                return Err(Full::All);
            }
            if !of_client.allows(used_by_client, free) {
                return Err(Full::Client(used_by_client));
            }
            // Both counts must still be what the limit was computed from: requests that several
            // workers admit at the same moment would exceed it otherwise. The client's count comes
            // first, so that the total never includes a request that is then refused.
            if let Some(own) = own.count(used_by_client)
                && let Some(all) = self.count(all)
            {
                return Ok(ConcurrencyPermit { _all: all, _own: own });
            }
        }
    }

    /// Counts one more, if the count is still `now`.
    fn count(&self, now: usize) -> Option<Counted> {
        let counted = self.0.compare_exchange_weak(now, now + 1, Relaxed, Relaxed).is_ok();
        counted.then(|| Counted(self.clone()))
    }

    /// Whether anything else uses this count.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// One count, released on drop.
#[derive(Debug)]
struct Counted(Concurrency);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many places each client gets if all take as many as they can, in turn.
    fn taken(limit: usize, share: f64, clients: usize) -> Vec<usize> {
        let all = Concurrency::default();
        let own = vec![Concurrency::default(); clients].into_iter().map(|_| Concurrency::default());
        let own = own.collect::<Vec<_>>();
        let mut permits = Vec::new();
        for _ in 0..limit {
            let share = ClientLimit::Share(share);
            permits.extend(own.iter().filter_map(|own| all.enter(own, limit, share).ok()));
        }
        own.iter().map(|own| own.0.load(Relaxed)).collect()
    }

    #[test]
    fn clients_share_and_leave_room_for_another() {
        assert_eq!(taken(20, 0.5, 1), [10]);
        assert_eq!(taken(20, 0.5, 2), [7, 7]);
        assert_eq!(taken(20, 0.75, 1), [15]);
        assert_eq!(taken(20, 1.0, 1), [20]);
        assert_eq!(taken(1, 0.5, 1), [1]);
        for clients in 1..19 {
            assert!(taken(20, 0.5, clients).iter().sum::<usize>() < 20, "{clients}");
        }
    }

    #[test]
    fn workers_that_admit_at_the_same_moment_exceed_no_share() {
        for _ in 0..2_000 {
            let (all, own) = (Concurrency::default(), Concurrency::default());
            let admit = || {
                let share = ClientLimit::Share(0.5);
                (0..20).filter_map(|_| all.enter(&own, 20, share).ok()).collect::<Vec<_>>()
            };
            let permits = std::thread::scope(|scope| {
                let workers = [(); 4].map(|()| scope.spawn(admit));
                workers.map(|worker| worker.join().unwrap())
            });
            assert_eq!(permits.iter().flatten().count(), 10);
        }
    }

    #[test]
    fn what_was_refused_or_has_ended_does_not_count() {
        let (all, own) = (Concurrency::default(), Concurrency::default());
        let one = ClientLimit::Count(1);
        let permit = all.enter(&own, 2, one).unwrap();
        assert_eq!(all.enter(&own, 2, one).unwrap_err(), Full::Client(1));
        let other = all.enter(&Concurrency::default(), 2, one).unwrap();
        assert_eq!(all.enter(&Concurrency::default(), 2, one).unwrap_err(), Full::All);
        drop((permit, other));
        assert!(all.enter(&own, 2, one).is_ok());
    }
}
