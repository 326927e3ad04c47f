//! The progress of a run: a bar on a terminal, and the reference's lines elsewhere.

use std::{
    io::{self, IsTerminal, Write as _},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{clock, plan::Plan};

/// Shows the progress of a run.
pub(super) enum Progress {
    /// On a terminal, on standard error. Its length is in requests, or in milliseconds.
    Bar(ProgressBar, Unit),
    /// Lines on standard output or, if that has JSON, on standard error.
    Lines { json: bool },
}

/// The unit of a bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Requests,
    Time,
}

impl Progress {
    /// A bar if standard error is a terminal that no other output uses.
    pub(super) fn new(json: bool, plan: &Plan) -> Self {
        let is_seen = io::stderr().is_terminal() && (json || io::stdout().is_terminal());
        if is_seen { Self::bar(plan, ProgressDrawTarget::stderr()) } else { Self::Lines { json } }
    }

    fn bar(plan: &Plan, target: ProgressDrawTarget) -> Self {
        let (length, unit) = match plan.length() {
            (Some(requests), _) => (requests, Unit::Requests),
            (None, time) => (u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Unit::Time),
        };
        let template = match unit {
            Unit::Requests => "{elapsed_precise} [{bar:40}] {pos} of {len}, {msg}",
            Unit::Time => "{elapsed_precise} [{bar:40}] {percent} %, {msg}",
        };
        let style = ProgressStyle::with_template(template).expect("the template is a good one");
        let bar = ProgressBar::with_draw_target(Some(length), target);
        bar.set_style(style.progress_chars("=> "));
        Self::Bar(bar, unit)
    }

    /// Shows the number of requests in flight and completed.
    pub(super) fn show(&self, running: usize, completed: u64, took: Duration) {
        match self {
            Self::Bar(bar, unit) => {
                let position = match unit {
                    Unit::Requests => completed,
                    Unit::Time => u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                };
                bar.set_position(position.min(bar.length().unwrap_or(u64::MAX)));
                bar.set_message(format!("{running} running, {completed} completed"));
            }
            // `16:56:43.263: Running...5 Completed...2`.
            Self::Lines { json } => {
                let time = clock::spelled(clock::wall());
                let line = format!("{time}: Running...{running} Completed...{completed}\n");
                // A reader that has gone does not stop the run.
                let _ = if *json {
                    io::stderr().write_all(line.as_bytes())
                } else {
                    io::stdout().write_all(line.as_bytes())
                };
            }
        }
    }

    /// Removes the progress display, so that later output stands alone.
    pub(super) fn end(&self) {
        if let Self::Bar(bar, _) = self {
            bar.finish_and_clear();
        }
    }
}
