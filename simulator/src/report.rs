//! The outcome of a run: shares, latencies, and a course over time.

use std::time::Duration;

use serde_json::{Value, json};

use super::Policy;

/// What one policy made of a load.
///
/// Shares are fractions of one. A latency is the time that was added: from a request's arrival
/// until the attempt that is accepted reaches its server.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SimReport {
    /// The policy.
    pub policy: Policy,
    /// The longest that a request was to wait for the PTU.
    pub max_wait: Duration,
    /// Requests that arrived.
    pub requests: usize,
    /// The PTU's share of time spent on tokens: what it served, over its drain.
    pub utilisation: f64,
    /// The share of requests that Standard served.
    pub spilled_requests: f64,
    /// The share of weighted tokens that Standard served: what is paid on top of the PTU.
    pub spilled_tokens: f64,
    /// The share of weighted tokens that the PTU did not serve: what was spilled, and what nobody
    /// served.
    pub beside_ptu: f64,
    /// Attempts at any server for each request served.
    pub attempts_per_success: f64,
    /// Latency added to the requests served.
    pub added: Added,
    /// The median latency added to those that Standard served, in milliseconds, if there are any.
    pub spilled_added_p50_ms: Option<f64>,
    /// The share of the PTU's admissions that overtook an older request of the same process, one
    /// that was waiting meanwhile.
    pub overtakes: f64,
    /// The share of requests whose caller got a 429 or, where the connection failed or the process
    /// crashed, nothing.
    pub refused: f64,
    /// The share of requests whose caller got a 429 while a Standard deployment had quota left, and
    /// had it for longer than the 60 ms in which nobody can have learnt of it.
    pub refused_needlessly: f64,
    /// How much later than `max_wait` after its arrival the last attempt of a request left, in
    /// milliseconds: the largest of all, negative when all were earlier.
    pub last_dispatch_over_ms: f64,
    /// The longest that the PTU stood open, below 100 % of its level, while anybody waited for it:
    /// one who had arrived, had no attempt under way and no answer yet. `None` for an oracle.
    pub longest_open: Option<Open>,
    /// Attempts at the PTU, at most, that were made for one request in any four seconds.
    pub most_asks: u32,
    /// What the outages were like, in their order.
    pub outages: Vec<OutageReport>,
    /// What became of each class, in their order.
    pub classes: Vec<ClassReport>,
    /// Weighted tokens a minute that Standard served.
    pub spilled_tokens_a_minute: f64,
    /// Ten seconds at a time.
    pub slots: Vec<Slot>,
    /// Each request, by arrival.
    pub fates: Vec<RequestReport>,
}

/// How long the PTU stood open while somebody waited for it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Open {
    /// The longest, in milliseconds.
    pub longest_ms: f64,
    /// When it began, in seconds from the beginning of the run, warming up included.
    pub began: f64,
    /// How long it may be: 500 ms or, where a round trip takes more than 200 ms, 2.5 round trips.
    pub limit_ms: f64,
    /// How many times it was longer.
    pub violations: usize,
}

/// What became of the requests of one class.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ClassReport {
    /// Its name.
    pub name: &'static str,
    /// Requests that arrived.
    pub requests: usize,
    /// The share of their weighted tokens that Standard served.
    pub spilled_tokens: f64,
    /// The share of requests whose caller got no answer.
    pub refused: f64,
    /// Latency added to the requests served.
    pub added: Added,
}

/// What an outage of the PTU was like for callers.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct OutageReport {
    /// The 95th percentile of the latency added to those who arrived in it later than `max_wait`
    /// after its beginning, in milliseconds.
    pub added_p95_ms: f64,
    /// How long after its end an attempt reached the PTU again, in milliseconds, if one did.
    pub noticed_after_ms: Option<f64>,
}

/// Latency added, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Added {
    /// The median.
    pub p50: f64,
    /// The 95th percentile.
    pub p95: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The mean.
    pub mean: f64,
}

/// Ten seconds of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Slot {
    /// Seconds from the beginning of measuring to the beginning of the slot.
    pub at: f64,
    /// Requests that have arrived and are accepted by no server yet, at the mean.
    pub queue: f64,
    /// The level of the PTU's bucket at the mean, as a share of its capacity.
    pub level: f64,
    /// Requests of this slot that Standard served.
    pub spilled: usize,
    /// Requests of this slot.
    pub arrived: usize,
    /// The mean latency added to the requests of this slot, in milliseconds.
    pub added: f64,
    /// The largest of them.
    pub worst: f64,
}

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RequestReport {
    /// When it arrived, from the beginning of measuring.
    pub arrived: Duration,
    /// The process it arrived at.
    pub process: usize,
    /// Attempts made, at any server.
    pub attempts: u32,
    /// From its arrival until its last attempt left.
    pub last_dispatch: Duration,
    /// Who served it.
    pub fate: Fate,
}

/// Who served a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// This server, so long after the arrival.
    Served(Server, Duration),
    /// Nobody: the caller got a 429.
    Refused,
}

/// A server of the simulated deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// The PTU.
    Ptu,
    /// A Standard deployment: 0 beside the PTU, 1 and 2 in other regions.
    Standard(usize),
}

impl SimReport {
    /// The figures as an object: shares as fractions, latencies in milliseconds.
    pub fn to_json(&self) -> Value {
        json!({
            "policy": self.policy.name(),
            "requests": self.requests,
            "utilisation": self.utilisation,
            "spilled_requests": self.spilled_requests,
            "spilled_tokens": self.spilled_tokens,
            "attempts_per_success": self.attempts_per_success,
            "beside_ptu": self.beside_ptu,
            "spilled_tokens_a_minute": self.spilled_tokens_a_minute.round(),
            "added_ms": self.added.to_json(),
            "spilled_added_p50_ms": self.spilled_added_p50_ms.map(micros),
            "overtakes": self.overtakes,
            "refused": self.refused,
            "last_dispatch_over_ms": micros(self.last_dispatch_over_ms),
            "most_asks_in_4_s": self.most_asks,
            "longest_open_ms": self.longest_open.map(|open| micros(open.longest_ms)),
            "open_violations": self.longest_open.map(|open| open.violations),
            "classes": self.classes.iter().copied().map(ClassReport::to_json).collect::<Vec<_>>(),
            "outages": self.outages.iter().copied().map(OutageReport::to_json).collect::<Vec<_>>(),
        })
    }
}

impl Added {
    /// Of the four figures.
    fn to_json(self) -> Value {
        // A tail of digits below the microsecond says nothing.
        let [p50, p95, p99, mean] = [self.p50, self.p95, self.p99, self.mean].map(micros);
        json!({"p50": p50, "p95": p95, "p99": p99, "mean": mean})
    }
}

impl ClassReport {
    fn to_json(self) -> Value {
        json!({
            "name": self.name,
            "requests": self.requests,
            "spilled_tokens": self.spilled_tokens,
            "refused": self.refused,
            "added_ms": self.added.to_json(),
        })
    }
}

impl OutageReport {
    fn to_json(self) -> Value {
        json!({
            "added_p95_ms": micros(self.added_p95_ms),
            "noticed_after_ms": self.noticed_after_ms.map(micros),
        })
    }
}

/// Milliseconds, rounded to whole microseconds.
fn micros(millis: f64) -> f64 {
    (millis * 1e3).round() / 1e3
}
