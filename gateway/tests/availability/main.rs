//! Compares availability with and without failover: the gateway in front of failing emulated
//! resources, over real sockets.
//!
//! ```console
//! $ cargo test -p spillover --test availability                        # all rows, in about 100 s
//! $ cargo test -p spillover --test availability -- --seconds 20 poison  # some of them, for longer
//! ```
//!
//! Prints one table and exits with 1 if a row serves less with failover than without, or misses its
//! requirement. The configuration of each gateway and its log, with a line per request, are in
//! `target/tmp/availability`.

mod callers;
mod rows;
mod scene;
mod table;

use std::{env, process::ExitCode, time::Duration};

use futures::{StreamExt, stream};

use crate::{rows::Row, scene::Run, table::Line};

fn main() -> ExitCode {
    let (seconds, words) = arguments();
    let is_wanted =
        |row: &Row| words.is_empty() || words.iter().any(|word| row.name.contains(word));
    let rows = rows::all(Duration::from_secs(seconds)).into_iter().filter(is_wanted);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let lines = runtime.block_on(measured(rows.collect()));
    print!("{}", table::render(&lines));
    if !lines.is_empty() && lines.iter().all(Line::holds) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Busy rows run one after the other, with the machine to themselves; then several at once.
async fn measured(rows: Vec<Row>) -> Vec<Line> {
    let (busy, idle): (Vec<_>, Vec<_>) = rows.into_iter().partition(Row::is_busy);
    let mut lines = Vec::new();
    for row in busy {
        let without = scene::run(&row, false).await;
        lines.push(line(&row, &without, &scene::run(&row, true).await));
    }
    let idle = stream::iter(idle).map(async |row| {
        let (without, with) = futures::join!(scene::run(&row, false), scene::run(&row, true));
        line(&row, &without, &with)
    });
    lines.extend(idle.buffered(ROWS_AT_ONCE).collect::<Vec<_>>().await);
    lines
}

fn line(row: &Row, without: &Run, with: &Run) -> Line {
    let line = Line::new(row, without, with);
    eprintln!("{}: done", row.name);
    line
}

/// `--seconds N`, default 6; other words select rows by name.
fn arguments() -> (u64, Vec<String>) {
    let mut words: Vec<_> = env::args().skip(1).collect();
    let Some(at) = words.iter().position(|word| word == "--seconds") else { return (6, words) };
    let stated = words.get(at + 1).and_then(|word| word.parse().ok());
    let seconds = stated.filter(|seconds| (1..=600).contains(seconds));
    let seconds = seconds.expect("--seconds takes a whole number from 1 to 600");
    words.drain(at..=at + 1);
    (seconds, words)
}

/// Two gateways at 40 requests per second each, on a machine with two cores.
const ROWS_AT_ONCE: usize = 4;
