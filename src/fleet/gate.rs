//! The gate of a PTU in a store: calls, replies, and the core that turns one into the other.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use super::core::{Answer, Core, Reply, Seed, Step, Ticket};

/// What a process reports to the gate of its fleet, and asks there. Applied by [`SharedGate::apply`].
#[derive(Clone, Debug, PartialEq)]
pub struct GateCall {
    /// How long a queue may stand, in microseconds; zero never cuts it.
    pub(crate) interval: f64,
    pub(crate) seed: Seed,
    pub(crate) steps: Vec<Step>,
}

/// The answer to a [`GateCall`].
#[derive(Clone, Debug, PartialEq)]
pub struct GateReply(pub(crate) Reply);

/// The gate of one PTU, shared by the processes of a fleet: its model of the PTU, and the queue.
///
/// A [`Store`](super::Store) keeps one for each [`Name`](super::Name) and applies all calls to it, one
/// after the other.
#[derive(Clone, Debug, Default)]
pub struct SharedGate(Core);

impl SharedGate {
    /// A gate without knowledge. The first call carries what its process knows.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of requests in its queue.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.0.waiting()
    }

    /// Applies `call` at `now`, the time since any fixed instant by the clock of the store.
    pub fn apply(&mut self, now: Duration, call: &GateCall) -> GateReply {
        let now = now.as_micros() as f64;
        GateReply(self.0.call(now, call.interval, &call.seed, &call.steps))
    }
}

impl GateCall {
    /// The call that takes back what `reply` granted, for a store that cannot deliver the reply:
    /// permissions are returned, and requests leave the queue. `None` if there is nothing to take
    /// back.
    pub fn undo(&self, reply: &GateReply) -> Option<Self> {
        let asking = self.steps.iter().filter_map(|step| match *step {
            Step::Enter { newcomer: it, .. } => {
                Some(Ticket { rank: it.rank, order: 0.0, cost: it.cost, is_patient: it.is_patient })
            }
            Step::Turn { ticket, .. } => Some(ticket),
            Step::Refused { refusal, .. } => Some(refusal.ticket),
            _ => None,
        });
        let undo = |(ticket, answer): (Ticket, &Answer)| match *answer {
            Answer::Go { grant, .. } => {
                grant.attempt.map(|attempt| Step::Gone { at: attempt.at, cost: ticket.cost })
            }
            Answer::Wait { order, .. } => Some(Step::Leave { ticket: Ticket { order, ..ticket } }),
            Answer::Spill { .. } => None,
        };
        let steps: Vec<Step> = asking.zip(&reply.0.answers).filter_map(undo).collect();
        (!steps.is_empty()).then_some(Self { steps, ..*self })
    }
}

#[cfg(feature = "redis")]
impl GateCall {
    /// The arguments of the script, which publishes news on `channel`.
    pub(crate) fn arguments(&self, channel: &str) -> Vec<String> {
        let mut arguments = vec![String::new(), channel.to_owned(), self.interval.to_string()];
        arguments.extend([self.seed.closed.to_string(), self.seed.rate.to_string()]);
        for step in &self.steps {
            step.write_to(&mut arguments);
        }
        arguments
    }
}

#[cfg(feature = "redis")]
impl GateReply {
    /// The script's reply, or `None` if it makes no sense.
    pub(crate) fn read(numbers: &[i64]) -> Option<Self> {
        Reply::read(numbers).map(Self)
    }

    /// The longest time that a process takes from it.
    #[cfg(fuzzing)]
    pub(crate) fn longest_time(&self) -> Duration {
        let of_answers = self.0.answers.iter().map(|answer| match *answer {
            Answer::Go { after, .. } => after,
            Answer::Wait { after, predicted, .. } => after.max(predicted),
            Answer::Spill { wait, allowed, .. } => wait.max(allowed),
        });
        let longest = of_answers.chain(self.0.closed).chain(self.0.busy).fold(0.0, f64::max);
        duration(longest)
    }
}

impl GateReply {
    /// For how long every process of the fleet is to ask the store before it calls the PTU, if they
    /// are to be notified. The store then calls [`GateNews::busy_for`] of each.
    pub fn busy_for(&self) -> Option<Duration> {
        self.0.busy.map(duration)
    }
}

/// Tells the gate of one process that its PTU is busy.
#[derive(Clone)]
pub struct GateNews(Weak<dyn OnBusy>);

/// Hears that its PTU is busy.
pub(crate) trait OnBusy: Send + Sync {
    fn busy_for(&self, time: Duration);
}

impl GateNews {
    pub(crate) fn new(gate: &Arc<impl OnBusy + 'static>) -> Self {
        let gate: Weak<dyn OnBusy> = Arc::downgrade(gate) as _;
        Self(gate)
    }

    /// For this long, the process asks the store before it calls the PTU.
    pub fn busy_for(&self, time: Duration) {
        if let Some(gate) = self.0.upgrade() {
            gate.busy_for(time);
        }
    }

    /// Whether the gate still exists. If not, the store can forget it.
    pub fn is_heard(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl fmt::Debug for GateNews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GateNews").finish_non_exhaustive()
    }
}

/// Whatever a store answers, no duration is negative or longer than a day.
pub(crate) fn duration(micros: f64) -> Duration {
    Duration::from_micros(micros.clamp(0.0, MAX_MICROS) as u64)
}

const MAX_MICROS: f64 = 86_400e6;
