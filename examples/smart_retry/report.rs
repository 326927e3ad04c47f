//! What is printed: lines, the table, and the JSON object.

use std::{
    io::{self, Write},
    time::Duration,
};

use serde_json::{Map, Value, json};

use crate::account::{Attempts, Run};

/// Where lines for people go: standard output, unless that carries JSON.
#[derive(Debug)]
pub(crate) struct Out {
    json: bool,
}

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) fn say(&mut self, line: &str) -> io::Result<()> {
        if self.json { writeln!(io::stderr(), "{line}") } else { writeln!(io::stdout(), "{line}") }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// The result: a table for people, or one JSON object for programs.
    pub(crate) fn result(&mut self, runs: &[Run]) -> io::Result<()> {
        if !self.json {
            return self.say(&table(runs));
        }
        let mut out = io::stdout();
        writeln!(out, "{}", json(runs))?;
        out.flush()
    }
}

/// A duration as whole milliseconds, rounded up: `1,204 ms`.
pub(crate) fn ms(duration: Duration) -> String {
    format!("{} ms", grouped(duration.as_micros().div_ceil(1_000)))
}

/// A number with its thousands set off: `1,204`.
pub(crate) fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn json(runs: &[Run]) -> Value {
    json!({ "runs": runs.iter().map(run).collect::<Vec<_>>() })
}

fn run(run: &Run) -> Value {
    let ms = |wait: Duration| (wait.as_secs_f64() * 1e6).round() / 1e3;
    let backends: Map<String, Value> = run
        .backends
        .iter()
        .map(|(name, attempts)| {
            let &Attempts { all, ok, throttled } = attempts;
            (name.clone(), json!({ "attempts": all, "ok": ok, "throttled": throttled }))
        })
        .collect();
    json!({
        "policy": run.policy,
        "requests": run.requests,
        "ok": run.ok,
        "refused": run.refused,
        "lost": run.lost(),
        "spilled": run.spilled,
        "rotated": run.rotated,
        "attempts": run.attempts(),
        "attempts_per_success": run.attempts_per_success(),
        "wait_ms": {
            "p50": ms(run.wait(50)),
            "p95": ms(run.wait(95)),
            "p99": ms(run.wait(99)),
            "max": ms(run.wait(100)),
        },
        "by_backend": backends,
    })
}

fn table(runs: &[Run]) -> String {
    let mut rows = vec![row("", runs, |run| run.policy.to_owned())];
    rows.push(row("requests", runs, |run| count(run.requests)));
    rows.push(row("answered", runs, |run| count(run.ok)));
    rows.push(row("429s the caller saw", runs, |run| count(run.refused)));
    if runs.iter().any(|run| run.failed > 0) {
        rows.push(row("failed otherwise", runs, |run| count(run.failed)));
    }
    rows.push(row("lost", runs, |run| count(run.lost())));
    rows.push(row("spilled to Standard", runs, |run| share(run.spilled, run.requests)));
    rows.push(row("rotated to another region", runs, |run| share(run.rotated, run.requests)));
    rows.push(row("upstream attempts", runs, |run| grouped(run.attempts().into())));
    rows.push(row("attempts per success", runs, |run| {
        run.attempts_per_success().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
    }));
    for (label, percent) in [("p50", 50), ("p95", 95), ("p99", 99), ("max", 100)] {
        rows.push(row(&format!("wait for the PTU, {label}"), runs, |run| ms(run.wait(percent))));
    }
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in runs.iter().flat_map(|run| &run.backends) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    for name in names {
        rows.push(row(&format!("{name}: served / refused"), runs, |run| {
            run.attempts_on(name).map_or_else(
                || "-".to_owned(),
                |attempts| {
                    format!(
                        "{} / {}",
                        grouped(attempts.ok.into()),
                        grouped(attempts.throttled.into())
                    )
                },
            )
        }));
    }
    aligned(&rows)
}

fn row(label: &str, runs: &[Run], cell: impl Fn(&Run) -> String) -> Vec<String> {
    [label.to_owned()].into_iter().chain(runs.iter().map(cell)).collect()
}

fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = width(column).unwrap_or(0);
            line += &match column {
                0 => format!("  {cell:<width$}"),
                _ => format!("   {cell:>width$}"),
            };
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn count(number: usize) -> String {
    grouped(number as u128)
}

fn share(part: usize, whole: usize) -> String {
    let percent = if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 };
    format!("{} ({percent:.1} %)", count(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_off() {
        let numbers = [0, 999, 1_000, 12_345_678].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "12,345,678"]);
    }

    #[test]
    fn a_run_without_a_success_has_no_attempts_per_success() {
        let value = json(&[Run::new("reference", ["ptu"])]);
        let run = &value["runs"][0];
        assert_eq!(run["attempts_per_success"], Value::Null);
        assert_eq!(run["wait_ms"]["p99"], 0.0);
        assert_eq!(run["by_backend"]["ptu"]["attempts"], 0);
    }

    #[test]
    fn columns_are_aligned_under_their_policy() {
        let runs = ["spillover", "reference"].map(|policy| Run::new(policy, ["ptu"]));
        let table = table(&runs);
        let ends: Vec<_> = table.lines().map(|line| line.chars().count()).collect();
        assert!(ends.iter().all(|end| *end == ends[0]), "{table}");
    }
}
