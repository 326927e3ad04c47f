//! The queue of requests for a PTU: urgent ranks first, first in, first out within a rank.

use std::{collections::BTreeMap, task::Waker};

use super::time::{NEVER, Nanos, SECOND};

/// A position in the queue: urgent ranks first, then by arrival. A refused request keeps it while it
/// waits again, so that no later one overtakes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueueKey {
    pub(super) rank: u8,
    /// When the request arrived.
    pub(super) since: Nanos,
    /// Distinguishes requests that arrived at the same time.
    pub(super) order: u32,
}

impl QueueKey {
    /// The first and the last position of `rank`.
    const fn ends_of(rank: u8) -> (Self, Self) {
        let first = Self { rank, since: Nanos::MIN, order: 0 };
        (first, Self { rank, since: Nanos::MAX, order: u32::MAX })
    }
}

#[derive(Debug)]
pub(super) struct QueuedRequest {
    pub(super) cost: f64,
    /// The latest time at which it leaves the queue.
    pub(super) latest: Nanos,
    /// Whether it has nowhere else to go, so that no time is reserved for a spill.
    pub(super) is_patient: bool,
    pub(super) asks: Asks,
    pub(super) waker: Option<Waker>,
}

/// When a request made its recent unsuccessful attempts, oldest first: at most
/// [`MAX_ASKS_PER_WINDOW_PER_WINDOW`] within [`ASK_WINDOW_NS`], so that a request that keeps being refused lets
/// others try.
///
/// Not allocated for requests that have made no attempt yet, which are most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asks(Option<Box<[Nanos; MAX_ASKS_PER_WINDOW]>>);

impl Asks {
    pub(super) const NONE: Self = Self(None);

    /// When it may make another attempt.
    pub(super) fn next_at(&self) -> Nanos {
        self.0.as_ref().map_or(NEVER, |asks| asks[0]).saturating_add(ASK_WINDOW_NS)
    }

    pub(super) fn and_at(&self, at: Nanos) -> Self {
        let mut asks = self.0.clone().unwrap_or_else(|| Box::new([NEVER; MAX_ASKS_PER_WINDOW]));
        asks.rotate_left(1);
        asks[MAX_ASKS_PER_WINDOW - 1] = at;
        Self(Some(asks))
    }
}

/// Waiting requests. Insertion, removal and finding the head take logarithmic time.
#[derive(Debug, Default)]
pub(super) struct Queue {
    requests: BTreeMap<QueueKey, QueuedRequest>,
    /// The total cost waiting in each rank; few ranks are ever used.
    cost: BTreeMap<u8, f64>,
}

impl Queue {
    pub(super) fn insert(&mut self, place: QueueKey, cost: f64, asks: Asks, latest: Nanos) {
        self.add(place, QueuedRequest { cost, latest, is_patient: false, asks, waker: None });
    }

    /// Like [`insert`](Self::insert), for a request that has nowhere else to go.
    pub(super) fn insert_patient(&mut self, place: QueueKey, cost: f64, asks: Asks, latest: Nanos) {
        self.add(place, QueuedRequest { cost, latest, is_patient: true, asks, waker: None });
    }

    fn add(&mut self, place: QueueKey, request: QueuedRequest) {
        *self.cost.entry(place.rank).or_default() += request.cost;
        self.requests.insert(place, request);
    }

    pub(super) fn remove(&mut self, place: QueueKey) -> Option<QueuedRequest> {
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

    pub(super) fn get_mut(&mut self, place: QueueKey) -> Option<&mut QueuedRequest> {
        self.requests.get_mut(&place)
    }

    pub(super) fn head(&self) -> Option<(QueueKey, &QueuedRequest)> {
        self.requests.first_key_value().map(|(key, request)| (*key, request))
    }

    /// The first request that may make an attempt now, or else the earliest to be allowed one, and
    /// when.
    pub(super) fn next_to_ask(&self, now: Nanos) -> Option<(QueueKey, Nanos)> {
        let asks = self.requests.iter().map(|(place, request)| (*place, request.asks.next_at()));
        let mut soonest: Option<(QueueKey, Nanos)> = None;
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

    /// The requests ahead of a new one of `rank`, in order.
    pub(super) fn ahead_of(&self, rank: u8) -> impl Iterator<Item = &QueuedRequest> {
        self.requests.range(..=QueueKey::ends_of(rank).1).map(|(_, request)| request)
    }

    /// The cost ahead of `place`. Exact within its rank only if few requests are before it, or few
    /// behind; otherwise all of the rank counts.
    pub(super) fn cost_before(&self, place: QueueKey) -> f64 {
        let QueueKey { rank, .. } = place;
        let urgent: f64 = self.cost.range(..rank).map(|(_, cost)| cost).sum();
        let equal = self.cost.get(&rank).copied().unwrap_or_default();
        let (first, last) = QueueKey::ends_of(rank);
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

    /// All requests, in order.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut QueuedRequest> {
        self.requests.values_mut()
    }

    /// The cost ahead of a new request of `rank`.
    pub(super) fn cost_ahead_of(&self, rank: u8) -> f64 {
        self.cost.range(..=rank).map(|(_, cost)| cost).sum()
    }
}

// The table in `core/mod.rs` shows the effect of halving and doubling these.

/// How many attempts a request may make, and in what time: on average two per second.
pub(super) const MAX_ASKS_PER_WINDOW: usize = 8;
pub(super) const ASK_WINDOW_NS: Nanos = 4 * SECOND;
/// The longest queue that is walked request by request to predict a wait.
pub(super) const MAX_QUEUE_WALKED: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(rank: u8, since: Nanos) -> QueueKey {
        QueueKey { rank, since, order: 0 }
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
        assert_eq!(queue.cost_before(place(1, 500)), 1_005.0, "too deep in the queue to count");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

        #[test]
        fn it_is_what_a_sorted_list_is(
            steps in prop::collection::vec((253..=u8::MAX, 0_i64..6, 0_u32..100), 0..30),
        ) {
            let (mut queue, mut list) = (Queue::default(), Vec::<(QueueKey, f64)>::new());
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
