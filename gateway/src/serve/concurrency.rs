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
        let free = limit.saturating_sub(self.0.load(Relaxed));
        // Check the client first, so that its excess requests never count in the total.
        let used_by_client = own.0.fetch_add(1, Relaxed);
        let own = Counted(own.clone());
        let may_enter = match of_client {
            ClientLimit::Count(most) => used_by_client < most,
            ClientLimit::Share(share) => {
                (used_by_client as f64) < share / (1.0 - share) * free as f64
            }
        };
        if free > 0 && !may_enter {
            return Err(Full::Client(used_by_client));
        }
        let more = |used: usize| (used < limit).then_some(used + 1);
        self.0.fetch_update(Relaxed, Relaxed, more).map_err(|_| Full::All)?;
        Ok(ConcurrencyPermit { _all: Counted(self.clone()), _own: own })
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
