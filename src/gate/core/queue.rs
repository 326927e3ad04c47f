//! The queue of requests for a PTU: urgent ranks first, first in, first out within a rank.

use std::{collections::BTreeMap, task::Waker};

use super::time::{NEVER, Nanos, SECOND};

/// A place in the queue: urgent ranks first, and whoever came first within a rank. It is kept when a
/// request is refused and waits again, so that no later one overtakes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(super) rank: u8,
    /// When the request came.
    pub(super) since: Nanos,
    /// Tells those apart that came at the same time.
    pub(super) order: u32,
}

impl Place {
    /// The first and the last place that `rank` has.
    const fn ends_of(rank: u8) -> (Self, Self) {
        let first = Self { rank, since: Nanos::MIN, order: 0 };
        (first, Self { rank, since: Nanos::MAX, order: u32::MAX })
    }
}

#[derive(Debug)]
pub(super) struct QueuedRequest {
    pub(super) cost: f64,
    /// When it leaves at the latest.
    pub(super) latest: Nanos,
    /// Whether it has nowhere else to go, so that no time need be kept back to send it there.
    pub(super) is_patient: bool,
    pub(super) asks: Asks,
    pub(super) waker: Option<Waker>,
}

/// When a request has asked the PTU lately in vain, the longest ago first: [`MAX_ASKS`] times in
/// [`ASKS_TIME_NS`] at most, since somebody else may have more luck, or nobody.
///
/// Most requests that wait have not asked yet, and take no room for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asks(Option<Box<[Nanos; MAX_ASKS]>>);

impl Asks {
    pub(super) const NONE: Self = Self(None);

    /// When it may ask again.
    pub(super) fn next_at(&self) -> Nanos {
        self.0.as_ref().map_or(NEVER, |asks| asks[0]).saturating_add(ASKS_TIME_NS)
    }

    pub(super) fn and_at(&self, at: Nanos) -> Self {
        let mut asks = self.0.clone().unwrap_or_else(|| Box::new([NEVER; MAX_ASKS]));
        asks.rotate_left(1);
        asks[MAX_ASKS - 1] = at;
        Self(Some(asks))
    }
}

/// Entering, leaving and finding the head take logarithmic time.
#[derive(Debug, Default)]
pub(super) struct Queue {
    requests: BTreeMap<Place, QueuedRequest>,
    /// The cost that waits in each rank; few ranks are ever used.
    cost: BTreeMap<u8, f64>,
}

impl Queue {
    pub(super) fn insert(&mut self, place: Place, cost: f64, asks: Asks, latest: Nanos) {
        self.add(place, QueuedRequest { cost, latest, is_patient: false, asks, waker: None });
    }

    /// The same for a request that has nowhere else to go.
    pub(super) fn insert_patient(&mut self, place: Place, cost: f64, asks: Asks, latest: Nanos) {
        self.add(place, QueuedRequest { cost, latest, is_patient: true, asks, waker: None });
    }

    fn add(&mut self, place: Place, request: QueuedRequest) {
        *self.cost.entry(place.rank).or_default() += request.cost;
        self.requests.insert(place, request);
    }

    pub(super) fn remove(&mut self, place: Place) -> Option<QueuedRequest> {
        let request = self.requests.remove(&place)?;
        if let Some(cost) = self.cost.get_mut(&place.rank) {
            *cost -= request.cost;
        }
        if self.requests.is_empty() {
            // Sums of floats drift; an empty queue costs nothing.
            self.cost.clear();
        }
        Some(request)
    }

    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut QueuedRequest> {
        self.requests.get_mut(&place)
    }

    pub(super) fn head(&self) -> Option<(Place, &QueuedRequest)> {
        self.requests.first_key_value().map(|(key, request)| (*key, request))
    }

    /// The first request that may ask the PTU now, or else the one that may ask soonest, and when that is.
    pub(super) fn next_to_ask(&self, now: Nanos) -> Option<(Place, Nanos)> {
        let asks = self.requests.iter().map(|(place, request)| (*place, request.asks.next_at()));
        let mut soonest: Option<(Place, Nanos)> = None;
        for (place, at) in asks {
            if at <= now {
                return Some((place, now));
            }
            if soonest.is_none_or(|(_, other)| at < other) {
                soonest = Some((place, at));
            }
        }
        soonest
    }

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The requests that go before a new one of `rank`, the first one first.
    pub(super) fn ahead_of(&self, rank: u8) -> impl Iterator<Item = &QueuedRequest> {
        self.requests.range(..=Place::ends_of(rank).1).map(|(_, request)| request)
    }

    /// The cost that goes before `place`; within its rank only as far as few go before it, or few behind.
    pub(super) fn cost_before(&self, place: Place) -> f64 {
        let Place { rank, .. } = place;
        let urgent: f64 = self.cost.range(..rank).map(|(_, cost)| cost).sum();
        let equal = self.cost.get(&rank).copied().unwrap_or_default();
        let (first, last) = Place::ends_of(rank);
        let mut before = self.requests.range(first..place).map(|(_, request)| request.cost);
        let mut behind = self.requests.range(place..=last).map(|(_, request)| request.cost);
        let (mut cost_before, mut cost_behind) = (0.0, 0.0);
        for _ in 0..MAX_QUEUE_WALKED {
            match (before.next(), behind.next()) {
                (None, _) => return urgent + cost_before,
                (_, None) => return urgent + (equal - cost_behind).max(0.0),
                (Some(before), Some(behind)) => {
                    cost_before += before;
                    cost_behind += behind;
                }
            }
        }
        urgent + equal
    }

    /// All requests, the first one first.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut QueuedRequest> {
        self.requests.values_mut()
    }

    /// The cost that goes before a new request of `rank`.
    pub(super) fn cost_ahead_of(&self, rank: u8) -> f64 {
        self.cost.range(..=rank).map(|(_, cost)| cost).sum()
    }
}

// What halving and doubling these does is in the table of the module `core`.

/// How often a request may ask the PTU, and in what time: as often as twice a second.
pub(super) const MAX_ASKS: usize = 8;
pub(super) const ASKS_TIME_NS: Nanos = 4 * SECOND;
/// The longest queue that is walked through, request by request, to predict a wait.
pub(super) const MAX_QUEUE_WALKED: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(rank: u8, since: Nanos) -> Place {
        Place { rank, since, order: 0 }
    }

    #[test]
    fn urgent_ranks_go_first_and_equals_in_order() {
        let mut queue = Queue::default();
        for (rank, since) in [(1, 0), (0, 3), (1, 1), (0, 2)] {
            queue.insert(place(rank, since), 1.0, Asks::NONE, 0);
        }
        let mut order = Vec::new();
        while let Some((head, _)) = queue.head() {
            order.push(head.since);
            queue.remove(head);
        }
        assert_eq!(order, [2, 3, 0, 1]);
    }

    #[test]
    fn a_newcomer_has_its_own_rank_and_the_more_urgent_ones_ahead() {
        let mut queue = Queue::default();
        queue.insert(place(0, 0), 5.0, Asks::NONE, 0);
        queue.insert(place(1, 1), 7.0, Asks::NONE, 0);
        assert_eq!((queue.cost_ahead_of(0), queue.cost_ahead_of(1)), (5.0, 12.0));
        queue.remove(place(0, 0));
        assert_eq!(queue.cost_ahead_of(1), 7.0);
        assert!(queue.remove(place(0, 0)).is_none(), "a place is left once");
    }

    #[test]
    fn a_request_asks_eight_times_in_four_seconds_at_most() {
        let ask = |mut asks: Asks, from: Nanos, to: Nanos| {
            let mut times = Vec::new();
            for now in (from..to).step_by(SECOND as usize / 100) {
                if asks.next_at() <= now {
                    asks = asks.and_at(now);
                    times.push(now);
                }
            }
            times
        };
        assert_eq!(ask(Asks::NONE, 0, 20 * SECOND).len(), 40);
        let mut times = ask(Asks::NONE.and_at(0), 39 * SECOND / 10, 9 * SECOND);
        times.insert(0, 0);
        let is_within = |from: Nanos, at: Nanos| (from..from + 4 * SECOND).contains(&at);
        let within = |from| times.iter().filter(|at| is_within(from, **at)).count();
        assert!(times.iter().all(|&from| within(from) <= 8), "{times:?}");
    }

    #[test]
    fn the_next_in_line_asks_while_the_first_may_not() {
        let mut queue = Queue::default();
        let often = (0..8).fold(Asks::NONE, |asks, _| asks.and_at(0));
        queue.insert(place(0, 0), 1.0, often, 0);
        assert_eq!(queue.next_to_ask(0), Some((place(0, 0), 4 * SECOND)));
        queue.insert(place(0, 1), 1.0, Asks::NONE, 0);
        assert_eq!(queue.next_to_ask(0), Some((place(0, 1), 0)));
        assert_eq!(queue.next_to_ask(4 * SECOND), Some((place(0, 0), 4 * SECOND)), "it may again");
    }

    #[test]
    fn in_the_middle_of_a_long_queue_all_of_its_rank_goes_before_a_place() {
        let mut queue = Queue::default();
        (0..1_000).for_each(|since| queue.insert(place(1, since), 1.0, Asks::NONE, 0));
        queue.insert(place(0, 0), 5.0, Asks::NONE, 0);
        assert_eq!(queue.cost_before(place(1, 20)), 25.0);
        assert_eq!(queue.cost_before(place(1, 980)), 985.0);
        assert_eq!(queue.cost_before(place(1, 500)), 1_005.0, "nobody counts them");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

        #[test]
        fn it_is_what_a_sorted_list_is(
            steps in prop::collection::vec((253..=u8::MAX, 0_i64..6, 0_u32..100), 0..30),
        ) {
            let (mut queue, mut list) = (Queue::default(), Vec::<(Place, f64)>::new());
            for (rank, since, cost) in steps {
                let (key, cost) = (place(rank, since), f64::from(cost));
                let known = list.iter().position(|&(other, _)| other == key);
                prop_assert_eq!(queue.get_mut(key).is_some(), known.is_some());
                match known {
                    Some(index) => {
                        let left = queue.remove(key).map(|request| request.cost);
                        prop_assert_eq!(left, Some(list.remove(index).1));
                    }
                    None => {
                        queue.insert(key, cost, Asks::NONE, 0);
                        list.push((key, cost));
                    }
                }
                list.sort_by_key(|&(key, _)| (key.rank, key.since));
                let head = queue.head().map(|(key, request)| (key, request.cost));
                prop_assert_eq!(head, list.first().copied());
                prop_assert_eq!((queue.len(), queue.is_empty()), (list.len(), list.is_empty()));
                for rank in 252..=u8::MAX {
                    let ahead = list.iter().filter(|(key, _)| key.rank <= rank);
                    let ahead: Vec<f64> = ahead.map(|&(_, cost)| cost).collect();
                    prop_assert_eq!(queue.cost_ahead_of(rank), ahead.iter().sum::<f64>());
                    let middle = place(rank, 3);
                    let before = list.iter().filter(|&&(key, _)| key < middle);
                    let before = before.map(|&(_, cost)| cost).sum::<f64>();
                    prop_assert_eq!(queue.cost_before(middle), before);
                    let before: Vec<f64> = queue.ahead_of(rank).map(|other| other.cost).collect();
                    prop_assert_eq!(before, ahead);
                }
            }
        }
    }
}
