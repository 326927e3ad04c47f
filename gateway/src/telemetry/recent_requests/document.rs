//! A finished request as JSON.

use serde_json::{Map, Value, json};
use tower_spillover::{
    azure::Usage,
    classify::Hint,
    served::{Attempt, Served},
};

use super::Finished;
use crate::{
    access_record,
    snapshot::Snapshot,
    telemetry::{labels::tier, metrics::millis},
};

/// What happened to a request: configured names, numbers, and ids.
pub(super) fn of(finished: &Finished, running: &Snapshot) -> Value {
    let record = &finished.record;
    let served = record.served.as_ref();
    let model = record.model.as_deref().and_then(|model| running.models.get(model));
    let attempts = served.into_iter().flat_map(Served::attempts).map(|attempt| {
        let tier = model.map(|model| tier(model, attempt.backend()));
        of_attempt(attempt, tier)
    });
    let mut ids = Map::new();
    for (name, id) in record.ids.iter() {
        ids.insert(name.to_owned(), id.into());
    }
    json!({
        "id": record.id,
        "at": humantime::format_rfc3339_millis(record.at).to_string(),
        "client": Some(&record.client).filter(|client| !client.is_empty()),
        "model": record.model,
        "class": record.class,
        "operation": record.operation,
        "streaming": record.streaming,
        "status": record.status.as_u16(),
        "decision": finished.decision.as_str(),
        "why": served.map(why),
        "backend": served.and_then(Served::backend),
        "rotated": served.is_some_and(Served::rotated),
        "spilled": served.is_some_and(Served::spilled),
        "spilled_by_azure": served.is_some_and(Served::spilled_by_azure),
        "late": served.and_then(Served::late).map(access_record::late),
        "sticky": served.and_then(Served::held).map(access_record::held),
        "gate": served.filter(|served| served.gate_was_alone()).map(|_| "local"),
        "course": served.map(ToString::to_string),
        "attempts": attempts.collect::<Vec<_>>(),
        "waited_ms": served.map(|served| millis(served.waited())),
        "first_token_ms": record.first_token.map(millis),
        "to_head_ms": millis(record.to_head),
        "total_ms": millis(record.total),
        "ended": record.ended.as_str(),
        "tokens": record.usage.map(tokens),
        "session_end": record.session.as_ref().map(|session| session.end),
        "ids": ids,
        "trace_id": finished.trace.map(|trace| trace.to_string()),
    })
}

/// Why it waited, spilled and was refused, where it did.
fn why(served: &Served) -> Value {
    let mut reasons = Map::new();
    for (event, why) in access_record::reasons(served) {
        reasons.insert(event.to_owned(), json!({ "label": why.label(), "text": why.to_string() }));
    }
    reasons.into()
}

fn of_attempt(attempt: &Attempt, tier: Option<&'static str>) -> Value {
    json!({
        "backend": attempt.backend(),
        "tier": tier,
        "at_ms": millis(attempt.at()),
        "status": attempt.status().map(|status| status.as_u16()),
        "hint_ms": match attempt.hint() {
            Hint::After(wait) => Some(millis(wait)),
            Hint::Zero => Some(0),
            Hint::None | Hint::TooLong => None,
        },
        "hint_is_too_long": attempt.hint() == Hint::TooLong,
        "reason": access_record::reason_of(attempt),
    })
}

fn tokens(Usage { prompt, cached, completion, .. }: Usage) -> Value {
    json!({ "prompt": prompt, "cached": cached, "completion": completion })
}
