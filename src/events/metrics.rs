//! Events as metrics of the `metrics` facade.

use std::{
    array, fmt, ptr,
    sync::{Arc, OnceLock},
};

use metrics::{
    Counter, SharedString, Unit, counter, describe_counter, describe_histogram, histogram,
};

use super::{Event, EventSink, Source};
use crate::served::{Attempt, Served};

/// Counts the events of layers with the `metrics` crate. `docs/events.md` lists the names and labels.
///
/// No label comes from a request: `backend` is the name of a pool's backend or of a tier, the others
/// are closed sets.
///
/// Install the recorder first: a counter is registered when it first counts, and then cached.
///
/// Needs the feature `metrics`.
#[derive(Default)]
pub struct MetricsSink {
    /// By the kind of layer, and the decision on a request.
    requests: [[OnceLock<Counter>; DECISIONS.len()]; SOURCES],
    attempts: Attempts,
}

impl MetricsSink {
    /// A sink that describes its metrics to the recorder.
    pub fn new() -> Self {
        describe_counter!(REQUESTS, Unit::Count, "Requests, by what became of them");
        describe_counter!(ATTEMPTS, Unit::Count, "Attempts, by backend and outcome");
        describe_counter!(DECISIONS_TOTAL, Unit::Count, "Waits, spills and refusals, by why");
        describe_counter!(SENT_TWICE, Unit::Count, "Requests whose first token was late");
        describe_histogram!(WAITED, Unit::Seconds, "Time that requests waited which did");
        describe_histogram!(COOLDOWN, Unit::Seconds, "How long backends were left alone");
        Self::default()
    }

    fn finished(&self, source: Source, decision: Decision, served: &Served) {
        let requests = &self.requests[source as usize][decision as usize];
        let find = || {
            let decision = DECISIONS[decision as usize];
            counter!(REQUESTS, "layer" => source.label(), "decision" => decision)
        };
        requests.get_or_init(find).increment(1);
        if !served.waited().is_zero() {
            let seconds = served.waited().as_secs_f64();
            histogram!(WAITED, "layer" => source.label()).record(seconds);
        }
    }
}

impl EventSink for MetricsSink {
    fn on_event(&self, source: Source, event: &Event<'_>) {
        let decided = |event: &'static str, why: &'static str| {
            let layer = source.label();
            counter!(DECISIONS_TOTAL, "layer" => layer, "event" => event, "why" => why)
                .increment(1);
        };
        match event {
            Event::Attempted(attempt) => self.attempts.counter(source, attempt).increment(1),
            Event::Closed { backend, time } => {
                let backend = (*backend).to_owned();
                histogram!(COOLDOWN, "backend" => backend).record(time.as_secs_f64());
            }
            Event::Waits(why) => decided("waits", why.label()),
            Event::Spills(why) => decided("spills", why.map_or("unknown", |why| why.label())),
            Event::SentTwice => counter!(SENT_TWICE).increment(1),
            Event::Finished { served, status } => {
                let decision = match (served.why_refused(), status) {
                    (_, None) => Decision::Error,
                    (Some(why), _) => {
                        decided("refused", why.label());
                        Decision::Refused
                    }
                    (None, _) if served.spilled() => Decision::Spilled,
                    (None, _) => Decision::Served,
                };
                self.finished(source, decision, served);
            }
            Event::Cancelled { served } => self.finished(source, Decision::Cancelled, served),
        }
    }
}

#[derive(Clone, Copy)]
enum Decision {
    Served,
    Spilled,
    Refused,
    Error,
    Cancelled,
}

/// The counters of attempts. Found without a lock, and never removed, since there are few backends.
struct Attempts([OnceLock<Box<Node>>; BUCKETS]);

struct Node {
    source: Source,
    backend: Arc<str>,
    outcome: &'static str,
    counter: Counter,
    next: OnceLock<Box<Self>>,
}

impl Attempts {
    fn counter(&self, source: Source, attempt: &Attempt) -> &Counter {
        let (backend, outcome) = (attempt.shared_name(), attempt.why());
        let outcome = outcome.map_or("answered", |why| why.label());
        let mut slot = &self.0[bucket(backend)];
        loop {
            let node = slot.get_or_init(|| Box::new(Node::new(source, backend, outcome)));
            // Equal labels are usually the same string; if not, this is a second counter of that name.
            let is_it = node.source == source
                && ptr::eq(node.outcome, outcome)
                && (Arc::ptr_eq(&node.backend, backend) || *node.backend == **backend);
            if is_it {
                return &node.counter;
            }
            slot = &node.next;
        }
    }
}

/// The bucket of a backend's counters. Names mostly differ in length and at their ends.
fn bucket(name: &str) -> usize {
    let byte = |byte: Option<&u8>| byte.map_or(0, |byte| usize::from(*byte));
    let bytes = name.as_bytes();
    (bytes.len() * 31 + byte(bytes.first()) * 7 + byte(bytes.last())) % BUCKETS
}

impl Node {
    fn new(source: Source, backend: &Arc<str>, outcome: &'static str) -> Self {
        let name = SharedString::from_shared(Arc::clone(backend));
        let layer = source.label();
        let counter = counter!(ATTEMPTS, "layer" => layer, "backend" => name, "outcome" => outcome);
        Self { source, backend: Arc::clone(backend), outcome, counter, next: OnceLock::new() }
    }
}

impl Default for Attempts {
    fn default() -> Self {
        Self(array::from_fn(|_| OnceLock::new()))
    }
}

impl fmt::Debug for MetricsSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsSink").finish_non_exhaustive()
    }
}

const REQUESTS: &str = "tower_spillover_requests_total";
const ATTEMPTS: &str = "tower_spillover_attempts_total";
const DECISIONS_TOTAL: &str = "tower_spillover_decisions_total";
const SENT_TWICE: &str = "tower_spillover_sent_twice_total";
const WAITED: &str = "tower_spillover_waited_seconds";
const COOLDOWN: &str = "tower_spillover_cooldown_seconds";

/// The labels of [`Decision`], in its order.
const DECISIONS: [&str; 5] = ["served", "spilled", "refused", "error", "cancelled"];
/// The number of kinds of layers.
const SOURCES: usize = 4;
const BUCKETS: usize = 64;
