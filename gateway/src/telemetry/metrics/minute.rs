//! Rates over the last minute, from samples of the counters every second, at no cost for requests.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prometheus_client::metrics::counter::Counter;
use serde_json::{Value, json};

/// What a counter of one model counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Counted {
    /// Requests with this decision.
    Requests(&'static str),
    Spilled,
    /// Tokens of this kind.
    Tokens(&'static str),
}

/// The counters behind the rates, and their samples of the last minute.
#[derive(Debug, Default)]
pub(crate) struct LastMinute {
    counters: Mutex<HashMap<(Arc<str>, Counted), Alike>>,
    samples: Mutex<VecDeque<Sample>>,
}

/// Counters that are added up, keyed by labels, since one may be registered more than once.
type Alike = HashMap<String, Counter>;

#[derive(Debug)]
struct Sample {
    at: Instant,
    totals: Totals,
}

/// By model.
type Totals = BTreeMap<Arc<str>, BTreeMap<Counted, u64>>;

impl LastMinute {
    /// Adds the counter with these labels, unless it is present.
    pub(crate) fn add(
        &self,
        model: &Arc<str>,
        what: Counted,
        labels: &impl fmt::Debug,
        counter: &Counter,
    ) {
        let mut counters = lock(&self.counters);
        let alike = counters.entry((Arc::clone(model), what)).or_default();
        alike.entry(format!("{labels:?}")).or_insert_with(|| counter.clone());
    }

    /// Takes a sample; called every second.
    pub(crate) fn sample(&self, now: Instant) {
        let totals = self.totals();
        let mut samples = lock(&self.samples);
        // Keep one sample that is a minute old, to compare with.
        while samples.get(1).is_some_and(|second| age(second, now) >= WINDOW) {
            samples.pop_front();
        }
        if samples.back().is_none_or(|last| age(last, now) >= MIN_SAMPLE_DISTANCE) {
            samples.push_back(Sample { at: now, totals });
        }
    }

    /// The rates of a model: since the sample that is a minute old, or since the first one.
    pub(crate) fn rates(&self, model: &str, now: Instant) -> Value {
        let totals = self.totals();
        let samples = lock(&self.samples);
        let first = samples.iter().rfind(|sample| age(sample, now) >= WINDOW);
        let Some(first) = first.or_else(|| samples.front()) else { return Value::Null };
        let seconds = age(first, now).as_secs_f64();
        if seconds < 1e-3 {
            return Value::Null;
        }
        let (then, totals) = (first.totals.get(model), totals.get(model));
        let count = |what| {
            let of = |totals: Option<&BTreeMap<Counted, u64>>| {
                totals.and_then(|totals| totals.get(&what)).copied().unwrap_or_default()
            };
            of(totals).saturating_sub(of(then)) as f64
        };
        let rate = |what| rounded(count(what) / seconds);
        let [ptu, standard, refused, gateway] =
            ["ptu", "standard", "refused", "gateway"].map(|it| count(Counted::Requests(it)));
        let percent = |part: f64, whole: f64| (whole > 0.0).then(|| rounded(100.0 * part / whole));
        let served = ptu + standard;
        json!({
            "seconds": rounded(seconds),
            "requests_per_second": rounded((served + refused + gateway) / seconds),
            "ptu_per_second": rounded(ptu / seconds),
            "standard_per_second": rounded(standard / seconds),
            "refused_per_second": rounded(refused / seconds),
            "gateway_per_second": rounded(gateway / seconds),
            "spilled_percent": percent(count(Counted::Spilled), served),
            "refused_percent": percent(refused, served + refused),
            "prompt_tokens_per_second": rate(Counted::Tokens("prompt")),
            "cached_tokens_per_second": rate(Counted::Tokens("cached")),
            "completion_tokens_per_second": rate(Counted::Tokens("completion")),
        })
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals::new();
        for ((model, what), counters) in lock(&self.counters).iter() {
            let sum = counters.values().map(Counter::get).sum();
            totals.entry(Arc::clone(model)).or_default().insert(*what, sum);
        }
        totals
    }
}

fn age(sample: &Sample, now: Instant) -> Duration {
    now.saturating_duration_since(sample.at)
}

/// To three decimal places.
fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sampling interval.
pub(crate) const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// Skips ticks that follow late ones closely.
const MIN_SAMPLE_DISTANCE: Duration = Duration::from_millis(500);
const WINDOW: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::clock;

    fn minute() -> (LastMinute, Counter, Counter, Instant) {
        let (minute, model) = (LastMinute::default(), Arc::from("m"));
        let (ptu, spilled) = (Counter::default(), Counter::default());
        for _ in 0..2 {
            minute.add(&model, Counted::Requests("ptu"), &"a", &ptu);
        }
        minute.add(&model, Counted::Requests("standard"), &"a", &spilled);
        minute.add(&model, Counted::Spilled, &"a", &spilled);
        (minute, ptu, spilled, clock::now())
    }

    #[test]
    fn rates_are_those_of_the_last_minute_and_of_nothing_before_it() {
        let (minute, ptu, spilled, start) = minute();
        ptu.inc_by(1_000_000);
        for second in 0..300 {
            minute.sample(start + Duration::from_secs(second));
            ptu.inc_by(3);
            spilled.inc();
        }
        let rates = minute.rates("m", start + Duration::from_secs(300));
        assert_eq!(rates["seconds"], 60.0);
        assert_eq!(
            (&rates["ptu_per_second"], &rates["standard_per_second"]),
            (&3.0.into(), &1.0.into())
        );
        assert_eq!(
            (&rates["requests_per_second"], &rates["spilled_percent"]),
            (&4.0.into(), &25.0.into())
        );
        assert!(lock(&minute.samples).len() <= 62, "the older ones are gone");
        // No further requests, and no further samples.
        let later = minute.rates("m", start + Duration::from_secs(1_000));
        assert!(later["ptu_per_second"].as_f64().expect("a number") < 0.01, "{later}");
    }

    #[test]
    fn before_a_minute_is_over_the_rates_are_those_since_the_start() {
        let (minute, ptu, _, start) = minute();
        assert!(minute.rates("m", start).is_null(), "nothing was sampled yet");
        minute.sample(start);
        ptu.inc_by(20);
        let rates = minute.rates("m", start + Duration::from_secs(10));
        assert_eq!((&rates["seconds"], &rates["ptu_per_second"]), (&10.0.into(), &2.0.into()));
        assert_eq!(rates["spilled_percent"], 0.0);
        let other = minute.rates("another", start + Duration::from_secs(10));
        assert_eq!(other["requests_per_second"], 0.0);
        assert!(other["spilled_percent"].is_null(), "there is nothing to have a share of");
    }
}
