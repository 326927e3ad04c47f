//! Every event at a gate, and what follows from them.

use crate::gate::core::{
    Nanos, QueueKey,
    arrivals::ARRIVAL_WINDOW_S,
    bucket::MAX_MODELLED_SPARE_NS,
    queue::{ASK_WINDOW_NS, MAX_ASKS_PER_WINDOW},
    time::{NEVER, from_seconds, seconds},
};

#[derive(Default)]
pub(super) struct History(pub(super) Vec<Event>);

/// An attempt, as an index into the history.
pub(super) type Attempt = usize;

/// An event. A `rate` is the one known at that time, if any.
pub(super) enum Event {
    Arrived {
        at: Nanos,
        rank: u8,
        cost: f64,
    },
    /// A request returns to its old position.
    CameBack {
        place: QueueKey,
    },
    Sent(Sent),
    /// The outcome of the attempt of this instant is known, and was not a refusal.
    Known {
        sent_at: Nanos,
    },
    /// An attempt was admitted, with its arrival time.
    Admitted {
        sent_at: Nanos,
        arrived: Nanos,
    },
    /// An attempt was refused or cancelled; no `rate` if the level does not include it.
    Gone {
        attempt: Attempt,
        rate: Option<f64>,
    },
    Ended {
        attempt: Attempt,
        actual: f64,
        rate: Option<f64>,
    },
    Refused(Refused),
    Idle,
}

#[derive(Clone, Copy)]
pub(super) struct Sent {
    pub(super) place: QueueKey,
    pub(super) cost: f64,
    /// The share of its cost that postpones the next attempt.
    pub(super) share: f64,
    pub(super) at: Nanos,
    pub(super) rate: Option<f64>,
    pub(super) why: SentBecause,
}

#[derive(Clone, Copy)]
pub(super) struct Refused {
    pub(super) attempt: Attempt,
    /// When the refusal became known here.
    pub(super) at: Nanos,
    pub(super) decided: Nanos,
    /// Until when the PTU refuses by its hint, if that was believed.
    pub(super) closed_until: Nanos,
    pub(super) error: Option<f64>,
    /// How long a request takes to drain, in seconds.
    pub(super) fill: f64,
    /// When the next attempt can be admitted.
    pub(super) reopens: Nanos,
    /// Whether its hint was believed.
    pub(super) is_hinted: bool,
    /// Whether the attempt was made while the PTU was known to be closed.
    pub(super) was_expected: bool,
}

/// Why an attempt was made.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum SentBecause {
    /// Nothing was known of the PTU.
    Unasked,
    /// It was its turn by the model, or it is the first one without a model.
    Turn,
    /// The previous attempt was silent, without a model.
    Another,
    /// The model has its turn later, and is to be checked.
    Early,
    /// Silence shows that the level is below the limit, as of when this attempt `arrives`.
    Silence { arrives: Nanos },
}

impl History {
    /// When the level falls below the limit, given the last refusal and everything after it.
    pub(super) fn below_limit_at(&self) -> Option<Nanos> {
        let start = self.0.iter().rposition(|it| matches!(it, Event::Refused(_) | Event::Idle))?;
        let Event::Refused(Refused { reopens, .. }) = self.0[start] else { return None };
        let mut below_at = reopens;
        for event in &self.0[start + 1..] {
            match event {
                Event::Sent(sent) if sent.is_modelled() => {
                    if let SentBecause::Silence { arrives } = sent.why {
                        below_at = below_at.min(arrives);
                    }
                    below_at = below_at
                        .max(sent.at - MAX_MODELLED_SPARE_NS)
                        .saturating_add(drain_time(sent.share * sent.cost, sent.rate));
                }
                other => below_at = below_at.saturating_add(self.correction(other)),
            }
        }
        Some(below_at)
    }

    /// Until when the PTU refuses by its last refusal, less what answers gave back since, unless it has
    /// admitted something.
    pub(super) fn closed_until(&self) -> Nanos {
        let (last, since) = self.since_refusal();
        let Some(last) = last else { return NEVER };
        since.iter().fold(last.closed_until, |until, event| match *event {
            Event::Admitted { sent_at, arrived } if sent_at >= last.at => until.min(arrived),
            Event::Ended { .. } => {
                until.saturating_sub(self.correction(event).min(0).saturating_neg())
            }
            _ => until,
        })
    }

    /// The last refusal, and the events after it.
    pub(super) fn since_refusal(&self) -> (Option<Refused>, &[Event]) {
        let last = self.0.iter().rposition(|event| matches!(event, Event::Refused(_)));
        match last.map(|last| (&self.0[last], &self.0[last + 1..])) {
            Some((Event::Refused(refused), since)) => (Some(*refused), since),
            _ => (None, &self.0),
        }
    }

    /// Total cost sent and neither refused nor cancelled, with actual costs where they are known.
    pub(super) fn admitted(&self) -> f64 {
        self.0.iter().fold(0.0, |sum, event| match *event {
            Event::Sent(sent) if sent.is_modelled() => sum + sent.cost,
            Event::Gone { attempt, .. } => sum - self.sent(attempt).cost,
            Event::Ended { attempt, actual, .. } => sum + (actual - self.sent(attempt).cost),
            _ => sum,
        })
    }

    /// The cost that was sent after `attempt`.
    pub(super) fn later(&self, attempt: Attempt) -> f64 {
        self.0[attempt + 1..].iter().fold(0.0, |sum, event| match event {
            Event::Sent(sent) if sent.is_modelled() => sum + sent.cost,
            _ => sum,
        })
    }

    /// The cost per second more urgent than `rank`, as remembered at `now`.
    pub(super) fn urgent(&self, now: Nanos, rank: u8) -> f64 {
        let remembered = |time: Nanos| (-seconds(time).max(0.0) / ARRIVAL_WINDOW_S).exp();
        let mut ranks = Vec::new();
        for event in &self.0 {
            match event {
                Event::Arrived { rank: urgent, .. }
                    if *urgent < rank && !ranks.contains(urgent) =>
                {
                    ranks.push(*urgent);
                }
                _ => {}
            }
        }
        let of_rank = |urgent: u8| {
            let (sum, at) = self.0.iter().fold((0.0, now), |(sum, last), event| match *event {
                Event::Arrived { at, rank, cost } if rank == urgent => {
                    (sum * remembered(at - last) + cost / ARRIVAL_WINDOW_S, at)
                }
                _ => (sum, last),
            });
            sum * remembered(now - at)
        };
        ranks.into_iter().map(of_rank).sum()
    }

    /// When the request at `place` made attempts since it arrived or returned, leaving out those that
    /// were expected to be refused.
    pub(super) fn asks(&self, place: QueueKey) -> Vec<Nanos> {
        let mut asks = Vec::new();
        let mut expected = Vec::new();
        for (index, event) in self.0.iter().enumerate().rev() {
            match event {
                Event::CameBack { place: back } if *back == place => break,
                Event::Refused(refused) if refused.was_expected => expected.push(refused.attempt),
                Event::Sent(sent) if sent.place == place && !expected.contains(&index) => {
                    asks.push(sent.at);
                }
                _ => {}
            }
        }
        asks.reverse();
        asks
    }

    /// When the request at `place` may make another attempt.
    pub(super) fn may_ask_at(&self, place: QueueKey) -> Nanos {
        let asks = self.asks(place);
        let eighth_last = asks.len().checked_sub(MAX_ASKS_PER_WINDOW).map(|index| asks[index]);
        eighth_last.map_or(NEVER, |at| at + ASK_WINDOW_NS)
    }

    /// The cost of attempts that have not been refused or cancelled and have not ended.
    pub(super) fn in_flight(&self) -> f64 {
        self.0.iter().fold(0.0, |sum, event| match *event {
            Event::Sent(sent) if sent.is_modelled() => sum + sent.cost,
            Event::Gone { attempt, .. } | Event::Ended { attempt, .. } => {
                sum - self.sent(attempt).cost
            }
            _ => sum,
        })
    }

    pub(super) fn sent(&self, attempt: Attempt) -> Sent {
        match self.0[attempt] {
            Event::Sent(sent) => sent,
            _ => unreachable!("an attempt was sent"),
        }
    }

    /// How far the event moves the level, in time to drain it.
    fn correction(&self, event: &Event) -> Nanos {
        match *event {
            Event::Gone { attempt, rate } => {
                let Sent { cost, share, .. } = self.sent(attempt);
                drain_time(-(share * cost), rate)
            }
            Event::Ended { attempt, actual, rate } => {
                let Sent { cost, share, .. } = self.sent(attempt);
                drain_time(share * (actual - cost), rate)
            }
            _ => 0,
        }
    }
}

impl Sent {
    pub(super) const fn is_modelled(&self) -> bool {
        !matches!(self.why, SentBecause::Unasked)
    }
}

pub(super) fn drain_time(cost: f64, rate: Option<f64>) -> Nanos {
    rate.map_or(0, |rate| from_seconds(cost / rate))
}
