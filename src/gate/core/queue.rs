//! The queue of requests for a PTU: urgent ranks first, first in, first out within a rank.

use std::{collections::BTreeMap, task::Waker};

use super::time::Nanos;

/// A place in the queue. It is kept when a request is refused and waits again, so that no later one
/// overtakes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueueKey {
    pub(super) rank: u8,
    pub(super) order: u64,
}

#[derive(Debug)]
pub(super) struct QueuedRequest {
    pub(super) cost: f64,
    /// When it leaves at the latest.
    pub(super) latest: Nanos,
    /// Whether it has nowhere else to go, so that no time need be kept back to send it there.
    pub(super) is_patient: bool,
    pub(super) waker: Option<Waker>,
}

/// Entering, leaving and finding the head take logarithmic time.
#[derive(Debug, Default)]
pub(super) struct Queue {
    requests: BTreeMap<QueueKey, QueuedRequest>,
    /// The cost that waits in each rank; few ranks are ever used.
    cost: BTreeMap<u8, f64>,
}

impl Queue {
    pub(super) fn insert(&mut self, key: QueueKey, cost: f64, latest: Nanos) {
        self.requests.insert(key, QueuedRequest { cost, latest, is_patient: false, waker: None });
        *self.cost.entry(key.rank).or_default() += cost;
    }

    pub(super) fn remove(&mut self, key: QueueKey) -> Option<QueuedRequest> {
        let request = self.requests.remove(&key)?;
        if let Some(cost) = self.cost.get_mut(&key.rank) {
            *cost -= request.cost;
        }
        if self.requests.is_empty() {
            // Sums of floats drift; an empty queue costs nothing.
            self.cost.clear();
        }
        Some(request)
    }

    pub(super) fn get_mut(&mut self, key: QueueKey) -> Option<&mut QueuedRequest> {
        self.requests.get_mut(&key)
    }

    pub(super) fn head(&self) -> Option<(QueueKey, &QueuedRequest)> {
        self.requests.first_key_value().map(|(key, request)| (*key, request))
    }

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The requests that go before a new one of `rank`, the first one first.
    pub(super) fn ahead_of(&self, rank: u8) -> impl Iterator<Item = &QueuedRequest> {
        self.requests.range(..=QueueKey { rank, order: u64::MAX }).map(|(_, request)| request)
    }

    /// The cost that goes before a new request of `rank`.
    pub(super) fn cost_ahead_of(&self, rank: u8) -> f64 {
        self.cost.range(..=rank).map(|(_, cost)| cost).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(rank: u8, order: u64) -> QueueKey {
        QueueKey { rank, order }
    }

    #[test]
    fn urgent_ranks_go_first_and_equals_in_order() {
        let mut queue = Queue::default();
        for (rank, order) in [(1, 0), (0, 3), (1, 1), (0, 2)] {
            queue.insert(key(rank, order), 1.0, 0);
        }
        let mut orders = Vec::new();
        while let Some((head, _)) = queue.head() {
            orders.push(head.order);
            queue.remove(head);
        }
        assert_eq!(orders, [2, 3, 0, 1]);
    }

    #[test]
    fn a_newcomer_has_its_own_rank_and_the_more_urgent_ones_ahead() {
        let mut queue = Queue::default();
        queue.insert(key(0, 0), 5.0, 0);
        queue.insert(key(1, 1), 7.0, 0);
        assert_eq!((queue.cost_ahead_of(0), queue.cost_ahead_of(1)), (5.0, 12.0));
        queue.remove(key(0, 0));
        assert_eq!(queue.cost_ahead_of(1), 7.0);
        assert!(queue.remove(key(0, 0)).is_none(), "a place is left once");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

        #[test]
        fn it_is_what_a_sorted_list_is(
            steps in prop::collection::vec((253..=u8::MAX, 0_u64..6, 0_u32..100), 0..30),
        ) {
            let (mut queue, mut list) = (Queue::default(), Vec::<(QueueKey, f64)>::new());
            for (rank, order, cost) in steps {
                let (key, cost) = (key(rank, order), f64::from(cost));
                let known = list.iter().position(|&(other, _)| other == key);
                prop_assert_eq!(queue.get_mut(key).is_some(), known.is_some());
                match known {
                    Some(index) => {
                        let left = queue.remove(key).map(|request| request.cost);
                        prop_assert_eq!(left, Some(list.remove(index).1));
                    }
                    None => {
                        queue.insert(key, cost, 0);
                        list.push((key, cost));
                    }
                }
                list.sort_by_key(|&(key, _)| (key.rank, key.order));
                let head = queue.head().map(|(key, request)| (key, request.cost));
                prop_assert_eq!(head, list.first().copied());
                prop_assert_eq!((queue.len(), queue.is_empty()), (list.len(), list.is_empty()));
                for rank in 252..=u8::MAX {
                    let ahead = list.iter().filter(|(key, _)| key.rank <= rank);
                    let ahead: Vec<f64> = ahead.map(|&(_, cost)| cost).collect();
                    prop_assert_eq!(queue.cost_ahead_of(rank), ahead.iter().sum::<f64>());
                    let before: Vec<f64> = queue.ahead_of(rank).map(|other| other.cost).collect();
                    prop_assert_eq!(before, ahead);
                }
            }
        }
    }
}
