//! Reports as a table, for terminals and for Markdown.

use super::SimReport;

/// Formats the reports as a Markdown table with one line each, whose columns also line up as plain
/// text.
///
/// Shares are in percent, latencies in milliseconds. `over` is how much later than `max_wait` the
/// last attempt of any request left; `open` is the longest time that the PTU stood open while any
/// request waited for it.
pub fn table(reports: &[SimReport]) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(reports.iter().map(row));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        text.push_str(&line(row, &widths));
        if index == 0 {
            text.push_str(&rule(&widths));
        }
    }
    text
}

fn row(report: &SimReport) -> [String; COLUMNS] {
    let percent = |share: f64| format!("{:.2}", share * 100.0);
    let millis = |millis: f64| format!("{millis:.0}");
    [
        report.policy.to_string(),
        percent(report.utilisation),
        percent(report.spilled_requests),
        percent(report.spilled_tokens),
        format!("{:.2}", report.attempts_per_success),
        millis(report.added.p50),
        millis(report.added.p95),
        millis(report.added.p99),
        millis(report.added.mean),
        report.spilled_added_p50_ms.map_or_else(|| "-".to_owned(), millis),
        percent(report.overtakes),
        percent(report.refused),
        // Adding zero turns a negative zero into a positive one.
        millis(report.last_dispatch_over_ms.round() + 0.0),
        report.longest_open.map_or_else(|| "-".to_owned(), |open| millis(open.longest_ms)),
    ]
}

fn line(row: &[String; COLUMNS], widths: &[usize; COLUMNS]) -> String {
    let mut line = String::from("|");
    for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
        if column == 0 {
            line.push_str(&format!(" {cell:<width$} |"));
        } else {
            line.push_str(&format!(" {cell:>width$} |"));
        }
    }
    line.push('\n');
    line
}

fn rule(widths: &[usize; COLUMNS]) -> String {
    let mut rule = String::from("|");
    for (column, &width) in widths.iter().enumerate() {
        // A trailing colon aligns a column to the right.
        let end = if column == 0 { "-" } else { ":" };
        rule.push_str(&format!("{}{end}|", "-".repeat(width + 1)));
    }
    rule.push('\n');
    rule
}

const COLUMNS: usize = 14;
const HEAD: [&str; COLUMNS] = [
    "policy", "util %", "spill %", "tokens %", "att/ok", "p50 ms", "p95 ms", "p99 ms", "mean ms",
    "spl-p50", "overtk %", "429 %", "over ms", "open ms",
];
