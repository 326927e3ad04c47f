//! The results of a run: shares, latencies, and figures over time.

use std::time::Duration;

use serde_json::{Value, json};

use super::Policy;

/// How one policy did under one load.
///
/// Shares are fractions of one. A latency is the added time: from a request's arrival until the
/// accepted attempt reaches its server.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SimReport {
    /// The policy.
    pub policy: Policy,
    /// The wait limit of a request for the PTU.
    pub max_wait: Duration,
    /// Requests that arrived.
    pub requests: usize,
    /// The weighted tokens that the PTU served, over what it could drain.
    pub utilisation: f64,
    /// The share of requests that Standard served.
    pub spilled_requests: f64,
    /// The share of weighted tokens that Standard served, which are paid on top of the PTU.
    pub spilled_tokens: f64,
    /// The share of weighted tokens that the PTU did not serve: spilled, or not served at all.
    pub beside_ptu: f64,
    /// Attempts at any server per request served.
    pub attempts_per_success: f64,
    /// The same in the worst ten seconds, by arrival.
    pub worst_attempts: f64,
    /// Added latency of the requests served.
    pub added: Added,
    /// The median added latency of requests that Standard served, in milliseconds; `None` if there
    /// are none.
    pub spilled_added_p50_ms: Option<f64>,
    /// The share of the PTU's admissions that overtook an older waiting request of the same
    /// process.
    pub overtakes: f64,
    /// The share of requests whose caller got a 429, or no answer because the connection failed or
    /// the process crashed.
    pub refused: f64,
    /// The share of requests whose caller got a 429 within `max_wait` while a Standard deployment had
    /// quota, and had had it for longer than the 60 ms that the news takes.
    pub refused_needlessly: f64,
    /// How much later than `max_wait` after its arrival the last attempt of a request left, in
    /// milliseconds: the maximum over all requests, negative if all were earlier.
    pub last_dispatch_over_ms: f64,
    /// The longest time that the PTU stood open, with a level below 100 %, while a request waited:
    /// one that had arrived, and had neither an attempt in flight nor an answer. `None` for an
    /// oracle.
    pub longest_open: Option<Open>,
    /// The largest number of attempts at the PTU for one request in any four seconds.
    pub most_asks: u32,
    /// What callers saw of each outage, in order.
    pub outages: Vec<OutageReport>,
    /// The results of each class, in order.
    pub classes: Vec<ClassReport>,
    /// Weighted tokens per minute that Standard served.
    pub spilled_tokens_a_minute: f64,
    /// The run in slots of ten seconds.
    pub slots: Vec<Slot>,
    /// Each request, by arrival.
    pub fates: Vec<RequestReport>,
}

/// How long the PTU stood open while a request waited for it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Open {
    /// The longest period, in milliseconds.
    pub longest_ms: f64,
    /// When it began, in seconds from the beginning of the run, warm-up included.
    pub began: f64,
    /// The limit: 500 ms, or 2.5 round trips if a round trip takes more than 200 ms.
    pub limit_ms: f64,
    /// The number of periods longer than the limit.
    pub violations: usize,
}

/// The results of one class.
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
    /// Added latency of the requests served.
    pub added: Added,
}

/// What callers saw of an outage of the PTU.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct OutageReport {
    /// The 95th percentile of the added latency of requests that arrived in the outage, later than
    /// `max_wait` after its beginning, in milliseconds.
    pub added_p95_ms: f64,
    /// How long after the outage's end an attempt reached the PTU, in milliseconds; `None` if none
    /// did.
    pub noticed_after_ms: Option<f64>,
}

/// Added latency, in milliseconds.
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
    /// The mean number of requests that have arrived and are not accepted by any server yet.
    pub queue: f64,
    /// The mean level of the PTU's bucket, as a share of its capacity.
    pub level: f64,
    /// Requests of this slot that Standard served.
    pub spilled: usize,
    /// Requests of this slot.
    pub arrived: usize,
    /// The mean added latency of the requests of this slot, in milliseconds.
    pub added: f64,
    /// The maximum added latency, in milliseconds.
    pub worst: f64,
}

/// What happened to one request.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RequestReport {
    /// Its arrival, counted from the beginning of the measurement.
    pub arrived: Duration,
    /// The process it arrived at.
    pub process: usize,
    /// Attempts at any server.
    pub attempts: u32,
    /// From its arrival until its last attempt left.
    pub last_dispatch: Duration,
    /// How it ended.
    pub fate: Fate,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Served by this server, this long after its arrival.
    Served(Server, Duration),
    /// Not served: the caller got a 429.
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
    /// The figures as a JSON object: shares as fractions, latencies in milliseconds.
    pub fn to_json(&self) -> Value {
        json!({
            "policy": self.policy.name(),
            "requests": self.requests,
            "utilisation": self.utilisation,
            "spilled_requests": self.spilled_requests,
            "spilled_tokens": self.spilled_tokens,
            "attempts_per_success": self.attempts_per_success,
            "attempts_per_success_in_worst_10_s": self.worst_attempts,
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
        // Digits below the microsecond are meaningless.
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
