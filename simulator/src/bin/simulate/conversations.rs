//! Compares conversations with and without cache affinity, as a table.

use std::error::Error;

use serde_json::json;
use spillover_simulator::{ConversationReport, Conversations};
use tower_spillover::{ConfigError, sticky::CacheAffinity};

use crate::args::Args;

/// Runs `count` concurrent conversations without and with affinity, and reports how they were
/// served.
pub(crate) fn compare(args: &Args, count: usize) -> Result<String, Box<dyn Error>> {
    let mut conversations = Conversations::new(count)
        .resources(args.resources)
        .ptu_fraction(args.ptu_fraction)
        .max_wait(args.max_wait)
        .seed(args.seed);
    if let Some(length) = args.duration {
        conversations = conversations.length(length);
    }
    if let Some(warm_up) = args.warm_up {
        conversations = conversations.warm_up(warm_up);
    }
    let run = |(name, affinity): (&'static str, Option<CacheAffinity>)| {
        Ok((name, conversations.run(affinity)?))
    };
    let runs: Result<Vec<_>, ConfigError> =
        [("off", None), ("key", Some(CacheAffinity::Key))].into_iter().map(run).collect();
    let runs = runs?;
    if args.json {
        let object = |(name, report): &(&str, ConversationReport)| json!({"affinity": name, "figures": report.to_json()});
        let list: Vec<_> = runs.iter().map(object).collect();
        return Ok(format!("{}\n", serde_json::to_string_pretty(&list)?));
    }
    let title = format!(
        "{count} conversations at a time, {} resources, PTUs for {:.0} % of the load without a \
         cache; seed {}",
        args.resources,
        args.ptu_fraction * 100.0,
        args.seed
    );
    Ok(format!("{title}\n\n{HEAD}\n{}", runs.iter().map(row).collect::<String>()))
}

fn row((name, report): &(&str, ConversationReport)) -> String {
    let percent = |share: f64| format!("{:.2}", share * 100.0);
    format!(
        "| {name:<8} | {:>8} | {:>8} | {:>7} | {:>8} |\n",
        report.requests,
        percent(report.cached),
        percent(report.spilled_requests),
        percent(report.spilled_tokens)
    )
}

const HEAD: &str = "\
| affinity | requests | cached % | spill % | tokens % |
|----------|---------:|---------:|--------:|---------:|";
