//! The verdicts, and the printed table.

use std::fmt::Write as _;

use crate::{
    callers::Answer,
    rows::{Bar, Row},
    scene::Run,
};

pub(crate) struct Line {
    name: &'static str,
    per_second: u32,
    /// The share served without and with failover.
    shares: [f64; 2],
    noise: f64,
    refused: usize,
    problems: Vec<String>,
}

impl Line {
    pub(crate) fn new(row: &Row, without: &Run, with: &Run) -> Self {
        let shares = [without, with].map(share);
        let noise = noise(without, with);
        let mut problems = Vec::new();
        if shares[1] + noise < shares[0] {
            problems.push("less than without".to_owned());
        }
        match row.bar {
            Bar::Share(bar) if shares[1] < bar => {
                problems.push(format!("less than {:.0} %", 100.0 * bar));
            }
            Bar::UnderWay if with.lost_without_cause() > 0 => {
                problems.push(format!("{} lost that were not cut", with.lost_without_cause()));
            }
            _ => {}
        }
        let refused = with.count(Answer::Refused);
        Self {
            name: row.name,
            per_second: row.healthy_per_second,
            shares,
            noise,
            refused,
            problems,
        }
    }

    pub(crate) fn holds(&self) -> bool {
        self.problems.is_empty()
    }
}

pub(crate) fn render(lines: &[Line]) -> String {
    let width = lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0).max(3);
    let mut text = format!(
        "{:width$} {:>6} {:>9} {:>9} {:>6} {:>6}  verdict\n",
        "row", "rate", "without", "with", "noise", "429s"
    );
    for line in lines {
        let [without, with] = line.shares.map(|share| 100.0 * share);
        let verdict = if line.holds() { "ok".to_owned() } else { line.problems.join(", ") };
        let _ = writeln!(
            text,
            "{:width$} {:>4}/s {without:>7.2} % {with:>7.2} % {:>6.2} {:>6}  {verdict}",
            line.name,
            line.per_second,
            100.0 * line.noise,
            line.refused,
        );
    }
    text.push_str(
        "Shares of the healthy requests that were served, without and with failover. Noise: three \
         standard\nerrors of the difference of two binomial shares, in percent; so much less is no \
         verdict.\n",
    );
    text
}

fn share(run: &Run) -> f64 {
    run.count(Answer::Served) as f64 / run.sent.len() as f64
}

fn noise(without: &Run, with: &Run) -> f64 {
    let variance = |run: &Run| {
        // Laplace's estimate: a share of exactly one would have no variance.
        let count = run.sent.len() as f64 + 2.0;
        let share = (run.count(Answer::Served) as f64 + 1.0) / count;
        share * (1.0 - share) / count
    };
    3.0 * (variance(without) + variance(with)).sqrt()
}
