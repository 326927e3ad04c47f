//! Requests waiting for a PTU: first in, first out within a class, urgent classes first.

use std::{collections::BTreeMap, task::Waker};

use super::time::Nanos;

/// A place in the queue. It is kept when a request is refused and waits again, so that nobody who
/// came later overtakes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(super) rank: u8,
    pub(super) order: u64,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) cost: f64,
    /// When it leaves at the latest.
    pub(super) latest: Nanos,
    pub(super) waker: Option<Waker>,
}

/// Entering, leaving and finding the head take logarithmic time.
#[derive(Debug, Default)]
pub(super) struct Queue {
    places: BTreeMap<Place, Waiting>,
    /// The cost that waits in each rank; few ranks are ever used.
    cost: BTreeMap<u8, f64>,
}

impl Queue {
    pub(super) fn insert(&mut self, place: Place, cost: f64, latest: Nanos) {
        self.places.insert(place, Waiting { cost, latest, waker: None });
        *self.cost.entry(place.rank).or_default() += cost;
    }

    pub(super) fn remove(&mut self, place: Place) -> Option<Waiting> {
        let waiting = self.places.remove(&place)?;
        if let Some(cost) = self.cost.get_mut(&place.rank) {
            *cost -= waiting.cost;
        }
        if self.places.is_empty() {
            // Sums of floats drift; an empty queue costs nothing.
            self.cost.clear();
        }
        Some(waiting)
    }

    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut Waiting> {
        self.places.get_mut(&place)
    }

    pub(super) fn head(&self) -> Option<(Place, &Waiting)> {
        self.places.first_key_value().map(|(place, waiting)| (*place, waiting))
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Those that go before a newcomer of `rank`, the first one first.
    pub(super) fn before(&self, rank: u8) -> impl Iterator<Item = &Waiting> {
        self.places.range(..=Place { rank, order: u64::MAX }).map(|(_, waiting)| waiting)
    }

    /// The cost that goes before a newcomer of `rank`.
    pub(super) fn ahead_of(&self, rank: u8) -> f64 {
        self.cost.range(..=rank).map(|(_, cost)| cost).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(rank: u8, order: u64) -> Place {
        Place { rank, order }
    }

    #[test]
    fn urgent_ranks_go_first_and_equals_in_order() {
        let mut queue = Queue::default();
        for (rank, order) in [(1, 0), (0, 3), (1, 1), (0, 2)] {
            queue.insert(place(rank, order), 1.0, 0);
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
        queue.insert(place(0, 0), 5.0, 0);
        queue.insert(place(1, 1), 7.0, 0);
        assert_eq!((queue.ahead_of(0), queue.ahead_of(1)), (5.0, 12.0));
        queue.remove(place(0, 0));
        assert_eq!(queue.ahead_of(1), 7.0);
        assert!(queue.remove(place(0, 0)).is_none(), "a place is left once");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

        #[test]
        fn it_is_what_a_sorted_list_is(
            steps in prop::collection::vec((253..=u8::MAX, 0_u64..6, 0_u32..100), 0..30),
        ) {
            let (mut queue, mut list) = (Queue::default(), Vec::<(Place, f64)>::new());
            for (rank, order, cost) in steps {
                let (place, cost) = (place(rank, order), f64::from(cost));
                let known = list.iter().position(|&(other, _)| other == place);
                prop_assert_eq!(queue.get_mut(place).is_some(), known.is_some());
                match known {
                    Some(index) => {
                        let left = queue.remove(place).map(|waiting| waiting.cost);
                        prop_assert_eq!(left, Some(list.remove(index).1));
                    }
                    None => {
                        queue.insert(place, cost, 0);
                        list.push((place, cost));
                    }
                }
                list.sort_by_key(|&(place, _)| (place.rank, place.order));
                let head = queue.head().map(|(place, waiting)| (place, waiting.cost));
                prop_assert_eq!(head, list.first().copied());
                prop_assert_eq!((queue.len(), queue.is_empty()), (list.len(), list.is_empty()));
                for rank in 252..=u8::MAX {
                    let ahead = list.iter().filter(|(place, _)| place.rank <= rank);
                    let ahead: Vec<f64> = ahead.map(|&(_, cost)| cost).collect();
                    prop_assert_eq!(queue.ahead_of(rank), ahead.iter().sum::<f64>());
                    let before: Vec<f64> = queue.before(rank).map(|other| other.cost).collect();
                    prop_assert_eq!(before, ahead);
                }
            }
        }
    }
}
