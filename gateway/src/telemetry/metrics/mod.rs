//! Counters and histograms; counting in an existing series allocates nothing.

mod edges;
mod fleet;
mod label_sets;
pub(super) mod minute;
mod names;
pub(crate) mod negotiate;
mod plain_text;
pub(super) mod scrape;
mod seen;
mod series;

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use tower_spillover::azure::Usage;

use super::{
    labels::{Labels, UNKNOWN},
    metrics::{
        label_sets::{
            AttemptLabels, BackendLabels, DecisionLabels, EndedLabels, LateLabels, ModelLabels,
            RequestLabels, SessionBytesLabels, SessionLabels, SpilledLabels, SpilledTokenLabels,
            TokenLabels, WhyLabels,
        },
        minute::{Counted, LastMinute},
        names::Names,
        seen::Seen,
        series::{Recent, Series},
    },
};
use crate::access_record;

/// Everything that is counted. Values that are only read are in `scrape`.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) registry: Registry,
    pub(crate) in_flight: Gauge,
    pub(crate) minute: LastMinute,
    names: Names,
    recent: Recent,
    requests: Family<RequestLabels, Counter>,
    ended: Family<EndedLabels, Counter>,
    tokens: Family<TokenLabels, Counter>,
    spilled: Family<SpilledLabels, Counter>,
    spilled_tokens: Family<SpilledTokenLabels, Counter>,
    first_token: Family<DecisionLabels, Histogram, fn() -> Histogram>,
    to_head: Family<DecisionLabels, Histogram, fn() -> Histogram>,
    total: Family<DecisionLabels, Histogram, fn() -> Histogram>,
    waited: Family<ModelLabels, Histogram, fn() -> Histogram>,
    decisions: Family<WhyLabels, Counter>,
    late: Family<LateLabels, Counter>,
    /// Requests whose gate decided without the fleet's store.
    alone: Family<ModelLabels, Counter>,
    sessions: Family<SessionLabels, Counter>,
    session_bytes: Family<SessionBytesLabels, Counter>,
    attempts: Family<AttemptLabels, Counter>,
    hints: Family<BackendLabels, Histogram, fn() -> Histogram>,
    /// By model.
    backends: RwLock<HashMap<Arc<str>, ByBackend>>,
}

type ByBackend = HashMap<Arc<str>, Arc<Seen>>;

impl Metrics {
    /// `dropped_lines` is counted by the log.
    pub(crate) fn new(dropped_lines: Counter) -> Self {
        let to_head: fn() -> Histogram = || Histogram::new(edges::FIRST_TOKEN);
        let metrics = Self {
            registry: Registry::with_prefix("spillover"),
            in_flight: Gauge::default(),
            minute: LastMinute::default(),
            names: Names::default(),
            recent: Recent::new(),
            requests: Family::default(),
            ended: Family::default(),
            tokens: Family::default(),
            spilled: Family::default(),
            spilled_tokens: Family::default(),
            first_token: Family::new_with_constructor(to_head),
            to_head: Family::new_with_constructor(to_head),
            total: Family::new_with_constructor(|| Histogram::new(edges::WHOLE)),
            waited: Family::new_with_constructor(|| Histogram::new(edges::WAIT)),
            decisions: Family::default(),
            late: Family::default(),
            alone: Family::default(),
            sessions: Family::default(),
            session_bytes: Family::default(),
            attempts: Family::default(),
            hints: Family::new_with_constructor(|| Histogram::new(edges::HINT)),
            backends: RwLock::default(),
        };
        metrics.registered(dropped_lines)
    }

    /// Counts a request and its attempts.
    pub(crate) fn count(&self, labels: &Labels<'_>) {
        let record = labels.record;
        let series = self.recent.series(labels, || self.series(labels));
        series.requests.inc();
        let find = || self.ended_counter(labels);
        series.ended[record.ended as usize].get_or_init(find).inc();
        series.to_head.observe(record.to_head.as_secs_f64());
        series.total.observe(record.total.as_secs_f64());
        let of_model = || ModelLabels { model: self.names.intern(labels.model) };
        if let Some(time) = record.first_token {
            let find = || self.first_token.get_or_create_owned(&self.decision_labels(labels));
            series.first_token.get_or_init(find).observe(time.as_secs_f64());
        }
        let is_spilled = labels.is_spilled();
        if is_spilled {
            series.spilled.get_or_init(|| self.spilled_counter(labels)).inc();
        }
        if let Some(served) = &record.served {
            let find = || self.waited.get_or_create_owned(&of_model());
            series.waited.get_or_init(find).observe(served.waited().as_secs_f64());
            for (event, why) in access_record::reasons(served) {
                let (model, why) = (of_model().model, why.label());
                self.decisions.get_or_create_owned(&WhyLabels { model, event, why }).inc();
            }
            if let Some(late) = served.late().map(access_record::late) {
                let labels = LateLabels { model: of_model().model, result: late };
                self.late.get_or_create_owned(&labels).inc();
            }
            if served.gate_was_alone() {
                self.alone.get_or_create_owned(&of_model()).inc();
            }
            for attempt in served.attempts() {
                self.seen(labels, attempt.backend()).count(self, attempt);
            }
        }
        if let Some(session) = &record.session {
            let (model, end) = (of_model().model, session.end);
            self.sessions.get_or_create_owned(&SessionLabels { model, end }).inc();
            for (from, bytes) in
                [("client", session.from_client), ("backend", session.from_backend)]
            {
                let labels = SessionBytesLabels { model: of_model().model, from };
                self.session_bytes.get_or_create_owned(&labels).inc_by(bytes);
            }
        }
        if let Some(Usage { prompt, cached, completion, .. }) = record.usage {
            let counters = series.tokens.get_or_init(|| self.token_counters(labels));
            for (counter, number) in counters.iter().zip([prompt, cached, completion]) {
                counter.inc_by(number);
            }
            if is_spilled {
                let find = || self.spilled_token_counters(labels);
                let counters = series.spilled_tokens.get_or_init(find);
                for (counter, number) in counters.iter().zip([prompt, cached, completion]) {
                    counter.inc_by(number);
                }
            }
        }
    }

    /// The counters of a backend, if it has any.
    pub(crate) fn of(&self, model: &str, backend: &str) -> Option<Arc<Seen>> {
        let backends = self.backends.read().unwrap_or_else(PoisonError::into_inner);
        backends.get(model)?.get(backend).cloned()
    }

    fn series(&self, labels: &Labels<'_>) -> Arc<Series> {
        let (client, model) = (self.names.intern(labels.client), self.names.intern(labels.model));
        let decision = labels.decision.as_str();
        let of_decision = self.decision_labels(labels);
        let (operation, status) = (labels.operation, labels.record.status.as_u16());
        let of_request = RequestLabels { client, model, operation, status, decision };
        let requests = self.requests.get_or_create_owned(&of_request);
        let what = Counted::Requests(decision);
        self.minute.add(&of_request.model, what, &of_request, &requests);
        Arc::new(Series {
            requests,
            to_head: self.to_head.get_or_create_owned(&of_decision),
            total: self.total.get_or_create_owned(&of_decision),
            ended: Default::default(),
            waited: OnceLock::new(),
            spilled: OnceLock::new(),
            first_token: OnceLock::new(),
            tokens: OnceLock::new(),
            spilled_tokens: OnceLock::new(),
        })
    }

    fn decision_labels(&self, labels: &Labels<'_>) -> DecisionLabels {
        let model = self.names.intern(labels.model);
        DecisionLabels { model, decision: labels.decision.as_str() }
    }

    fn spilled_counter(&self, labels: &Labels<'_>) -> Counter {
        let client = self.names.intern(labels.client);
        let model = self.names.intern(labels.model);
        let backend = self.backend_name(labels);
        let of_spilled = SpilledLabels { client, model, backend };
        let counter = self.spilled.get_or_create_owned(&of_spilled);
        self.minute.add(&of_spilled.model, Counted::Spilled, &of_spilled, &counter);
        counter
    }

    fn spilled_token_counters(&self, labels: &Labels<'_>) -> [Counter; 3] {
        TOKEN_KINDS.map(|kind| {
            let client = self.names.intern(labels.client);
            let model = self.names.intern(labels.model);
            let backend = self.backend_name(labels);
            let of_spilled = SpilledTokenLabels { client, model, backend, kind };
            self.spilled_tokens.get_or_create_owned(&of_spilled)
        })
    }

    /// The backend that answered.
    fn backend_name(&self, labels: &Labels<'_>) -> Arc<str> {
        self.names.intern(labels.backend().unwrap_or(UNKNOWN))
    }

    fn ended_counter(&self, labels: &Labels<'_>) -> Counter {
        let (client, model) = (self.names.intern(labels.client), self.names.intern(labels.model));
        let ended = labels.record.ended.as_str();
        self.ended.get_or_create_owned(&EndedLabels { client, model, ended })
    }

    fn token_counters(&self, labels: &Labels<'_>) -> [Counter; 3] {
        TOKEN_KINDS.map(|kind| {
            let client = self.names.intern(labels.client);
            let model = self.names.intern(labels.model);
            let (backend, tier) = (self.backend_name(labels), labels.paid_tier());
            let of_tokens = TokenLabels { client, model, backend, tier, kind };
            let counter = self.tokens.get_or_create_owned(&of_tokens);
            self.minute.add(&of_tokens.model, Counted::Tokens(kind), &of_tokens, &counter);
            counter
        })
    }

    fn seen(&self, labels: &Labels<'_>, backend: &str) -> Arc<Seen> {
        self.of(labels.model, backend).unwrap_or_else(|| {
            let labels = BackendLabels {
                model: self.names.intern(labels.model),
                tier: labels.tier(backend),
                backend: self.names.intern(backend),
            };
            let mut backends = self.backends.write().unwrap_or_else(PoisonError::into_inner);
            let of_model = backends.entry(Arc::clone(&labels.model)).or_default();
            let seen = of_model.entry(Arc::clone(&labels.backend)).or_insert_with(|| {
                let hints = self.hints.get_or_create_owned(&labels);
                Arc::new(Seen::new(labels, hints))
            });
            Arc::clone(seen)
        })
    }

    fn registered(mut self, dropped_lines: Counter) -> Self {
        let registry = &mut self.registry;
        let seconds = || Unit::Seconds;
        registry.register("requests", "Requests by outcome", self.requests.clone());
        registry.register("requests_ended", "Requests, by who ended them", self.ended.clone());
        registry.register("requests_in_flight", "Requests in flight", self.in_flight.clone());
        let help = "Tokens reported by backends; cached ones are part of the prompt";
        registry.register("tokens", help, self.tokens.clone());
        let help =
            "Requests that Standard answered instead of a PTU, Azure's native spillover included";
        registry.register("spilled_requests", help, self.spilled.clone());
        let help = "Tokens of spilled requests; cached ones are part of the prompt";
        registry.register("spilled_tokens", help, self.spilled_tokens.clone());
        let help = "From a request until the model's first text, for streams";
        registry.register_with_unit(
            "time_to_first_token",
            help,
            seconds(),
            self.first_token.clone(),
        );
        let help = "From a request until the head of its answer";
        registry.register_with_unit("time_to_head", help, seconds(), self.to_head.clone());
        let help = "From a request until the last byte of its answer";
        registry.register_with_unit("time_to_end", help, seconds(), self.total.clone());
        let help = "Time a request spent waiting for capacity";
        registry.register_with_unit("waited", help, seconds(), self.waited.clone());
        let help = "Waits, spills and refusals of requests, by reason";
        registry.register("decisions", help, self.decisions.clone());
        let help = "Requests sent a second time because their first token was late, by outcome";
        registry.register("first_token_late", help, self.late.clone());
        let help = "Requests whose gate decided without the fleet's store";
        registry.register("gate_alone_requests", help, self.alone.clone());
        let help = "Finished realtime sessions, by how they ended";
        registry.register("sessions", help, self.sessions.clone());
        let help = "Bytes copied in realtime sessions";
        registry.register_with_unit("session", help, Unit::Bytes, self.session_bytes.clone());
        let help = "Attempts, by status of the answer and reason of a refusal";
        registry.register("backend_attempts", help, self.attempts.clone());
        let help = "How long a backend asked to wait";
        registry.register_with_unit("backend_hint", help, seconds(), self.hints.clone());
        let help = "Log lines dropped because standard error was not read fast enough";
        registry.register("log_lines_dropped", help, dropped_lines);
        self
    }
}

/// Whole milliseconds, for logs and status.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const TOKEN_KINDS: [&str; 3] = ["prompt", "cached", "completion"];
