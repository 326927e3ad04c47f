//! The load tester's output: items, and a table or JSON.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

use serde_json::{Value, json};

use super::{
    clock,
    exchange::End,
    outcome::{Item, Outcome, Run},
    table,
    tally::Sums,
};

/// Where to print lines.
pub(super) struct Out {
    json: bool,
}

impl Out {
    pub(super) const fn new(json: bool) -> Self {
        Self { json }
    }

    pub(super) fn result(&self, run: &Run, outcome: &Outcome) {
        if self.json {
            let whole = format!("{:#}\n", whole(run, outcome));
            let _ = io::stdout().write_all(whole.as_bytes());
            return;
        }
        let mut text = String::new();
        for item in &outcome.items {
            let _ = writeln!(text, "{}", line(item));
        }
        text.push('\n');
        text.push_str(&table::table(run, outcome));
        let _ = io::stdout().write_all(text.as_bytes());
    }
}

/// The reference's format of an item; a failed one ends with the reason.
fn line(item: &Item) -> String {
    let (status, reason) = match &item.seen.end {
        End::Status(status) => (status.to_string(), String::new()),
        End::Hidden(status) => (status.to_string(), " Error: in the stream".to_owned()),
        End::Failed(reason) => (String::new(), format!(" Error: {reason}")),
    };
    format!(
        "Id: {} StartTime: {} TotalSeconds: {:.7} StatusCode: {status} configId: {}{reason}",
        item.id,
        clock::spelled(item.started),
        item.seen.total.as_secs_f64(),
        item.target
    )
}

fn whole(run: &Run, outcome: &Outcome) -> Value {
    let tally = &outcome.tally;
    let all = tally.all.count;
    let seconds = outcome.took.as_secs_f64();
    let groups: Vec<_> = (tally.groups.iter())
        .map(|((target, end), group)| {
            let mut value = json!({
                "name": end.name(*target),
                "target": run.targets[*target].name,
                "config_id": target,
                "share": table::share(group.sums.count, all),
                "served_by": group.served.iter().map(|((region, backend), sums)| {
                    merged(json!({ "region": region, "backend": backend }), sums)
                }).collect::<Vec<_>>(),
            });
            match end {
                End::Status(status) => value["status"] = (*status).into(),
                End::Hidden(status) => {
                    value["status"] = (*status).into();
                    value["error"] = "in the stream".into();
                }
                End::Failed(reason) => value["error"] = reason.as_str().into(),
            }
            if let Some(message) = &group.message {
                value["message"] = message.as_str().into();
            }
            merged(value, &group.sums)
        })
        .collect();
    let mut value = json!({
        "seconds": seconds,
        "interrupted": outcome.interrupted,
        "requests_per_second": all as f64 / seconds.max(1e-9),
        "share_200": table::share(tally.with_status(200), all),
        "share_429": table::share(tally.with_status(429), all),
        "failed": tally.failed(),
        "groups": groups,
    });
    if run.args.items_detail {
        value["items"] = outcome.items.iter().map(item).collect::<Vec<_>>().into();
    }
    merged(value, &tally.all)
}

fn item(item: &Item) -> Value {
    let (status, error) = match &item.seen.end {
        End::Status(status) => (Some(*status), None),
        End::Hidden(status) => (Some(*status), Some("in the stream")),
        End::Failed(reason) => (None, Some(reason.as_str())),
    };
    json!({
        "id": item.id,
        "start": clock::spelled(item.started),
        "config_id": item.target,
        "status": status,
        "error": error,
        "region": item.seen.region,
        "backend": item.seen.backend,
        "first_byte_ms": item.seen.first_byte.as_secs_f64() * 1e3,
        "total_ms": item.seen.total.as_secs_f64() * 1e3,
        "prompt_tokens": item.seen.prompt_tokens,
        "completion_tokens": item.seen.completion_tokens,
    })
}

fn merged(mut value: Value, sums: &Sums) -> Value {
    let percentiles = |[p50, p95, p99]: [f64; 3]| json!({ "p50": p50, "p95": p95, "p99": p99 });
    value["count"] = sums.count.into();
    value["first_byte_ms"] = percentiles(sums.first_byte());
    value["total_ms"] = percentiles(sums.total());
    value["prompt_tokens"] = sums.prompt_tokens.into();
    value["completion_tokens"] = sums.completion_tokens.into();
    value
}
