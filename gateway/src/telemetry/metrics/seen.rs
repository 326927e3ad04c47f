//! What was seen of one backend.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError, RwLock},
};

use prometheus_client::metrics::{counter::Counter, histogram::Histogram};
use tower_spillover::{
    classify::{Hint, Outcome},
    served::Attempt,
};

use super::{
    Metrics,
    label_sets::{AttemptLabels, BackendLabels, Because},
};
use crate::access_record;

/// The counters of one backend of a model.
#[derive(Debug)]
pub(crate) struct Seen {
    labels: BackendLabels,
    hints: Histogram,
    /// By status, 0 if there was no answer, and the reason of a refusal, if known.
    attempts: RwLock<BTreeMap<(u16, Option<&'static str>), Counter>>,
    last_hint: Mutex<Option<Hint>>,
}

impl Seen {
    pub(super) fn new(labels: BackendLabels, hints: Histogram) -> Self {
        Self { labels, hints, attempts: RwLock::default(), last_hint: Mutex::default() }
    }

    /// The number of attempts by status; `failed` if there was no answer.
    pub(crate) fn attempts(&self) -> BTreeMap<String, u64> {
        let attempts = self.attempts.read().unwrap_or_else(PoisonError::into_inner);
        let mut by_status = BTreeMap::new();
        for (&(status, _), counter) in attempts.iter() {
            *by_status.entry(title(status)).or_default() += counter.get();
        }
        by_status
    }

    /// The number of attempts by the reason of their refusal, if known.
    pub(crate) fn reasons(&self) -> BTreeMap<&'static str, u64> {
        let attempts = self.attempts.read().unwrap_or_else(PoisonError::into_inner);
        let mut by_reason = BTreeMap::new();
        for (&(_, reason), counter) in attempts.iter() {
            if let Some(reason) = reason {
                *by_reason.entry(reason).or_default() += counter.get();
            }
        }
        by_reason
    }

    pub(crate) fn last_hint(&self) -> Option<Hint> {
        *self.last_hint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, metrics: &Metrics, attempt: &Attempt) {
        let status = attempt.status().map_or(0, |status| status.as_u16());
        self.counter(metrics, status, access_record::reason_of(attempt)).inc();
        if let Outcome::Throttled(hint) = attempt.outcome() {
            *self.last_hint.lock().unwrap_or_else(PoisonError::into_inner) = Some(hint);
            let endless = (hint == Hint::TooLong).then_some(Hint::LONGEST);
            if let Some(wait) = hint.duration().or(endless) {
                self.hints.observe(wait.as_secs_f64());
            }
        }
    }

    fn counter(&self, metrics: &Metrics, status: u16, reason: Option<&'static str>) -> Counter {
        let attempts = self.attempts.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = attempts.get(&(status, reason)) {
            return counter.clone();
        }
        drop(attempts);
        let BackendLabels { model, tier, backend } = self.labels.clone();
        let (title, because) = (title(status).into(), Because(reason));
        let labels = AttemptLabels { model, tier, backend, status: title, reason: because };
        let counter = metrics.attempts.get_or_create_owned(&labels);
        let mut attempts = self.attempts.write().unwrap_or_else(PoisonError::into_inner);
        attempts.insert((status, reason), counter.clone());
        counter
    }
}

fn title(status: u16) -> String {
    if status == 0 { "failed".to_owned() } else { status.to_string() }
}
