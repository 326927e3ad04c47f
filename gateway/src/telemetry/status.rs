//! `/-/status`: the state of pools, gates and counters, as JSON for people.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tower_spillover::{BackendPool, Gate, classify::Hint, smart_fallback::SpillBudget};

use super::{
    clock::time_of_day,
    gauges::{contention, mode},
    labels::{PTU, backends, host},
    metrics::{Metrics, millis},
};
use crate::{
    config::{Clients, Model, Stickiness},
    fleet::RunningFleet,
    snapshot::{RunningModel, Snapshot},
};

/// The document, without secrets: it has an endpoint's host and a client's name.
pub(crate) fn document(
    metrics: &Metrics,
    running: &Snapshot,
    now: Instant,
    uptime: Duration,
) -> Value {
    let models = running.models.iter().map(|(name, state)| {
        let config = running.config.models.get(name);
        (name, model(metrics, state, config, now))
    });
    let clients: Vec<&str> = match &running.config.clients {
        Clients::Open => vec!["open"],
        Clients::Keyed(clients) => clients.iter().map(|client| &*client.name).collect(),
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": uptime.as_secs(),
        "in_flight": metrics.in_flight.get(),
        "sticky_ids": running.sticky.len(),
        "fleet": running.fleet.as_ref().map(|fleet| self::fleet(fleet, now)),
        "models": models.collect::<BTreeMap<_, _>>(),
        "clients": clients,
    })
}

fn model(metrics: &Metrics, state: &RunningModel, config: Option<&Model>, now: Instant) -> Value {
    let (ptu, standard) = config.map_or((&[][..], &[][..]), |c| (&*c.ptu, &*c.standard));
    let described = backends(ptu, standard).map(|(tier, backend)| {
        let seen = metrics.of(&state.name, &backend.name);
        let pool = if tier == PTU { &state.ptu } else { &state.standard };
        let own = |(name, left): (&str, Option<Duration>)| left.filter(|_| *name == *backend.name);
        let resting = pool.iter().flat_map(BackendPool::cooldowns).find_map(own);
        let deferred = pool.iter().flat_map(BackendPool::deferred).find_map(own);
        let misconfigured = pool
            .iter()
            .flat_map(BackendPool::misconfigured)
            .find_map(|(name, status)| status.filter(|_| *name == *backend.name));
        let failures = pool.iter().flat_map(BackendPool::failures);
        let failures = failures.filter(|(name, _)| *name == backend.name).map(|(_, count)| count);
        json!({
            "name": backend.name,
            "tier": tier,
            "provider": backend.provider.unwrap_or_default().name(),
            "host": host(&backend.endpoint),
            "region": backend.region,
            "quota": backend.quota,
            "cooldown_ms": resting.map_or(0, millis),
            "deferred_ms": deferred.map_or(0, millis),
            "failures_in_a_row": failures.sum::<u32>(),
            "misconfigured": misconfigured.map(|status| status.to_string()),
            "utilization_percent": state.utilizations.of(&backend.name, now).map(percent),
            "attempts": seen.as_ref().map(|seen| seen.attempts()).unwrap_or_default(),
            "refused_for": seen.as_ref().map(|seen| seen.reasons()).unwrap_or_default(),
            "last_hint": seen.and_then(|seen| seen.last_hint()).map(hint),
        })
    });
    json!({
        "last_minute": metrics.minute.rates(&state.name, now),
        "gate": state.gate.as_ref().map(gate),
        "standard_waiting": state.standard.as_ref().map(|_| state.standard_queue.waiting()),
        "spill_budget_left": state.spill_budget.as_ref().map(SpillBudget::left),
        "spill_budget_under_way": state.spill_budget.as_ref().map(SpillBudget::under_way),
        "sticky": config.is_some_and(|model| model.steering.sticky != Stickiness::Off),
        "backends": described.collect::<Vec<_>>(),
    })
}

fn gate(gate: &Gate) -> Value {
    let state = gate.state();
    let since = state.and_then(|state| time_of_day().checked_sub(state.lasted()));
    json!({
        "mode": mode(gate.get_mode()),
        "contention": contention(gate.get_contention()),
        "state": state.map(|state| state.knowledge().as_str()),
        "since": since.map(|since| humantime::format_rfc3339_millis(since).to_string()),
        "why": state.map(|state| state.why().to_string()),
        "utilization_percent": gate.utilization().map(percent),
        "level": gate.level(),
        "rate": gate.rate(),
        "waiting": gate.waiting(),
        "pacing": gate.is_pacing(),
    })
}

fn fleet(running: &RunningFleet, now: Instant) -> Value {
    let status = running.store.status();
    let lasted = status.as_ref().map(|it| now.saturating_duration_since(it.since));
    let since = lasted.and_then(|lasted| time_of_day().checked_sub(lasted));
    let stats = running.fleet.stats();
    let calls = stats.operations.iter().map(|of| {
        let outcomes = of.outcomes().into_iter().map(|(name, count)| (name, json!(count)));
        let calls: BTreeMap<_, _> =
            outcomes.chain([("seconds", json!(of.time.as_secs_f64()))]).collect();
        (of.operation.name(), calls)
    });
    json!({
        "name": running.fleet.name(),
        "store": running.store.address(),
        "up": running.fleet.is_up(),
        "since": since.map(|since| humantime::format_rfc3339_millis(since).to_string()),
        "why": status.and_then(|status| status.reason.map(|reason| reason.to_string())),
        "replicas": running.fleet.replicas(),
        "calls": calls.collect::<BTreeMap<_, _>>(),
        "ids": { "found": stats.ids_found, "unknown": stats.ids_unknown },
    })
}

/// To a tenth of a percent, Azure's precision.
fn percent(share: f64) -> f64 {
    (share * 1e3).round() / 10.0
}

fn hint(hint: Hint) -> Value {
    match hint {
        Hint::None => json!("none"),
        Hint::Zero => json!({ "ms": 0 }),
        Hint::After(wait) => json!({ "ms": millis(wait) }),
        Hint::TooLong => json!("too long"),
    }
}
