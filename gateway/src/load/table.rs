//! The reference's grouped table, plus backends, latencies and costs.

use std::fmt::Write as _;

use super::{
    outcome::{Outcome, Run},
    tally::{Percentiles, Sums},
};

/// One row per target and status, with regions and backends below, and a summary.
pub(super) fn table(run: &Run, outcome: &Outcome) -> String {
    let tally = &outcome.tally;
    let all = tally.all.count;
    let mut rows = vec![HEAD.map(str::to_owned)];
    for ((target, end), group) in &tally.groups {
        let only = group.served.iter().next().filter(|_| group.served.len() == 1);
        let served = only.map_or(("", ""), |((region, backend), _)| (region, backend));
        let name = end.name(*target);
        rows.push(row(&group.sums, all, &name, &run.targets[*target].name, served));
        if only.is_none() {
            for ((region, backend), sums) in &group.served {
                rows.push(row(sums, all, "  of these", "", (region, backend)));
            }
        }
    }
    let mut text = aligned(&rows);
    text.push_str(LEGEND);
    let messages = tally.groups.iter().filter_map(|((target, end), group)| {
        Some(format!("  {}: {}", end.name(*target), group.message.as_ref()?))
    });
    let messages: Vec<_> = messages.collect();
    if !messages.is_empty() {
        let _ = writeln!(text, "\nWhat the first of each said:\n{}", messages.join("\n"));
    }
    let seconds = outcome.took.as_secs_f64();
    let percent = |count| share(count, all) * 100.0;
    let _ = writeln!(
        text,
        "\n{all} requests in {seconds:.1} s ({:.1} a second): {:.1} % 200, {:.1} % 429, {} failed; \
         {} prompt and {} completion tokens",
        all as f64 / seconds.max(1e-9),
        percent(tally.with_status(200)),
        percent(tally.with_status(429)),
        tally.failed(),
        tally.all.prompt_tokens,
        tally.all.completion_tokens
    );
    if outcome.interrupted {
        text.push_str("Interrupted: requests in flight are not counted.\n");
    }
    text
}

/// A fraction from 0 to 1; 0 if the whole is 0.
pub(super) fn share(count: u64, all: u64) -> f64 {
    count as f64 / all.max(1) as f64
}

type Row = [String; 10];

fn row(sums: &Sums, all: u64, name: &str, target: &str, served: (&str, &str)) -> Row {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    [
        sums.count.to_string(),
        format!("{:.1}%", share(sums.count, all) * 100.0),
        name.to_owned(),
        target.to_owned(),
        or_dash(served.0),
        or_dash(served.1),
        spelled(sums.first_byte()),
        spelled(sums.total()),
        sums.prompt_tokens.to_string(),
        sums.completion_tokens.to_string(),
    ]
}

fn spelled(percentiles: Percentiles) -> String {
    // Tenths of a millisecond only matter on loopback.
    let spell = |ms: f64| if ms < 100.0 { format!("{ms:.1}") } else { format!("{ms:.0}") };
    percentiles.map(spell).join(" / ")
}

fn aligned(rows: &[Row]) -> String {
    let widths: [usize; 10] = std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
    });
    let mut text = String::new();
    for row in rows {
        let cells: Vec<_> = (row.iter().zip(widths).enumerate())
            .map(|(column, (cell, width))| {
                if NUMBERS.contains(&column) {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:width$}")
                }
            })
            .collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

const LEGEND: &str = "
Count, Share        requests, and their part of all
Name                the target by its number, and the status of its answers
Region, Backend     x-ms-region and x-spillover-backend of these answers; - without
First byte, Total   until the first byte of the body, and until its last one
Prompt, Completion  tokens by the usage of these answers
";

const HEAD: [&str; 10] = [
    "Count",
    "Share",
    "Name",
    "Target",
    "Region",
    "Backend",
    "First byte p50/p95/p99 ms",
    "Total p50/p95/p99 ms",
    "Prompt",
    "Completion",
];
/// Right-aligned columns.
const NUMBERS: [usize; 6] = [0, 1, 6, 7, 8, 9];
