//! The upper bound: a queue that knows the bucket exactly, without a network.

use std::time::Duration;

use super::{
    bucket::KnownBucket,
    ledger::{History, Record},
    load::{Ask, Traffic},
    outage::Window,
    plan::{PTU_SERVER, Plan},
};

/// Admits requests in order of arrival, each at the exact instant at which the bucket has room;
/// spills a request on arrival if its wait would exceed the limit.
///
/// Requests are never overtaken, so later arrivals cannot delay one: its wait is known on arrival,
/// from the earlier admissions and the times at which those finish.
pub(super) fn run(plan: &Plan, traffic: &Traffic, standing: bool) -> History {
    let mut run = Run {
        plan,
        bucket: KnownBucket::new(plan.ptu_rate, plan.bucket_seconds),
        marks: Marks::new(traffic),
        history: History::default(),
    };
    run.bucket.change(plan.rates());
    let mut limit = Limit::new(plan, standing);
    for (index, ask) in traffic.asks.iter().enumerate() {
        let arrived = ask.at.as_secs_f64();
        run.pass(arrived);
        let opening = run.opening();
        let wait = opening - arrived;
        let most = plan.max_wait_of(index).as_secs_f64();
        if wait <= limit.at(arrived, wait).min(most) {
            run.admit(index, ask, opening);
        } else {
            run.spill(index, ask);
        }
    }
    run.pass(traffic.to.as_secs_f64() + 1.0);
    run.history
}

struct Run<'a> {
    plan: &'a Plan,
    bucket: KnownBucket,
    marks: Marks,
    history: History,
}

impl Run<'_> {
    /// Advances the bucket to `until` and samples its level at the marks on the way.
    fn pass(&mut self, until: f64) {
        while let Some(mark) = self.marks.next_before(until) {
            self.bucket.advance(mark);
            self.marks.note(self.bucket.level(), &mut self.history);
        }
        self.bucket.advance(until);
    }

    /// When the bucket has room for the next request in line. Advances the bucket to that time;
    /// this is safe even if the request spills, since no request is admitted sooner.
    fn opening(&mut self) -> f64 {
        loop {
            let mark = self.marks.next_before(f64::INFINITY);
            if !self.bucket.opens_by(mark.unwrap_or(f64::INFINITY)) {
                self.marks.note(self.bucket.level(), &mut self.history);
                continue;
            }
            let opening = self.bucket.now();
            let out = |window: &&Window| window.contains(Duration::from_secs_f64(opening));
            match self.plan.outages.iter().find(out) {
                Some(window) => self.pass(window.to.as_secs_f64()),
                None => return opening,
            }
        }
    }

    fn admit(&mut self, index: usize, ask: &Ask, at: f64) {
        let pace = self.plan.pace;
        let tokens = u32::try_from(ask.output.saturating_sub(1)).unwrap_or(u32::MAX);
        let generated = pace.first_token + pace.per_token.saturating_mul(tokens);
        let finished = at + generated.as_secs_f64();
        self.bucket.admit(ask.estimate(), finished, ask.cost() - ask.estimate());
        let admitted = Duration::from_secs_f64(at);
        self.record(index, ask, PTU_SERVER, admitted, admitted);
    }

    fn spill(&mut self, index: usize, ask: &Ask) {
        let standard = PTU_SERVER + 1;
        let reached = ask.at + self.plan.delay(standard, index, 0);
        self.record(index, ask, standard, ask.at, reached);
    }

    fn record(&mut self, index: usize, ask: &Ask, server: usize, sent: Duration, at: Duration) {
        self.history.records.push(Record {
            process: self.plan.process(index),
            arrived: ask.at,
            attempts: 1,
            last_sent: sent,
            most_asks: 1,
            accepted: Some((server, at)),
            overtook: false,
            needless: false,
            done: Some(at),
        });
    }
}

/// The current wait limit.
struct Limit {
    most: f64,
    /// Halved while a queue stands, and halved again, as the control of standing queues does.
    now: f64,
    interval: Option<f64>,
    ends: f64,
    /// The shortest predicted wait in the interval.
    shortest: f64,
}

impl Limit {
    fn new(plan: &Plan, standing: bool) -> Self {
        let longest = plan.classes.iter().map(|class| class.max_wait).max();
        let most = longest.unwrap_or(plan.max_wait).as_secs_f64();
        let interval = standing.then_some(plan.standing.as_secs_f64());
        Self { most, now: most, interval, ends: interval.unwrap_or(0.0), shortest: f64::INFINITY }
    }

    /// The limit for a request that arrives at `now` and would wait for `wait`.
    fn at(&mut self, now: f64, wait: f64) -> f64 {
        let Some(interval) = self.interval else { return self.most };
        while now >= self.ends {
            let standing = self.shortest > STANDING_WAIT_S && self.shortest.is_finite();
            self.now = if standing { self.now / 2.0 } else { self.now * 1.25 };
            self.now = self.now.max(2.0 * STANDING_WAIT_S).min(self.most);
            self.ends += interval;
            self.shortest = f64::INFINITY;
        }
        self.shortest = self.shortest.min(wait);
        self.now
    }
}

/// When the level is sampled: each second, and at the beginning and end of the measurement.
struct Marks {
    second: f64,
    ends: [f64; 2],
    end: usize,
    last: f64,
}

impl Marks {
    fn new(traffic: &Traffic) -> Self {
        let ends = [traffic.from.as_secs_f64(), traffic.to.as_secs_f64()];
        Self { second: 0.0, ends, end: 0, last: ends[1] }
    }

    fn next_before(&self, until: f64) -> Option<f64> {
        let second = (self.second <= self.last).then_some(self.second);
        let end = self.ends.get(self.end).copied();
        let next = second.unwrap_or(f64::INFINITY).min(end.unwrap_or(f64::INFINITY));
        (next < until).then_some(next)
    }

    fn note(&mut self, level: f64, history: &mut History) {
        if self.end < 2 && self.ends[self.end] <= self.second {
            history.level_at[self.end] = level;
            self.end += 1;
        } else {
            history.levels.push(level);
            self.second += 1.0;
        }
    }
}

/// A queue stands if its predicted wait stays above this, in seconds.
const STANDING_WAIT_S: f64 = 0.1;
